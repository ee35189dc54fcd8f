import Blocks
import NIOCore
import SCSI
import Testing

@testable import StorageTarget

@Suite("A logical unit is sanitized and formatted")
struct LogicalUnitBackgroundTests {
    let bench = Bench()
    let clock = HandClock()

    init() { bench.device.bytes = [UInt8](repeating: 0xAA, count: bench.device.bytes.count) }

    func overwrite(_ pattern: [UInt8], flags: UInt8 = 1, action: UInt8 = 0x01) -> (cdb: [UInt8], data: [UInt8]) {
        let list = [flags, 0] + CDB.bytes(UInt64(pattern.count), 2) + pattern
        return ([0x48, action, 0, 0, 0, 0, 0] + CDB.bytes(UInt64(list.count), 2) + [0], list)
    }

    @Test("Block and cryptographic erase leave zeroes, at home", arguments: [UInt8(0x02), 0x03])
    func erasing(action: UInt8) {
        #expect(bench.status([0x48, action, 0, 0, 0, 0, 0, 0, 0, 0]) == .good)
        #expect(bench.device.bytes.allSatisfy { $0 == 0 })
        #expect(bench.device.calls == [.writeZeroes(SectorRange(from: 0, to: 4096), .ordered), .settle])
        #expect(bench.status(CDB.read(0, 1)) == .good)
    }

    @Test("OVERWRITE writes its pattern through every block, pass after pass")
    func overwriting() {
        let command = overwrite([1, 2, 3], flags: 0x82)
        #expect(bench.status(command.cdb, data: command.data) == .good)
        // 512 is no multiple of 3, so each block starts anew; the second pass is the inverse.
        let expected = (0..<512).map { UInt8($0 % 3 + 1) ^ 0xFF }
        #expect(bench.sectors(0, 1) == expected && bench.sectors(4095, 1) == expected)
        #expect(bench.device.calls.count { $0 == .settle } == 2)
    }

