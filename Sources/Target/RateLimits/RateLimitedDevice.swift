import Blocks
import NIOCore

/// A block device as front ends see it: another one behind limits that may be set, changed and lifted while it is in use.
///
/// It lives on the event loop of the device behind it.
public final class RateLimitedDevice<Base: BlockDevice>: BlockDevice {
    /// The device behind the limits.
    public let base: Base
    private let eventLoop: any EventLoop
    /// Nil while nothing is limited.
    private var queue: RequestQueue?
    private var pastStatistics = ThrottleStatistics()

    /// A device without limits.
    public init(_ base: Base, eventLoop: any EventLoop) {
        self.base = base
        self.eventLoop = eventLoop
    }

    /// What limits have done since the device was made.
    public var throttleStatistics: ThrottleStatistics { queue?.statistics ?? pastStatistics }

    /// Requests that wait for their turn now.
    public var waitingCount: Int { queue?.count ?? 0 }

    /// Puts limits in force, or lifts them with nil. Requests that wait follow the new limits at once.
    public func limit(_ limits: RateLimits?) {
        eventLoop.preconditionInEventLoop()
        guard let limits, !limits.isUnlimited else {
            guard let lifted = queue else { return }
            queue = nil
            lifted.release()
            pastStatistics = lifted.statistics
            return
        }
        if let queue { return queue.change(to: limits) }
        queue = RequestQueue(limits, statistics: pastStatistics, eventLoop: eventLoop)
    }

    public var sectorCount: UInt64 { base.sectorCount }
    public var isWriteProtected: Bool { base.isWriteProtected }

    public func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        guard let queue else { return base.readIfResident(range, into: &buffer) }
        guard queue.mayPass(range.byteCount), base.readIfResident(range, into: &buffer) else { return false }
        queue.pass(range.byteCount)
        return true
    }

    public func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        guard let queue, !queue.admit(range.byteCount) else { return base.read(range, completion: completion) }
        queue.wait(range.byteCount) { [base] error in
            if let error { return completion(.failure(error)) }
            base.read(range, completion: completion)
        }
    }

    public func write(
        _ range: SectorRange, data: ByteBuffer, durability: WriteDurability,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        guard let queue, !queue.admit(range.byteCount) else {
            return base.write(range, data: data, durability: durability, completion: completion)
        }
        queue.wait(range.byteCount) { [base] error in
            if let error { return completion(.failure(error)) }
            base.write(range, data: data, durability: durability, completion: completion)
        }
    }

    public func writeZeroes(
        _ range: SectorRange, durability: WriteDurability, completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        guard let queue, !queue.admit(0) else {
            return base.writeZeroes(range, durability: durability, completion: completion)
        }
        queue.wait(0) { [base] error in
            if let error { return completion(.failure(error)) }
            base.writeZeroes(range, durability: durability, completion: completion)
        }
    }

    /// Not limited: it moves no data.
    public func allocation(of range: SectorRange, completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void) {
        base.allocation(of: range, completion: completion)
    }

    /// Not limited: it moves no data, and a write that waits here is not acknowledged, so it need not be covered.
    public func flush(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) { base.flush(completion: completion) }

    /// Not limited either, for the same reason.
    public func settle(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) { base.settle(completion: completion) }
}
