import Blocks
import NIOCore
import Testing

@testable import LinkProtocol

/// Connections that one end has lost and the other still takes for good, and a session that an end has left.
@Suite struct LinkDoubtTests {
    /// Two ends with eight connections of which one end, and only that, learns that they are gone; then it opens as many anew.
    private func cutOneSided(_ shape: SimulatedLine.Shape, learns end: End) -> (line: SimulatedLine, ends: LinkSessionTests.Ends) {
        let line = SimulatedLine(shape, seed: 3)
        let ends = LinkSessionTests.Ends(line)
        let connections = (0..<8).map { _ in line.connect() }
        line.run(for: .seconds(1))
        // What is on its way fills the window.
        for number in 0..<200 {
            _ = line.session(end.other).enqueue(LinkSessionTests.notice("\(number)", 15_000), .writeBehind, isBulk: true)
        }
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
        let (line, ends) = cutOneSided(LinkSessionTests.fast, learns: end)
        let counted = ends.methods(end).count
        #expect(line.session(end.other).statistics[.writeBehind].unacknowledgedBytes > 0)
        line.run(for: .milliseconds(100))
        // What is waited for goes at once, on a connection that is known to live.
        #expect(line.session(end.other).enqueue(LinkSessionTests.notice("urgent", 100), .demand))
        line.run(for: .milliseconds(100))
        #expect(ends.methods(end).contains("urgent"))
        // What was on its way goes again when the silence has lasted for long enough.
        line.run(for: .milliseconds(2_500))
        #expect(ends.methods(end).count > counted + 1)
        let bulk = ends.methods(end).filter { $0 != "urgent" }
        #expect(bulk == bulk.indices.map { "\($0)" })
        #expect(line.session(end.other).statistics.connections == 8)
        #expect(line.session(end.other).statistics[.writeBehind].unacknowledgedBytes == 0)
        #expect(ends[end.other].count { $0 == .sessionStarted } == 1)
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
            #expect(ended == 0)
            let doubted = line.session(end).connections.count { !$0.isTrusted }
            #expect(doubted == 0)
        }
    }

    @Test("on a line with a long way nothing is given up before its answer could be there") func aLongWay() {
        var shape = LinkSessionTests.fast
        shape.roundTrip = .milliseconds(1_900)
        let line = SimulatedLine(shape, seed: 5)
        for _ in 0..<2 {
            line.connect()
            line.run(for: .seconds(8))
        }
        for end in End.allCases { #expect(line.session(end).statistics.connections == 2) }
    }

    @Test("an initiator does not go back into a session that it has left") func aSessionThatWasLeft() throws {
        let session = LinkSession(role: .initiator, random: SimulatedLine.source(SeededGenerator(seed: 6)))
        let now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        var positions = TrafficClass.allCases.map { ClassReceiver($0).position }
        positions[0].arrived = [2]
        func hello(_ session: LinkSession, on connection: UInt64) throws -> HelloBody {
            session.connectionOpened(ConnectionIdentifier(connection), now: now)
            let sent = try #require(session.nextTransmission(now: now))
            return try HelloBody.decode(sent.payload)
        }
        let before = try hello(session, on: 1)
        session.receive(HelloBody(session: 5, incarnation: 9, positions: positions).frame(), on: ConnectionIdentifier(1), now: now)
        #expect(session.sessionIdentifier == 0)
        let ended = LinkAction.closeConnection(ConnectionIdentifier(1), .violation("a session that this edge has left"))
        #expect(session.nextAction() == ended)
        #expect(session.nextAction() == nil)
        // The next hello is that of another incarnation, for which the acceptor begins another session.
        let after = try hello(session, on: 2)
        #expect(after.incarnation != before.incarnation && after.session == 0)
        positions[0].arrived = []
        session.receive(HelloBody(session: 6, incarnation: 9, positions: positions).frame(), on: ConnectionIdentifier(2), now: now)
        #expect(session.sessionIdentifier == 6 && session.nextAction() == .sessionStarted)
    }
}
