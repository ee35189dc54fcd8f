import NIOCore

/// What a caller may rely on when a write is acknowledged.
public enum WriteDurability: Sendable {
    /// The write is ordered and visible to every later read, and outlives this process; a crash of the machine may lose it (a
    /// volatile write cache).
    case ordered
    /// The write survives a crash (FUA). What was acknowledged before it does after a flush, or when it was durable too.
    case durable
}

/// Why a block device could not do what it was asked.
public enum BlockDeviceError: Error, Equatable, Sendable {
    /// The range lies outside of the device.
    case outOfRange
    /// The device takes no writes.
    case writeProtected
    /// The bytes are at the other site and did not come in time; trying again later may help.
    case unreachable(String)
    /// There is no room for the write; trying again when points have gone home may help.
    case noSpace(String)
    /// More is asked of the device than its limits allow; trying again later helps.
    case busy(String)
    /// The medium failed, or what it held was not what had been written there.
    case medium(String)
    /// The device was stopped, detached or fenced; it will not come back under this object.
    case stopped(String)
}

/// A disk as front ends see it: sectors in, sectors out.
///
/// A device lives on one event loop: every call is made there and every completion runs there,
/// possibly before the call returns. Requests that overlap and are in flight together may be
/// served in either order, but never mixed within a sector.
public protocol BlockDevice: AnyObject {
    /// The size in sectors.
    var sectorCount: UInt64 { get }
    /// True when the device takes no writes.
    var isWriteProtected: Bool { get }

    /// Appends the bytes of `range` to `buffer` when they are all at hand without waiting.
    /// - Returns: false, with `buffer` unchanged, when they are not; then `read` is the way.
    func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool

    /// Reads `range`; the buffer that arrives holds exactly `range.byteCount` readable bytes.
    func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void)

    /// Writes the readable bytes of `data`, which are exactly `range.byteCount`.
    func write(
        _ range: SectorRange, data: ByteBuffer, durability: WriteDurability,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void)

    /// Makes every sector of `range` read as zeroes, and frees its space where that is possible.
    func writeZeroes(
        _ range: SectorRange, durability: WriteDurability, completion: @escaping (Result<Void, BlockDeviceError>) -> Void)

    /// Says which sectors of `range` hold bytes and which are deallocated, that is, read as zeroes without storage.
    ///
    /// The extents that arrive follow one another from the start of the range on and cover at least its first sector; what is
    /// behind the last of them (at most `AllocationExtents.answerMax` come) is for the next call. They tell how the sectors
    /// were at a moment between the call and the answer. An empty range has none.
    func allocation(of range: SectorRange, completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void)

    /// Completes when every write acknowledged before the call survives a crash.
    func flush(completion: @escaping (Result<Void, BlockDeviceError>) -> Void)

    /// Completes when every write acknowledged before the call is where it is to stay: on the origin of a volume that lives
    /// elsewhere. It may take as long as the line to there.
    func settle(completion: @escaping (Result<Void, BlockDeviceError>) -> Void)
}

extension BlockDevice {
    /// A disk that is its own origin has settled what it has flushed.
    public func settle(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) { flush(completion: completion) }
}
