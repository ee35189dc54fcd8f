import Blocks
import NIOCore
import SCSI
import Testing

@testable import StorageTarget

@Suite("A logical unit reads and writes")
struct LogicalUnitReadWriteTests {
    let bench = Bench()

    @Test("What is written is read, in every form")
    func readAndWrite() {
        #expect(bench.status([0x0A, 0, 0, 1, 1, 0], data: sector(1)) == .good)
        #expect(bench.status(CDB.write(2, 1), data: sector(2)) == .good)
        #expect(bench.status([0xAA, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0], data: sector(3)) == .good)
        #expect(bench.status(CDB.sixteen(0x8A, at: 4, 1), data: sector(4)) == .good)
        let all = sector(1) + sector(2) + sector(3) + sector(4)
        #expect(bench.dataIn([0x08, 0, 0, 1, 4, 0]) == all)
        #expect(bench.dataIn(CDB.read(1, 4)) == all)
        #expect(bench.dataIn([0xA8, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0]) == all)
        #expect(bench.dataIn(CDB.sixteen(0x88, at: 1, 4)) == all)
    }

    @Test("Zero blocks move nothing, also at the end, and not beyond it")
    func zeroBlocks() {
        #expect(bench.response(CDB.read(4096, 0)) == .good)
        #expect(bench.response(CDB.write(0, 0), data: []) == .good)
        #expect(bench.sense(CDB.read(4097, 0))?.code == .logicalBlockAddressOutOfRange)
        #expect(bench.device.calls.isEmpty)
    }

    @Test("Beyond the last block", arguments: [0x88, 0x8A, 0x8B, 0x8E, 0x8F, 0x90, 0x91, 0x93] as [UInt8])
    func outOfRange(code: UInt8) {
        for (address, count) in [(UInt64(4095), UInt32(2)), (4096, 1), (1 << 63, 1), (.max, 2), (.max - 1, 1)] {
            #expect(bench.sense(CDB.sixteen(code, at: address, count), data: sector(0, 2)) == .outOfRange)
        }
        #expect(bench.device.calls.isEmpty)
    }

    @Test("Longer than the block limits say")
    func tooLong() {
        let bench = Bench(sectorCount: 70000)
        #expect(bench.sense(CDB.read(0, 8193)) == .invalidFieldInCDB(byte: 7))
        #expect(bench.sense(CDB.sixteen(0x8A, at: 0, 8193)) == .invalidFieldInCDB(byte: 10))
        #expect(bench.sense(CDB.sixteen(0x93, at: 0, 65537), data: sector(0)) == .invalidFieldInCDB(byte: 10))
        #expect(bench.response(CDB.read(0, 8192))?.dataIn?.readableBytes == 8192 * 512)
    }

    @Test("FUA and the write cache decide what a write promises")
    func durability() {
        let range = SectorRange(from: 0, to: 1)
        #expect(bench.status(CDB.write(0, 1), data: sector(1)) == .good)
        #expect(bench.status(CDB.write(0, 1, 0x08), data: sector(1)) == .good)
        // MODE SELECT of a caching page without WCE.
        let page: [UInt8] = [0, 0, 0, 0, 0x08, 18] + [UInt8](repeating: 0, count: 18)
        #expect(bench.status([0x15, 0x10, 0, 0, UInt8(page.count), 0], data: page) == .good)
        #expect(bench.status(CDB.write(0, 1), data: sector(1)) == .good)
        #expect(bench.device.calls == [.write(range, .ordered), .write(range, .durable), .write(range, .durable)])
        #expect(bench.sense([0x00], from: bench.two)?.code == .modeParametersChanged)
    }

    @Test("A read with FUA flushes first; SYNCHRONIZE CACHE flushes")
    func flushing() {
        #expect(bench.status(CDB.read(0, 1, 0x08)) == .good)
        #expect(bench.status(CDB.ten(0x35, at: 0, 0)) == .good)
        #expect(bench.status(CDB.sixteen(0x91, 0x02, at: 0, 16)) == .good)
        #expect(bench.device.calls == [.flush, .read(SectorRange(from: 0, to: 1)), .flush, .flush])
        bench.device.error = .medium("x")
        #expect(bench.sense(CDB.ten(0x35, at: 0, 0))?.code == .writeError)
    }

