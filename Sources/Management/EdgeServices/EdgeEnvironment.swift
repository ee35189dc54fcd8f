import EdgeConfiguration
import Files
import Link
import Logging
import ManagementAPI
import NIOCore
import NIOPosix
import Volumes

/// The version of this build.
public let edgeVersion = "0.1.0"

/// What both roles stand on.
struct EdgeEnvironment: Sendable {
    let configuration: Configuration
    let directory: OpenDirectory
    /// The one loop of the data path.
    let eventLoop: any EventLoop
    /// Its turns.
    let loopTurns: LoopTurns
    /// For file operations that wait for a device. Each takes one thread while it lasts; more than `threadCount` queue.
    let threadPool: NIOThreadPool
    /// For the cache's file, at a cloud edge: a device that hangs holds its own threads, and no log's.
    let cacheThreadPool: NIOThreadPool
    let logger: Logger
    let recorder: EventRecorder

    /// What each large buffer may take.
    var memory: MemoryShares { MemoryShares(limitBytes: configuration.memoryLimitBytes) }

    /// What decides how fast the link's connections may send.
    var congestionControl: CongestionControl { CongestionControl(configuration.linkCongestionControl) }

    /// What will be known of the blocks that other edges have; nil when equal blocks are to cross again.
    func makeSentBlocks() -> SentBlocks? {
        let byteCount = configuration.linkDeduplicationMemoryBytes
        return byteCount == 0 ? nil : SentBlocks(byteCount: Int(clamping: byteCount))
    }

    /// Threads for blocking file operations.
    static let threadCount = 8
    /// And for those of the cache.
    static let cacheThreadCount = 8

    /// A directory below the state directory, made when it is missing.
    func subdirectory(_ path: String) throws(EdgeFailure) -> OpenDirectory {
        do {
            var whole = directory.path
            var last = directory
            for part in path.split(separator: "/") {
                whole += "/\(part)"
                last = try OpenDirectory(whole, create: true)
            }
            return last
        } catch {
            throw EdgeFailure(.state, "the state directory can't be used: \(error)")
        }
    }
}

/// A random text for secrets that people may have to type: letters and digits without those that look alike.
func randomSecret(length: Int) -> String {
    let alphabet = Array("abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789")
    var generator = SystemRandomNumberGenerator()
    return String((0..<length).compactMap { _ in alphabet.randomElement(using: &generator) })
}
