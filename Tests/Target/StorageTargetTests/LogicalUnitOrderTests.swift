import NIOCore
import SCSI
import Testing

@testable import StorageTarget

@Suite("A logical unit keeps the order that task attributes ask for")
struct LogicalUnitOrderTests {
    let bench = Bench()

    /// Admits a command whose data is still on the way.
    func admit(_ cdb: [UInt8], _ attribute: SCSITask.Attribute = .simple, from nexus: NexusIdentifier? = nil) throws -> SCSITask {
        guard case .accepted(let task) = bench.unit.admit(CommandDescriptorBlock(cdb), nexus: nexus ?? bench.one, attribute: attribute)
        else { throw Refused() }
        return task
    }

    struct Refused: Error {}

    func execute(_ task: SCSITask, data: [UInt8]? = nil) -> ResponseBox {
        var task = task
        task.dataOut = data.map { ByteBuffer(bytes: $0) }
        let box = ResponseBox()
        bench.unit.execute(task) { box.take($0) }
        return box
    }

    @Test("An ORDERED task waits for a write whose data is still on the way")
    func waitsForData() throws {
        let write = try admit(CDB.write(0, 1))
        let read = bench.send(CDB.read(0, 1), attribute: .ordered)
        #expect(read.response == nil)
        #expect(execute(write, data: sector(5)).response?.status == .good)
        #expect(read.response?.dataIn.map { Array($0.readableBytesView) } == sector(5))
    }

    @Test("Later tasks wait for an ORDERED one whose data is still on the way, cached reads too")
    func laterWait() throws {
        let write = try admit(CDB.write(0, 1), .ordered)
        let read = bench.send(CDB.read(0, 1), from: bench.two)
        let inquiry = bench.send([0x12, 0, 0, 0, 96, 0])
        var resident = ByteBuffer()
        let transfer = BlockTransfer(logicalBlockAddress: 0, blockCount: 1)
        #expect(!bench.unit.readIfResident(transfer, nexus: bench.one, into: &resident))
        #expect(read.response == nil && inquiry.response == nil)
        #expect(execute(write, data: sector(5)).response?.status == .good)
        #expect(read.response?.dataIn.map { Array($0.readableBytesView) } == sector(5) && inquiry.response?.status == .good)
        #expect(bench.unit.readIfResident(transfer, nexus: bench.one, into: &resident))
    }

    @Test("a task that takes memory at its turn gets it after the ORDERED one, and is not begun when it is aborted with it")
    func turns() throws {
        for isAborted in [false, true] {
            bench.device.isHolding = true
            let read = bench.send(CDB.read(0, 1))
            let ordered = bench.send(CDB.read(0, 1), attribute: .ordered)
            let write = try admit(CDB.write(0, 1), from: bench.two)
            var result: ResponseBox?
            #expect(bench.unit.atTurn(of: write) { result = execute(write, data: sector(isAborted ? 9 : 7)) })
            #expect(result == nil)
            if isAborted { bench.unit.abortTasks(.all) {} }
            bench.device.answerAll()
            #expect(read.response?.status == (isAborted ? .taskAborted : .good))
            #expect(ordered.response?.status == (isAborted ? .taskAborted : .good))
            #expect(result?.response?.status == (isAborted ? .taskAborted : .good))
            #expect(bench.sectors(0, 1) == sector(7))
        }
    }

    @Test("ORDERED tasks keep their order among themselves")
    func orderedAmongThemselves() throws {
        let first = try admit(CDB.write(0, 1), .ordered)
        let second = try admit(CDB.write(0, 1), .ordered, from: bench.two)
        let later = execute(second, data: sector(2))
        #expect(later.response == nil)
        #expect(execute(first, data: sector(1)).response?.status == .good)
        #expect(later.response?.status == .good && bench.sectors(0, 1) == sector(2))
    }

    @Test("HEAD OF QUEUE passes those that wait, and they wait for it")
    func headOfQueue() throws {
        bench.device.isHolding = true
        let running = bench.send(CDB.write(0, 1), data: sector(1))
        let ordered = bench.send(CDB.write(8, 1), data: sector(2), attribute: .ordered)
        let head = bench.send(CDB.read(16, 1), attribute: .headOfQueue)
        #expect(bench.device.pendingCount == 2)
        let simple = bench.send(CDB.read(24, 1))
        // The write that ran ends; the ORDERED one has still the head before it.
        bench.device.answerOne()
        #expect(running.response?.status == .good && bench.device.pendingCount == 1)
        bench.device.answerOne()
        #expect(head.response?.status == .good && ordered.response == nil && simple.response == nil)
        bench.device.answerAll()
        #expect(ordered.response?.status == .good && simple.response?.status == .good)
    }

