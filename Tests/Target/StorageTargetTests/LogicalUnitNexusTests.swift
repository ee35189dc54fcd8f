import Blocks
import NIOCore
import SCSI
import Testing

@testable import StorageTarget

@Suite("A logical unit and its initiators")
struct LogicalUnitNexusTests {
    let bench = Bench()

    @Test("A new session is told of power on once, by the first command that does not pass")
    func powerOn() {
        let three = NexusIdentifier(3)
        #expect(bench.unit.addNexus(three, initiatorPortName: "iqn.c,i,0x3"))
        #expect(!bench.unit.addNexus(three, initiatorPortName: "iqn.c,i,0x3"))
        #expect(bench.status([0x12, 0, 0, 0, 96, 0], from: three) == .good)
        #expect(bench.status([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], from: three) == .good)
        #expect(bench.sense(CDB.read(0, 1), from: three) == SenseData(.unitAttention, .powerOnResetOrBusDeviceReset))
        #expect(bench.status(CDB.read(0, 1), from: three) == .good)
    }

    @Test("REQUEST SENSE takes the attention as data")
    func requestSense() {
        bench.unit.capacityDidChange()
        let sense = SenseData(parsing: ByteBuffer(bytes: bench.dataIn([0x03, 0, 0, 0, 252, 0])))
        #expect(sense == SenseData(.unitAttention, .capacityDataHasChanged))
        let none = SenseData(parsing: ByteBuffer(bytes: bench.dataIn([0x03, 1, 0, 0, 252, 0])))
        #expect(none == SenseData(.noSense, .noAdditionalSenseInformation, format: .descriptor))
        #expect(bench.status([0x00]) == .good)
    }

