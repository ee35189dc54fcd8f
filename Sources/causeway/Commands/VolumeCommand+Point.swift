import APIModels
import ArgumentParser
import Blocks
import Files
import Foundation
import NIOCore
import OfflineRecovery

extension VolumeCommand {
    struct Point: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "The points that a volume's disk was at, and that are kept at home.",
            discussion: """
                causeway volume set NAME --keep-points N says how many are kept. A disk goes back to one with causeway volume detach NAME \
                --to-point N.
                """,
            subcommands: [List.self, Export.self], defaultSubcommand: List.self)

        struct List: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "List the kept points of a volume.")

            @Argument(help: "The name of the volume.")
            var name: String

            @OptionGroup var connection: ConnectionOptions

            func run() async throws {
                let points: KeptPoints = try await connection.client().get("/v1/volumes/\(APIClient.part(name))/points")
                if connection.output == .json { return try Terminal.json(points) }
                Terminal.print(Point.table(points))
            }
        }

        struct Export: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Write a volume's disk as it was at a kept point into a new file, while the volume goes on.")

            @Argument(help: "The name of the volume.")
            var name: String

            @Argument(help: "The number of the point.")
            var point: UInt64

            @Argument(help: "The file that is made. What is zero becomes a hole in it.", completion: .file())
            var file: String

            @Flag(help: "Replace a file that is there.")
            var force = false

            @OptionGroup var connection: ConnectionOptions

            func run() async throws {
                try await CommandFailure.offline { try await export() }
                if connection.output == .json { return try Terminal.json(["file": file]) }
                Terminal.print("\(file) is volume \(name) at point \(point)")
            }

            private func export() async throws {
                let output = try OutputName(file)
                if !force, try output.exists() { throw OutputName.exists(file) }
                do {
                    let image = try output.create()
                    try await write(to: image)
                    try image.synchronizeData()
                    try output.give(replaces: force)
                } catch {
                    try? output.discard()
                    if let error = error as? FileSystemError { throw CommandFailure("\(file) can't be written: \(error)") }
                    throw error
                }
            }

            private func write(to image: OpenFile) async throws {
                var progress = ProgressLine("reading point \(point)", output: connection.output)
                defer { progress.finish() }
                let path = "/v1/volumes/\(APIClient.part(name))/points/\(point)/content"
                try await connection.client().download(path) { byteCount, offset, piece in
                    do throws(FileSystemError) {
                        if offset == 0 { try image.truncate(to: byteCount) }
                        try Point.writeData(of: piece, to: image, at: offset)
                    } catch {
                        throw CommandFailure("\(file) can't be written: \(error)")
                    }
                    progress.update(remainingBytes: byteCount - min(byteCount, offset + UInt64(piece.readableBytes)))
                }
            }
        }

        private static func table(_ points: KeptPoints) -> String {
            var table = Table([
                .init("point", isNumber: true), .init("left"), .init("size", isNumber: true), .init("cut", isNumber: true), .init("label"),
            ])
            for past in points.past {
                table.add(
                    String(past.point), "\(past.leftAt.formatted(.iso8601)), \(Human.ago(past.leftAt) ?? "")", Human.bytes(past.bytes),
                    past.cut.map(String.init), past.label)
            }
            table.add(String(points.onDisk), "on the disk", nil)
            return table.text
        }

        /// Writes what of a piece is not zero, in blocks of the file system, so that the rest stays a hole.
        private static func writeData(of piece: ByteBuffer, to image: OpenFile, at offset: UInt64) throws(FileSystemError) {
            let blockBytes = 4_096
            var position = 0
            while position < piece.readableBytes {
                // Pieces come as the network cuts them; blocks lie where the disk has them.
                let end = min(piece.readableBytes, position + blockBytes - Int((offset + UInt64(position)) % UInt64(blockBytes)))
                if let block = piece.getSlice(at: piece.readerIndex + position, length: end - position), !block.isAllZeroes {
                    try write(block, to: image, at: offset + UInt64(position))
                }
                position = end
            }
        }

        private static func write(_ block: ByteBuffer, to image: OpenFile, at offset: UInt64) throws(FileSystemError) {
            var failure: FileSystemError?
            block.withUnsafeReadableBytes { bytes in
                do throws(FileSystemError) { try image.write(bytes, at: offset) } catch { failure = error }
            }
            if let failure { throw failure }
        }
    }
}
