import LinkProtocol
import NIOCore
import Testing

@testable import Volumes

@Suite struct SendingTurnsTests {
    /// A link whose class has room for some bytes, and senders that have messages of one size each.
    private final class Bench {
        let turns = SendingTurns<Int>()
        var room = 0
        var messageBytes: [Int: Int]
        var backlog: [Int: Int] = [:]
        var sent: [Int: Int] = [:]

        init(messageBytes: [Int: Int]) { self.messageBytes = messageBytes }

        /// As a volume does: sends until it is refused or has nothing more.
        func sendAll(_ sender: Int) {
            let byteCount = messageBytes[sender] ?? 1
            while backlog[sender, default: 0] >= byteCount {
                let isSent = turns.send(byteCount, of: sender) {
                    guard room >= byteCount else { return false }
                    room -= byteCount
                    return true
                }
                guard isSent else { return }
                backlog[sender, default: 0] -= byteCount
                sent[sender, default: 0] += byteCount
            }
        }

        func makeRoom(_ byteCount: Int) {
            room += byteCount
            turns.run { sendAll($0) }
        }
    }

    @Test("who has much to send does not keep others waiting, whatever the size of their messages and whoever comes first")
    func equalShares() {
        let sizes = [1: 16 << 10, 2: 4_096, 3: 150_000, 4: 60]
        let bench = Bench(messageBytes: sizes)
        for sender in 1...4 { bench.backlog[sender] = 1 << 30 }
        for sender in 1...4 { bench.sendAll(sender) }
        for _ in 0..<400 {
            // One of them asks at every occasion.
            bench.sendAll(1)
            bench.makeRoom(300_000)
            bench.sendAll(1)
        }
        let shares = bench.sent.values.map { Double($0) / Double(bench.sent.values.reduce(0, +)) }
        #expect(shares.count == 4 && shares.allSatisfy { abs($0 - 0.25) < 0.01 }, "\(bench.sent)")
    }

    @Test("with room for all nobody is refused, and one alone has everything")
    func alone() {
        let bench = Bench(messageBytes: [1: 16 << 10, 2: 16 << 10])
        bench.room = 100 << 20
        for _ in 0..<100 {
            for sender in 1...2 {
                bench.backlog[sender] = 160 << 10
                bench.sendAll(sender)
                #expect(bench.backlog[sender] == 0)
            }
        }
        bench.room = 0
        bench.backlog[1] = 10 << 20
        bench.sendAll(1)
        for _ in 0..<10 { bench.makeRoom(1 << 20) }
        #expect(bench.backlog[1] == 0)
    }

    @Test("a little of one goes before the rest of another that waits")
    func little() {
        let bench = Bench(messageBytes: [1: 16 << 10, 2: 1_024])
        bench.backlog = [1: 1 << 30]
        bench.sendAll(1)
        bench.backlog[2] = 2_048
        bench.sendAll(2)
        #expect(bench.sent[2] == nil, "the link is full, and the first one waits before it")
        bench.makeRoom(80 << 10)
        #expect(bench.backlog[2] == 0)
    }

    @Test("who has gone, or has nothing more, does not hold up the others; a new session begins anew")
    func gone() {
        let bench = Bench(messageBytes: [1: 1_024, 2: 1_024])
        bench.backlog = [1: 4_096, 2: 4_096]
        bench.sendAll(1)
        bench.sendAll(2)
        bench.backlog[1] = 0
        bench.makeRoom(4_096)
        #expect(bench.backlog[2] == 0)
        bench.backlog[1] = 4_096
        bench.sendAll(1)
        bench.turns.reset()
        bench.room = 8_192
        bench.backlog[2] = 4_096
        bench.sendAll(2)
        #expect(bench.backlog[2] == 0, "nobody waits any more")
    }

