import Blocks
import LocalFiles
import NIOCore
import RateLimits
import Volumes

/// A volume of the cloud edge as its front ends see it: behind its limits.
///
/// It only passes calls on. Its worth is that it names the types of the whole data path, volume, log, cache and files, in one
/// place, so that the optimiser makes code for just these; what is generic in their own modules is not, and costs a write a
/// fifth of its instructions.
final class ServedDevice: BlockDevice {
    typealias LocalVolume = Volumes.Volume<LocalDirectory>

    private let limited: RateLimitedDevice<LocalVolume>

    init(_ volume: LocalVolume, eventLoop: any EventLoop) { limited = RateLimitedDevice(volume, eventLoop: eventLoop) }

    var volume: LocalVolume { limited.base }
    var throttleStatistics: ThrottleStatistics { limited.throttleStatistics }
    var waitingCount: Int { limited.waitingCount }
    func limit(_ limits: RateLimits?) { limited.limit(limits) }

    var sectorCount: UInt64 { limited.sectorCount }
    var isWriteProtected: Bool { limited.isWriteProtected }

    func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        limited.readIfResident(range, into: &buffer)
    }

    func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        limited.read(range, completion: completion)
    }

    func write(
        _ range: SectorRange, data: ByteBuffer, durability: WriteDurability,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        limited.write(range, data: data, durability: durability, completion: completion)
    }

    func writeZeroes(
        _ range: SectorRange, durability: WriteDurability, completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        limited.writeZeroes(range, durability: durability, completion: completion)
    }

    func allocation(of range: SectorRange, completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void) {
        limited.allocation(of: range, completion: completion)
    }

    func flush(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) { limited.flush(completion: completion) }

    func settle(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) { limited.settle(completion: completion) }
}
