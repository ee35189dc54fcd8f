import Blocks
import NIOCore
import Testing

@testable import LinkProtocol

/// Connections that one end has lost and the other still takes for good.
@Suite struct LinkDoubtTests {
    /// Two ends with eight connections of which one end, and only that, learns that they are gone; then it opens as many anew.
    /// - Parameter fill: has the other end fill the window before that.
    private func cutOneSided(learns end: End, fill: (LinkSession) -> Void) -> (line: SimulatedLine, ends: LinkSessionTests.Ends) {
        let line = SimulatedLine(LinkSessionTests.fast, seed: 3)
        let ends = LinkSessionTests.Ends(line)
        let connections = (0..<8).map { _ in line.connect() }
        line.run(for: .seconds(1))
        fill(line.session(end.other))
        line.run(for: .milliseconds(5))
        var lags = [TimeAmount.nanoseconds(0), .nanoseconds(0)]
        lags[end.other.rawValue] = .hours(1)
        for connection in connections { line.cut(connection, lags: lags) }
        line.run(for: .milliseconds(20))
        for _ in 0..<8 { line.connect() }
        return (line, ends)
    }

    @Test("an end that does not notice that its connections are gone goes on with the new ones", arguments: End.allCases)
    func aCutThatOneEndNotices(_ end: End) {
        let (line, ends) = cutOneSided(learns: end) { session in
            for number in 0..<200 { _ = session.enqueue(LinkSessionTests.notice("\(number)", 15_000), .writeBehind, isBulk: true) }
        }
        let other = line.session(end.other)
        let counted = ends.methods(end).count
        #expect(other.statistics[.writeBehind].unacknowledgedBytes > 0)
        line.run(for: .milliseconds(50))
        // What is waited for goes at once, on a connection that is known to live.
        #expect(other.enqueue(LinkSessionTests.notice("urgent", 100), .demand))
        line.run(for: .milliseconds(30))
        #expect(ends.methods(end).contains("urgent"))
        // What was on its way goes again soon.
        line.run(for: .milliseconds(500))
        #expect(ends.methods(end).count > counted + 1)
        let bulk = ends.methods(end).filter { $0 != "urgent" }
        #expect(bulk == bulk.indices.map { "\($0)" })
        #expect(other.statistics[.writeBehind].unacknowledgedBytes == 0)
        #expect(other.statistics.connections == 16)
        // The dead ones end as any silent one.
        line.run(for: .seconds(10))
        #expect(other.statistics.connections == 8)
        #expect(ends[end.other].count { $0 == .sessionStarted } == 1)
    }

    @Test(
        "short answers that fill the window on connections that are gone are sent again when the doubt has lasted", arguments: End.allCases)
    func aWindowFullOfShortAnswers(_ end: End) {
        let (line, ends) = cutOneSided(learns: end) { session in
            for number in 0..<500 { _ = session.enqueue(LinkSessionTests.notice("\(number)", 4_000), .demand) }
        }
        line.run(for: .milliseconds(700))
        #expect(Set(ends.methods(end)).count == ends.methods(end).count && ends.methods(end).count > 200)
        #expect(line.session(end.other).statistics[.demand].unacknowledgedBytes == 0)
    }

    @Test("connections that were given up are doubted again when the one that was trusted has gone, and another comes")
    func givenUpTwice() {
        let line = SimulatedLine(LinkSessionTests.fast, seed: 8)
        let ends = LinkSessionTests.Ends(line)
        let dead = (0..<8).map { _ in line.connect() }
        line.run(for: .seconds(1))
        for connection in dead { line.cut(connection, lags: [.nanoseconds(0), .hours(1)]) }
        line.run(for: .milliseconds(30))
        let first = line.connect()
        line.run(for: .milliseconds(800))
        #expect(line.session(.acceptor).connections.count(where: \.isGivenUp) == 8)
        line.cut(first)
        line.run(for: .milliseconds(20))
        for number in 0..<200 {
            _ = line.session(.acceptor).enqueue(LinkSessionTests.notice("\(number)", 15_000), .writeBehind, isBulk: true)
        }
        line.run(for: .milliseconds(100))
        #expect(ends.methods(.initiator).isEmpty && line.session(.acceptor).statistics[.writeBehind].framesSent > 0)
        line.connect()
        line.run(for: .seconds(1))
        #expect(line.session(.acceptor).statistics[.writeBehind].unacknowledgedBytes == 0)
        let methods = ends.methods(.initiator)
        #expect(!methods.isEmpty && methods == methods.indices.map { "\($0)" })
    }