    @Test("A task that is withdrawn or aborted lets the others go on")
    func leaving() throws {
        let write = try admit(CDB.write(0, 1))
        let ordered = try admit(CDB.write(0, 1), .ordered)
        let waiting = execute(ordered, data: sector(2))
        let read = bench.send(CDB.read(0, 1), from: bench.two)
        #expect(waiting.response == nil && read.response == nil)
        bench.unit.abortTasks(.nexus(bench.one)) {}
        #expect(waiting.response?.status == .taskAborted && read.response?.status == .good)
        let second = bench.send(CDB.read(0, 1), attribute: .ordered)
        #expect(second.response == nil)
        bench.unit.withdraw(write)
        #expect(second.response?.status == .good)
        #expect(bench.unit.order.taskCount == 0)
    }

    @Test("What was reserved meanwhile is refused when its turn comes")
    func readmission() throws {
        let reserve = try admit([0x16], .ordered, from: bench.two)
        let write = bench.send(CDB.write(0, 1), data: sector(1))
        #expect(write.response == nil)
        #expect(execute(reserve).response?.status == .good)
        #expect(write.response?.status == .reservationConflict)
    }

    @Test("Tasks that wait for their turn are bounded")
    func bounded() throws {
        let first = try admit(CDB.write(0, 1), .ordered)
        let boxes = (0...LogicalUnit.maximumTasks).map { _ in bench.send(CDB.read(0, 1)) }
        #expect(boxes.last?.response?.status == .taskSetFull && boxes.first?.response == nil)
        #expect(execute(first, data: sector(1)).response?.status == .good)
        #expect(boxes.dropLast().allSatisfy { $0.response?.status == .good } && bench.unit.order.taskCount == 0)
    }

    @Test("What is aborted does not begin because another aborted task gave up its range, and the abortion ends")
    func abortedTogether() throws {
        bench.device.isHolding = true
        let write = bench.send(CDB.write(0, 1), data: sector(1))
        let comparison = bench.send(CDB.compareAndWrite(0, 1), data: sector(1) + sector(2))
        // Such a read would end at once, as one of the write log's memory does.
        let read = bench.send(CDB.read(0, 1))
        let calls = bench.device.calls.count
        var isDone = false
        bench.unit.removeNexus(bench.one) { isDone = true }
        #expect(comparison.response?.status == .taskAborted && read.response?.status == .taskAborted)
        #expect(bench.device.calls.count == calls && !isDone)
        bench.device.answerAll()
        #expect(isDone && write.response?.status == .taskAborted)
    }
}

@Suite("Unit attentions have their precedence")
struct LogicalUnitPrecedenceTests {
    let bench = Bench()

    @Test("A reset is told before a reservation, everything else after")
    func reservation() {
        #expect(bench.status([0x16], from: bench.two) == .good)
        bench.unit.capacityDidChange()
        #expect(bench.status(CDB.read(0, 1)) == .reservationConflict)
        #expect(bench.status([0x17], from: bench.two) == .checkCondition && bench.status([0x17], from: bench.two) == .good)
        #expect(bench.sense(CDB.read(0, 1))?.code == .capacityDataHasChanged)
        #expect(bench.status([0x16], from: bench.two) == .good)
        let three = NexusIdentifier(3)
        #expect(bench.unit.addNexus(three, initiatorPortName: "iqn.c,i,0x3"))
        #expect(bench.sense(CDB.read(0, 1), from: three)?.code == .powerOnResetOrBusDeviceReset)
        #expect(bench.status(CDB.read(0, 1), from: three) == .reservationConflict)
    }

    @Test("It is told before an unknown command is refused, and a reset before what was there")
    func first() {
        bench.unit.capacityDidChange()
        #expect(bench.sense([0xFF])?.code == .capacityDataHasChanged)
        #expect(bench.sense([0xFF])?.code == .invalidCommandOperationCode)
        bench.unit.capacityDidChange()
        bench.unit.reset {}
        #expect(bench.sense([0x00])?.code == .busDeviceResetFunctionOccurred)
        #expect(bench.status([0x00]) == .good)
    }
}

