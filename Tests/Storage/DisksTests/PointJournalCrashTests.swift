import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import Disks

/// Crashes at every step: after each recovery the disk is exactly at the last received point, and no point that was
/// acknowledged as received is missing.
@Suite struct PointJournalCrashTests {
    @Test(arguments: 0..<20) func recoversToASealedPoint(block: UInt64) throws {
        for seed in (block * 2)..<(block * 2 + 2) { try Self.run(seed: seed) }
    }

    private static func run(seed: UInt64) throws {
        let world = JournalWorld(seed: seed)
        var acknowledged: PointNumber = 0
        var applied: PointNumber = 0
        for round in 0..<12 {
            let context: Comment = "seed \(seed), round \(round)"
            let report = try world.report()
            #expect(report.damages.isEmpty, "\(report), \(context)")
            // Opening is cut short now and then, and disks fail.
            var journal: SimulatedJournal?
            world.startOpening { if case .success(let opened) = $0 { journal = opened } }
            let isShort = world.random.chance(percent: 40)
            runSteps(world, isShort ? world.random.within(0...30) : 10_000)
            if let journal {
                #expect(journal.position.received >= acknowledged, context)
                let whole = report.points.last { $0.state == .received }?.number
                #expect(journal.position.received == whole ?? report.position?.applied ?? 0, context)
                #expect(journal.position.applied == journal.position.received, context)
                let isExact = world.disk.content == world.state(after: journal.position.applied)
                #expect(isExact, context)
                acknowledged = journal.position.received
                try work(world, journal, acknowledged: &acknowledged, applied: &applied, context)
            } else {
                #expect(isShort, context)
            }
            world.machine.faults.failsWrites = false
            if world.random.chance(percent: 50) { world.machine.killProcess() } else { world.machine.cutPower() }
        }
        let journal = try #require(try world.open()?.get())
        #expect(journal.position.received >= acknowledged)
        let isExact = world.disk.content == world.state(after: journal.position.applied)
        #expect(isExact, "seed \(seed), at the end")
        #expect(world.directory.names == ["position"])
    }

    /// Sends points one after the other, loses the session now and then, and stops after some steps.
    private static func work(
        _ world: JournalWorld, _ journal: SimulatedJournal, acknowledged: inout PointNumber, applied: inout PointNumber,
        _ context: Comment
    ) throws {
        journal.setLease(3)
        var received = acknowledged
        var lastApplied = applied
        journal.onApplied = { point in
            #expect(point <= received, context)
            lastApplied = point
        }
        // The sender dies with the process.
        var isAlive = true
        defer { isAlive = false }
        func next() {
            guard isAlive, journal.state == .open else { return }
            do throws(PointJournalError) {
                try world.send(journal.position.received + 1, generation: 3, to: journal) { result in
                    if case .success(let position) = result { received = max(received, position.received) }
                    next()
                }
            } catch {
                // Busy, or failed for good: in the first case the next applied point goes on.
                if case .busy = error { world.scheduler.schedule(after: .milliseconds(3)) { next() } }
            }
        }
        next()
        let steps = world.random.within(0...120)
        runSteps(world, steps / 2)
        switch world.random.below(4) {
        case 0: journal.discardUnfinished { next() }
        case 1: world.machine.faults.failsWrites = true
        case 2: if world.random.chance(percent: 30) { journal.close {} }
        default: break
        }
        runSteps(world, steps - steps / 2)
        acknowledged = received
        applied = max(applied, lastApplied)
        journal.onApplied = nil
    }

    private static func runSteps(_ world: JournalWorld, _ count: Int) {
        for _ in 0..<count where !world.scheduler.step() { return }
    }
}
