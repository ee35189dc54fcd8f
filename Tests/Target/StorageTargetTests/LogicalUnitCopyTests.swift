import Blocks
import NIOCore
import SCSI
import Testing

@testable import StorageTarget

@Suite("EXTENDED COPY")
struct LogicalUnitCopyTests {
    let bench = Bench()
    let other = Bench(uniqueLow: 3)

    init() {
        let other = other
        bench.unit.copyPeers = { nexus in [LogicalUnitCopyPeer(unit: other.unit, nexus: nexus)] }
        for index in bench.device.bytes.indices { bench.device.bytes[index] = UInt8(truncatingIfNeeded: index / 512 + 1) }
    }

    /// A CSCD descriptor E4h with the NAA of a unit.
    func target(_ unit: LogicalUnit, type: UInt8 = 0, blockBytes: UInt64 = 512) -> [UInt8] {
        [0xE4, type, 0, 0, 1, 3, 0, 8] + CDB.bytes(unit.identity.nameAddressAuthority, 8) + [UInt8](repeating: 0, count: 12)
            + [0] + CDB.bytes(blockBytes, 3)
    }

    func segment(_ source: UInt64, _ destination: UInt64, from: UInt64, to: UInt64, count: UInt64) -> [UInt8] {
        [0x02, 0, 0, 24] + CDB.bytes(source, 2) + CDB.bytes(destination, 2) + [0, 0] + CDB.bytes(count, 2) + CDB.bytes(from, 8)
            + CDB.bytes(to, 8)
    }

    func list(_ identifier: UInt8 = 1, usage: UInt8 = 0, targets: [[UInt8]], segments: [[UInt8]], inline: UInt64 = 0) -> [UInt8] {
        let targetBytes = targets.flatMap { $0 }
        let segmentBytes = segments.flatMap { $0 }
        return [identifier, usage << 3] + CDB.bytes(UInt64(targetBytes.count), 2) + [0, 0, 0, 0]
            + CDB.bytes(UInt64(segmentBytes.count), 4) + CDB.bytes(inline, 4) + targetBytes + segmentBytes
    }

    @discardableResult
    func copy(_ list: [UInt8], from nexus: NexusIdentifier? = nil, tag: UInt64 = 0, attribute: SCSITask.Attribute = .simple)
        -> ResponseBox
    {
        bench.send(
            [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0] + CDB.bytes(UInt64(list.count), 4) + [0, 0], data: list, from: nexus, tag: tag,
            attribute: attribute)
    }