    @Test("what one end has received is told again when the connection that took the word is given up")
    func aWordThatWasLost() {
        let line = SimulatedLine(LinkSessionTests.fast, seed: 9)
        let ends = LinkSessionTests.Ends(line)
        let dead = line.connect()
        line.run(for: .seconds(1))
        line.session(.initiator).setReceiving(false, .writeBehind, now: line.now)
        while line.session(.acceptor).enqueue(LinkSessionTests.notice("bulk", 15_000), .writeBehind) { line.run(for: .milliseconds(20)) }
        line.run(for: .seconds(1))
        let before = ends.methods(.initiator).count
        // The connection is dead, and neither end knows.
        line.cut(dead, lags: [.hours(1), .hours(1)])
        line.run(for: .milliseconds(50))
        line.connect()
        line.run(for: .milliseconds(2))
        line.session(.initiator).setReceiving(true, .writeBehind, now: line.now)
        line.run(for: .seconds(2))
        #expect(ends.methods(.initiator).count > before)
        #expect(line.session(.acceptor).statistics[.writeBehind].queuedBytes == 0)
    }

    @Test("a connection in doubt that answers goes on") func aConnectionThatAnswers() {
        let line = SimulatedLine(LinkSessionTests.fast, seed: 4)
        let ends = LinkSessionTests.Ends(line)
        for _ in 0..<4 {
            line.connect()
            line.run(for: .seconds(3))
        }
        for end in End.allCases {
            #expect(line.session(end).statistics.connections == 4)
            let ended = ends[end].count { if case .closeConnection = $0 { true } else { false } }
            let doubted = line.session(end).connections.count { !$0.isTrusted }
            #expect(ended == 0 && doubted == 0)
        }
    }

