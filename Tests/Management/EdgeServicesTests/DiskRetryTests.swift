import Testing

@testable import EdgeServices

@Test("A disk that is the wrong one is looked at after 5 s, and then less and less often, down to once a minute")
func diskRetry() {
    var retry = DiskRetry()
    var now = ContinuousClock.now
    #expect(retry.isDue(now: now))
    for seconds in [5, 10, 20, 40, 60, 60] {
        retry.refused(now: now)
        #expect(!retry.isDue(now: now + .seconds(seconds) - .milliseconds(1)))
        now += .seconds(seconds)
        #expect(retry.isDue(now: now))
    }
}
