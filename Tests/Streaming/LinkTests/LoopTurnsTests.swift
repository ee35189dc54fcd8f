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

    @Test func manyThatWaitInALongTurnDoNotKeepItFromEnding() async throws {
        let turns = LoopTurns()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: turns)
        let loop = group.next()
        let count = 1_000
        let (began, ran) = try await loop.flatSubmit {
            let promise = loop.makePromise(of: (UInt64, [UInt64]).self)
            let began = turns.current
            let ran = NIOLoopBoundBox<[UInt64]>([], eventLoop: loop)
            for _ in 0..<count {
                turns.later(on: loop) {
                    ran.value.append(turns.current)
                    if ran.value.count == count { promise.succeed((began, ran.value)) }
                }
            }
            Self.keepBusy(loop, until: .now() + .milliseconds(2)) {}
            return promise.futureResult
        }.get()
        #expect(ran.allSatisfy { $0 > began })
        try await group.shutdownGracefully()
    }

    @Test func eachPutOffInTheOnesBeforeRunsInATurnOfItsOwn() async throws {
        let turns = LoopTurns()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: turns)
        let loop = group.next()
        let promise = loop.makePromise(of: [UInt64].self)
        @Sendable func goOn(_ ran: [UInt64]) {
            if ran.count == 50 { return promise.succeed(ran) }
            turns.later(on: loop) { goOn(ran + [turns.current]) }
        }
        loop.execute { goOn([turns.current]) }
        let ran = try await promise.futureResult.get()
        #expect(zip(ran, ran.dropFirst()).allSatisfy { $0 < $1 })
        try await group.shutdownGracefully()
    }
}
