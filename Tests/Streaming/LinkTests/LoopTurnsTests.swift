import NIOCore
import NIOPosix
import Testing

@testable import Link

@Suite(.timeLimit(.minutes(1))) struct LoopTurnsTests {
    /// Tasks that follow one another for a while, without the loop's looking at its sockets in between.
    private static func keepBusy(_ loop: any EventLoop, until deadline: NIODeadline, then done: @escaping @Sendable () -> Void) {
        loop.execute {
            if NIODeadline.now() < deadline { keepBusy(loop, until: deadline, then: done) } else { done() }
        }
    }

    @Test func whatIsPutOffRunsInAnotherTurnHoweverLongThisOneTakes() async throws {
        let turns = LoopTurns()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: turns)
        let loop = group.next()
        let (began, busyUntil, ran) = try await loop.flatSubmit {
            let busy = loop.makePromise(of: UInt64.self)
            let later = loop.makePromise(of: UInt64.self)
            let began = turns.current
            turns.later(on: loop) { later.succeed(turns.current) }
            // A hundred times what the pause is.
            Self.keepBusy(loop, until: .now() + .milliseconds(2)) { busy.succeed(turns.current) }
            return busy.futureResult.and(later.futureResult).map { (began, $0, $1) }
        }.get()
        #expect(busyUntil == began, "all that was one turn")
        #expect(ran > began)
        try await group.shutdownGracefully()
    }

    @Test func turnsAreCountedAsTheLoopIsWoken() async throws {
        let turns = LoopTurns()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: turns)
        let before = turns.current
        for _ in 0..<10 { try await group.next().submit {}.get() }
        #expect(turns.current >= before + 9)
        try await group.shutdownGracefully()
    }
}
