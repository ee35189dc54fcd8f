import Blocks
import NIOCore
import SCSI
import Testing

@testable import StorageTarget

/// A disk in memory that answers at once, or, while `isHolding`, only when it is told to.
final class MemoryDevice: BlockDevice {
    enum Call: Equatable {
        case read(SectorRange)
        case write(SectorRange, WriteDurability)
        case writeZeroes(SectorRange, WriteDurability)
        case flush
        case settle
    }

    var bytes: [UInt8]
    var isWriteProtected = false
    /// False makes `readIfResident` say no.
    var isResident = true
    var isHolding = false
    var error: BlockDeviceError?
    var calls: [Call] = []
    private var pending: [() -> Void] = []

    init(sectorCount: Int = 4096) { bytes = [UInt8](repeating: 0, count: sectorCount * 512) }

    var sectorCount: UInt64 { UInt64(bytes.count / 512) }
    var pendingCount: Int { pending.count }

    /// Answers the oldest request.
    func answerOne() {
        if !pending.isEmpty { pending.removeFirst()() }
    }

    func answerAll() {
        isHolding = false
        while !pending.isEmpty { answerOne() }
    }

    private func serve(_ work: @escaping () -> Void) {
        if isHolding { pending.append(work) } else { work() }
    }

    private func indices(_ range: SectorRange) -> Range<Int> { Int(range.start) * 512..<Int(range.end) * 512 }

    func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        guard isResident else { return false }
        buffer.writeBytes(bytes[indices(range)])
        return true
    }

    func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        calls.append(.read(range))
        serve {
            if let error = self.error { return completion(.failure(error)) }
            completion(.success(ByteBuffer(bytes: self.bytes[self.indices(range)])))
        }
    }

    func write(
        _ range: SectorRange, data: ByteBuffer, durability: WriteDurability,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        #expect(data.readableBytes == range.byteCount)
        calls.append(.write(range, durability))
        serve {
            if let error = self.error { return completion(.failure(error)) }
            self.bytes.replaceSubrange(self.indices(range), with: data.readableBytesView)
            completion(.success(()))
        }
    }

    func writeZeroes(
        _ range: SectorRange, durability: WriteDurability, completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        calls.append(.writeZeroes(range, durability))
        serve {
            if let error = self.error { return completion(.failure(error)) }
            for index in self.indices(range) { self.bytes[index] = 0 }
            completion(.success(()))
        }
    }

    func settle(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        calls.append(.settle)
        serve {
            if let error = self.error { return completion(.failure(error)) }
            completion(.success(()))
        }
    }

    /// Blocks of 4 KiB that are all zeroes are holes.
    func allocation(of range: SectorRange, completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void) {
        serve {
            if let error = self.error { return completion(.failure(error)) }
            var extents = AllocationExtents()
            for block in range.blocks {
                let sectors = SectorRange(block: block).intersection(SectorRange(from: 0, to: self.sectorCount))
                let isZero = self.bytes[self.indices(sectors)].allSatisfy { $0 == 0 }
                extents.append(sectors.intersection(range), isZero ? .deallocated : .mapped)
            }
            completion(.success(extents.extents))
        }
    }

    func flush(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        calls.append(.flush)
        serve {
            if let error = self.error { return completion(.failure(error)) }
            completion(.success(()))
        }
    }
}

/// A logical unit on a `MemoryDevice`, with nexuses whose power-on attention has been taken.
final class Bench {
    let device: MemoryDevice
    let unit: LogicalUnit
    let one = NexusIdentifier(1)
    let two = NexusIdentifier(2)

    init(sectorCount: Int = 4096, uniqueLow: UInt64 = 2, isRemovable: Bool = false, isRegistered: Bool = true) {
        device = MemoryDevice(sectorCount: sectorCount)
        unit = LogicalUnit(
            device: device,
            identity: LogicalUnitIdentity(
                uniqueHigh: 1, uniqueLow: uniqueLow, targetName: "iqn.2026-01.example:disk", isRemovable: isRemovable))
        for nexus in isRegistered ? [one, two] : [] {
            #expect(unit.addNexus(nexus, initiatorPortName: "iqn.initiator-\(nexus.rawValue),i,0x1"))
            #expect(sense([0x00], from: nexus)?.code == .powerOnResetOrBusDeviceReset)
        }
    }