    @Test("a link that has room again in the middle of a turn goes on with it")
    func roomWithinTurn() {
        let turns = SendingTurns<Int>()
        var (room, left) = (0, [1: 8, 2: 8])
        func sendAll(_ sender: Int) {
            while left[sender, default: 0] > 0 {
                let isSent = turns.send(1, of: sender) {
                    if room == 0 {
                        // It says so before it returns.
                        room = 3
                        return false
                    }
                    room -= 1
                    return true
                }
                if isSent { left[sender, default: 0] -= 1 } else { return }
            }
        }
        sendAll(1)
        sendAll(2)
        for _ in 0..<20 { turns.run { sendAll($0) } }
        #expect(left == [1: 0, 2: 0])
    }
}

@Suite struct LinkTurnsTests {
    private func answer(_ byteCount: Int) -> LinkMessage { .readData(read: 1, offset: 0, data: ByteBuffer(repeating: 1, count: byteCount)) }

    @Test("who has one short answer does not wait for all of another who has many, and bulk is another matter")
    func shortAnswers() {
        let turns = LinkTurns<Int>()
        var (room, left, sent) = (20, [1: 1_000, 2: 1], [Int]())
        func sendAll(_ sender: Int) {
            while left[sender, default: 0] > 0 {
                let isSent = turns.send(answer(4_096), of: sender, class: .demand, isBulk: false) {
                    room -= 1
                    return room >= 0
                }
                guard isSent else { return }
                left[sender, default: 0] -= 1
                sent.append(sender)
            }
        }
        sendAll(1)
        sendAll(2)
        #expect(sent.count == 20 && !sent.contains(2))
        // The busy one has the next answer ready before the link has room, again and again.
        sendAll(1)
        #expect(turns.send(answer(16_384), of: 3, class: .demand, isBulk: true) { true }, "its queue is not that of short answers")
        room = 40
        turns.run(.demand) { sendAll($0) }
        #expect(sent.contains(2))
        sendAll(1)
        #expect(turns.send(answer(60), of: 4, class: .control, isBulk: false) { true }, "calls and notices have no turns")
        turns.reset()
        #expect(turns.send(answer(4_096), of: 5, class: .demand, isBulk: false) { true })
    }

    @Test(
        "a link that takes everything is handed a bounded amount at once, of all senders together, and the rest when the loop has served others"
    )
    func pauses() {
        let turns = LinkTurns<Int>()
        var (pauses, left, sent) = (0, [1: 400, 2: 400, 3: 400], [Int]())
        turns.onPause = { pauses += 1 }
        // Bulk of two classes, and short answers.
        func sendAll(_ sender: Int) {
            while left[sender, default: 0] > 0 {
                let isSent = turns.send(answer(4_096), of: sender, class: sender == 1 ? .writeBehind : .demand, isBulk: sender != 3) {
                    true
                }
                guard isSent else { return }
                left[sender, default: 0] -= 1
                sent.append(sender)
            }
        }
        for sender in 1...3 { sendAll(sender) }
        #expect(pauses == 1)
        while pauses > 0 {
            #expect(sent.count <= LinkTurns<Int>.bytesAtOnceMax / 4_096)
            // Whoever comes meanwhile gets no more out of it.
            let count = sent.count
            for sender in 1...3 { sendAll(sender) }
            turns.run(.demand) { sendAll($0) }
            #expect(sent.count == count && pauses == 1)
            (pauses, sent) = (0, [])
            turns.goOn { sendAll($0) }
        }
        #expect(left.values.allSatisfy { $0 == 0 })
    }

    @Test("a pause that a new session comes upon ends as any other")
    func pauseAndNewSession() {
        let turns = LinkTurns<Int>()
        var (pauses, left) = (0, 100)
        turns.onPause = { pauses += 1 }
        func sendAll(_: Int) {
            while left > 0, turns.send(answer(4_096), of: 1, class: .writeBehind, isBulk: true, via: { true }) { left -= 1 }
        }
        sendAll(1)
        #expect(pauses == 1 && left > 0)
        turns.reset()
        sendAll(1)
        for _ in 0..<5 { turns.goOn { sendAll($0) } }
        #expect(left == 0)
    }
}
