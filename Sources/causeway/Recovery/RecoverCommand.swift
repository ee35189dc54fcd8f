import APIModels
import ArgumentParser
import OfflineRecovery

/// What a cloud edge has not sent home, read from its state directory without a daemon.
struct RecoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover", abstract: "Read what a cloud edge has not sent home, without a daemon.",
        discussion: """
            For the day when the cloud edge or home is lost. It needs the cloud edge's state directory, or a copy of it, and the \
            keys that causeway volume recovery-key exported. The state directory is only read.
            """,
        subcommands: [List.self, Verify.self, Export.self])

    /// Which state, and which keys.
    struct StateOptions: ParsableArguments {
        @Option(help: "The state directory of the cloud edge, or a copy of it.", completion: .directory)
        var state: String

        @Option(parsing: .upToNextOption, help: "Files with recovery keys.", completion: .file())
        var keys: [String] = []

        func open() throws -> OfflineState {
            do { return try OfflineState(path: state, keys: try RecoveryKeyFiles(keys).volumes) } catch let error as OfflineError {
                throw CommandFailure(error)
            }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the volumes and what is unsent of each.",
            discussion: "Without keys it shows what stands in plaintext: identifiers, files, and the numbers of points.")

        @OptionGroup var place: StateOptions
        @OptionGroup var outputOptions: OutputOptions

        func run() async throws {
            let volumes = try await CommandFailure.offline { try await place.open().volumes() }
            if outputOptions.output == .json { return try Terminal.json(volumes) }
            Terminal.print(RecoverCommand.table(volumes))
            for volume in volumes { RecoverCommand.printRemarks(volume) }
        }
    }

    struct Verify: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Read every byte of the logs that the keys open, and say what is damaged.",
            discussion: """
                It ends with status 0 when all is whole, and with 1 when something is damaged, there is no log, or no key fits the log of \
                a volume that the edge served. Logs that it had put aside are read when a key fits them.
                """)

        @OptionGroup var place: StateOptions
        @OptionGroup var outputOptions: OutputOptions

        func validate() throws {
            if place.keys.isEmpty { throw ValidationError("Give the key files with --keys.") }
        }

        func run() async throws {
            let volumes = try await CommandFailure.offline { try await place.open().volumes(verifiesData: true) }
            if outputOptions.output == .json { try Terminal.json(volumes) } else { show(volumes) }
            let damaged = volumes.filter { !$0.damages.isEmpty }
            if !damaged.isEmpty {
                throw CommandFailure(
                    "\(damaged.count) of \(volumes.count) logs are damaged",
                    action: "causeway recover export --through takes what is before the damage.")
            }
            guard !volumes.isEmpty else {
                throw CommandFailure(
                    "nothing was checked: there is no log of a volume in \(place.state)",
                    action: "Name the state directory of a cloud edge.")
            }
            let unread = volumes.filter { !$0.isOpen && ($0.isServed || !volumes.contains(where: \.isOpen)) }
            guard unread.isEmpty else {
                throw CommandFailure(
                    "\(unread.count) of \(volumes.count) logs were not read: none of the keys is for them",
                    action: "causeway volume recovery-key at the on-prem edge writes the keys of what is attached now.")
            }
        }

        private func show(_ volumes: [OfflineVolume]) {
            for volume in volumes {
                let title = volume.name.map { "\($0) (\(volume.identifier))" } ?? volume.identifier
                if let points = volume.points {
                    let batches = points.reduce(0) { $0 + $1.batches }
                    let bytes = points.reduce(0) { $0 + $1.bytes }
                    let state = volume.damages.isEmpty ? "whole" : "damaged"
                    Terminal.print("\(title): \(state), \(batches) batches in \(points.count) points read, \(Human.bytes(bytes)) unsent")
                } else {
                    Terminal.print("\(title): \(volume.damages.isEmpty ? "not read, no key for it" : "damaged")")
                }
                RecoverCommand.printRemarks(volume)
            }
        }
    }

    // MARK: Output

    static func table(_ volumes: [OfflineVolume]) -> String {
        var table = Table([
            .init("volume"), .init("identifier"), .init("log"), .init("points"), .init("open point"), .init("last cut", isNumber: true),
            .init("unsent", isNumber: true),
            .init("files", isNumber: true), .init("last batch", isNumber: true), .init("flushed", isNumber: true), .init("state"),
        ])
        for volume in volumes {
            let sealed = volume.points?.filter(\.sealed).map(\.number) ?? []
            let known = volume.isOpen ? sealed : [volume.oldestPoint, volume.newestPoint].compactMap { $0 }
            table.add(
                volume.name, volume.identifier, volume.directory.split(separator: "/").first.map(String.init), span(known),
                volume.points?.first { !$0.sealed }.map { String($0.number) }, volume.points?.compactMap(\.cut).last.map { String($0) },
                volume.points.map { Human.bytes($0.reduce(0) { $0 + $1.bytes }) }, "\(volume.files), \(Human.bytes(volume.bytes))",
                volume.lastBatch.map { String($0) }, volume.lastFlushedBatch.map { String($0) },
                volume.damages.isEmpty ? volume.isOpen ? "readable" : "no key" : "damaged")
        }
        return table.text
    }

    /// `3` or `3 to 7`.
    private static func span(_ numbers: [UInt64]) -> String? {
        guard let first = numbers.first, let last = numbers.last else { return nil }
        return first == last ? "\(first)" : "\(first) to \(last)"
    }

    /// What an offline tool does not see.
    static let cloudOnlyRemark =
        "there is a cloud-only disk: what was written to it is in no point, and not looked at here; export puts it over the points"

    /// What is worth a line of its own, on standard error.
    static func printRemarks(_ volume: OfflineVolume) {
        let name = volume.name ?? volume.identifier
        if volume.hasCloudOnlyDisk { Terminal.error("\(name): \(cloudOnlyRemark)") }
        for damage in volume.damages { Terminal.error("\(name): \(damage.file) at \(damage.offset): \(damage.message)") }
        if let tail = volume.tornTail {
            Terminal.error(
                "\(name): \(tail.file) at \(tail.offset): \(tail.message), as after a crash; no flush is known to have covered it")
        }
    }
}

extension CommandFailure {
    init(_ error: OfflineError) { self.init(error.description, action: error.action) }

    /// Runs offline work, and gives its errors the form of a command's.
    static func offline<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
        do { return try await body() } catch let error as OfflineError { throw CommandFailure(error) }
    }
}
