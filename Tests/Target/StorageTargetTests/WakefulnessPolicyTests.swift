import Testing

@testable import StorageTarget

@Suite struct WakefulnessPolicyTests {
    private func arrive(_ count: Int, _ policy: inout WakefulnessPolicy) {
        for _ in 0..<count { _ = policy.arrived() }
    }

    @Test func oneWindowWithManyArrivalsWakes() {
        var policy = WakefulnessPolicy()
        #expect(policy.arrived())
        #expect(!policy.arrived())
        arrive(WakefulnessPolicy.arrivalsMin - 2, &policy)
        #expect(policy.windowEnded() == .wake)
        #expect(policy.isWatching)
    }

    @Test func fewArrivalsLeaveNoTimer() {
        var policy = WakefulnessPolicy()
        arrive(WakefulnessPolicy.arrivalsMin - 1, &policy)
        #expect(policy.windowEnded() == .nothing)
        #expect(!policy.isWatching)
        // The next one begins a window of its own, with a count of its own.
        #expect(policy.arrived())
        #expect(policy.windowEnded() == .nothing)
    }

    @Test func onlyQuietWindowsInARowEndIt() {
        var policy = WakefulnessPolicy()
        arrive(WakefulnessPolicy.arrivalsMin, &policy)
        #expect(policy.windowEnded() == .wake)
        for _ in 1..<WakefulnessPolicy.quietWindowsMax { #expect(policy.windowEnded() == .nothing) }
        arrive(WakefulnessPolicy.arrivalsMin, &policy)
        #expect(policy.windowEnded() == .nothing)
        for _ in 1..<WakefulnessPolicy.quietWindowsMax { #expect(policy.windowEnded() == .nothing) }
        #expect(policy.windowEnded() == .rest)
        #expect(!policy.isWatching && !policy.isAwake)
    }
}
