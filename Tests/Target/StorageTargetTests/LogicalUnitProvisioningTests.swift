import Blocks
import NIOCore
import SCSI
import Testing

@testable import StorageTarget

@Suite("A logical unit frees and fills blocks")
struct LogicalUnitProvisioningTests {
    let bench = Bench()

    init() { bench.device.bytes = [UInt8](repeating: 0xAA, count: bench.device.bytes.count) }

    func unmap(_ extents: [(UInt64, UInt32)]) -> SCSIResponse? {
        var list = CDB.bytes(UInt64(extents.count * 16 + 6), 2) + CDB.bytes(UInt64(extents.count * 16), 2) + [0, 0, 0, 0]
        for (address, count) in extents { list += CDB.bytes(address, 8) + CDB.bytes(UInt64(count), 4) + [0, 0, 0, 0] }
        return bench.response([0x42, 0, 0, 0, 0, 0, 0] + CDB.bytes(UInt64(list.count), 2) + [0], data: list)
    }

    @Test("UNMAP makes zeroes of every extent")
    func unmapping() {
        #expect(unmap([(0, 1), (8, 8), (20, 0)]) == .good)
        #expect(bench.sectors(0, 2) == sector(0) + sector(0xAA))
        #expect(bench.sectors(8, 9) == sector(0, 8) + sector(0xAA))
        #expect(bench.device.calls.count == 2)
    }

    @Test("UNMAP does all or nothing of what is wrong")
    func unmappingWrong() {
        #expect(unmap([(0, 1), (4095, 2)])?.sense == .outOfRange)
        #expect(unmap([(0, 1), (.max, 2)])?.sense == .outOfRange)
        #expect(bench.sense([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], data: [0, 0])?.code == .parameterListLengthError)
        #expect(bench.response([0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0]) == .good)
        #expect(bench.device.calls.isEmpty)
    }

    @Test("WRITE SAME of zeroes, of nothing and of a pattern")
    func writeSame() {
        #expect(bench.status(CDB.ten(0x41, 0x08, at: 0, 8), data: sector(0)) == .good)
        #expect(bench.status(CDB.sixteen(0x93, 0x01, at: 8, 8)) == .good)
        #expect(bench.status(CDB.sixteen(0x93, at: 16, 1500), data: sector(7)) == .good)
        #expect(bench.sectors(0, 16) == sector(0, 16) && bench.sectors(16, 1501) == sector(7, 1500) + sector(0xAA))
        #expect(
            bench.device.calls == [
                .writeZeroes(SectorRange(from: 0, to: 8), .ordered), .writeZeroes(SectorRange(from: 8, to: 16), .ordered),
                .write(SectorRange(from: 16, to: 528), .ordered), .write(SectorRange(from: 528, to: 1040), .ordered),
                .write(SectorRange(from: 1040, to: 1516), .ordered),
            ])
    }

    @Test("WRITE SAME that asks to unmap a pattern keeps the pattern")
    func unmapWithPattern() {
        #expect(bench.status(CDB.sixteen(0x93, 0x08, at: 0, 2), data: sector(3)) == .good)
        #expect(bench.sectors(0, 2) == sector(3, 2))
    }

    @Test("WRITE SAME of zero blocks, and with data of another length")
    func writeSameWrong() {
        #expect(bench.sense(CDB.ten(0x41, at: 0, 0), data: sector(1)) == .invalidFieldInCDB(byte: 7))
        #expect(bench.sense(CDB.ten(0x41, at: 0, 1), data: Array(sector(1).dropLast()))?.code == .invalidFieldInCDB)
        #expect(bench.sense(CDB.ten(0x41, at: 0, 1), data: sector(1), offered: 1024)?.code == .invalidFieldInCDB)
        #expect(bench.sense(CDB.ten(0x41, at: 0, 1))?.code == .invalidFieldInCDB)
        #expect(bench.device.calls.isEmpty)
    }

    struct Extent: Equatable {
        let address: UInt64
        let count: UInt64
        let status: UInt8
    }

    func status(_ address: UInt64, _ allocation: UInt32 = 2048) -> [Extent] {
        let data = bench.dataIn(CDB.sixteen(0x9E, 0x12, at: address, allocation))
        func number(_ slice: ArraySlice<UInt8>) -> UInt64 { slice.reduce(0) { $0 << 8 | UInt64($1) } }
        return stride(from: 8, to: data.count - 15, by: 16).map {
            Extent(address: number(data[$0..<$0 + 8]), count: number(data[$0 + 8..<$0 + 12]), status: data[$0 + 12])
        }
    }

    @Test("GET LBA STATUS tells what the device says, in as many descriptors as there is room for")
    func blockStatus() {
        _ = unmap([(16, 24)])
        let expected = [
            Extent(address: 3, count: 13, status: 0), Extent(address: 16, count: 24, status: 1),
            Extent(address: 40, count: 4056, status: 0),
        ]
        #expect(status(3) == expected)
        #expect(status(3, 24) == [expected[0]])
        #expect(status(20, 24) == [Extent(address: 20, count: 20, status: 1)])
        #expect(status(4090) == [Extent(address: 4090, count: 6, status: 0)])
        #expect(bench.sense(CDB.sixteen(0x9E, 0x12, at: 4096, 24)) == .outOfRange)
    }

    @Test("GET LBA STATUS fails as a read does when the device can't say")
    func blockStatusFails() {
        bench.device.error = .medium("x")
        #expect(bench.sense(CDB.sixteen(0x9E, 0x12, at: 0, 24)) == SenseData(.mediumError, .unrecoveredReadError))
    }

    @Test("A failure in the middle ends the command")
    func failing() {
        bench.device.isHolding = true
        let box = bench.send(CDB.sixteen(0x93, at: 0, 1500), data: sector(7))
        bench.device.answerOne()
        bench.device.error = .medium("x")
        bench.device.answerAll()
        #expect(box.response?.sense == SenseData(.mediumError, .writeError))
        #expect(bench.device.calls.count == 2)
    }
}
