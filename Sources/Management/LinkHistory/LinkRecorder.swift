import APIModels
import Foundation

// What a link has done, second by second. Counters come in about once a second; what they have grown by since the last time belongs to the
// second in which they are read. Seconds are kept in memory for an hour. They are gathered into minutes, and a minute that is over
// goes to whoever keeps it for longer (`HistoryStore`).
//
//   readings ─> seconds (an hour, in memory)
//           └─> the minute that runs ─> minutes (a month, on disk)
//
// The time is the clock's on the wall. When that is set back, seconds that lie ahead are forgotten, so that the rest stays in order; the
// minute that ran is over.

/// What a link's counters say, from when it began.
public struct LinkReading: Equatable, Sendable {
    public var isConnected: Bool
    public var connections: Int
    public var connectionsLost: UInt64
    /// The last measured round trip; nil before the first.
    public var roundTripMilliseconds: Double?
    public var retransmittedBytes: UInt64
    public var traffic: [Link.Traffic]

    public init(
        isConnected: Bool, connections: Int = 0, connectionsLost: UInt64 = 0, roundTripMilliseconds: Double? = nil,
        retransmittedBytes: UInt64 = 0, traffic: [Link.Traffic] = []
    ) {
        self.isConnected = isConnected
        self.connections = connections
        self.connectionsLost = connectionsLost
        self.roundTripMilliseconds = roundTripMilliseconds
        self.retransmittedBytes = retransmittedBytes
        self.traffic = traffic
    }
}

/// The last hour of a link.
public struct LinkRecorder: Sendable {
    /// How many seconds are kept.
    public static let secondsMax = 3_600
    /// How many seconds a reading may come late; with more there is a gap.
    static let lateSecondsMax = 5.0

    /// Oldest first, by second; a ring that begins at `first` once it is full.
    private var ring: [LinkHistory.Sample] = []
    private var first = 0
    private var last: LinkReading?
    /// The minute that runs, as far as it has come.
    public private(set) var minute: LinkHistory.Sample?

    public init() {}

    /// The recorded seconds that begin at `start` or later, oldest first.
    public func seconds(from start: Date) -> [LinkHistory.Sample] {
        (0..<ring.count).lazy.map { ring[(first + $0) % ring.count] }.filter { $0.time >= start }
    }

    /// Takes in what the counters are at a time.
    /// - Returns: the minute that is over now, if one is.
    public mutating func record(_ reading: LinkReading, at date: Date) -> LinkHistory.Sample? {
        let second = Date(timeIntervalSince1970: date.timeIntervalSince1970.rounded(.down))
        // A reading that comes late stands for the time since the last one.
        let span = newest.map { min(max(1, second.timeIntervalSince($0.time)), Self.lateSecondsMax) } ?? 1
        var sample = LinkHistory.Sample(
            time: second, seconds: span, upSeconds: reading.isConnected ? span : 0,
            roundTripMilliseconds: reading.isConnected ? reading.roundTripMilliseconds : nil,
            longestRoundTripMilliseconds: reading.isConnected ? reading.roundTripMilliseconds : nil,
            retransmittedBytes: Self.growth(reading.retransmittedBytes, last?.retransmittedBytes), connections: reading.connections,
            connectionsLost: Self.growth(reading.connectionsLost, last?.connectionsLost))
        sample.traffic = reading.traffic.map { traffic in
            last?.traffic.first { $0.trafficClass == traffic.trafficClass }.map(traffic.since) ?? traffic
        }.filter { !$0.isEmpty }
        last = reading
        while let newest, newest.time > second { removeNewest() }
        if newest?.time == second {
            // Twice within one second: it is one second all the same.
            sample.seconds = 0
            sample.upSeconds = 0
            changeNewest { $0.add(sample) }
        } else {
            append(sample)
        }
        return gather(sample)
    }

    /// Ends the minute that runs, before its time.
    public mutating func finish() -> LinkHistory.Sample? {
        defer { minute = nil }
        return minute
    }

    private mutating func gather(_ sample: LinkHistory.Sample) -> LinkHistory.Sample? {
        let start = Date(timeIntervalSince1970: (sample.time.timeIntervalSince1970 / 60).rounded(.down) * 60)
        if minute?.time == start {
            minute?.add(sample)
            return nil
        }
        let over = minute
        minute = sample
        minute?.time = start
        return over
    }

    private static func growth(_ new: UInt64, _ old: UInt64?) -> UInt64 {
        guard let old, new >= old else { return new }
        return new - old
    }

    // MARK: The ring

    private var newest: LinkHistory.Sample? { ring.isEmpty ? nil : ring[(first + ring.count - 1) % ring.count] }

    private mutating func append(_ sample: LinkHistory.Sample) {
        if ring.count < Self.secondsMax {
            straighten()
            return ring.append(sample)
        }
        ring[first] = sample
        first = (first + 1) % ring.count
    }

    private mutating func changeNewest(_ body: (inout LinkHistory.Sample) -> Void) {
        if !ring.isEmpty { body(&ring[(first + ring.count - 1) % ring.count]) }
    }

    private mutating func removeNewest() {
        straighten()
        _ = ring.popLast()
    }

    /// Lets the ring begin at its start again; needed when it is not full any more.
    private mutating func straighten() {
        if first == 0 { return }
        ring = Array(ring[first...] + ring[..<first])
        first = 0
    }
}

extension LinkHistory {
    /// Gathers samples, oldest first, into steps of `stepSeconds`, whose beginnings are multiples of it.
    public static func gathered(_ samples: [Sample], stepSeconds: Int) -> [Sample] {
        var steps: [Sample] = []
        let step = Double(max(1, stepSeconds))
        for sample in samples {
            let start = Date(timeIntervalSince1970: (sample.time.timeIntervalSince1970 / step).rounded(.down) * step)
            if steps.last?.time == start {
                steps[steps.count - 1].add(sample)
            } else {
                var first = sample
                first.time = start
                steps.append(first)
            }
        }
        return steps
    }
}
