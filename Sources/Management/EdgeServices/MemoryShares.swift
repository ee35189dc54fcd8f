import NetworkBlockServer
import SecureCache
import StorageTarget

/// How a cloud edge shares out its configured memory among the buffers that grow with load (invariant 7).
///
/// Each share is the limit of its buffer, with that buffer's own behaviour at it: R2Ts and reads wait, insertions into the cache
/// are dropped, writers wait for the log. What is left is for the fixed parts: indexes, connections, the program itself.
struct MemoryShares: Sendable {
    private let limitBytes: UInt64

    init(limitBytes: UInt64) { self.limitBytes = limitBytes }

    /// Data from and to initiators: an eighth each, and of that a quarter at most for one session.
    var target: StorageTargetLimits {
        var limits = StorageTargetLimits()
        limits.dataOutByteCount = min(limits.dataOutByteCount, Int(clamping: limitBytes / 8))
        limits.dataInByteCount = min(limits.dataInByteCount, Int(clamping: limitBytes / 8))
        limits.sessionByteCount = min(limits.sessionByteCount, limits.dataInByteCount / 4)
        return limits
    }

    /// Data from and to NBD clients: a sixteenth each.
    var networkBlock: NetworkBlockLimits {
        var limits = NetworkBlockLimits()
        limits.writeByteCount = min(limits.writeByteCount, Int(clamping: limitBytes / 16))
        limits.readByteCount = min(limits.readByteCount, Int(clamping: limitBytes / 16))
        return limits
    }

    /// Blocks on their way into the cache: a sixteenth.
    var cache: CacheLimits {
        let standard = CacheLimits()
        return CacheLimits(
            unwrittenBytesMax: min(standard.unwrittenBytesMax, Int(clamping: limitBytes / 16)), segmentBytes: standard.segmentBytes,
            writeBytes: standard.writeBytes)
    }

    /// What is on its way to the clients and services of tunnels: a sixteenth.
    var tunnelWindowBytes: Int { Int(clamping: limitBytes / 16) }

    /// Writes that one volume's log has not written yet: the configured size, but for all volumes together a quarter.
    func logBytes(configured: UInt64, volumes: Int) -> Int {
        Int(clamping: max(1 << 20, min(configured, limitBytes / 4 / UInt64(max(1, volumes)))))
    }
}
