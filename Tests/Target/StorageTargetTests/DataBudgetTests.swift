import Testing

@testable import StorageTarget

@Suite struct DataBudgetTests {
    private static let long = 65_536
    private static let short = 4096
    private let budget = DataBudget(limit: 16 * DataBudgetTests.long)

    /// Who was granted what, in that order.
    private final class Grants {
        var names: [String] = []
    }
    private let grants = Grants()

    private func wait(_ name: String, _ byteCount: Int) {
        budget.wait(for: byteCount) { [grants] in
            grants.names.append(name)
            return true
        }
    }

    @Test func aShortRequestDoesNotWaitForLongOnes() {
        for number in 0..<20 { wait("long \(number)", Self.long) }
        #expect(grants.names.count == 16 && budget.waitingByteCount == 4 * Self.long)
        #expect(budget.reserve(Self.short))
        wait("short", Self.short)
        #expect(grants.names.last == "short")
        #expect(budget.heldByteCount == 16 * Self.long + 2 * Self.short)
    }

    /// While a long one waits, short ones have an eighth besides.
    @Test func shortOnesDoNotKeepALongOneWaiting() {
        let all = (budget.limit + budget.limit / 8) / Self.short
        for number in 0..<all { #expect(budget.reserve(Self.short) == (number < budget.limit / Self.short)) }
        wait("long", budget.limit / 2)
        for number in 0..<all { wait("short \(number)", Self.short) }
        #expect(grants.names.isEmpty)
        var released = 0
        while grants.names.isEmpty, released < all {
            budget.release(Self.short)
            released += 1
        }
        // What is beyond an eighth went to the long one as soon as that was enough.
        #expect(grants.names.first == "long" && released == (budget.limit / 2 - budget.limit / 8) / Self.short)
        #expect(budget.heldByteCount == budget.limit + budget.limit / 8)
    }

    /// They have their part also beside one that is larger than the limit.
    @Test func shortOnesHaveTheirPartBesideALargeOne() {
        #expect(budget.reserve(20 * Self.long) && budget.reserve(Self.short))
        wait("long", Self.long)
        wait("short", Self.short)
        #expect(grants.names == ["short"])
    }

    @Test func eachQueueIsServedInItsOrder() {
        #expect(budget.reserve(16 * Self.long))
        wait("long 1", 8 * Self.long)
        wait("long 2", Self.long)
        #expect(!budget.reserve(Self.long))
        for _ in 0..<2 * Self.long / Self.short { #expect(budget.reserve(Self.short)) }
        wait("short 1", 2 * Self.short)
        wait("short 2", Self.short)
        #expect(!budget.reserve(Self.short) && grants.names.isEmpty)
        budget.release(Self.short)
        #expect(grants.names.isEmpty)
        budget.release(Self.short)
        #expect(grants.names == ["short 1"])
        budget.release(16 * Self.long)
        // The part of the short ones is used up, and they have more of the rest when no long one waits for it.
        #expect(grants.names == ["short 1", "long 1", "long 2", "short 2"])
    }

    @Test func whatIsLargerThanTheBudgetIsServedAlone() {
        #expect(budget.reserve(Self.long) && budget.reserve(Self.short))
        wait("large", 20 * Self.long)
        #expect(grants.names.isEmpty)
        budget.release(Self.long)
        #expect(grants.names == ["large"])
        wait("long", Self.long)
        wait("short", Self.short)
        budget.release(20 * Self.long)
        #expect(grants.names == ["large", "short", "long"])
        let small = DataBudget(limit: 1000)
        #expect(small.reserve(2000) && !small.reserve(1000) && !small.reserve(1 << 20))
        small.release(2000)
        #expect(small.reserve(1 << 20))
        small.release(1 << 20)
        #expect(small.heldByteCount == 0)
    }

    @Test func whatIsNoLongerWantedIsGivenToTheNext() {
        #expect(budget.reserve(16 * Self.long - Self.long) && budget.reserve(Self.long))
        budget.wait(for: Self.long) { false }
        wait("long", Self.long)
        budget.release(Self.long)
        #expect(grants.names == ["long"] && budget.heldByteCount == 16 * Self.long && budget.waitingByteCount == 0)
    }

    /// Whatever comes and goes: no more is held than there is and what short ones may have besides, and nobody waits when all is back.
    @Test(arguments: 1...20) func itIsBoundedAndEveryoneIsServed(seed: UInt64) {
        var random = seed &* 0x9E37_79B9_7F4A_7C15
        func next(_ bound: Int) -> Int {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(random >> 33) % bound
        }
        final class Held {
            var sizes: [Int] = []
        }
        let held = Held()
        for _ in 0..<5000 {
            if next(3) > 0 || held.sizes.isEmpty {
                let byteCount = next(2) == 0 ? 512 * (1 + next(32)) : 512 * (33 + next(2200))
                if budget.reserve(byteCount) {
                    held.sizes.append(byteCount)
                } else {
                    budget.wait(for: byteCount) {
                        held.sizes.append(byteCount)
                        return true
                    }
                }
            } else {
                budget.release(held.sizes.remove(at: next(held.sizes.count)))
            }
            #expect(budget.heldByteCount == held.sizes.reduce(0, +))
            let largest = held.sizes.max() ?? 0
            #expect(budget.heldByteCount <= max(budget.limit, largest) + budget.limit / 8)
        }
        while let byteCount = held.sizes.popLast() { budget.release(byteCount) }
        #expect(budget.heldByteCount == 0 && budget.waitingByteCount == 0)
    }
}