    func results(_ action: UInt8, _ identifier: UInt8 = 1) -> SCSIResponse? {
        bench.response([0x84, action, identifier, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    }

    var both: [[UInt8]] { [target(bench.unit), target(other.unit)] }

    @Test("Segments within a unit and to another, in either direction")
    func copying() {
        let box = copy(
            list(
                targets: both,
                segments: [
                    segment(0, 0, from: 0, to: 100, count: 8), segment(0, 1, from: 8, to: 7, count: 3),
                    segment(1, 0, from: 7, to: 200, count: 1), segment(0, 0, from: 0, to: 0, count: 0),
                ]))
        #expect(box.response == .good)
        #expect(bench.sectors(100, 8) == bench.sectors(0, 8))
        #expect(other.sectors(7, 3) == bench.sectors(8, 3))
        #expect(bench.sectors(200, 1) == bench.sectors(8, 1))
        #expect(results(0)?.dataIn == ByteBuffer(bytes: [0, 0, 0, 8, 1, 0, 4, 0] + CDB.bytes(12 * 512, 4)))
        #expect(results(4)?.dataIn == ByteBuffer(integer: UInt32(0)) && results(1)?.dataIn == ByteBuffer(integer: UInt32(0)))
    }

    @Test("Large segments go in bounded pieces, zeroes as zeroes, and an ORDERED copy too", arguments: [false, true])
    func pieces(isOrdered: Bool) {
        let large = Bench(sectorCount: 70_000, uniqueLow: 9)
        bench.unit.copyPeers = { [LogicalUnitCopyPeer(unit: large.unit, nexus: $0)] }
        for index in 0..<(2048 * 512) { bench.device.bytes[index] = 0 }
        let box = copy(
            list(targets: [target(bench.unit), target(large.unit)], segments: [segment(0, 1, from: 0, to: 60_000, count: 4096)]),
            attribute: isOrdered ? .ordered : .simple)
        #expect(box.response == .good)
        #expect(
            large.device.calls == [
                .writeZeroes(SectorRange(from: 60_000, to: 62_048), .ordered), .write(SectorRange(from: 62_048, to: 64_096), .ordered),
            ])
        #expect(large.sectors(60_000, 4096) == bench.sectors(0, 4096))
    }

    @Test("What is wrong with a list is told before anything is copied")
    func malformedLists() {
        let good = list(targets: both, segments: [segment(0, 1, from: 0, to: 0, count: 1)])
        func code(_ list: [UInt8]) -> AdditionalSenseCode? {
            let response = copy(list).response
            #expect(response?.sense?.key == .illegalRequest)
            return response?.sense?.code
        }
        for count in 1..<good.count where count != good.count {
            #expect(code(Array(good.prefix(count))) == .parameterListLengthError)
        }
        #expect(copy([]).response == .good)
        #expect(code(list(usage: 1, targets: both, segments: [])) == .invalidFieldInParameterList)
        #expect(code(list(1, usage: 3, targets: both, segments: [])) == .invalidFieldInParameterList)
        #expect(code(list(targets: both, segments: [], inline: 8)) == .inlineDataLengthExceeded)
        let seventeen = [[UInt8]](repeating: target(bench.unit), count: 17)
        #expect(code(list(targets: seventeen, segments: [])) == .tooManyTargetDescriptors)
        let segments = [[UInt8]](repeating: segment(0, 1, from: 0, to: 0, count: 1), count: 65)
        #expect(code(list(targets: both, segments: segments)) == .tooManySegmentDescriptors)
        #expect(code(list(targets: seventeen, segments: segments)) == .parameterListLengthError)
        #expect(code(list(targets: [[0xE0] + [UInt8](repeating: 0, count: 31)], segments: [])) == .unsupportedTargetDescriptorTypeCode)
        #expect(code(list(targets: both, segments: [[0x03, 0, 0, 24]])) == .unsupportedSegmentDescriptorTypeCode)
        #expect(code(list(targets: both, segments: [[0x02, 0, 0, 20] + [UInt8](repeating: 0, count: 24)])) == .invalidFieldInParameterList)
        #expect(bench.sense([0x83, 1] + [UInt8](repeating: 0, count: 14)) == .invalidFieldInCDB(byte: 1, bit: 4))
        #expect(bench.sense([0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])?.code == .parameterListLengthError)
        #expect(other.device.calls.isEmpty && bench.device.calls.isEmpty)
    }

    @Test("A segment that can't be copied ends the command with COPY ABORTED and its number")
    func abortedSegments() {
        func sense(_ targets: [[UInt8]], _ bad: [UInt8]) -> SenseData? {
            let response = copy(list(targets: targets, segments: [segment(0, 0, from: 0, to: 9, count: 1), bad])).response
            #expect(response?.sense?.key == .copyAborted && response?.sense?.copySegment?.segment == 1)
            return response?.sense
        }
        let missing = sense(both, segment(0, 2, from: 0, to: 0, count: 1))
        #expect(missing?.code == .unreachableCopyTarget && missing?.copySegment?.byte == 6)
        let unknown = [both[0], target(Bench(uniqueLow: 77).unit)]
        #expect(sense(unknown, segment(1, 0, from: 0, to: 0, count: 1))?.code == .copyTargetDeviceNotReachable)
        #expect(
            sense([both[0], target(other.unit, type: 1)], segment(0, 1, from: 0, to: 0, count: 1))?.code == .incorrectCopyTargetDeviceType)
        #expect(
            sense([both[0], target(other.unit, blockBytes: 4096)], segment(0, 1, from: 0, to: 0, count: 1))?.code
                == .copyTargetDeviceNotReachable)
        let beyond = sense(both, segment(0, 1, from: 0, to: 4096, count: 1))
        #expect(beyond?.code == .noAdditionalSenseInformation && beyond?.copySegment?.byte == 20)
        #expect(sense(both, segment(1, 0, from: .max, to: 0, count: 2))?.copySegment?.byte == 12)
        other.device.isWriteProtected = true
        #expect(sense(both, segment(0, 1, from: 0, to: 0, count: 1))?.code == .thirdPartyDeviceFailure)
        other.device.isWriteProtected = false
        other.device.error = .medium("bad")
        #expect(sense(both, segment(0, 1, from: 0, to: 0, count: 1))?.code == .thirdPartyDeviceFailure)
        // The sense data of the last failure is kept.
        let details = results(4)?.dataIn
        #expect(details?.getInteger(at: 0, as: UInt32.self) == UInt32(56 + 18))
        #expect(details?.getInteger(at: 56, as: UInt8.self) == 2 && details?.getInteger(at: 58, as: UInt16.self) == 18)
        #expect(details?.getInteger(at: 60 + 2, as: UInt8.self) == SenseKey.copyAborted.rawValue)
        #expect(details?.getInteger(at: 60 + 8, as: UInt32.self) == 1)
        #expect(results(0)?.dataIn?.getInteger(at: 4, as: UInt8.self) == 2)
        other.device.error = .unreachable("link")
        let passing = copy(list(targets: both, segments: [segment(0, 1, from: 0, to: 0, count: 1)]))
        #expect(passing.response?.status == .busy)
    }

    @Test("Reservations of the other unit count, also when they come in the middle")
    func reservations() {
        let keys = CDB.bytes(0, 8) + CDB.bytes(1, 8) + [UInt8](repeating: 0, count: 8)
        #expect(other.status(CDB.persistentReserveOut(0), data: keys, from: other.two) == .good)
        other.device.isHolding = true
        let box = copy(list(targets: both, segments: [segment(0, 1, from: 0, to: 0, count: 4096)]))
        #expect(other.device.pendingCount == 1 && box.response == nil)
        let reserve = CDB.bytes(1, 8) + [UInt8](repeating: 0, count: 16)
        #expect(other.status(CDB.persistentReserveOut(1, type: 1), data: reserve, from: other.two) == .good)
        other.device.answerAll()
        #expect(box.response?.sense?.code == .thirdPartyDeviceFailure)
        #expect(other.device.calls.count == 1)
        // Reading is allowed by this type.
        #expect(copy(list(targets: both, segments: [segment(1, 0, from: 0, to: 0, count: 1)])).response == .good)
        #expect(copy(list(targets: both, segments: [segment(0, 1, from: 0, to: 0, count: 1)])).response?.sense?.key == .copyAborted)
    }

    @Test("A copy counts as a task of its initiator: abort, reset and preemption end it, and wait for it")
    func abortion() {
        let one = list(targets: both, segments: [segment(0, 1, from: 0, to: 0, count: 4096)])
        other.device.isHolding = true
        var box = copy(one, tag: 5)
        var isDone = false
        bench.unit.abortTasks(.task(nexus: bench.one, tag: 5)) { isDone = true }
        #expect(!isDone)
        other.device.answerAll()
        #expect(isDone && box.response?.status == .taskAborted && other.device.calls.count == 1)

        // While it reads here, a reset there ends it before it writes.
        bench.device.isHolding = true
        box = copy(one)
        isDone = false
        other.unit.reset { isDone = true }
        #expect(isDone)
        bench.device.answerAll()
        #expect(box.response?.sense?.key == .copyAborted && other.device.calls.count == 1)

        // The session there goes away.
        bench.device.isHolding = true
        box = copy(one)
        other.unit.removeNexus(other.one)
        bench.device.answerAll()
        #expect(box.response?.sense?.key == .copyAborted && other.device.calls.count == 1)
    }

    @Test("List identifiers: one at a time, the newest results are kept, other initiators see nothing")
    func listIdentifiers() {
        let segments = [segment(0, 0, from: 0, to: 9, count: 1)]
        #expect(results(0)?.sense == .invalidFieldInCDB(byte: 2) && results(4)?.sense == .invalidFieldInCDB(byte: 2))
        bench.device.isHolding = true
        let box = copy(list(7, targets: both, segments: segments))
        #expect(results(0, 7)?.dataIn?.getInteger(at: 4, as: UInt8.self) == 0)
        #expect(results(1, 7)?.sense == .invalidFieldInCDB(byte: 2))
        #expect(copy(list(7, targets: both, segments: segments)).response?.sense?.code == .operationInProgress)
        bench.device.answerAll()
        #expect(box.response == .good)
        #expect(copy(list(7, targets: both, segments: segments)).response == .good)
        #expect(bench.sense([0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], from: bench.two) == .invalidFieldInCDB(byte: 2))
        #expect(copy(list(0, usage: 3, targets: both, segments: segments)).response == .good)
        #expect(results(0, 0)?.sense == .invalidFieldInCDB(byte: 2))
        for identifier in 20..<UInt8(20 + CopyLimits.maximumHeldResults) {
            #expect(copy(list(identifier, targets: both, segments: segments)).response == .good)
        }
        #expect(results(0, 7)?.sense != nil && results(0, 20)?.status == .good)
    }

    @Test("Copies are bounded")
    func bound() {
        bench.device.isHolding = true
        let boxes = (0...CopyLimits.maximumConcurrentCopies).map { index in
            copy(list(UInt8(index), targets: both, segments: [segment(0, 0, from: UInt64(index), to: 100, count: 1)]))
        }
        #expect(boxes.filter { $0.response?.status == .busy }.count == 1)
        bench.device.answerAll()
        #expect(boxes.filter { $0.response == .good }.count == CopyLimits.maximumConcurrentCopies)
    }

    @Test("What the unit says about its copies agrees in all places")
    func parameters() {
        let parameters = results(3)?.dataIn ?? ByteBuffer()
        #expect(parameters.getInteger(at: 0, as: UInt32.self) == UInt32(parameters.readableBytes - 4))
        #expect(parameters.getInteger(at: 8, as: UInt16.self) == 16 && parameters.getInteger(at: 10, as: UInt16.self) == 64)
        #expect(parameters.getInteger(at: 43, as: UInt8.self) == 2 && parameters.getBytes(at: 44, length: 2) == [0x02, 0xE4])
        let page = bench.dataIn([0x12, 1, 0x8F, 1, 0, 0])
        #expect(page.count == 4 + Int(page[3]) && page.count % 4 == 0)
        #expect(bench.dataIn([0x12, 0, 0, 0, 96, 0])[5] & 0x08 != 0)
        for (code, action) in [(UInt8(0x83), UInt8(0)), (0x84, 0), (0x84, 1), (0x84, 3), (0x84, 4)] {
            #expect(bench.dataIn([0xA3, 0x0C, 2, code, 0, action, 0, 0, 1, 0, 0, 0])[1] & 0x07 == 3)
        }
        #expect(bench.sense([0x84, 2] + [UInt8](repeating: 0, count: 14)) == .invalidFieldInCDB(byte: 1, bit: 4))
    }
}
