import Blocks
import NIOCore
import Testing

@testable import LinkProtocol

/// What one end may send at most, in simulated time, on a line of 50 Mbit/s and 20 ms.
@Suite struct LinkShapeTests {
    private static func load(_ classes: [TrafficClass], rest: Double = 1) -> SimulatedLoad {
        SimulatedLoad(classes, .init(rate: 6_250_000, roundTrip: .milliseconds(20), queue: .milliseconds(20), rest: rest))
    }

    @Test func aClassSendsNoMoreThanItsLimitAndOthersTheRest() throws {
        let load = Self.load([.writeBehind, .migration])
        load.home.setShape(LinkShape(classes: [.writeBehind: 1_000_000]), now: load.line.now)
        _ = load.rates(seconds: 4)
        let rates = load.rates(seconds: 8)
        #expect((970_000...1_000_000).contains(try #require(rates[.writeBehind])), "\(rates)")
        #expect(try #require(rates[.migration]) > 4_500_000, "\(rates)")
    }

    @Test func theLinkSendsNoMoreThanItsLimit() throws {
        let load = Self.load([.writeBehind, .prefetch])
        load.home.setShape(LinkShape(bytesPerSecond: 2_000_000), now: load.line.now)
        _ = load.rates(seconds: 4)
        let rates = load.rates(seconds: 8)
        let sum = rates.values.reduce(0, +)
        #expect((1_940_000...2_000_000).contains(sum), "\(rates)")
        #expect(try #require(rates[.prefetch]) > 20_000, "no class starves: \(rates)")
    }

    /// It is what the line carries that is limited.
    @Test func whatIsCompressedCountsAsWhatIsLeftOfIt() throws {
        let load = Self.load([.writeBehind], rest: 0.25)
        load.home.setShape(LinkShape(classes: [.writeBehind: 500_000]), now: load.line.now)
        _ = load.rates(seconds: 4)
        #expect((1_940_000...2_000_000).contains(try #require(load.rates(seconds: 8)[.writeBehind])))
    }

    /// What counts of a piece is what it takes on the line.
    @Test(arguments: [(1, 4096), (0.25, 12_288)]) func piecesThatShrinkMayBeLonger(rest: Double, pieceBytes: Int) {
        let load = Self.load([.writeBehind], rest: rest)
        load.home.setShape(LinkShape(bytesPerSecond: 2_000_000), now: load.line.now)
        _ = load.rates(seconds: 4)
        #expect(load.home.preferredPieceBytes == pieceBytes)
    }

    @Test func limitsChangeWhileFramesWait() throws {
        let load = Self.load([.migration])
        let shapes: [(LinkShape, ClosedRange<Double>)] = [
            (LinkShape(classes: [.migration: 100_000]), 90_000...101_000), (LinkShape(), 5_500_000...6_250_000),
            (LinkShape(bytesPerSecond: 1, classes: [.migration: 4_000_000]), 7_000...8_300), (LinkShape(), 5_500_000...6_250_000),
        ]
        for (shape, expected) in shapes {
            load.home.setShape(shape, now: load.line.now)
            #expect(load.home.shape == shape)
            _ = load.rates(seconds: 6)
            let rate = try #require(load.rates(seconds: 12)[.migration])
            #expect(expected.contains(rate), "\(shape): \(rate)")
        }
    }

    /// Calls, and a small read beside bulk that is held back, wait for nothing but the line.
    @Test func callsAreNeverHeld() throws {
        let load = Self.load([.writeBehind])
        load.home.setShape(LinkShape(bytesPerSecond: 20_000), now: load.line.now)
        _ = load.rates(seconds: 4)
        var answeredAt: UInt64?
        let before = load.line.onAction
        load.line.onAction = { end, action in
            if end == .initiator, case .deliver(.reply, .control) = action { answeredAt = load.line.time }
            before(end, action)
        }
        let start = load.line.time
        #expect(load.home.enqueue(.reply(call: 1, status: 200, body: ByteBuffer(repeating: 1, count: 1000)), .control))
        load.line.run(for: .seconds(2))
        #expect(try #require(answeredAt) - start < 30_000_000)
    }

    @Test func aLimitIsKeptByANewSession() throws {
        let load = Self.load([.writeBehind])
        load.home.setShape(LinkShape(classes: [.writeBehind: 300_000]), now: load.line.now)
        _ = load.rates(seconds: 2)
        for identifier in load.line.open { load.line.cut(identifier) }
        load.line.run(for: .milliseconds(100))
        for _ in 0..<2 { load.line.connect() }
        _ = load.rates(seconds: 2)
        #expect((280_000...303_000).contains(try #require(load.rates(seconds: 8)[.writeBehind])))
    }

    /// A short read is one frame of up to 16 KiB, and goes before bulk in smaller ones, however little a limit lets through.
    @Test(arguments: [true, false]) func smallFramesBelowDoNotStarveALargeOneAbove(areZeroes: Bool) throws {
        let load = Self.load([])
        let home = load.home
        home.setShape(LinkShape(classes: [.demand: 50_000]), now: load.line.now)
        let small = ByteBuffer(repeating: 1, count: 4096)
        func fill() {
            while home.isWritable(.demand, isBulk: true) {
                let message: LinkMessage =
                    areZeroes ? .readZeroes(read: 0, offset: 0, byteCount: 16_384) : .readData(read: 0, offset: 0, data: small)
                if !home.enqueue(message, .demand, isBulk: true) { break }
            }
        }
        var asked: [UInt64: UInt64] = [:]
        var slowest: UInt64 = 0
        load.line.onAction = { end, action in
            switch (end, action) {
            case (.acceptor, .becameWritable(.demand)): fill()
            case (.initiator, .deliver(.readData(let read, _, _), _)):
                if let start = asked.removeValue(forKey: read) { slowest = max(slowest, load.line.time - start) }
            default: break
            }
        }
        load.line.run(for: .seconds(1))
        fill()
        for read in 1...10 as ClosedRange<UInt64> {
            load.line.run(for: .seconds(2))
            asked[read] = load.line.time
            #expect(home.enqueue(.readData(read: read, offset: 0, data: ByteBuffer(repeating: 2, count: 16_384)), .demand))
        }
        load.line.run(for: .seconds(2))
        #expect(asked.isEmpty, "\(asked.count) of 10 have not come")
        // What one frame of bulk owes, and the line.
        #expect(slowest < 500_000_000, "\(slowest / 1_000_000) ms")
    }