    @Test("REPORT LUNS ends the attention about units, and no other")
    func reportedNumbers() {
        bench.unit.reportedNumbers = { [0, 5].compactMap { LogicalUnitNumber(index: $0) } }
        bench.unit.reportedNumbersDidChange()
        bench.unit.capacityDidChange()
        let list = bench.dataIn([0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
        #expect(list.count == 24 && list[3] == 16 && list[17] == 5)
        #expect(bench.sense([0x00])?.code == .capacityDataHasChanged)
        #expect(bench.status([0x00]) == .good)
        #expect(bench.sense([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0])?.code == .invalidFieldInCDB)
    }

    @Test("Attentions are bounded and stand once")
    func boundedAttentions() {
        for _ in 0..<100 {
            bench.unit.capacityDidChange()
            bench.unit.reportedNumbersDidChange()
        }
        #expect(bench.sense([0x00])?.code == .capacityDataHasChanged)
        #expect(bench.sense([0x00])?.code == .reportedLUNsDataHasChanged)
        #expect(bench.status([0x00]) == .good)
    }

    @Test("An unknown session gets nothing, one that left frees what it held")
    func leaving() {
        #expect(bench.sense([0x00], from: NexusIdentifier(9))?.key == .abortedCommand)
        #expect(bench.status([0x16]) == .good)
        #expect(bench.status([0x00], from: bench.two) == .reservationConflict)
        bench.device.isHolding = true
        let box = bench.send(CDB.read(0, 1))
        var isDone = false
        bench.unit.removeNexus(bench.one) { isDone = true }
        #expect(!isDone)
        bench.device.answerAll()
        #expect(isDone && box.response?.status == .taskAborted)
        #expect(bench.status([0x00], from: bench.two) == .good)
        bench.unit.removeNexus(bench.one)
    }

    @Test("Sessions are bounded")
    func boundedSessions() {
        for index in 3...LogicalUnit.maximumNexuses {
            #expect(bench.unit.addNexus(NexusIdentifier(UInt64(index)), initiatorPortName: "i\(index)"))
        }
        #expect(!bench.unit.addNexus(NexusIdentifier(0), initiatorPortName: "i"))
    }

    @Test("RESERVE (6) shuts the others out until it is released")
    func legacyReservation() {
        #expect(bench.status([0x16]) == .good && bench.status([0x16]) == .good)
        for cdb in [[0x00], CDB.read(0, 1), CDB.write(0, 1), [0x16], [0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0]] as [[UInt8]] {
            #expect(bench.status(cdb, from: bench.two) == .reservationConflict)
        }
        #expect(bench.status([0x12, 0, 0, 0, 96, 0], from: bench.two) == .good)
        // A RELEASE from who does not hold it does nothing.
        #expect(bench.status([0x17], from: bench.two) == .good)
        #expect(bench.status([0x00], from: bench.two) == .reservationConflict)
        #expect(bench.status([0x17]) == .good)
        #expect(bench.status([0x00], from: bench.two) == .good)
    }

    func keys(_ key: UInt64, _ actionKey: UInt64) -> [UInt8] {
        CDB.bytes(key, 8) + CDB.bytes(actionKey, 8) + [UInt8](repeating: 0, count: 8)
    }

    @Test("A persistent reservation shuts out those that are not registered")
    func persistentReservation() {
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(bench.status(CDB.persistentReserveOut(1, type: 5), data: keys(1, 0)) == .good)
        #expect(bench.status(CDB.write(0, 1), data: sector(1)) == .good)
        #expect(bench.status(CDB.write(0, 1), data: sector(1), from: bench.two) == .reservationConflict)
        #expect(bench.status(CDB.ten(0x35, at: 0, 0), from: bench.two) == .reservationConflict)
        #expect(bench.status(CDB.read(0, 1), from: bench.two) == .good)
        #expect(bench.status([0x16], from: bench.two) == .reservationConflict)
        #expect(bench.status(CDB.persistentReserveOut(1, type: 5), data: keys(0, 0), from: bench.two) == .reservationConflict)
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 2), from: bench.two) == .good)
        #expect(bench.status(CDB.write(0, 1), data: sector(1), from: bench.two) == .good)
        #expect(bench.dataIn([0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0]).suffix(4) == [0, 0, 0, 16])
        #expect(bench.sense(CDB.persistentReserveOut(0), data: Array(keys(0, 2).dropLast()))?.code == .parameterListLengthError)
    }

    @Test("PREEMPT AND ABORT ends the tasks of the victim and tells it")
    func preemptAndAbort() {
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 2), from: bench.two) == .good)
        #expect(bench.status(CDB.persistentReserveOut(1, type: 3), data: keys(2, 0), from: bench.two) == .good)
        bench.device.isHolding = true
        let box = bench.send(CDB.write(0, 1), data: sector(1), from: bench.two)
        let preemption = bench.send(CDB.persistentReserveOut(5, type: 3), data: keys(1, 2))
        // The device may still write for the victim, so the answer waits.
        #expect(preemption.response == nil)
        bench.device.answerAll()
        #expect(box.response?.status == .taskAborted && preemption.response == .good)
        #expect(bench.sense([0x00], from: bench.two)?.code == .registrationsPreempted)
        #expect(bench.status(CDB.read(0, 1), from: bench.two) == .reservationConflict)
    }

    @Test("A registration outlives its session")
    func registrationAfterLogout() {
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(bench.status(CDB.persistentReserveOut(1, type: 1), data: keys(1, 0)) == .good)
        bench.unit.removeNexus(bench.one)
        #expect(bench.status(CDB.write(0, 1), data: sector(1), from: bench.two) == .reservationConflict)
        #expect(bench.unit.addNexus(NexusIdentifier(7), initiatorPortName: "iqn.initiator-1,i,0x1"))
        #expect(bench.sense([0x00], from: NexusIdentifier(7))?.key == .unitAttention)
        #expect(bench.status(CDB.write(0, 1), data: sector(1), from: NexusIdentifier(7)) == .good)
    }

    @Test("Reports come cut to the allocation length")
    func reports() {
        #expect(bench.dataIn([0x12, 0, 0, 0, 36, 0]).count == 36)
        #expect(bench.dataIn([0x12, 1, 0xB0, 0, 255, 0]).count == 64)
        #expect(bench.sense([0x12, 1, 0xC0, 0, 255, 0]) == .invalidFieldInCDB(byte: 2))
        #expect(bench.dataIn([0x25]) == [0, 0, 0x0F, 0xFF, 0, 0, 2, 0])
        #expect(bench.dataIn([0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12]) == [0, 0, 0, 0, 0, 0, 0x0F, 0xFF, 0, 0, 2, 0])
        #expect(bench.dataIn([0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]).count == 16)
        #expect(bench.dataIn([0xA3, 0x0C, 1, 0x28, 0, 0, 0, 0, 0, 255, 0, 0]).count == 14)
        #expect(bench.dataIn([0x5A, 0x08, 0x3F, 0, 0, 0, 0, 0, 8, 0]).count == 8)
        #expect(bench.status([0x1B, 0, 0, 0, 1, 0]) == .good && bench.status([0x1E, 0, 0, 0, 1, 0]) == .good)
        #expect(bench.status([0x1B, 0, 0, 0, 0, 0]) == .good)
        #expect(bench.device.calls == [.flush])
        #expect(bench.sense([0x1B, 0, 0, 0, 2, 0]) == .invalidFieldInCDB(byte: 4, bit: 1))
        #expect(bench.sense([0x15, 0x10, 0, 0, 4, 0], data: [0, 0])?.code == .parameterListLengthError)
    }

    @Test("A number without a unit behind it")
    func absentUnit() {
        func response(_ cdb: [UInt8]) -> SCSIResponse {
            AbsentLogicalUnit.response(
                to: CommandDescriptorBlock(cdb), identity: bench.unit.identity, reportedNumbers: [bench.unit.number])
        }
        #expect(response([0x12, 0, 0, 0, 36, 0]).dataIn?.getInteger(at: 0, as: UInt8.self) == 0x7F)
        #expect(response([0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]).dataIn?.readableBytes == 16)
        #expect(response([0x03, 0, 0, 0, 18, 0]).dataIn.flatMap { SenseData(parsing: $0) }?.code == .logicalUnitNotSupported)
        #expect(response([0x00]).sense?.code == .logicalUnitNotSupported)
        #expect(response([0xFF]).sense?.code == .logicalUnitNotSupported)
    }

    @Test("Any block at all is answered once", arguments: [UInt64(1), 2, 3])
    func anyBlock(seed: UInt64) {
        var state = seed
        func next() -> UInt8 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 33)
        }
        let codes = OperationCode.allCases
        for _ in 0..<3000 {
            var cdb = (0..<16).map { _ in next() & next() & next() }
            cdb[0] = codes[Int(next()) % codes.count].rawValue
            let data = next() < 128 ? nil : [UInt8](repeating: next(), count: Int(next()) * 8)
            #expect(bench.send(cdb, data: data, from: next() < 128 ? bench.one : bench.two).count == 1)
        }
    }
}