    @Test("While it runs, commands are told how far it is, but for those about the unit")
    func inProgress() {
        bench.unit.delay = clock.delay
        let command = overwrite([7], action: 0x81)
        #expect(bench.status(command.cdb, data: command.data) == .good)
        // One of the two mebibytes is written; the other waits for its time.
        let sense = SenseData(.notReady, .sanitizeInProgress, progress: 0x8000)
        let tooEarly: [[UInt8]] = [[0x00], CDB.read(0, 1), CDB.write(0, 1), CDB.ten(0x35, at: 0, 0), [0x1B, 0, 0, 0, 1, 0], command.cdb]
        for cdb in tooEarly { #expect(bench.sense(cdb, data: nil, from: bench.two) == sense) }
        var resident = ByteBuffer()
        #expect(!bench.unit.readIfResident(BlockTransfer(logicalBlockAddress: 0, blockCount: 1), nexus: bench.one, into: &resident))
        #expect(bench.status([0x12, 0, 0, 0, 96, 0]) == .good && bench.status([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]) == .good)
        #expect(SenseData(parsing: ByteBuffer(bytes: bench.dataIn([0x03, 0, 0, 0, 252, 0]))) == sense)
        clock.runAll()
        #expect(bench.status([0x00]) == .good && bench.device.bytes.allSatisfy { $0 == 7 })
        #expect(SenseData(parsing: ByteBuffer(bytes: bench.dataIn([0x03, 0, 0, 0, 252, 0]))) == SenseData.none)
    }

    @Test("A unit that is taken away stops a SANITIZE, and has ended when its last step has left the disk")
    func retiring() {
        bench.unit.delay = clock.delay
        bench.device.isHolding = true
        let command = overwrite([7], action: 0x81)
        #expect(bench.status(command.cdb, data: command.data) == .good && bench.device.pendingCount == 1)
        var isDone = false
        bench.unit.retire { isDone = true }
        #expect(!isDone)
        bench.device.answerAll()
        let calls = bench.device.calls.count
        clock.runAll()
        #expect(isDone && bench.device.calls.count == calls)
    }

    /// As when a detach has failed, and the volume is served again.
    @Test("A unit that was taken away and is a target's again does all that it did before")
    func takenAgain() throws {
        bench.unit.retire {}
        let target = try ServedTarget(TargetDescription(name: "iqn.2026-01.example:again", label: "again", units: [(0, bench.unit)])) { _ in
        }
        #expect(target.numbers.count == 1)
        #expect(bench.unit.addNexus(bench.one, initiatorPortName: "iqn.initiator-again,i,0x1"))
        #expect(bench.sense([0x00])?.code == .powerOnResetOrBusDeviceReset)
        let command = overwrite([5])
        #expect(bench.status(command.cdb, data: command.data) == .good)
        #expect(bench.device.bytes.allSatisfy { $0 == 5 })
    }

    @Test(
        "A unit that is taken away has ended when a flush and a PRE-FETCH have that were answered at once", arguments: [UInt8(0x35), 0x34])
    func retiringBehindAnAnswer(code: UInt8) {
        bench.device.isHolding = true
        #expect(bench.status(CDB.ten(code, 2, at: 0, 16)) == .good && bench.device.pendingCount == 1)
        var isDone = false
        bench.unit.retire { isDone = true }
        #expect(!isDone)
        bench.device.answerAll()
        #expect(isDone)
    }

    @Test("A reset, an abort and a lost session give up the answer, not the operation")
    func outliving() {
        bench.unit.delay = clock.delay
        let command = overwrite([7])
        let box = bench.send(command.cdb, data: command.data, tag: 5)
        #expect(box.response == nil)
        var isDone = false
        bench.unit.abortTasks(.task(nexus: bench.one, tag: 5)) { isDone = true }
        #expect(isDone && box.response?.status == .taskAborted)
        bench.unit.reset {}
        bench.unit.removeNexus(bench.one)
        #expect(bench.sense([0x00], from: bench.two)?.code == .busDeviceResetFunctionOccurred)
        #expect(bench.sense([0x00], from: bench.two)?.code == .sanitizeInProgress)
        clock.runAll()
        #expect(bench.status([0x00], from: bench.two) == .good && bench.device.bytes.allSatisfy { $0 == 7 })
    }

    @Test("It waits for what is under way, and nothing comes between")
    func exclusive() {
        bench.device.isHolding = true
        let earlier = bench.send(CDB.write(0, 1), data: sector(1))
        let erase = bench.send([0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0], from: bench.two)
        #expect(bench.device.calls.count == 1)
        bench.device.answerAll()
        #expect(earlier.response?.status == .good && erase.response?.status == .good && bench.sectors(0, 1) == sector(0))
    }

    @Test("A link that is down or a log that is full only delays it")
    func retrying() {
        bench.unit.delay = clock.delay
        bench.device.error = .unreachable("x")
        let box = bench.send([0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0])
        clock.runNext()
        bench.device.error = .noSpace("x")
        clock.runNext()
        #expect(box.response == nil)
        bench.device.error = nil
        clock.runAll()
        #expect(box.response?.status == .good)
    }

    @Test("A failure stays until a SANITIZE succeeds, or is left where that was allowed", arguments: [UInt8(0x02), 0x22])
    func failing(action: UInt8) {
        bench.device.error = .medium("x")
        let failure = SenseData(.mediumError, .sanitizeCommandFailed)
        #expect(bench.sense([0x48, action, 0, 0, 0, 0, 0, 0, 0, 0]) == failure)
        bench.device.error = nil
        #expect(bench.sense(CDB.read(0, 1)) == failure && bench.sense([0x04, 0, 0, 0, 0, 0]) == failure)
        let exit: [UInt8] = [0x48, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0]
        if action & 0x20 != 0 {
            #expect(bench.status(exit) == .good)
        } else {
            #expect(bench.sense(exit)?.code == .invalidFieldInCDB)
            #expect(bench.status([0x48, action, 0, 0, 0, 0, 0, 0, 0, 0]) == .good)
        }
        #expect(bench.status(CDB.read(0, 1)) == .good && bench.status(exit) == .good)
    }

    @Test("Reservations, write protection and lengths are looked at first")
    func refused() {
        let command = overwrite([1])
        #expect(bench.sense([0x48, 1, 0, 0, 0, 0, 0, 2, 5, 0], data: [UInt8](repeating: 0, count: 517)) == .invalidFieldInCDB(byte: 7))
        #expect(bench.status([0x16], from: bench.two) == .good)
        #expect(bench.status(command.cdb, data: command.data) == .reservationConflict)
        #expect(bench.status([0x17], from: bench.two) == .good)
        bench.device.isWriteProtected = true
        #expect(bench.sense(command.cdb, data: command.data) == SenseData(.dataProtect, .writeProtected))
        #expect(bench.sense([0x04, 0, 0, 0, 0, 0]) == SenseData(.dataProtect, .writeProtected))
        #expect(bench.device.calls.isEmpty)
    }

    @Test("FORMAT UNIT empties the disk, at once or in the background")
    func formatting() {
        #expect(bench.status([0x04, 0, 0, 0, 0, 0]) == .good)
        #expect(bench.device.bytes.allSatisfy { $0 == 0 })
        bench.device.isHolding = true
        let box = bench.send([0x04, 0x10, 0, 0, 0, 0], data: [0, 2, 0, 0])
        #expect(box.response?.status == .good)
        #expect(bench.sense([0x00])?.code == .formatInProgress)
        bench.device.answerAll()
        #expect(bench.status([0x00]) == .good)
        #expect(bench.sense([0x04, 0x10, 0, 0, 0, 0], data: [1, 0, 0, 0])?.code == .invalidFieldInParameterList)
    }
}

/// Time that passes when it is told to.
final class HandClock {
    private var waiting: [() -> Void] = []

    var delay: (TimeAmount, @escaping () -> Void) -> Void {
        { [self] _, work in waiting.append(work) }
    }

    func runNext() {
        if !waiting.isEmpty { waiting.removeFirst()() }
    }

    func runAll() {
        while !waiting.isEmpty { runNext() }
    }
}