    @Test("a busy link that loses one connection and opens another sends nothing of the others again", arguments: [0, 0.01])
    func oneOfMany(loss: Double) {
        let shape = SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(40), queue: .milliseconds(40), loss: loss)
        let load = SimulatedLoad([.writeBehind], shape, connections: 8)
        for end in End.allCases { load.line.session(end).setLossy(loss > 0) }
        load.line.run(for: .seconds(2))
        for _ in 0..<10 {
            let prompt = load.home.connections.first(where: \.isPrompt)?.identifier.value
            let victim = load.line.open.sorted().first { $0 != prompt }
            let before = load.home.statistics[.writeBehind].framesSentAgain
            let onVictim = load.home.connections.first { $0.identifier.value == victim }?.inFlightBytes ?? 0
            if let victim { load.line.cut(victim) }
            load.line.run(for: .milliseconds(100))
            load.line.connect()
            load.line.run(for: .seconds(1))
            let again = load.home.statistics[.writeBehind].framesSentAgain - before
            #expect(Int(again) <= onVictim / LinkLimits.pieceBytes + 2, "\(again) frames again")
            #expect(load.home.statistics.connections == 8)
            #expect(load.demandRead() < 80)
        }
        #expect((load.rates(seconds: 3)[.writeBehind] ?? 0) > 0.85 * 12.5e6)
    }

    @Test("on a line with a long way nothing is sent again before its answer could be there", arguments: [1_900, 2_500, 4_000])
    func aLongWay(milliseconds: Int64) {
        var shape = LinkSessionTests.fast
        shape.roundTrip = .milliseconds(milliseconds)
        let line = SimulatedLine(shape, seed: 5)
        for number in 0..<3 {
            line.connect()
            line.run(for: .seconds(12))
            for end in End.allCases { _ = line.session(end).enqueue(LinkSessionTests.notice("\(number)", 10_000), .writeBehind) }
            line.run(for: .milliseconds(100))
        }
        line.run(for: .seconds(12))
        for end in End.allCases {
            let statistics = line.session(end).statistics
            #expect(statistics.connections == 3 && statistics[.writeBehind].framesSentAgain == 0)
            #expect(statistics.roundTripMilliseconds.map { abs($0 - Double(milliseconds)) < 50 } == true)
        }
    }

    @Test("the only connection that is trusted ends while the others are in doubt: they carry what there is")
    func theTrustedOneEnds() {
        let line = SimulatedLine(LinkSessionTests.fast, seed: 6)
        let ends = LinkSessionTests.Ends(line)
        for _ in 0..<3 { line.connect() }
        line.run(for: .seconds(1))
        let newest = line.connect()
        // The hello is there, and no answer to a ping yet.
        line.run(for: .milliseconds(6))
        line.cut(newest)
        line.run(for: .milliseconds(1))
        for end in End.allCases { #expect(line.session(end).enqueue(LinkSessionTests.notice("\(end)", 100), .control)) }
        line.run(for: .milliseconds(50))
        for end in End.allCases { #expect(ends.methods(end) == ["\(end.other)"]) }
    }

    // MARK: Sessions that were left

    private let now = NIODeadline.uptimeNanoseconds(1_000_000_000)

    private func hello(of session: LinkSession, on connection: UInt64) throws -> HelloBody {
        session.connectionOpened(ConnectionIdentifier(connection), now: now)
        let sent = try #require(session.nextTransmission(now: now))
        return try HelloBody.decode(sent.payload)
    }

    private func answer(_ session: LinkSession, on connection: UInt64, naming name: UInt64, _ positions: [ClassPosition]) {
        session.receive(
            HelloBody(session: name, incarnation: name + 100, positions: positions).frame(), on: ConnectionIdentifier(connection), now: now)
    }

    private var atStart: [ClassPosition] { TrafficClass.allCases.map { ClassReceiver($0).position } }

    @Test("an initiator does not go into a session in which frames have arrived that it does not know", arguments: [0, 1])
    func aSessionWithFrames(next: UInt64) throws {
        let session = LinkSession(role: .initiator, random: SimulatedLine.source(SeededGenerator(seed: 6)))
        var positions = atStart
        positions[0].next = next
        positions[0].arrived = [2]
        let before = try hello(of: session, on: 1)
        answer(session, on: 1, naming: 5, positions)
        #expect(session.sessionIdentifier == 0)
        let ended = LinkAction.closeConnection(ConnectionIdentifier(1), .sessionEnded)
        #expect(session.nextAction() == ended)
        #expect(session.nextAction() == nil)
        // The next hello is that of another incarnation, for which the acceptor begins another session.
        let after = try hello(of: session, on: 2)
        #expect(after.incarnation != before.incarnation && after.session == 0)
        answer(session, on: 2, naming: 6, atStart)
        #expect(session.sessionIdentifier == 6 && session.nextAction() == .sessionStarted)
    }

    @Test("an initiator that an old hello has taken out of its session does not go back there") func anOldHello() throws {
        let session = LinkSession(role: .initiator, random: SimulatedLine.source(SeededGenerator(seed: 7)))
        let first = try hello(of: session, on: 1)
        for connection in UInt64(2)...3 { _ = try hello(of: session, on: connection) }
        // Home has started again meanwhile; its first answer comes after the one of its next life.
        answer(session, on: 2, naming: 8, atStart)
        #expect(session.sessionIdentifier == 8)
        answer(session, on: 1, naming: 7, atStart)
        #expect(session.sessionIdentifier == 7)
        answer(session, on: 3, naming: 8, atStart)
        #expect(session.sessionIdentifier == 0)
        let next = try hello(of: session, on: 4)
        #expect(next.incarnation != first.incarnation && next.session == 0)
    }
}
