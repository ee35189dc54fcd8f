import Blocks
import NIOCore
import Testing

@testable import LinkProtocol

@Suite struct LinkSessionTests {
    static let fast = SimulatedLine.Shape(rate: 10_000_000, roundTrip: .milliseconds(10), queue: .milliseconds(10))

    /// What an end was told, in order.
    final class Ends {
        var actions: [[LinkAction]] = [[], []]

        init(_ line: SimulatedLine) {
            line.onAction = { [unowned self] end, action in actions[end.rawValue].append(action) }
        }

        subscript(end: End) -> [LinkAction] { actions[end.rawValue] }

        func methods(_ end: End) -> [String] {
            self[end].compactMap { action in
                if case .deliver(.notice(let method, _), _) = action { method } else { nil }
            }
        }
    }

    static func notice(_ name: String, _ byteCount: Int = 0) -> LinkMessage {
        .notice(method: name, body: ByteBuffer(repeating: 1, count: byteCount))
    }

    @Test func bothEndsStartOneSessionOverSeveralConnections() {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        #expect(!line.session(.initiator).enqueue(Self.notice("early"), .control))
        for _ in 0..<3 { line.connect() }
        line.run(for: .seconds(1))
        for end in End.allCases {
            #expect(ends[end] == [.sessionStarted, .connectivityChanged(isConnected: true)])
            #expect(line.session(end).statistics.connections == 3)
        }
        #expect(line.session(.initiator).sessionIdentifier == line.session(.acceptor).sessionIdentifier)
        #expect(line.session(.initiator).statistics.baseRoundTripMilliseconds.map { $0 >= 10 && $0 < 11 } == true)
    }

    @Test func aMessageOfManyFramesArrivesWhole() {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        for _ in 0..<2 { line.connect() }
        line.run(for: .seconds(1))
        let body = ByteBuffer(bytes: (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })
        #expect(line.session(.initiator).enqueue(.request(call: 1, method: "big", body: body), .control))
        #expect(!line.session(.initiator).enqueue(.request(call: 2, method: "big", body: body), .demand))
        line.run(for: .seconds(2))
        #expect(ends[.acceptor].last == .deliver(.request(call: 1, method: "big", body: body), .control))
        #expect(line.session(.initiator).statistics[.control].unacknowledgedBytes == 0)
    }

