import Testing

@testable import EdgeServices

@Suite struct ReleaseProgressTests {
    @Test func itGoesOnWhileThereIsLessToBringHome() {
        var progress = ReleaseProgress()
        let looks = [1_000, 999, 999].map { progress.goesOn(unsentBytes: $0, applied: 0) }
        #expect(looks == [true, true, false])
    }

    @Test func whatIsNotKnownIsNoProgress() {
        var progress = ReleaseProgress()
        let goesOn = progress.goesOn(unsentBytes: nil, applied: 0)
        #expect(!goesOn)
    }

    @Test func whatIsPutOnTheDiskIsProgressToo() {
        var progress = ReleaseProgress()
        let looks = [(10, 1), (0, 1), (0, 2), (0, 2)].map { progress.goesOn(unsentBytes: $0.0, applied: $0.1) }
        #expect(looks == [true, true, true, false])
    }
}
