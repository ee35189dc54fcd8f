import Blocks
import NIOCore
import Testing

@testable import LinkProtocol

/// What one end may send at most, in simulated time, on a line of 50 Mbit/s and 20 ms.
@Suite struct LinkShapeTests {
    private final class Load {
        let line: SimulatedLine
        let home: LinkSession
        /// Payload that arrived at the cloud edge, by class.
        var arrived = [Int](repeating: 0, count: TrafficClass.allCases.count)
        private let data = ByteBuffer(repeating: 1, count: LinkLimits.pieceBytes)

        /// - Parameter classes: those that always have more to send.
        init(_ classes: [TrafficClass], rest: Double = 1) {
            line = SimulatedLine(.init(rate: 6_250_000, roundTrip: .milliseconds(20), queue: .milliseconds(20), rest: rest), seed: 5)
            home = line.session(.acceptor)
            line.onAction = { [unowned self] end, action in
                switch (end, action) {
                case (.acceptor, .sessionStarted): for trafficClass in classes { fill(trafficClass) }
                case (.acceptor, .becameWritable(let trafficClass)) where classes.contains(trafficClass): fill(trafficClass)
                case (.initiator, .deliver(.pointData(_, _, _, let data), let trafficClass)):
                    arrived[Int(trafficClass.rawValue)] += data.readableBytes
                case (.initiator, .deliver(.readData(_, _, let data), let trafficClass)):
                    arrived[Int(trafficClass.rawValue)] += data.readableBytes
                default: break
                }
            }
            for _ in 0..<2 { line.connect() }
        }

        private func fill(_ trafficClass: TrafficClass) {
            let isBulk = trafficClass == .demand
            while home.isWritable(trafficClass, isBulk: isBulk) {
                let message: LinkMessage =
                    trafficClass.isOrdered
                    ? .pointData(volume: MessageCodecTests.volume, point: PointNumber(1), start: 0, data: data)
                    : .readData(read: 0, offset: 0, data: data)
                if !home.enqueue(message, trafficClass, isBulk: isBulk) { break }
            }
        }

        /// Bytes a second of each class that arrive within `seconds`.
        func rates(seconds: Int64) -> [TrafficClass: Double] {
            let before = arrived
            line.run(for: .seconds(seconds))
            return Dictionary(
                uniqueKeysWithValues: TrafficClass.allCases.map {
                    ($0, Double(arrived[Int($0.rawValue)] - before[Int($0.rawValue)]) / Double(seconds))
                })
        }
    }

    @Test func aClassSendsNoMoreThanItsLimitAndOthersTheRest() throws {
        let load = Load([.writeBehind, .migration])
        load.home.setShape(LinkShape(classes: [.writeBehind: 1_000_000]), now: load.line.now)
        _ = load.rates(seconds: 4)
        let rates = load.rates(seconds: 8)
        #expect((970_000...1_000_000).contains(try #require(rates[.writeBehind])), "\(rates)")
        #expect(try #require(rates[.migration]) > 4_500_000, "\(rates)")
    }

    @Test func theLinkSendsNoMoreThanItsLimit() throws {
        let load = Load([.writeBehind, .prefetch])
        load.home.setShape(LinkShape(bytesPerSecond: 2_000_000), now: load.line.now)
        _ = load.rates(seconds: 4)
        let rates = load.rates(seconds: 8)
        let sum = rates.values.reduce(0, +)
        #expect((1_940_000...2_000_000).contains(sum), "\(rates)")
        #expect(try #require(rates[.prefetch]) > 20_000, "no class starves: \(rates)")
    }

    /// It is what the line carries that is limited.
    @Test func whatIsCompressedCountsAsWhatIsLeftOfIt() throws {
        let load = Load([.writeBehind], rest: 0.25)
        load.home.setShape(LinkShape(classes: [.writeBehind: 500_000]), now: load.line.now)
        _ = load.rates(seconds: 4)
        #expect((1_940_000...2_000_000).contains(try #require(load.rates(seconds: 8)[.writeBehind])))
    }

    @Test func limitsChangeWhileFramesWait() throws {
        let load = Load([.migration])
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
        let load = Load([.writeBehind])
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
        let load = Load([.writeBehind])
        load.home.setShape(LinkShape(classes: [.writeBehind: 300_000]), now: load.line.now)
        _ = load.rates(seconds: 2)
        for identifier in load.line.open { load.line.cut(identifier) }
        load.line.run(for: .milliseconds(100))
        for _ in 0..<2 { load.line.connect() }
        _ = load.rates(seconds: 2)
        #expect((280_000...303_000).contains(try #require(load.rates(seconds: 8)[.writeBehind])))
    }
}
