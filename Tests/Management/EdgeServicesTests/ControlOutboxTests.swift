import APIModels
import LinkProtocol
import NIOCore
import Testing

@testable import EdgeServices

@Suite struct ControlOutboxTests {
    private func reply(_ call: UInt64, byteCount: Int = 8) -> LinkMessage {
        .reply(call: call, status: 200, body: ByteBuffer(repeating: 1, count: byteCount))
    }

    private func calls(_ messages: [LinkMessage]) -> [UInt64] {
        messages.compactMap { if case .reply(let call, _, _) = $0 { call } else { nil } }
    }

    /// An outbox, and a link that takes so many messages more.
    private final class Bench {
        var outbox = ControlOutbox()
        var room = 0
        var sent: [LinkMessage] = []

        func hand(_ message: LinkMessage) -> Bool {
            if room == 0 { return false }
            room -= 1
            sent.append(message)
            return true
        }

        func send(_ message: LinkMessage) -> Bool { outbox.send(message, via: hand) }

        func makeRoom(_ count: Int) {
            room = count
            outbox.run(via: hand)
        }
    }

    @Test func whatTheLinkRefusesLeavesInOrderWhenItHasRoom() {
        let bench = Bench()
        bench.makeRoom(1)
        for call in 1...4 as ClosedRange<UInt64> { #expect(bench.send(reply(call))) }
        #expect(calls(bench.sent) == [1])
        bench.makeRoom(2)
        bench.room = 2
        #expect(bench.send(reply(5)), "it waits behind those before it")
        bench.makeRoom(2)
        #expect(calls(bench.sent) == [1, 2, 3, 4, 5])
        #expect(bench.send(reply(6)))
        bench.outbox.reset()
        bench.makeRoom(9)
        #expect(calls(bench.sent) == [1, 2, 3, 4, 5])
    }

    @Test func itTakesNoMoreThanItsLimit() {
        let bench = Bench()
        var count = 0
        let byteCount = LinkLimits.controlMessageBytes - 64
        while bench.send(reply(UInt64(count), byteCount: byteCount)) { count += 1 }
        #expect(count == 4)
        bench.makeRoom(4)
        #expect(!bench.send(reply(8, byteCount: byteCount + 64)), "the link would never take it")
        #expect(bench.send(reply(9, byteCount: byteCount)))
    }

    @Test func anAnswerThatIsTooLongBecomesAProblem() throws {
        let short = ControlAnswer(status: 200, body: ByteBuffer(repeating: 1, count: 1_000_000)).fitting(method: "volumes.grants")
        #expect(short.status == 200 && short.body.readableBytes == 1_000_000)
        let long = ControlAnswer(status: 200, body: ByteBuffer(repeating: 1, count: 1 << 20)).fitting(method: "volumes.grants")
        let problem = try ControlCoding.decode(Problem.self, from: long.body)
        #expect(long.status == 500 && problem.code == "answer_too_long" && problem.detail?.contains("volumes.grants") == true)
    }
}