    @Test("Less data than the command says writes the whole blocks of it; more writes no more")
    func shortData() {
        #expect(bench.status(CDB.write(0, 2), data: sector(7)) == .good)
        #expect(bench.sectors(0, 2) == sector(7) + sector(0))
        #expect(bench.status(CDB.write(0, 1), data: sector(8, 2)) == .good)
        #expect(bench.sectors(0, 2) == sector(8) + sector(0))
        #expect(bench.status(CDB.write(0, 1)) == .good)
        #expect(bench.sense(CDB.write(0, 1), data: [1, 2, 3])?.code == .invalidFieldInCommandInformationUnit)
        #expect(bench.sectors(0, 2) == sector(8) + sector(0))
    }

    @Test("A protected disk takes no write of any kind, and says so in MODE SENSE")
    func writeProtection() {
        bench.device.isWriteProtected = true
        let protected = SenseData(.dataProtect, .writeProtected)
        #expect(bench.sense(CDB.write(0, 1), data: sector(1)) == protected)
        #expect(bench.sense(CDB.sixteen(0x8E, at: 0, 1), data: sector(1)) == protected)
        #expect(bench.sense(CDB.compareAndWrite(0, 1), data: sector(0, 2)) == protected)
        #expect(bench.sense(CDB.sixteen(0x8B, at: 0, 1), data: sector(1)) == protected)
        #expect(bench.sense(CDB.ten(0x41, at: 0, 1), data: sector(1)) == protected)
        #expect(bench.sense([0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0]) == protected)
        #expect(bench.dataIn([0x1A, 0x08, 0x3F, 0, 255, 0])[2] & 0x80 != 0)
        #expect(bench.status(CDB.read(0, 1)) == .good)
        #expect(bench.device.calls == [.read(SectorRange(from: 0, to: 1))])
    }

    @Test("Software write protection, and sense data in the format asked for")
    func controlPage() {
        var page: [UInt8] = Array(bench.dataIn([0x1A, 0x08, 0x0A, 0, 255, 0]))
        page[0] = 0
        page[2] = 0
        page[6] |= 0x04
        page[8] |= 0x08
        #expect(bench.status([0x15, 0x10, 0, 0, UInt8(page.count), 0], data: page) == .good)
        let sense = bench.sense(CDB.write(0, 1), data: sector(1))
        #expect(sense == SenseData(.dataProtect, .logicalUnitSoftwareWriteProtected, format: .descriptor))
        #expect(bench.sense([0xFF])?.format == .descriptor)
    }