    /// Calls may exceed the limit, and hold nothing else for more than a second after.
    @Test func whatCallsOweIsBounded() throws {
        let load = Self.load([.writeBehind])
        load.home.setShape(LinkShape(bytesPerSecond: 100_000), now: load.line.now)
        _ = load.rates(seconds: 2)
        for call in 1...8 as ClosedRange<UInt64> {
            #expect(load.home.enqueue(.reply(call: call, status: 200, body: ByteBuffer(repeating: 1, count: 200_000)), .control))
        }
        _ = load.rates(seconds: 2)
        #expect(try #require(load.rates(seconds: 2)[.writeBehind]) > 80_000)
    }

    /// What a tunnel carries in the class of calls is no call, and holds nothing else for as long as it goes on.
    @Test func bulkAmongCallsKeepsToTheLimit() throws {
        let load = Self.load([.writeBehind])
        load.home.setShape(LinkShape(bytesPerSecond: 400_000), now: load.line.now)
        _ = load.rates(seconds: 2)
        let before = load.line.bytesArrived[End.acceptor.rawValue]
        let pointsBefore = load.arrived[Int(TrafficClass.writeBehind.rawValue)]
        for _ in 0..<400 {
            while load.home.enqueue(.notice(method: "x", body: ByteBuffer(repeating: 1, count: 8_000)), .control, isBulk: true) {}
            load.line.run(for: .milliseconds(10))
        }
        let rate = (load.line.bytesArrived[End.acceptor.rawValue] - before) / 4
        #expect(rate > 350_000 && rate < 440_000, "\(rate)")
        #expect(load.arrived[Int(TrafficClass.writeBehind.rawValue)] - pointsBefore > 4 * 400_000 / 32)
        // A call goes at once, behind the little that waits.
        let asked = load.line.now
        var answered: NIODeadline?
        let heard = load.line.onAction
        load.line.onAction = { end, action in
            heard(end, action)
            if case (.initiator, .deliver(.reply, _)) = (end, action) { answered = load.line.now }
        }
        #expect(load.home.enqueue(.reply(call: 1, status: 200, body: ByteBuffer()), .control))
        load.line.run(for: .seconds(2)) { answered != nil }
        #expect(try #require(answered) - asked < .milliseconds(300))
    }

    @Test("a call does not wait for what a limit holds of a tunnel, nor for reads that take all of the limit")
    func callBehindTunnel() throws {
        let load = Self.load([])
        load.line.run(for: .seconds(1))
        load.home.setShape(LinkShape(bytesPerSecond: 50_000), now: load.line.now)
        for _ in 0..<100 {
            #expect(load.home.enqueue(.readData(read: 0, offset: 0, data: ByteBuffer(repeating: 1, count: 4_096)), .demand))
        }
        while load.home.enqueue(.notice(method: "x", body: ByteBuffer(repeating: 1, count: 8_000)), .control, isBulk: true) {}
        load.line.run(for: .seconds(1))
        var isAnswered = false
        let heard = load.line.onAction
        load.line.onAction = { end, action in
            heard(end, action)
            if case (.initiator, .deliver(.reply, _)) = (end, action) { isAnswered = true }
        }
        #expect(load.home.enqueue(.reply(call: 1, status: 200, body: ByteBuffer()), .control))
        load.line.run(for: .milliseconds(200)) { isAnswered }
        #expect(isAnswered)
    }

    /// What is owed at a high rate does not take minutes at a low one.
    @Test func aLowerLimitDoesNotInheritADebtInBytes() throws {
        let load = Self.load([.writeBehind])
        load.home.setShape(LinkShape(bytesPerSecond: 4_000_000), now: load.line.now)
        _ = load.rates(seconds: 2)
        for call in 1...8 as ClosedRange<UInt64> {
            #expect(load.home.enqueue(.reply(call: call, status: 200, body: ByteBuffer(repeating: 1, count: 200_000)), .control))
        }
        load.line.run(for: .milliseconds(200))
        load.home.setShape(LinkShape(bytesPerSecond: 20_000), now: load.line.now)
        _ = load.rates(seconds: 4)
        #expect(try #require(load.rates(seconds: 8)[.writeBehind]) > 15_000)
    }

    /// Compression and pieces go by what may be sent, not by the line.
    @Test func aLimitIsWhatTheLineIsWorth() throws {
        let load = Self.load([.writeBehind])
        _ = load.rates(seconds: 4)
        #expect(load.home.bytesPerSecond(.writeBehind) > 5_000_000 && load.home.preferredPieceBytes == 12_288)
        load.home.setShape(LinkShape(bytesPerSecond: 1_000_000, classes: [.writeBehind: 100_000]), now: load.line.now)
        #expect(load.home.bytesPerSecond(.writeBehind) == 100_000 && load.home.bytesPerSecond(.demand) == 1_000_000)
        #expect(load.home.preferredPieceBytes == 4096)
    }
}
