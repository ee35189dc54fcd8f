import ArgumentParser
import Foundation
import NIOCore
import NIOPosix

/// What the cache keeps, what it takes in memory, and what it writes: measured on the cache itself.
@main
struct CacheBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "causeway-cache-bench", abstract: "Measures the secure cache by itself.",
        subcommands: [ReplayCommand.self, IndexCommand.self, CipherCommand.self])
}

/// What the commands share.
enum Bench {
    /// Runs `body` with a directory, a loop and a thread pool, which end with it.
    static func inTemporaryDirectory(
        _ body: (_ directory: String, _ eventLoop: any EventLoop, _ threadPool: NIOThreadPool) async throws -> Void
    ) async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-cache-bench-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let threadPool = NIOThreadPool(numberOfThreads: 1)
        threadPool.start()
        try await body(directory, group.next(), threadPool)
        try await threadPool.shutdownGracefully()
        try await group.shutdownGracefully()
    }

    static func print(_ result: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        Swift.print(String(decoding: try encoder.encode(result), as: UTF8.self))
    }

    static func seconds(since start: ContinuousClock.Instant) -> Double {
        let duration = ContinuousClock.now - start
        return Double(duration.components.seconds) + Double(duration.components.attoseconds) / 1e18
    }

    /// The process's memory that is in the machine's (VmRSS), in bytes.
    static func residentBytes() -> Int {
        guard let status = FileManager.default.contents(atPath: "/proc/self/status") else { return 0 }
        let line = String(decoding: status, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        return (line?.split(whereSeparator: { !$0.isNumber }).first.flatMap { Int($0) } ?? 0) * 1024
    }
}
