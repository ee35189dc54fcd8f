import NIOCore
import Testing

@testable import LinkProtocol

/// Many reads of 4 KiB at once with nothing else on the line, as of a database, in simulated time.
@Suite struct ShortReadTests {
    private static func load(loss: Double, connections: Int, seed: UInt64 = 77) -> SimulatedLoad {
        let shape = SimulatedLine.Shape(rate: 12.5e6, roundTrip: .milliseconds(40), queue: .milliseconds(40), loss: loss, lossSeed: seed)
        let load = SimulatedLoad([], shape, connections: connections)
        for end in End.allCases { load.line.session(end).setLossy(loss > 0) }
        load.line.run(for: .seconds(1))
        return load
    }

    @Test("as many as are asked for are on their way at once: each takes one round trip", arguments: [1, 8], [8, 32, 64, 96])
    func depth(connections: Int, depth: Int) {
        let load = Self.load(loss: 0, connections: connections)
        _ = load.shortReads(depth: depth, seconds: 2)
        let roundTrips = Double(depth) / 0.040 / load.shortReads(depth: 0, seconds: 2)
        #expect(roundTrips < 1.1, "\(roundTrips)")
    }

    @Test("on a line that loses packets few of them wait for what is sent again", arguments: [8, 16, 32], 1...3 as ClosedRange<UInt64>)
    func lossyDepth(depth: Int, seed: UInt64) {
        let load = Self.load(loss: 0.01, connections: 8, seed: seed)
        _ = load.shortReads(depth: depth, seconds: 2)
        let roundTrips = Double(depth) / 0.040 / load.shortReads(depth: 0, seconds: 2)
        #expect(roundTrips < 1.4, "\(roundTrips)")
    }
}
