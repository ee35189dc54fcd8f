import Testing

@testable import StorageTarget

@Suite struct WakefulnessPolicyTests {
    private func arrive(_ count: Int, _ policy: inout WakefulnessPolicy) {
        for _ in 0..<count { _ = policy.arrived() }
    }

    private func stayQuiet(_ windows: Int, _ policy: inout WakefulnessPolicy) {
        for _ in 0..<windows {
            let action = policy.windowEnded()
            #expect(action == .nothing)
        }
    }

    @Test func oneWindowWithManyArrivalsWakes() {
        var policy = WakefulnessPolicy()
        let answer1 = policy.arrived()
        #expect(answer1)
        let answer2 = policy.arrived()
        #expect(!answer2)
        arrive(WakefulnessPolicy.arrivalsMin - 2, &policy)
        let answer3 = policy.windowEnded()
        #expect(answer3 == .wake)
        #expect(policy.isWatching)
    }

    @Test func fewArrivalsLeaveNoTimer() {
        var policy = WakefulnessPolicy()
        arrive(WakefulnessPolicy.arrivalsMin - 1, &policy)
        let answer4 = policy.windowEnded()
        #expect(answer4 == .nothing)
        #expect(!policy.isWatching)
        // The next one begins a window of its own, with a count of its own.
        let answer5 = policy.arrived()
        #expect(answer5)
        let answer6 = policy.windowEnded()
        #expect(answer6 == .nothing)
    }

    @Test func onlyQuietWindowsInARowEndIt() {
        var policy = WakefulnessPolicy()
        arrive(WakefulnessPolicy.arrivalsMin, &policy)
        let answer7 = policy.windowEnded()
        #expect(answer7 == .wake)
        stayQuiet(WakefulnessPolicy.quietWindowsMax - 1, &policy)
        arrive(WakefulnessPolicy.arrivalsMin, &policy)
        let answer8 = policy.windowEnded()
        #expect(answer8 == .nothing)
        stayQuiet(WakefulnessPolicy.quietWindowsMax - 1, &policy)
        let answer9 = policy.windowEnded()
        #expect(answer9 == .rest)
        #expect(!policy.isWatching && !policy.isAwake)
    }
}
