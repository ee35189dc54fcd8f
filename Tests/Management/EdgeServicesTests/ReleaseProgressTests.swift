import Testing

@testable import EdgeServices

@Suite struct ReleaseProgressTests {
    @Test func itGoesOnWhileThereIsLessToBringHome() {
        var progress = ReleaseProgress()
        let looks = [1_000, 999, 999].map { progress.goesOn(unsentBytes: $0) }
        #expect(looks == [true, true, false])
    }

    @Test func whatIsNotKnownIsNoProgress() {
        var progress = ReleaseProgress()
        let goesOn = progress.goesOn(unsentBytes: nil)
        #expect(!goesOn)
    }
}
