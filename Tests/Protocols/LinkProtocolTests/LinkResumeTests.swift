import Blocks
import NIOCore
import Testing

@testable import LinkProtocol

/// Two sessions over connections that are cut at any moment: everything arrives once, and in order where that is promised.
@Suite struct LinkResumeTests {
    /// Sends numbered messages in every class from both ends, and checks what arrives.
    final class Traffic {
        let line: SimulatedLine
        var generator: SeededGenerator
        let perClass = 60
        var nextToSend = [[UInt64]](repeating: [UInt64](repeating: 0, count: 5), count: 2)
        var nextInOrder = [[UInt64]](repeating: [UInt64](repeating: 0, count: 5), count: 2)
        var arrived = [[Set<UInt64>]](repeating: [Set<UInt64>](repeating: [], count: 5), count: 2)
        var mistakes: [String] = []
        var sessionsStarted = [0, 0]

        init(seed: UInt64) {
            generator = SeededGenerator(seed: seed)
            var shape = LinkSessionTests.fast
            shape.roundTrip = .microseconds(Int64.random(in: 100...80_000, using: &generator))
            shape.rate = Double.random(in: 500_000...50_000_000, using: &generator)
            line = SimulatedLine(shape, seed: seed &+ 1)
            line.onAction = { [unowned self] end, action in take(end, action) }
        }

        private func take(_ end: End, _ action: LinkAction) {
            switch action {
            case .sessionStarted: sessionsStarted[end.rawValue] += 1
            case .deliver(.request(let number, _, let body), let trafficClass):
                let place = Int(trafficClass.rawValue)
                if !arrived[end.rawValue][place].insert(number).inserted {
                    mistakes.append("\(end) \(trafficClass) \(number) came twice")
                }
                if body.readableBytes != Self.size(number) {
                    mistakes.append("\(end) \(trafficClass) \(number) has a wrong size")
                }
                if trafficClass.isOrdered {
                    if number != nextInOrder[end.rawValue][place] {
                        mistakes.append("\(end) \(trafficClass) \(number) out of order")
                    }
                    nextInOrder[end.rawValue][place] = number + 1
                }
            default: break
            }
        }

        static func size(_ number: UInt64) -> Int { number % 17 == 5 ? 100_000 : Int(number * 2654 % 16_000) }

        /// Sends a few messages, if the session takes them.
        func send() {
            for end in End.allCases {
                for trafficClass in TrafficClass.allCases {
                    let number = nextToSend[end.rawValue][Int(trafficClass.rawValue)]
                    guard number < UInt64(perClass) else { continue }
                    let size = trafficClass.isOrdered ? Self.size(number) : Self.size(number)
                    if !trafficClass.isOrdered, size > 16_000 {
                        nextToSend[end.rawValue][Int(trafficClass.rawValue)] += 1
                        continue
                    }
                    let body = ByteBuffer(repeating: 0, count: size)
                    if line.session(end).enqueue(
                        .request(call: number, method: "n", body: body), trafficClass, isBulk: number % 2 == 0)
                    {
                        nextToSend[end.rawValue][Int(trafficClass.rawValue)] += 1
                    }
                }
                line.pump(end)
            }
        }

        func cutOne() {
            guard let victim = line.open.sorted().randomElement(using: &generator) else { return }
            let lags = (0..<2).map { _ in TimeAmount.microseconds(Int64.random(in: 0...50_000, using: &generator)) }
            line.cut(victim, lags: lags)
        }

        var expectedUnordered: Int { (0..<UInt64(perClass)).count { Self.size($0) <= 16_000 } }

        var isComplete: Bool {
            End.allCases.allSatisfy { end in
                TrafficClass.allCases.allSatisfy {
                    arrived[end.rawValue][Int($0.rawValue)].count == ($0.isOrdered ? perClass : expectedUnordered)
                }
            }
        }

        func run() {
            for _ in 0..<200 {
                while line.open.count < 2, Int.random(in: 0...2, using: &generator) > 0 { line.connect() }
                send()
                line.run(for: .microseconds(Int64.random(in: 0...30_000, using: &generator)))
                if Int.random(in: 0...5, using: &generator) == 0 { cutOne() }
            }
            for _ in 0..<400 where !isComplete {
                while line.open.count < 2 { line.connect() }
                send()
                line.run(for: .milliseconds(100))
            }
        }
    }

    @Test(arguments: 0..<60) func everythingArrivesOnceWhateverIsCut(seed: Int) {
        let traffic = Traffic(seed: UInt64(seed))
        traffic.run()
        #expect(traffic.mistakes.prefix(5) == [])
        #expect(traffic.isComplete)
        #expect(traffic.sessionsStarted == [1, 1])
        for end in End.allCases {
            let statistics = traffic.line.session(end).statistics
            #expect(statistics.classes.allSatisfy { $0.queuedBytes == 0 })
        }
    }
}
