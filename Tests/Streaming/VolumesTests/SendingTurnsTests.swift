import Blocks
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

    /// A loop on which senders have bulk of one class each, and a link that takes everything.
    private final class TurnBench {
        let turns = LinkTurns<Int>()
        var loopTurn: UInt64 = 1
        var pauses = 0
        var left: [Int: Int]
        var sentInTurn: [Int: Int] = [:]
        private let classes: [Int: TrafficClass]
        private let message: LinkMessage

        init(_ classes: [Int: TrafficClass], count: Int, _ message: LinkMessage) {
            self.classes = classes
            self.message = message
            left = classes.mapValues { _ in count }
            turns.loopTurn = { [unowned self] in loopTurn }
            turns.onPause = { [unowned self] in pauses += 1 }
        }

        func sendAll(_ sender: Int) {
            while left[sender, default: 0] > 0 {
                guard turns.send(message, of: sender, class: classes[sender] ?? .demand, isBulk: true, via: { true }) else { return }
                left[sender, default: 0] -= 1
                sentInTurn[sender, default: 0] += 1
            }
        }

        /// Whoever has something tries, and the link says that it has room.
        func occasion() {
            for sender in classes.keys.sorted() { sendAll(sender) }
            for trafficClass in TrafficClass.allCases { turns.run(trafficClass) { sendAll($0) } }
        }

        /// The loop has looked at its sockets, and the pause is over.
        func nextTurn() {
            (pauses, sentInTurn) = (0, [:])
            loopTurn += 1
            turns.goOn { sendAll($0) }
        }
    }

    @Test("a link that takes everything is handed so much of each class in a turn of the loop, and the rest in those that follow")
    func pauses() {
        let bench = TurnBench([1: .writeBehind, 2: .demand, 3: .demand], count: 400, answer(4_096))
        let most = LinkTurns<Int>.bytesInTurnMax / 4_096 + 1
        var rounds = 1
        bench.occasion()
        while bench.pauses > 0, rounds < 1_000 {
            bench.occasion()
            #expect(bench.pauses == 1, "one pause is asked for, whoever comes meanwhile")
            let (first, others) = (bench.sentInTurn[1, default: 0], bench.sentInTurn[2, default: 0] + bench.sentInTurn[3, default: 0])
            #expect(first <= most && others <= most)
            if bench.left.values.allSatisfy({ $0 > 0 }) { #expect(first > most / 2 && others > most / 2, "no class takes another's part") }
            bench.nextTurn()
            rounds += 1
        }
        #expect(bench.left.values.allSatisfy { $0 == 0 })
        #expect(rounds >= 800 / most)
    }

    @Test("what is sent in many turns of the loop meets no pause, and short answers never do")
    func noPause() {
        let bench = TurnBench([1: .writeBehind], count: 0, answer(4_096))
        for _ in 0..<1_000 {
            bench.left[1] = 16
            bench.sendAll(1)
            bench.loopTurn += 1
        }
        for _ in 0..<1_000 { #expect(bench.turns.send(answer(4_096), of: 2, class: .demand, isBulk: false) { true }) }
        #expect(bench.pauses == 0 && bench.left[1] == 0)
    }

    @Test("blocks that are named count as if they were sent: they were read")
    func namedBlocksCount() {
        let volume = VolumeIdentifier(high: 1, low: 2)
        let message = LinkMessage.pointReferences(
            volume: volume, point: 1, start: 0, source: volume, block: 0, digests: Array(repeating: BlockDigest((1, 2, 3, 4)), count: 16))
        let bench = TurnBench([1: .writeBehind], count: 1_000, message)
        bench.occasion()
        #expect(bench.pauses == 1)
        #expect(bench.sentInTurn[1] == LinkTurns<Int>.bytesInTurnMax / (16 * BlockGeometry.blockBytes))
    }

    @Test("whoever names much does not keep others waiting whose bytes cross")
    func namesAndBytesHaveTurns() {
        let volume = VolumeIdentifier(high: 1, low: 2)
        let turns = LinkTurns<Int>()
        var (loopTurn, pauses, sent) = (UInt64(1), 0, [Int: Int]())
        turns.loopTurn = { loopTurn }
        turns.onPause = { pauses += 1 }
        let named = LinkMessage.pointReferences(
            volume: volume, point: 1, start: 0, source: volume, block: 0, digests: Array(repeating: BlockDigest((1, 2, 3, 4)), count: 16))
        func sendAll(_ sender: Int) {
            while turns.send(sender == 1 ? named : answer(16_384), of: sender, class: .writeBehind, isBulk: true, via: { true }) {
                sent[sender, default: 0] += sender == 1 ? 65_536 : 16_384
            }
        }
        for sender in 1...2 { sendAll(sender) }
        for _ in 0..<200 {
            #expect(pauses == 1)
            pauses = 0
            loopTurn += 1
            turns.goOn { sendAll($0) }
        }
        #expect(abs(sent[1, default: 0] - sent[2, default: 0]) < 20 * 65_536, "\(sent)")
    }

    @Test("a pause that a new session comes upon ends as any other")
    func pauseAndNewSession() {
        let bench = TurnBench([1: .writeBehind], count: 200, answer(4_096))
        bench.occasion()
        #expect(bench.pauses == 1)
        bench.turns.reset()
        bench.occasion()
        var rounds = 0
        while bench.pauses > 0, rounds < 100 {
            bench.nextTurn()
            rounds += 1
        }
        #expect(bench.left[1] == 0)
    }
}
