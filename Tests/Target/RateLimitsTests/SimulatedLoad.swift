import Blocks
import NIOCore
import NIOEmbedded

@testable import RateLimits

/// A device that takes a fixed time for each request, on simulated time, and remembers what it began.
final class TimedDevice: BlockDevice {
    enum Call: Equatable {
        case read(SectorRange), write(SectorRange), zeroes(SectorRange), flush, resident(SectorRange)
    }

    private let loop: EmbeddedEventLoop
    private let latency: TimeAmount
    var calls: [Call] = []
    var isResident = false
    var isWriteProtected: Bool { false }
    var sectorCount: UInt64 { 1 << 30 }

    init(_ loop: EmbeddedEventLoop, latency: TimeAmount = .zero) {
        self.loop = loop
        self.latency = latency
    }

    private func answer<Value>(_ value: Value, _ completion: @escaping (Result<Value, BlockDeviceError>) -> Void) {
        if latency == .zero { return completion(.success(value)) }
        let bound = NIOLoopBound((value: value, completion: completion), eventLoop: loop)
        loop.scheduleTask(in: latency) { bound.value.completion(.success(bound.value.value)) }
    }

    func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        guard isResident else { return false }
        calls.append(.resident(range))
        buffer.writeRepeatingByte(0, count: range.byteCount)
        return true
    }
    func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        calls.append(.read(range))
        answer(ByteBuffer(), completion)
    }
    func write(
        _ range: SectorRange, data: ByteBuffer, durability: WriteDurability,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        calls.append(.write(range))
        answer((), completion)
    }
    func writeZeroes(
        _ range: SectorRange, durability: WriteDurability, completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        calls.append(.zeroes(range))
        answer((), completion)
    }
    func allocation(of range: SectorRange, completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void) {
        answer([AllocationExtent(range: range, allocation: .mapped)], completion)
    }
    func flush(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        calls.append(.flush)
        answer((), completion)
    }
}

/// A limited device and initiators that keep a number of requests in flight, on simulated time.
final class SimulatedLoad {
    let loop = EmbeddedEventLoop()
    let base: TimedDevice
    let device: RateLimitedDevice<TimedDevice>
    private(set) var reads = 0
    private(set) var writes = 0
    private(set) var refused = 0
    private var isStopped = false

    init(latency: TimeAmount = .zero, limits: RateLimits? = nil) {
        base = TimedDevice(loop, latency: latency)
        device = RateLimitedDevice(base, eventLoop: loop)
        device.limit(limits)
    }

    var operations: Int { reads + writes }

    /// Keeps `depth` reads of `sectors` in flight.
    func read(depth: Int, sectors: UInt64 = 8) { for _ in 0..<depth { readNext(SectorRange(from: 0, to: sectors)) } }
    /// Keeps `depth` writes of `sectors` in flight.
    func write(depth: Int, sectors: UInt64 = 8) { for _ in 0..<depth { writeNext(SectorRange(from: 0, to: sectors)) } }

    private func readNext(_ range: SectorRange) {
        if isStopped { return }
        device.read(range) { [self] result in
            if case .failure = result { refused += 1 } else { reads += 1 }
            readNext(range)
        }
    }

    private func writeNext(_ range: SectorRange) {
        if isStopped { return }
        device.write(range, data: ByteBuffer(), durability: .ordered) { [self] result in
            if case .failure = result { refused += 1 } else { writes += 1 }
            writeNext(range)
        }
    }

    /// Lets time pass, in steps of `step`: timers run as late as that.
    func run(_ time: TimeAmount, step: TimeAmount? = nil) {
        guard let step else { return loop.advanceTime(by: time) }
        let end = loop.now + time
        while loop.now < end { loop.advanceTime(by: min(step, end - loop.now)) }
    }

    /// Ends the load, so that nothing is left on the loop.
    func stop() {
        isStopped = true
        device.limit(nil)
        loop.advanceTime(by: .seconds(60))
    }
}
