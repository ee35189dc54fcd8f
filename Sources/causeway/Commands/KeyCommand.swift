import APIModels
import ArgumentParser
import EdgeConfiguration
import NIOCore

struct KeyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", abstract: "The keys under which cloud edges seal what they store, and the master key that wraps them.",
        discussion: """
            Keys are made and kept by the on-prem edge; a cloud edge has those of its volumes in memory only. causeway volume shred \
            destroys those of one volume, causeway volume recovery-key exports them.
            """,
        subcommands: [List.self, Rotate.self, RotateMaster.self], defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the data keys of volumes, with those that were destroyed.")

        @Option(help: "Only the keys of this volume.")
        var volume: String?

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            let keys = try await client.dataKeys(ofVolume: volume)
            if connection.output == .json { return try Terminal.json(keys) }
            var table = Table([
                .init("volume"), .init("generation", isNumber: true), .init("state"), .init("made"), .init("destroyed"),
            ])
            for key in keys {
                table.add(
                    key.volume, String(key.generation), key.state.rawValue, Human.ago(key.madeAt), Human.ago(key.destroyedAt))
            }
            Terminal.print(table.text)
            let master: MasterKeyInfo = try await client.get("/v1/keys/master")
            Terminal.print(
                "the master key wraps \(master.wrappedKeys) of them" + (Human.ago(master.madeAt).map { "; it was made \($0)" } ?? ""))
        }
    }

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give a volume a new data key, while it is served.",
            discussion: """
                What is written from then on is sealed under the new key; what the cache has of the volume is forgotten and fetched again as \
                it is asked for. The old key is destroyed when what it sealed is at home. With --wait the command returns then, and fails \
                with status 3 when that takes too long. A cloud-only disk stays under the key that it was made with: as long as there is \
                one, that key is kept.
                """)

        @Argument(help: "The name of the volume.")
        var volume: String

        @Flag(help: "Wait until all older keys are destroyed.")
        var wait = false

        @Option(help: "How long to wait. (default: 10m)", transform: Quantities.duration)
        var timeout: Duration = .seconds(600)

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            let rotation: KeyRotation = try await client.post("/v1/volumes/\(APIClient.part(volume))/rotate-key", nil as String?)
            let retiring = wait ? try await waitUntilDestroyed(client) : []
            if connection.output == .json {
                try Terminal.json(rotation)
            } else {
                Terminal.print(
                    "\(volume): generation \(rotation.generation) is "
                        + (rotation.inForce ? "in force" : "made; the cloud edge takes it when it hears of it"))
            }
            if !retiring.isEmpty {
                throw CommandFailure(
                    "older keys of \(volume) are in use after \(TimeSpan.text(timeout)): generation "
                        + retiring.map { String($0.generation) }.joined(separator: ", "),
                    action: "They go by themselves. See causeway volume show \(volume): what is unsent, and the link.", status: .notInTime)
            }
        }

        /// The older keys that are not destroyed when the time is over.
        private func waitUntilDestroyed(_ client: APIClient) async throws -> [DataKey] {
            let deadline = ContinuousClock.now.advanced(by: timeout)
            while true {
                let retiring = try await client.dataKeys(ofVolume: volume).filter { $0.state == .retiring }
                if retiring.isEmpty || ContinuousClock.now >= deadline { return retiring }
                // Two daemons have to agree on it: it is asked for until they have.
                try await Task.sleep(for: .milliseconds(200))
            }
        }
    }

    struct RotateMaster: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Wrap all keys by a new master key, and destroy the old one.",
            discussion: """
                Volumes go on undisturbed. Back up master.key and state.sqlite together afterwards: an older backup of the database opens \
                with the old master key only.
                """)

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let master: MasterKeyInfo = try await connection.client().post("/v1/keys/master/rotate", nil as String?)
            if connection.output == .json { return try Terminal.json(master) }
            Terminal.print("a new master key wraps \(master.wrappedKeys) data keys")
        }
    }
}

extension VolumeCommand {
    struct Shred: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Destroy all keys of a volume, so that nobody can read what cloud edges have of it.",
            discussion: """
                The volume is detached; its disk at home stays as it is, and another attach gives it a new key. Refused while writes are \
                not home, unless --force gives them up. It works without the cloud edge too. Recovery keys that were exported before \
                still open a copy of the cloud edge's files.
                """)

        @Argument(help: "The name of the volume.")
        var name: String

        @Flag(help: "Shred now, and give up writes that are not at home.")
        var force = false

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let result: ShredResult = try await connection.client().post(
                "/v1/volumes/\(APIClient.part(name))/shred", ShredRequest(force: force), timeout: .minutes(15))
            if connection.output == .json { return try Terminal.json(result) }
            Terminal.print(
                result.destroyedGenerations.isEmpty
                    ? "\(name): there was no key left to destroy"
                    : "\(name): \(result.destroyedGenerations.count) keys are destroyed")
            if result.edgeTold == false {
                Terminal.error("the cloud edge could not be told: it has the keys in memory until it hears of it or ends")
            }
            switch result.unsentBytes {
            case 0?: break
            case let bytes?: Terminal.print("\(Human.bytes(bytes)) of writes were given up")
            case nil: Terminal.print("what the cloud edge had not sent was given up; how much is not known")
            }
        }
    }
}