    @Test("Verification against the medium and against data")
    func verification() {
        bench.device.bytes.replaceSubrange(0..<1024, with: sector(5, 2))
        #expect(bench.status(CDB.ten(0x2F, at: 0, 2)) == .good)
        #expect(bench.status(CDB.ten(0x2F, 0x02, at: 0, 2), data: sector(5, 2)) == .good)
        #expect(bench.status(CDB.ten(0x2F, 0x06, at: 0, 2), data: sector(5)) == .good)
        var other = sector(5, 2)
        other[700] = 6
        #expect(
            bench.sense(CDB.ten(0x2F, 0x02, at: 0, 2), data: other)
                == SenseData(.miscompare, .miscompareDuringVerifyOperation, information: 700))
        #expect(bench.sense(CDB.ten(0x2F, 0x06, at: 0, 3), data: sector(5))?.information == 1024)
        #expect(bench.sense(CDB.ten(0x2F, 0x02, at: 0, 2), data: sector(5))?.code == .invalidFieldInCDB)
        #expect(bench.status(CDB.sixteen(0x8E, 0x02, at: 8, 1), data: sector(9)) == .good)
        #expect(bench.sectors(8, 1) == sector(9))
    }

    @Test("A long verification holds a piece of the medium at a time, and still says where the difference is")
    func longVerification() {
        var data = sector(0, 3000)
        #expect(bench.status(CDB.ten(0x2F, 0x02, at: 0, 3000), data: data) == .good)
        #expect(bench.device.calls == [.read(SectorRange(from: 0, to: 2048)), .read(SectorRange(from: 2048, to: 3000))])
        data[2500 * 512 + 7] = 1
        #expect(bench.sense(CDB.ten(0x2F, 0x02, at: 0, 3000), data: data)?.information == 2500 * 512 + 7)
        #expect(bench.status(CDB.ten(0x2F, 0x06, at: 0, 3000), data: sector(0)) == .good)
    }

    @Test("PRE-FETCH reads in pieces, and no error of it is told")
    func prefetching() {
        let bench = Bench(sectorCount: 20000)
        #expect(bench.status(CDB.ten(0x34, at: 0, 3000)) == .conditionMet)
        #expect(bench.device.calls == [.read(SectorRange(from: 0, to: 2048)), .read(SectorRange(from: 2048, to: 3000))])
        // More than one command fetches: only a part of it is sure to be at hand.
        #expect(bench.status(CDB.ten(0x34, at: 0, 9000)) == .good)
        bench.device.error = .medium("x")
        #expect(bench.status(CDB.sixteen(0x90, 0x02, at: 0, 0)) == .good)
        #expect(bench.status(CDB.ten(0x34, at: 0, 10)) == .good)
    }

    @Test("What a device's errors become")
    func errors() {
        let cases: [(BlockDeviceError, SCSIStatus, SenseData?, SenseData?)] = [
            (.outOfRange, .checkCondition, .outOfRange, .outOfRange),
            (
                .writeProtected, .checkCondition, SenseData(.dataProtect, .writeProtected),
                SenseData(.dataProtect, .writeProtected)
            ),
            (.unreachable("x"), .busy, nil, nil), (.noSpace("x"), .busy, nil, nil),
            (.medium("x"), .checkCondition, SenseData(.mediumError, .unrecoveredReadError), SenseData(.mediumError, .writeError)),
            (
                .stopped("x"), .checkCondition, SenseData(.notReady, .logicalUnitNotReadyManualInterventionRequired),
                SenseData(.notReady, .logicalUnitNotReadyManualInterventionRequired)
            ),
        ]
        for (error, status, readSense, writeSense) in cases {
            bench.device.error = error
            #expect(bench.response(CDB.read(0, 1)) == SCSIResponse(status: status, sense: readSense))
            #expect(bench.response(CDB.write(0, 1), data: sector(1)) == SCSIResponse(status: status, sense: writeSense))
        }
    }

    @Test("No room, while others are under way, fills the task set")
    func noSpace() {
        bench.device.isHolding = true
        let boxes = (0..<2).map { bench.send(CDB.write(UInt32($0), 1), data: sector(1)) }
        bench.device.error = .noSpace("x")
        bench.device.answerAll()
        #expect(boxes.map(\.response?.status) == [.taskSetFull, .busy])
    }

    @Test("A cached read goes past everything, unless something stands in the way")
    func residentReads() {
        let transfer = BlockTransfer(logicalBlockAddress: 0, blockCount: 2)
        func fast(_ transfer: BlockTransfer) -> Int? {
            var buffer = ByteBuffer()
            return bench.unit.readIfResident(transfer, nexus: bench.one, into: &buffer) ? buffer.readableBytes : nil
        }
        #expect(fast(transfer) == 1024)
        #expect(fast(.init(logicalBlockAddress: 4095, blockCount: 2)) == nil)
        #expect(fast(.init(logicalBlockAddress: .max, blockCount: .max)) == nil)
        #expect(fast(.init(logicalBlockAddress: 0, blockCount: 2, forceUnitAccess: true)) == nil)
        bench.unit.capacityDidChange()
        #expect(fast(transfer) == nil)
        #expect(bench.sense([0x00])?.code == .capacityDataHasChanged)
        // The other initiator has not taken its attention yet; that is its own affair.
        #expect(fast(transfer) == 1024)
        bench.device.isHolding = true
        bench.send(CDB.compareAndWrite(100, 1), data: sector(0, 2))
        #expect(fast(transfer) == nil)
        bench.device.answerAll()
        #expect(fast(transfer) == 1024)
        // The first answer is the attention that still waits.
        #expect(bench.sense([0x00], from: bench.two)?.code == .capacityDataHasChanged)
        #expect(bench.status([0x16], from: bench.two) == .good)
        #expect(fast(transfer) == nil)
    }

    @Test("One task too many finds the task set full")
    func taskLimit() {
        bench.device.isHolding = true
        let boxes = (0..<LogicalUnit.maximumTasks).map { _ in bench.send(CDB.read(0, 1)) }
        #expect(bench.status(CDB.read(0, 1)) == .taskSetFull)
        bench.device.answerAll()
        #expect(boxes.allSatisfy { $0.response?.status == .good })
    }
}