@Suite("A unit whose medium can be taken out")
struct LogicalUnitRemovalTests {
    let bench = Bench(isRemovable: true)
    let eject: [UInt8] = [0x1B, 0, 0, 0, 2, 0]
    let load: [UInt8] = [0x1B, 0, 0, 0, 3, 0]

    func prevent(_ value: UInt8) -> [UInt8] { [0x1E, 0, 0, 0, value, 0] }

    @Test("Ejected, it has no medium; loaded, the others hear of it")
    func ejecting() {
        #expect(bench.dataIn([0x12, 0, 0, 0, 96, 0])[1] == 0x80)
        #expect(bench.status(eject) == .good && bench.device.calls == [.flush])
        let sense = SenseData(.notReady, .mediumNotPresent)
        for cdb in [[0x00], CDB.read(0, 1), CDB.write(0, 1), [0x25], CDB.ten(0x35, at: 0, 0), CDB.ten(0x34, at: 0, 1)] as [[UInt8]] {
            #expect(bench.sense(cdb) == sense)
        }
        var resident = ByteBuffer()
        #expect(!bench.unit.readIfResident(BlockTransfer(logicalBlockAddress: 0, blockCount: 1), nexus: bench.one, into: &resident))
        #expect(bench.status([0x12, 0, 0, 0, 96, 0]) == .good && bench.status([0x1A, 0, 0x3F, 0, 255, 0]) == .good)
        #expect(SenseData(parsing: ByteBuffer(bytes: bench.dataIn([0x03, 0, 0, 0, 252, 0]))) == sense)
        #expect(bench.status(load) == .good && bench.status([0x00]) == .good)
        #expect(bench.sense([0x00], from: bench.two) == SenseData(.unitAttention, .mediumMayHaveChanged))
    }

    @Test("PREVENT of one nexus binds all, until it allows, leaves or the unit is reset")
    func preventing() {
        let prevented = SenseData(.illegalRequest, .mediumRemovalPrevented)
        #expect(bench.status(prevent(1)) == .good && bench.status(prevent(1), from: bench.two) == .good)
        #expect(bench.sense(eject, from: bench.two) == prevented)
        #expect(bench.status(prevent(0), from: bench.two) == .good && bench.sense(eject, from: bench.two) == prevented)
        bench.unit.removeNexus(bench.one)
        #expect(bench.status(eject, from: bench.two) == .good)
        #expect(bench.status(prevent(1), from: bench.two) == .good && bench.sense(load, from: bench.two) == prevented)
        bench.unit.reset {}
        #expect(bench.status(load, from: bench.two) == .checkCondition && bench.status(load, from: bench.two) == .good)
    }

    @Test("A fixed disk ejects nothing")
    func fixed() {
        let fixed = Bench()
        #expect(fixed.sense(eject) == .invalidFieldInCDB(byte: 4, bit: 1) && fixed.status(prevent(1)) == .good)
    }
}

@Suite("WRITE ATOMIC (16)")
struct LogicalUnitWriteAtomicTests {
    let bench = Bench(sectorCount: 16384)

    func writeAtomic(_ address: UInt64, _ count: UInt16) -> [UInt8] {
        [0x9C, 0] + CDB.bytes(address, 8) + [0, 0] + CDB.bytes(UInt64(count), 2) + [0, 0]
    }

    @Test("It is one write, which no read sees a part of")
    func whole() {
        bench.device.isHolding = true
        let write = bench.send(writeAtomic(8, 16), data: sector(3, 16))
        let read = bench.send(CDB.read(0, 16), from: bench.two)
        #expect(bench.device.pendingCount == 1)
        bench.device.answerAll()
        #expect(write.response?.status == .good && bench.device.calls.count { if case .write = $0 { true } else { false } } == 1)
        #expect(read.response?.dataIn.map { Array($0.readableBytesView) } == sector(0, 8) + sector(3, 8))
    }

    @Test("Its length is bounded, and less data than it says is no part of a write")
    func lengths() {
        #expect(bench.sense(writeAtomic(0, 8193), data: [])?.fieldPointer?.byte == 12)
        #expect(bench.sense(writeAtomic(0, 2), data: sector(1))?.code == .invalidFieldInCDB)
        #expect(bench.sense(writeAtomic(16383, 2), data: sector(1, 2)) == .outOfRange)
        #expect(bench.status(writeAtomic(0, 0), data: []) == .good && bench.device.calls.isEmpty)
    }
}
