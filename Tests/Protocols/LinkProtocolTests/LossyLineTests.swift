import NIOCore
import Testing

@testable import LinkProtocol

/// Reads and bulk on a line that loses packets, in simulated time.
@Suite struct LossyLineTests {
    private func readTimes(isLossy: Bool, connections: Int) -> (median: Double, p99: Double, load: SimulatedLoad) {
        let shape = SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(40), queue: .milliseconds(40), loss: 0.01)
        let load = SimulatedLoad([.writeBehind], shape, connections: connections)
        for end in End.allCases { load.line.session(end).setLossy(isLossy) }
        load.line.run(for: .seconds(2))
        let times = (0..<600).map { _ in load.demandRead() }.sorted()
        return (times[300], times[594], load)
    }

    @Test(
        "reads do not wait for bulk that is sent again: the slowest take three quarters of what they take without a second copy, and bulk keeps nine tenths of what it has"
    )
    func reads() {
        let plain = readTimes(isLossy: false, connections: 4)
        let quiet = readTimes(isLossy: true, connections: 4)
        #expect(
            quiet.p99 <= plain.p99 * 0.75 && quiet.median <= plain.median,
            "\(quiet.median), \(quiet.p99) and \(plain.median), \(plain.p99) ms")
        #expect(quiet.median < 48, "\(quiet.median), \(quiet.p99) ms")
        #expect(quiet.load.home.statistics[.demand].framesCopied > 500)
        #expect(plain.load.home.statistics[.demand].framesCopied == 0)
        let rates = [plain.load, quiet.load].map { $0.rates(seconds: 5)[.writeBehind] ?? 0 }
        #expect(rates[1] > 0.9 * rates[0] && rates[1] > 0.85 * 12.5e6, "\(rates)")
    }

    @Test("with two connections one is quiet, with one nothing is", arguments: [1, 2, 3, 8])
    func fewConnections(count: Int) {
        let times = readTimes(isLossy: true, connections: count)
        let copied = times.load.home.statistics.classes.reduce(0) { $0 + $1.framesCopied }
        #expect((copied > 0) == (count >= 4), "\(copied)")
        #expect((times.load.rates(seconds: 2)[.writeBehind] ?? 0) > 2e6)
        #expect(count == 1 || times.median < 54, "\(times.median)")
    }

    /// Which connections of home's have data on their way.
    private func places(_ load: SimulatedLoad) -> [Int] {
        load.home.connections.indices.filter { load.home.connections[$0].inFlightBytes > 0 }
    }

    @Test("of eight connections four carry bulk on a clean line, and on a lossy one all but two; the prompt one never does")
    func cleanConnections() {
        let shape = SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(40), queue: .milliseconds(40))
        let load = SimulatedLoad([.writeBehind], shape, connections: 8)
        #expect(load.home.connections.map(\.isPrompt) == (0..<8).map { $0 == 7 })
        load.line.run(for: .seconds(2))
        #expect(places(load) == [0, 1, 2, 3])
        load.home.setLossy(true)
        load.line.run(for: .seconds(2))
        #expect(places(load) == [1, 2, 3, 4, 5, 6])
        load.home.setLossy(false)
        load.line.run(for: .seconds(2))
        #expect(places(load) == [0, 1, 2, 3])
    }

    @Test(
        "short answers go on the prompt connection, as many as its TCP lets go at once; what is long goes with bulk",
        arguments: [false, true])
    func promptConnection(isLossy: Bool) {
        let shape = SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(10), queue: .milliseconds(40))
        let load = SimulatedLoad([], shape, connections: 4)
        load.line.run(for: .seconds(1))
        let (session, now) = (load.home, load.line.now)
        session.setLossy(isLossy)
        func connections(of answers: Int, byteCount: Int) -> [UInt64] {
            for _ in 0..<answers {
                _ = session.enqueue(.readData(read: 1, offset: 0, data: ByteBuffer(repeating: 1, count: byteCount)), .demand, isBulk: false)
            }
            var found: [UInt64] = []
            while let frame = session.nextTransmission(now: now) {
                if frame.header.kind == .data, !frame.isCopy { found.append(frame.connection.value) }
            }
            return found
        }
        #expect(connections(of: 1, byteCount: LinkLimits.pieceBytes) == [1])
        let short = connections(of: 5, byteCount: 4_096)
        #expect(short.prefix(3) == [4, 4, 4] && !short.dropFirst(3).contains(4) && short.count == 5, "\(short)")
    }

    @Test("there is a prompt connection while there are four, and it is one that has carried nothing else")
    func promptConnectionIsLost() {
        let shape = SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(10), queue: .milliseconds(40))
        let load = SimulatedLoad([.writeBehind], shape, connections: 3)
        func prompts() -> [UInt64] { load.home.connections.filter(\.isPrompt).map(\.identifier.value) }
        /// What the line does next, and that bulk and reads go on.
        func goOn(_ change: () -> Void) -> [UInt64] {
            change()
            load.line.run(for: .seconds(1))
            #expect(load.demandRead() < 100)
            #expect((load.rates(seconds: 1)[.writeBehind] ?? 0) > 1e7)
            return prompts()
        }
        #expect(goOn {} == [])
        #expect(goOn { load.line.connect() } == [4])
        #expect(goOn { load.line.connect() } == [5])
        #expect(goOn { load.line.cut(5) } == [])
        #expect(goOn { load.line.connect() } == [6])
        #expect(goOn { for identifier in [1, 2] as [UInt64] { load.line.cut(identifier) } } == [])
        #expect(goOn { for identifier in [3, 4] as [UInt64] { load.line.cut(identifier) } } == [])
    }

    @Test("one that is lost, which only the other end knows, is prompt no more when another one comes")
    func promptConnectionIsDead() {
        let shape = SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(10), queue: .milliseconds(40))
        let load = SimulatedLoad([.writeBehind], shape, connections: 4)
        load.line.run(for: .seconds(1))
        load.line.cut(4, lags: [.nanoseconds(0), .seconds(9)])
        load.line.run(for: .milliseconds(200))
        load.line.connect()
        load.line.run(for: .milliseconds(200))
        #expect(load.home.connections.filter(\.isPrompt).map(\.identifier.value) == [5])
        #expect(load.demandRead() < 20)
    }

    @Test("the prompt connection carries everything while no other one is established")
    func promptConnectionAlone() {
        let now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        let session = LinkSession(role: .acceptor, random: SimulatedLine.source(SeededGenerator(seed: 1)))
        for identifier in 1...4 as ClosedRange<UInt64> { session.connectionOpened(ConnectionIdentifier(identifier), now: now) }
        let hello = HelloBody(session: 0, incarnation: 7, positions: session.receivers.map { $0.position })
        session.receive(hello.frame(), on: ConnectionIdentifier(4), now: now)
        session.setLossy(true)
        #expect(session.connections.map(\.isPrompt) == [false, false, false, true])
        #expect(session.enqueue(.readData(read: 1, offset: 0, data: ByteBuffer(repeating: 1, count: 4_096)), .demand))
        var connections: [UInt64] = []
        while let frame = session.nextTransmission(now: now) {
            if frame.header.kind == .data { connections.append(frame.connection.value) }
        }
        #expect(connections == [4])
    }

    @Test(
        "where a line that loses packets carries six times as much from one moment to the next, the link makes four fifths of that two seconds later",
        arguments: 1...6 as ClosedRange<UInt64>)
    func lossyGrowth(seed: UInt64) {
        let shape = SimulatedLine.Shape(
            rate: 2e6, roundTrip: .milliseconds(100), queue: .milliseconds(100), loss: 0.01, lossSeed: seed, leastHold: .milliseconds(6))
        let load = SimulatedLoad([.writeBehind], shape, connections: 8)
        for end in End.allCases { load.line.session(end).setLossy(true) }
        load.line.run(for: .seconds(5))
        load.line.shape.rate = 12.5e6
        load.line.run(for: .seconds(2))
        let rate = load.rates(seconds: 1)[.writeBehind] ?? 0
        #expect(rate > 0.8 * 12.5e6, "\(rate)")
    }

    @Test("a short line that loses packets is nine tenths full", arguments: 1...6 as ClosedRange<UInt64>)
    func lossyShortLine(seed: UInt64) {
        let shape = SimulatedLine.Shape(
            rate: 12.5e6, roundTrip: .milliseconds(5), queue: .milliseconds(100), loss: 0.01, lossSeed: seed, leastHold: .milliseconds(1))
        let load = SimulatedLoad([.writeBehind], shape, connections: 8)
        for end in End.allCases { load.line.session(end).setLossy(true) }
        load.line.run(for: .seconds(2))
        let rate = load.rates(seconds: 3)[.writeBehind] ?? 0
        #expect(rate > 0.9 * 12.5e6, "\(rate)")
    }

    @Test("bulk and reads survive connections that are lost, quiet ones too")
    func lostConnections() {
        let shape = SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(10), queue: .milliseconds(40), loss: 0.01)
        let load = SimulatedLoad([.writeBehind], shape, connections: 4)
        for end in End.allCases { load.line.session(end).setLossy(true) }
        load.line.run(for: .seconds(1))
        for identifier in [1, 3, 2] as [UInt64] {
            load.line.cut(identifier)
            #expect(load.demandRead() < 1_000)
            #expect((load.rates(seconds: 1)[.writeBehind] ?? 0) > 1e6)
            load.line.connect()
            load.line.run(for: .milliseconds(200))
        }
    }

    /// A lossy session with four connections, some short answers to send, and the data frames that it sends at once.
    private func copies(_ shape: LinkShape, answers: UInt64, compressedBytes: Int? = nil) -> (
        session: LinkSession, frames: [LinkTransmission]
    ) {
        let load = SimulatedLoad(
            [], SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(10), queue: .milliseconds(40)), connections: 4)
        load.line.run(for: .seconds(1))
        let session = load.line.session(.acceptor)
        session.setLossy(true)
        session.setShape(shape, now: load.line.now)
        for number in 0..<answers {
            _ = session.enqueue(.readData(read: number, offset: 0, data: ByteBuffer(repeating: 1, count: 4_096)), .demand, isBulk: false)
        }
        var frames: [LinkTransmission] = []
        while let frame = session.nextTransmission(now: load.line.now) {
            if let compressedBytes { session.compressed(frame, wireBytes: compressedBytes) }
            if frame.header.kind == .data { frames.append(frame) }
        }
        return (session, frames)
    }

    @Test("a copy counts on the line, and what is known of the frame itself stays as it is")
    func copyIsCounted() {
        let (session, frames) = copies(LinkShape(), answers: 4, compressedBytes: 1_000)
        #expect(frames.map(\.isCopy) == [false, true, false, true, false, true, false, true])
        #expect(session.statistics[.demand].wireBytesSent == 8_000)
        #expect(session.connections.map(\.inFlightBytes).reduce(0, +) == 4_000)
        #expect(session.window.inFlightBytes == 4_000)
    }

    @Test("a copy takes of what the operator allows")
    func copyIsLimited() {
        let (_, frames) = copies(LinkShape(bytesPerSecond: 10_000), answers: 40)
        let byteCounts = frames.map(\.bytes.readableBytes)
        // What an idle limit lets through at once, and the frame that takes the last of it.
        #expect(byteCounts.reduce(0, +) <= 2 * LinkLimits.framePayloadBytes + 2 * (byteCounts.first ?? 0), "\(byteCounts.count)")
        #expect(frames.contains(where: \.isCopy) && frames.count < 80)
    }

    @Test("a line is lossy while some thousandths are sent again, and not for a few segments")
    func estimate() {
        var estimate = LossEstimate()
        estimate.note(sentBytes: 20_000, sentAgainBytes: 2_896)
        #expect(!estimate.isLossy, "two segments")
        for _ in 0..<10 { estimate.note(sentBytes: 10_000_000, sentAgainBytes: 5_000) }
        #expect(!estimate.isLossy && estimate.share < 0.001)
        for _ in 0..<10 { estimate.note(sentBytes: 10_000_000, sentAgainBytes: 100_000) }
        #expect(estimate.isLossy && estimate.share > 0.005)
        for _ in 0..<5 { estimate.note(sentBytes: 10_000_000, sentAgainBytes: 0) }
        #expect(estimate.isLossy, "losses come in bursts")
        for _ in 0..<40 { estimate.note(sentBytes: 10_000_000, sentAgainBytes: 0) }
        #expect(!estimate.isLossy)
        for _ in 0..<1_000 { estimate.note(sentBytes: 0, sentAgainBytes: 0) }
        #expect(!estimate.isLossy && estimate.share.isFinite)
    }
}