    @Test func aSessionOutlivesItsConnections() {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        let first = line.connect()
        line.run(for: .seconds(1))
        for number in 0..<50 { #expect(line.session(.initiator).enqueue(Self.notice("\(number)", 10_000), .control)) }
        line.run(for: .milliseconds(15))
        line.cut(first)
        line.run(for: .seconds(1))
        #expect(ends[.initiator].last == .connectivityChanged(isConnected: false))
        #expect(line.session(.initiator).enqueue(Self.notice("50"), .control))
        line.connect()
        line.run(for: .seconds(1))
        #expect(ends.methods(.acceptor) == (0...50).map { "\($0)" })
        #expect(ends[.acceptor].count { $0 == .sessionStarted } == 1)
        #expect(line.session(.initiator).statistics[.control].framesSentAgain > 0)
    }

    @Test(arguments: End.allCases) func anEndThatStartsAgainMeansANewSession(_ restarted: End) {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        let first = line.connect()
        line.run(for: .seconds(1))
        line.cut(first)
        line.run(for: .milliseconds(1))
        #expect(line.session(restarted.other).enqueue(Self.notice("lost"), .control))
        line.sessions[restarted.rawValue] = LinkSession(
            role: restarted == .initiator ? .initiator : .acceptor, random: SimulatedLine.source(SeededGenerator(seed: 99)))
        line.connect()
        line.connect()
        line.run(for: .seconds(1))
        #expect(line.session(restarted.other).enqueue(Self.notice("kept"), .control))
        line.run(for: .seconds(1))
        for end in End.allCases { #expect(ends[end].count { $0 == .sessionStarted } == 2) }
        #expect(ends.methods(restarted) == ["kept"])
        #expect(line.session(.initiator).statistics.connections == 2)
    }

    @Test func aSilentConnectionIsEnded() {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        line.connect()
        line.run(for: .seconds(60))
        #expect(line.open.count == 1)
        // From here on the line is so slow that nothing arrives.
        line.shape.roundTrip = .hours(1)
        line.run(for: .seconds(13))
        #expect(line.open.isEmpty)
        let ended = ends[.initiator] + ends[.acceptor]
        #expect(ended.contains { if case .closeConnection(_, .silent) = $0 { true } else { false } })
    }

    @Test func aFullClassRefusesAndSaysWhenThereIsRoom() {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        line.connect()
        line.run(for: .seconds(1))
        let session = line.session(.initiator)
        var accepted = 0
        while session.enqueue(Self.notice("x", 16_000), .migration) { accepted += 1 }
        #expect(!session.isWritable(.migration) && session.isWritable(.writeBehind))
        #expect(session.statistics[.migration].queuedBytes <= LinkLimits.queuedBytes(.migration) + 17_000)
        line.run(for: .seconds(2))
        #expect(ends[.initiator].last == .becameWritable(.migration))
        #expect(ends.methods(.acceptor).count == accepted)
    }

    @Test("before it is granted more, a class sends no more than a receiver of any version takes, and bulk leaves a quarter of that")
    func creditBeforeGrant() throws {
        let sender = ClassSender(.demand)
        let now = NIODeadline.uptimeNanoseconds(1)
        func send(_ lane: Lane) -> Int {
            var byteCount = 0
            while sender.enqueue(
                .readData(read: 0, offset: 0, data: ByteBuffer(repeating: 1, count: 16_000)), isBulk: lane == .bulkDemand, of: nil),
                let cost = sender.head(lane), sender.take(lane, on: ConnectionIdentifier(1), inFlight: 0, now: now) != nil
            { byteCount += cost }
            return byteCount
        }
        let bulk = send(.bulkDemand)
        #expect(bulk <= 6 << 20 && bulk > 6 << 20 - 20_000, "\(bulk)")
        let all = bulk + send(.urgentDemand)
        #expect(all <= 8 << 20 && all > 8 << 20 - 20_000, "\(all)")
        // A receiver of an earlier version grants as much again as it has passed on, and bulk goes on.
        try sender.acknowledge(
            ClassPosition(trafficClass: .demand, next: sender.nextSequence, credit: UInt64(all + 8 << 20), arrived: [])
        ) { _ in }
        #expect(send(.bulkDemand) > 6 << 20 - 40_000)
    }

    @Test("long answers hear of room although short ones keep their own queue more than half full")
    func bulkBesideShortAnswers() {
        let line = SimulatedLine(SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(5), queue: .milliseconds(40)), seed: 1)
        let home = line.session(.acceptor)
        var rooms = 0
        func answer() {
            _ = home.enqueue(.readData(read: 1, offset: 0, data: ByteBuffer(repeating: 1, count: 4_096)), .demand)
        }
        line.onAction = { end, action in
            switch (end, action) {
            case (.acceptor, .becameWritable(.demand)): rooms += 1
            case (.initiator, .deliver(.readData(let read, _, _), _)) where read == 1: answer()
            default: break
            }
        }
        line.connect()
        line.run(for: .seconds(1))
        for _ in 0..<200 { answer() }
        while home.enqueue(.readData(read: 0, offset: 0, data: ByteBuffer(repeating: 1, count: 16_384)), .demand, isBulk: true) {}
        line.run(for: .seconds(3)) { rooms > 0 }
        // A call is on its way within the share of its class.
        var isCalled = false
        _ = home.enqueue(Self.notice("x", 100), .control)
        let heard = line.onAction
        line.onAction = { end, action in
            heard(end, action)
            if case (.initiator, .deliver(.notice, _)) = (end, action) { isCalled = true }
        }
        line.run(for: .milliseconds(200)) { isCalled }
        #expect(isCalled)
        #expect(rooms > 0 && home.isWritable(.demand, isBulk: true))
        #expect(home.statistics[.demand].queuedBytes > LinkLimits.queuedBytes(.demand), "short answers have not made room")
    }

    @Test func aReceiverThatDoesNotReceiveHoldsTheSenderBack() {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        line.connect()
        line.run(for: .seconds(1))
        line.session(.acceptor).setReceiving(false, .writeBehind, now: line.now)
        let session = line.session(.initiator)
        var accepted = 0
        for _ in 0..<100 {
            while session.enqueue(Self.notice("x", 16_000), .writeBehind) { accepted += 1 }
            line.run(for: .milliseconds(100))
        }
        let arrived = ends.methods(.acceptor).count
        #expect(arrived * 16_000 <= LinkLimits.outstandingBytes(.writeBehind))
        #expect(arrived * 16_000 >= LinkLimits.outstandingBytes(.writeBehind) - 40_000)
        #expect(accepted > arrived)
        line.session(.acceptor).setReceiving(true, .writeBehind, now: line.now)
        line.run(for: .seconds(10))
        #expect(ends.methods(.acceptor).count == accepted)
    }

    @Test func everyClassAdvancesAndDemandGoesFirst() {
        let line = SimulatedLine(.init(rate: 1_000_000, roundTrip: .milliseconds(20), queue: .milliseconds(20)), seed: 1)
        line.connect()
        line.run(for: .seconds(1))
        let session = line.session(.acceptor)
        let data = ByteBuffer(repeating: 1, count: 4096)
        func fill() {
            while session.enqueue(.readData(read: 1, offset: 0, data: data), .demand, isBulk: true) {}
            while session.enqueue(.pointData(volume: MessageCodecTests.volume, point: 1, start: 0, data: data), .writeBehind) {}
            while session.enqueue(.readData(read: 2, offset: 0, data: data), .prefetch) {}
            while session.enqueue(Self.notice("m", 4000), .migration) {}
        }
        for _ in 0..<100 {
            fill()
            line.run(for: .milliseconds(100))
        }
        let statistics = session.statistics
        let total = Double(TrafficClass.allCases.reduce(0) { $0 + statistics[$1].wireBytesSent })
        #expect(total > 9_000_000)
        #expect(Double(statistics[.demand].wireBytesSent) / total > 0.8)
        for trafficClass in [TrafficClass.writeBehind, .prefetch, .migration] {
            #expect(Double(statistics[trafficClass].wireBytesSent) / total > 0.02)
        }
    }

    @Test func brokenFramesEndTheirConnectionAndOnlyThat() {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        let bad = line.connect()
        let good = line.connect()
        line.run(for: .seconds(1))
        let wrongHello = HelloBody(session: 1, incarnation: 1, positions: []).frame()
        line.session(.acceptor).receive(wrongHello, on: ConnectionIdentifier(bad), now: line.now)
        line.run(for: .seconds(1))
        #expect(line.open == [good])
        #expect(line.session(.initiator).enqueue(Self.notice("still"), .control))
        line.run(for: .seconds(1))
        #expect(ends.methods(.acceptor) == ["still"])
    }

    @Test func contentThatIsWrongEndsTheSession() {
        let line = SimulatedLine(Self.fast, seed: 1)
        let ends = Ends(line)
        let connection = line.connect()
        line.run(for: .seconds(1))
        let frame = Frame(
            header: FrameHeader(kind: .data, trafficClass: .control, payloadBytes: 1, sequence: 0),
            payload: ByteBuffer(bytes: [0]))
        line.session(.acceptor).receive(frame, on: ConnectionIdentifier(connection), now: line.now)
        line.run(for: .seconds(1))
        #expect(line.open.isEmpty && line.session(.acceptor).sessionIdentifier == 0)
        line.connect()
        line.run(for: .seconds(1))
        for end in End.allCases { #expect(ends[end].count { $0 == .sessionStarted } == 2) }
        #expect(line.session(.initiator).sessionIdentifier == line.session(.acceptor).sessionIdentifier)
    }
}

/// Frames of any kind and content, thrown at a session: it may end connections, and nothing else.
@Suite struct LinkSessionFuzzTests {
    @Test(arguments: 0..<20) func hostileFramesNeverTrapAndMemoryStaysBounded(seed: Int) {
        var generator = SeededGenerator(seed: UInt64(seed) &+ 1000)
        let session = LinkSession(
            role: seed % 2 == 0 ? .acceptor : .initiator, random: SimulatedLine.source(SeededGenerator(seed: 7)))
        var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        var identifier: UInt64 = 0
        var closed = 0
        var open: Set<UInt64> = []
        for _ in 0..<4000 {
            now = now + .milliseconds(Int64.random(in: 0...50, using: &generator))
            if open.count < 3 {
                identifier += 1
                open.insert(identifier)
                session.connectionOpened(ConnectionIdentifier(identifier), now: now)
                let hello = HelloBody(session: 5, incarnation: UInt64.random(in: 1...2, using: &generator), positions: [])
                session.receive(hello.frame(), on: ConnectionIdentifier(identifier), now: now)
            }
            guard let target = open.randomElement(using: &generator) else { continue }
            session.receive(Self.frame(&generator), on: ConnectionIdentifier(target), now: now)
            _ = session.enqueue(.readFailed(read: 1, status: .busy), .demand)
            session.tick(now: now)
            while session.nextTransmission(now: now) != nil {}
            while let action = session.nextAction() {
                guard case .closeConnection(let identifier, _) = action else { continue }
                open.remove(identifier.value)
                closed += 1
            }
            for trafficClass in TrafficClass.allCases {
                let statistics = session.statistics[trafficClass]
                #expect(statistics.unacknowledgedBytes <= LinkLimits.outstandingBytes(trafficClass))
            }
        }
        #expect(closed > 10)
    }

    static func frame(_ generator: inout SeededGenerator) -> Frame {
        let small = UInt64.random(in: 0...6, using: &generator)
        let number: UInt64 =
            [small, small, small, .max, .max - small, UInt64(LinkLimits.windowFrames) &+ small].randomElement(using: &generator)
            ?? 0
        let trafficClass = TrafficClass.allCases.randomElement(using: &generator) ?? .demand
        switch Int.random(in: 0...7, using: &generator) {
        case 0...3:
            var payload = ByteBuffer()
            (MessageCodecTests.messages.randomElement(using: &generator) ?? .readFailed(read: 1, status: .busy)).encode(
                into: &payload)
            if Int.random(in: 0...20, using: &generator) == 0 {
                payload.setInteger(UInt8.random(in: 0...255, using: &generator), at: 0)
            }
            let hasMore = Int.random(in: 0...10, using: &generator) == 0
            return Frame(
                header: FrameHeader(
                    kind: .data, trafficClass: trafficClass, hasMore: hasMore, payloadBytes: payload.readableBytes,
                    sequence: number),
                payload: payload)
        case 4, 5:
            let words = (0..<Int.random(in: 0...3, using: &generator)).map { _ in UInt64.random(in: 0...1, using: &generator) }
            let position = ClassPosition(trafficClass: trafficClass, next: number, credit: .max, arrived: words)
            return AcknowledgementBody(delayMicroseconds: UInt32.random(in: 0 ... .max, using: &generator), positions: [position])
                .frame()
        case 6: return Frame(header: FrameHeader(kind: Bool.random(using: &generator) ? .ping : .pong, sequence: number))
        default:
            var frame = HelloBody(session: number, incarnation: small, positions: []).frame()
            if Bool.random(using: &generator) { frame.payload.moveWriterIndex(to: frame.payload.writerIndex / 2) }
            return frame
        }
    }
}
