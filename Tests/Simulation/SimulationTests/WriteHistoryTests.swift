import Blocks
import Testing

@testable import SimulatedWorlds

@Suite struct WriteHistoryTests {
    /// A write, another, and zeroes over the other: what is left looks as if only the first had been.
    private func hidden() -> (history: WriteHistory, before: [UInt64], between: [UInt64]) {
        let history = WriteHistory(sectorCount: 4, pattern: 1, order: WriteHistory.Order())
        _ = history.record(SectorRange(from: 0, to: 2), isZeroes: false)
        _ = history.record(SectorRange(from: 2, to: 4), isZeroes: false)
        _ = history.record(SectorRange(from: 2, to: 4), isZeroes: true)
        return (history, [1, 1, 0, 0], [1, 1, 2, 2])
    }

    /// What has survived a crash may be all of it, and a disk at home that has the second write is no fault (seed 54678).
    @Test func whatLooksAlikeCountsAsThereAfterACrash() {
        let (history, before, between) = hidden()
        #expect(history.longestPrefix(showing: before, notBefore: 0) == 3)
        history.forget(after: 3)
        #expect(history.cut(showing: between) != nil)
        #expect(history.longestPrefix(showing: between, notBefore: 0) == 2)
        #expect(history.longestPrefix(showing: between, notBefore: 3) == nil)
        #expect(history.longestPrefix(showing: before, notBefore: 4) == nil)
    }

    /// A disk may be on its way, and show the second write yet.
    @Test func aDiskIsTakenForNoFurtherThanItMustBe() {
        let (history, before, between) = hidden()
        let through = history.prefix(showing: before, notBefore: 0)
        #expect(through == 1)
        #expect(history.prefix(showing: between, notBefore: through ?? 0) == 2)
        #expect(history.prefix(showing: before, notBefore: 2) == 3)
    }
}
