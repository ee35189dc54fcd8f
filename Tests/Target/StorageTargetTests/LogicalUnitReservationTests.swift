import Blocks
import NIOCore
import SCSI
import Testing

@testable import StorageTarget

@Suite("A logical unit and its persistent reservations")
struct LogicalUnitReservationTests {
    let bench = Bench()

    /// A place for the state that answers when the test says so.
    final class Store {
        private(set) var stored: [ByteBuffer?] = []
        private var waiting: [(Bool) -> Void] = []
        var isHolding = false
        var isWorking = true
        var waitingCount: Int { waiting.count }

        func take(_ state: ByteBuffer?, _ completion: @escaping (Bool) -> Void) {
            stored.append(state)
            waiting.append(completion)
            if !isHolding { answerAll() }
        }

        func answerAll() {
            while !waiting.isEmpty { waiting.removeFirst()(isWorking) }
        }
    }

    func keys(_ key: UInt64, _ actionKey: UInt64, flags: UInt8 = 0) -> [UInt8] {
        CDB.bytes(key, 8) + CDB.bytes(actionKey, 8) + [0, 0, 0, 0, flags, 0, 0, 0]
    }

    static let readKeys: [UInt8] = [0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0]

    @Test("APTPL: the answer comes when the state is durable; what does not change the state is not stored")
    func storing() throws {
        let store = Store()
        bench.unit.reservationStore = store.take
        store.isHolding = true
        let register = bench.send(CDB.persistentReserveOut(0), data: keys(0, 1, flags: 1))
        #expect(register.response == nil && store.stored.count == 1)
        #expect(bench.dataIn(Self.readKeys).count == 8, "nobody is registered before the answer")
        // The next ones wait for their turn.
        let reserve = bench.send(CDB.persistentReserveOut(1, type: 1), data: keys(1, 0))
        let other = bench.send(CDB.persistentReserveOut(0), data: keys(9, 2), from: bench.two)
        #expect(bench.status([0x16], from: bench.two) == .busy)
        #expect(reserve.response == nil && other.response == nil && store.waitingCount == 1)
        store.isHolding = false
        store.answerAll()
        #expect(register.response == .good && reserve.response == .good && other.response?.status == .reservationConflict)
        #expect(store.stored.count == 2)
        let kept = try PersistentReservations(decoding: try #require(store.stored.last ?? nil))
        #expect(kept.registrations.map(\.key) == [1] && kept.reservation?.type == .writeExclusive)
        #expect(bench.status(CDB.persistentReserveOut(1, type: 1), data: keys(1, 0)) == .good)
        #expect(store.stored.count == 2)
        // Without APTPL nothing is kept any more.
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(1, 3)) == .good)
        #expect(store.stored.count == 3 && store.stored.last == .some(nil))
        #expect(bench.status(CDB.persistentReserveOut(3), data: keys(3, 0)) == .good)
        #expect(store.stored.count == 3)
    }

    @Test("A state that could not be stored does not hold")
    func failingStore() {
        let store = Store()
        #expect(bench.sense(CDB.persistentReserveOut(0), data: keys(0, 1, flags: 1)) == .invalidFieldInParameterList(byte: 20, bit: 0))
        bench.unit.reservationStore = store.take
        store.isWorking = false
        #expect(bench.sense(CDB.persistentReserveOut(0), data: keys(0, 1, flags: 1)) == SenseData(.hardwareError, .internalTargetFailure))
        #expect(bench.dataIn(Self.readKeys).count == 8)
        #expect(bench.dataIn([0x5E, 2, 0, 0, 0, 0, 0, 0, 8, 0]) == [0, 8, 0x1D, 0x80, 0xEA, 1, 0, 0])
        store.isWorking = true
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1, flags: 1)) == .good)
        #expect(bench.dataIn([0x5E, 2, 0, 0, 0, 0, 0, 0, 8, 0]) == [0, 8, 0x1D, 0x81, 0xEA, 1, 0, 0])
    }

    @Test("After a store that failed the next change is stored, also one that needs no storing by itself")
    func storeInDoubt() {
        let store = Store()
        bench.unit.reservationStore = store.take
        store.isWorking = false
        #expect(bench.sense(CDB.persistentReserveOut(0), data: keys(0, 1, flags: 1)) == SenseData(.hardwareError, .internalTargetFailure))
        store.isWorking = true
        // What failed may be in the file all the same, so a registration that is not to be kept has to empty it.
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(store.stored.count == 2 && store.stored.last == .some(nil))
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(1, 2)) == .good && store.stored.count == 2)
    }

    @Test("What waits for the store is bounded")
    func boundedUpdates() {
        let store = Store()
        bench.unit.reservationStore = store.take
        store.isHolding = true
        let boxes = (0..<(LogicalUnit.maximumReservationUpdates + 3)).map { index in
            bench.send(CDB.persistentReserveOut(6), data: keys(0, UInt64(index + 1), flags: 1))
        }
        #expect(boxes.filter { $0.response?.status == .busy }.count == 2)
        store.isHolding = false
        store.answerAll()
        #expect(boxes.filter { $0.response == .good }.count == boxes.count - 2)
    }

    @Test("A state that was restored holds for sessions that come later")
    func restoring() throws {
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(bench.status(CDB.persistentReserveOut(1, type: 3), data: keys(1, 0)) == .good)
        let kept = try PersistentReservations(decoding: bench.unit.reservations.encoded())
        let later = Bench(isRegistered: false)
        later.unit.restoreReservations(kept)
        for nexus in [later.one, later.two] {
            #expect(later.unit.addNexus(nexus, initiatorPortName: "iqn.initiator-\(nexus.rawValue),i,0x1"))
            #expect(later.sense([0x00], from: nexus)?.code == .powerOnResetOrBusDeviceReset)
        }
        #expect(later.status(CDB.write(0, 1), data: sector(1)) == .good)
        #expect(later.status(CDB.read(0, 1), from: later.two) == .reservationConflict)
        #expect(Array(later.dataIn(Self.readKeys).prefix(4)) == [0, 0, 0, 0], "PRGENERATION starts at zero")
    }

    @Test("PREEMPT AND ABORT also ends tasks of the victim that still wait for their data")
    func preemptWaitingTasks() {
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 2), from: bench.two) == .good)
        guard case .accepted(var task) = bench.unit.admit(CommandDescriptorBlock(CDB.write(0, 1)), nexus: bench.two) else {
            Issue.record("a write without a reservation was refused")
            return
        }
        #expect(bench.status(CDB.persistentReserveOut(5, type: 0), data: keys(1, 2)) == .good)
        task.dataOut = ByteBuffer(bytes: sector(7))
        let box = ResponseBox()
        bench.unit.execute(task) { box.take($0) }
        #expect(box.response?.status == .taskAborted && bench.device.calls.isEmpty)
        #expect(bench.sense([0x00], from: bench.two)?.code == .registrationsPreempted)
        #expect(bench.status(CDB.write(0, 1), data: sector(1), from: bench.two) == .good)
    }

    @Test("PREEMPT AND ABORT comes through when the victim has filled the task set")
    func preemptFullTaskSet() {
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 2), from: bench.two) == .good)
        bench.device.isHolding = true
        let writes = (0..<LogicalUnit.maximumTasks).map { _ in
            bench.send(CDB.write(0, 1), data: sector(1), from: bench.two)
        }
        #expect(bench.status(CDB.write(0, 1), data: sector(1)) == .taskSetFull)
        let preemption = bench.send(CDB.persistentReserveOut(5), data: keys(1, 2))
        #expect(preemption.response == nil)
        bench.device.answerAll()
        #expect(preemption.response == .good && writes.allSatisfy { $0.response?.status == .taskAborted })
    }

    @Test("A cached read stays on the fast path for whoever may read", arguments: ReservationType.allCases)
    func residentReads(type: ReservationType) {
        let transfer = BlockTransfer(logicalBlockAddress: 0, blockCount: 1)
        func reads(_ nexus: NexusIdentifier?) -> Bool {
            var buffer = ByteBuffer()
            return bench.unit.readIfResident(transfer, nexus: nexus, into: &buffer)
        }
        bench.device.isResident = true
        #expect(reads(nil) && reads(bench.two))
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(bench.status(CDB.persistentReserveOut(1, type: type.rawValue), data: keys(1, 0)) == .good)
        #expect(reads(bench.one) && reads(bench.two) == type.admitsReads && reads(nil) == type.admitsReads)
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 2), from: bench.two) == .good)
        #expect(reads(bench.two) == (type.admitsReads || type.admitsRegistrants))
        let three = NexusIdentifier(3)
        #expect(bench.unit.addNexus(three, initiatorPortName: "iqn.initiator-3,i,0x1"))
        #expect(!reads(three))
        #expect(bench.sense([0x00], from: three) != nil)
        #expect(reads(three) == type.admitsReads)
        #expect(bench.status(CDB.persistentReserveOut(2, type: type.rawValue), data: keys(1, 0)) == .good)
        _ = bench.sense([0x00], from: bench.two)
        #expect(reads(bench.two) && reads(three))
        #expect(bench.status(CDB.persistentReserveOut(3), data: keys(1, 0)) == .good)
        _ = bench.sense([0x00], from: bench.two)
        #expect(bench.status([0x16]) == .good)
        #expect(reads(bench.one) && !reads(bench.two) && !reads(nil))
        bench.unit.removeNexus(bench.one)
        #expect(reads(bench.two))
    }

    @Test("RESERVE (6) beside registrations, as CRH says")
    func compatibleHandling() {
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 1)) == .good)
        #expect(bench.status([0x16]) == .reservationConflict && bench.status([0x17]) == .reservationConflict)
        #expect(bench.status(CDB.persistentReserveOut(1, type: 5), data: keys(1, 0)) == .good)
        #expect(bench.status([0x16]) == .good && bench.status([0x17]) == .good)
        #expect(bench.status([0x16], from: bench.two) == .reservationConflict)
        #expect(bench.unit.legacyHolder == nil && bench.unit.reservations.reservation != nil)
        #expect(bench.status(CDB.persistentReserveOut(0), data: keys(0, 2), from: bench.two) == .good)
        #expect(bench.status([0x16], from: bench.two) == .good)
        #expect(bench.status(CDB.read(0, 1)) == .good)
    }

    @Test("SPEC_I_PT and REGISTER AND MOVE reach an initiator that has no session")
    func others() throws {
        let port = InitiatorPort.name(initiatorName: "iqn.later", isid: 0x23)
        // TransportID of format 01b.
        var text = Array(port.utf8) + [0]
        text += [UInt8](repeating: 0, count: (4 - text.count % 4) % 4)
        let transport: [UInt8] = [0x45, 0] + CDB.bytes(UInt64(text.count), 2) + text
        var list = keys(0, 1, flags: 0x08) + CDB.bytes(UInt64(transport.count), 4) + transport
        var cdb = CDB.persistentReserveOut(0)
        cdb[8] = UInt8(list.count)
        #expect(bench.status(cdb, data: list) == .good)
        #expect(bench.status(CDB.persistentReserveOut(1, type: 3), data: keys(1, 0)) == .good)
        list = CDB.bytes(1, 8) + CDB.bytes(5, 8) + [0, 0x02, 0, 1] + CDB.bytes(UInt64(transport.count), 4) + transport
        cdb = CDB.persistentReserveOut(7)
        cdb[8] = UInt8(list.count)
        #expect(bench.status(cdb, data: list) == .good)
        #expect(bench.status(CDB.read(0, 1)) == .reservationConflict)
        let later = NexusIdentifier(9)
        #expect(bench.unit.addNexus(later, initiatorPortName: port))
        #expect(bench.sense([0x00], from: later)?.key == .unitAttention)
        #expect(bench.status(CDB.read(0, 1), from: later) == .good)
        let full = bench.dataIn([0x5E, 3, 0, 0, 0, 0, 0, 1, 0, 0])
        #expect(full[8..<16].elementsEqual(CDB.bytes(5, 8)) && full[20] == 1 && full[21] == 3 && full[32] == 0x45)
    }
}
