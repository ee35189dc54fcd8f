import APIModels
import ArgumentParser
import Foundation

struct DiskCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disk", abstract: "The disks that an on-prem edge owns.",
        subcommands: [List.self, Show.self, Add.self, Resize.self, Rescan.self, Remove.self], defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the disks.")

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let disks: [Disk] = try await connection.client().list("/v1/disks")
            if connection.output == .json { return try Terminal.json(disks) }
            var table = Table([
                .init("name"), .init("kind"), .init("size", isNumber: true), .init("state"), .init("volume"), .init("path"),
            ])
            for disk in disks {
                table.add(
                    disk.name, disk.kind == .file ? "file" : "block device", Human.bytes(disk.sizeBytes),
                    disk.state.rawValue + (disk.readOnly ? ", read-only" : ""), disk.usedBy, disk.path)
            }
            Terminal.print(table.text)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show one disk.")

        @Argument(help: "The name of the disk.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let disk: Disk = try await connection.client().get("/v1/disks/\(APIClient.part(name))")
            try DiskCommand.show(disk, connection.output)
        }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let the on-prem edge use a raw file or a block device as a disk.")

        @Argument(help: "The name that the disk gets.")
        var name: String

        @Argument(help: "Its path on the on-prem edge.", completion: .file())
        var path: String

        @Flag(help: "Refuse writes to volumes of it.")
        var readOnly = false

        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            if !path.hasPrefix("/") {
                throw ValidationError("The path must be absolute: it is one of the on-prem edge, not of this shell.")
            }
        }

        func run() async throws {
            let disk: Disk = try await connection.client().post(
                "/v1/disks", DiskCreate(name: name, path: path, readOnly: readOnly))
            try DiskCommand.show(disk, connection.output)
        }
    }

    struct Resize: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a disk that is a file larger, also while it is served.",
            discussion: "A disk never shrinks. Grow a block device by its own tools, then run causeway disk rescan.")

        @Argument(help: "The name of the disk.")
        var name: String

        @Argument(help: "The size that it gets, like 20GiB: a multiple of 512 bytes.", transform: Quantities.size)
        var size: UInt64

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let disk: Disk = try await connection.client().patch("/v1/disks/\(APIClient.part(name))", DiskChange(sizeBytes: size))
            try DiskCommand.show(disk, connection.output)
        }
    }

    struct Rescan: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Look at the size of a disk again, after it was made larger, and serve it as it is now.")

        @Argument(help: "The name of the disk.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let disk: Disk = try await connection.client().post("/v1/disks/\(APIClient.part(name))/rescan", nil as String?)
            try DiskCommand.show(disk, connection.output)
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make the on-prem edge forget a disk; what is on it stays.")

        @Argument(help: "The name of the disk.")
        var name: String

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            try await connection.client().delete("/v1/disks/\(APIClient.part(name))")
            if connection.output == .json { return try Terminal.json(["removed": name]) }
            Terminal.print("removed disk \(name)")
        }
    }

    static func show(_ disk: Disk, _ output: OutputFormat) throws {
        if output == .json { return try Terminal.json(disk) }
        Terminal.print(
            Table.details([
                ("disk", disk.name), ("path", disk.path), ("kind", disk.kind == .file ? "file" : "block device"),
                ("size", "\(Human.bytes(disk.sizeBytes)) (\(disk.sizeBytes) bytes)"), ("state", disk.state.rawValue),
                ("read-only", disk.readOnly ? "yes" : "no"), ("volume", disk.usedBy), ("message", disk.message),
            ]))
    }
}