    /// Sends a command through admission and execution; the response lands in the box, maybe later.
    @discardableResult
    func send(
        _ cdb: [UInt8], data: [UInt8]? = nil, offered: Int? = nil, from nexus: NexusIdentifier? = nil, tag: UInt64 = 0,
        attribute: SCSITask.Attribute = .simple
    ) -> ResponseBox {
        let box = ResponseBox()
        let block = CommandDescriptorBlock(cdb)
        switch unit.admit(block, nexus: nexus ?? one, tag: tag, attribute: attribute, offeredByteCount: offered ?? data?.count) {
        case .rejected(let response): box.take(response)
        case .accepted(var task):
            task.dataOut = data.map { ByteBuffer(bytes: $0) }
            unit.execute(task) { box.take($0) }
        }
        return box
    }

    func response(_ cdb: [UInt8], data: [UInt8]? = nil, offered: Int? = nil, from nexus: NexusIdentifier? = nil) -> SCSIResponse? {
        send(cdb, data: data, offered: offered, from: nexus).response
    }

    func status(_ cdb: [UInt8], data: [UInt8]? = nil, from nexus: NexusIdentifier? = nil) -> SCSIStatus? {
        response(cdb, data: data, from: nexus)?.status
    }

    func sense(_ cdb: [UInt8], data: [UInt8]? = nil, offered: Int? = nil, from nexus: NexusIdentifier? = nil) -> SenseData? {
        response(cdb, data: data, offered: offered, from: nexus)?.sense
    }

    func dataIn(_ cdb: [UInt8], from nexus: NexusIdentifier? = nil) -> [UInt8] {
        response(cdb, from: nexus)?.dataIn.map { Array($0.readableBytesView) } ?? []
    }

    /// The bytes of sectors as the disk has them.
    func sectors(_ start: Int, _ count: Int) -> [UInt8] { Array(device.bytes[start * 512..<(start + count) * 512]) }
}

final class ResponseBox {
    private(set) var response: SCSIResponse?
    private(set) var count = 0

    func take(_ response: SCSIResponse) {
        self.response = response
        count += 1
        #expect(count == 1)
    }
}

/// CDBs of 10 bytes, and of 16 for the commands that have no shorter form.
enum CDB {
    static func ten(_ code: UInt8, _ flags: UInt8 = 0, at address: UInt32, _ count: UInt16) -> [UInt8] {
        [code, flags] + bytes(UInt64(address), 4) + [0] + bytes(UInt64(count), 2) + [0]
    }

    static func sixteen(_ code: UInt8, _ flags: UInt8 = 0, at address: UInt64, _ count: UInt32) -> [UInt8] {
        [code, flags] + bytes(address, 8) + bytes(UInt64(count), 4) + [0, 0]
    }

    static func read(_ address: UInt32, _ count: UInt16, _ flags: UInt8 = 0) -> [UInt8] { ten(0x28, flags, at: address, count) }
    static func write(_ address: UInt32, _ count: UInt16, _ flags: UInt8 = 0) -> [UInt8] { ten(0x2A, flags, at: address, count) }

    static func compareAndWrite(_ address: UInt64, _ count: UInt8) -> [UInt8] {
        [0x89, 0] + bytes(address, 8) + [0, 0, 0, count, 0, 0]
    }

    static func persistentReserveOut(_ action: UInt8, type: UInt8 = 0) -> [UInt8] { [0x5F, action, type, 0, 0, 0, 0, 0, 24, 0] }

    static func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
    }
}

func sector(_ byte: UInt8, _ count: Int = 1) -> [UInt8] { [UInt8](repeating: byte, count: 512 * count) }
