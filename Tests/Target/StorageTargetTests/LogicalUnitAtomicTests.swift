import Blocks
import NIOCore
import SCSI
import Testing

@testable import StorageTarget

@Suite("A logical unit orders commands")
struct LogicalUnitAtomicTests {
    let bench = Bench()

    @Test("COMPARE AND WRITE writes what matches, and says where the rest differs")
    func compareAndWrite() {
        #expect(bench.status(CDB.compareAndWrite(4, 2), data: sector(0, 2) + sector(1, 2)) == .good)
        #expect(bench.sectors(4, 2) == sector(1, 2))
        var wrong = sector(1, 2) + sector(2, 2)
        wrong[513] = 9
        #expect(
            bench.sense(CDB.compareAndWrite(4, 2), data: wrong)
                == SenseData(.miscompare, .miscompareDuringVerifyOperation, information: 513))
        #expect(bench.sectors(4, 2) == sector(1, 2))
        #expect(bench.response(CDB.compareAndWrite(4, 0), data: []) == .good)
    }

    @Test("COMPARE AND WRITE with data of another length")
    func compareAndWriteLengths() {
        #expect(bench.sense(CDB.compareAndWrite(4, 2), data: sector(0, 3))?.code == .invalidFieldInCDB)
        #expect(bench.sense(CDB.compareAndWrite(4, 2), data: sector(0, 4), offered: 4096)?.code == .invalidFieldInCDB)
        #expect(bench.device.calls.isEmpty)
    }

    @Test("ORWRITE sets bits")
    func orWrite() {
        bench.device.bytes.replaceSubrange(0..<512, with: sector(0x0F))
        #expect(bench.status(CDB.sixteen(0x8B, at: 0, 1), data: sector(0x31)) == .good)
        #expect(bench.sectors(0, 1) == sector(0x3F))
        #expect(bench.sense(CDB.sixteen(0x8B, at: 0, 2), data: sector(0x31))?.code == .invalidFieldInCDB)
    }

    @Test("Of two that compare with the same value, one wins")
    func atomicity() {
        bench.device.isHolding = true
        let first = bench.send(CDB.compareAndWrite(0, 1), data: sector(0) + sector(1))
        let second = bench.send(CDB.compareAndWrite(0, 1), data: sector(0) + sector(2), from: bench.two)
        let read = bench.send(CDB.read(0, 1))
        let elsewhere = bench.send(CDB.read(8, 1))
        // The first's read and the read elsewhere are under way; the others wait.
        #expect(bench.device.pendingCount == 2)
        bench.device.answerAll()
        #expect(first.response?.status == .good && elsewhere.response?.status == .good)
        #expect(second.response?.sense?.key == .miscompare)
        #expect(read.response?.dataIn.map { Array($0.readableBytesView) } == sector(1))
    }

    @Test("It waits for a write that is under way")
    func waitsForWrites() {
        bench.device.isHolding = true
        bench.send(CDB.write(0, 1), data: sector(5))
        let swap = bench.send(CDB.compareAndWrite(0, 1), data: sector(5) + sector(6))
        #expect(bench.device.pendingCount == 1)
        bench.device.answerAll()
        #expect(swap.response?.status == .good && bench.sectors(0, 1) == sector(6))
    }

    @Test("An ORDERED task is after what was before it and before what is after it")
    func ordered() {
        bench.device.isHolding = true
        bench.send(CDB.write(0, 1), data: sector(1))
        let ordered = bench.send(CDB.write(100, 1), data: sector(2), attribute: .ordered)
        let later = bench.send(CDB.write(200, 1), data: sector(3))
        #expect(bench.device.calls.count == 1)
        bench.device.answerOne()
        #expect(bench.device.calls.count == 2 && ordered.response == nil)
        bench.device.answerOne()
        #expect(ordered.response?.status == .good && later.response == nil)
        bench.device.answerAll()
        #expect(later.response?.status == .good)
    }

    @Test("Aborted tasks that wait end at once, those under way when the device has answered")
    func aborting() {
        bench.device.isHolding = true
        let running = bench.send(CDB.compareAndWrite(0, 1), data: sector(0) + sector(1), tag: 7)
        let waiting = bench.send(CDB.write(0, 1), data: sector(2), tag: 8)
        let other = bench.send(CDB.read(50, 1), from: bench.two)
        var isDone = false
        bench.unit.abortTasks(.nexus(bench.one)) { isDone = true }
        #expect(waiting.response?.status == .taskAborted && running.response == nil && !isDone)
        bench.device.answerAll()
        #expect(running.response?.status == .taskAborted && isDone && other.response?.status == .good)
        // The compare was under way, so the write after it was not begun.
        #expect(bench.sectors(0, 1) == sector(0))
    }

    @Test("ABORT TASK finds its task, or nothing to wait for")
    func abortingOne() {
        bench.device.isHolding = true
        let first = bench.send(CDB.read(0, 1), tag: 1)
        let second = bench.send(CDB.read(0, 1), tag: 2)
        var done = 0
        bench.unit.abortTasks(.task(nexus: bench.one, tag: 2)) { done += 1 }
        bench.unit.abortTasks(.task(nexus: bench.two, tag: 1)) { done += 1 }
        #expect(done == 1)
        bench.device.answerAll()
        #expect(done == 2 && first.response?.status == .good && second.response?.status == .taskAborted)
    }

    @Test("A WRITE SAME that was aborted stops between its writes")
    func abortingSteps() {
        bench.device.isHolding = true
        let box = bench.send(CDB.sixteen(0x93, at: 0, 2048), data: sector(1))
        bench.unit.abortTasks(.all) {}
        bench.device.answerAll()
        #expect(box.response?.status == .taskAborted && bench.device.calls.count == 1)
    }

    @Test("A reset aborts, releases, restores and tells")
    func reset() {
        #expect(bench.status([0x16]) == .good)
        bench.device.isHolding = true
        let box = bench.send(CDB.read(0, 1))
        var isDone = false
        bench.unit.reset { isDone = true }
        #expect(!isDone)
        bench.device.answerAll()
        #expect(isDone && box.response?.status == .taskAborted)
        for nexus in [bench.one, bench.two] {
            #expect(bench.sense([0x00], from: nexus) == SenseData(.unitAttention, .busDeviceResetFunctionOccurred))
            #expect(bench.status([0x00], from: nexus) == .good)
        }
    }
}

