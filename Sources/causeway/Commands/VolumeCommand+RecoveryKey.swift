import APIModels
import ArgumentParser
import Files
import Foundation

extension VolumeCommand {
    struct RecoveryKey: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "recovery-key",
            abstract: "Export the key that opens a volume's unsent writes without the on-prem edge.",
            discussion: """
                The file is for causeway recover, should the on-prem edge be lost. Who has it can read what a cloud edge stores of the \
                volume: keep it away from both edges. With --all the keys of the cloud edges' caches are in it, too, which causeway \
                verify cache needs. A volume that is attached anew gets a new key, so export it again then. Each \
                export leaves an event.
                """)

        @Argument(help: "The name of the volume.")
        var name: String?

        @Flag(help: "Export the keys of all volumes, and those of the cloud edges' caches.")
        var all = false

        @Option(help: "The file that gets the keys, for its owner only (mode 0600).", completion: .file())
        var output: String

        @Flag(help: "Replace the file if it exists.")
        var force = false

        @OptionGroup var edge: EdgeOptions

        func validate() throws {
            if (name == nil) != all { throw ValidationError("Name a volume, or give --all.") }
        }

        func run() async throws {
            // Before the edge is asked: an export that ends nowhere would still leave its event.
            let place = try OutputPlace(output, isReplaced: force)
            let client = try edge.client()
            let path = name.map { "/v1/volumes/\(APIClient.part($0))/recovery-key" } ?? "/v1/recovery-keys"
            let keys: RecoveryKeys = try await client.post(path, nil as String?)
            try place.write(Array(try APICoding.encoder(pretty: true).encode(keys)) + [UInt8(ascii: "\n")])
            let volumes = keys.volumes.count == 1 ? "volume \(keys.volumes[0].volume)" : "\(keys.volumes.count) volumes"
            let caches =
                switch keys.caches.count {
                case 0: ""
                case 1: ", and the key of the cloud edge's cache,"
                case let count: ", and those of \(count) cloud edges' caches,"
                }
            Terminal.print("exported the recovery keys of \(volumes)\(caches) to \(output)")
        }
    }
}

/// Where a command puts a file that holds secrets: whole or not at all, durable, and over nothing that was there unless asked.
struct OutputPlace {
    private let directory: OpenDirectory
    private let name: String

    init(_ path: String, isReplaced: Bool) throws {
        let url = URL(fileURLWithPath: path)
        name = url.lastPathComponent
        do {
            directory = try OpenDirectory(url.deletingLastPathComponent().path)
        } catch { throw CommandFailure("\(path) can't be written: \(error)") }
        if !isReplaced, FileManager.default.fileExists(atPath: path) {
            throw CommandFailure("\(path) exists", action: "Name another file, or give --force to replace it.")
        }
    }

    /// Puts the bytes there, for the owner of the file only.
    func write(_ bytes: [UInt8]) throws {
        do {
            try directory.replaceFile(name, with: bytes)
        } catch { throw CommandFailure("\(directory.path)/\(name) can't be written: \(error)") }
    }
}