/// The table behind a reference, because an expectation cannot change a value.
private final class LockTable {
    private var locks = LogicalUnitRangeLocks()

    var isEmpty: Bool { locks.isEmpty }
    var hasExclusive: Bool { locks.hasExclusive }

    func acquire(_ identifier: UInt64, _ range: SectorRange, _ mode: LogicalUnitRangeLocks.Mode, atFront: Bool = false) -> Bool {
        locks.acquire(identifier, range, mode, atFront: atFront)
    }

    func release(_ identifier: UInt64) -> [UInt64] { locks.release(identifier) }
}

@Suite("Range locks")
struct LogicalUnitRangeLockTests {
    func range(_ start: UInt64, _ end: UInt64) -> SectorRange { SectorRange(from: start, to: end) }

    @Test("Shared ranges overlap, exclusive ones wait in order")
    func order() {
        let locks = LockTable()
        #expect(locks.acquire(1, range(0, 8), .shared))
        #expect(locks.acquire(2, range(4, 12), .shared))
        #expect(!locks.acquire(3, range(4, 5), .exclusive))
        // A later reader of the same sectors waits behind, so the writer does not starve; others pass.
        #expect(!locks.acquire(4, range(0, 8), .shared))
        #expect(locks.acquire(5, range(100, 101), .shared))
        #expect(locks.hasExclusive)
        #expect(locks.release(1) == [])
        #expect(locks.release(2) == [3])
        #expect(locks.release(3) == [4])
        #expect(locks.release(4) == [] && locks.release(5) == [] && locks.isEmpty && !locks.hasExclusive)
    }

    @Test("Giving up a wait lets those behind it pass")
    func givingUp() {
        let locks = LockTable()
        #expect(locks.acquire(1, range(0, 8), .shared))
        #expect(!locks.acquire(2, LogicalUnitRangeLocks.everything, .exclusive))
        #expect(!locks.acquire(3, range(0, 8), .shared))
        #expect(locks.release(2) == [3])
        #expect(!locks.hasExclusive)
    }

    @Test("The head of the queue goes before those that wait")
    func headOfQueue() {
        let locks = LockTable()
        #expect(locks.acquire(1, range(0, 8), .shared))
        #expect(!locks.acquire(2, range(0, 8), .exclusive))
        #expect(locks.acquire(3, range(0, 8), .shared, atFront: true))
        #expect(locks.release(1) == [] && locks.release(3) == [2])
    }
}
