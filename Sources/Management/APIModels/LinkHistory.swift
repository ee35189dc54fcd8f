import Foundation

/// What passed over a link, and how the line was: the answer to `GET /v1/links/{peer}/history`.
public struct LinkHistory: Codable, Sendable, Equatable {
    /// One step of time, or what is known of it.
    public struct Sample: Codable, Sendable, Equatable {
        /// When the step begins.
        public var time: Date
        /// How many of its seconds were recorded: fewer when the edge was not running.
        public var seconds: Double
        /// How many of them the link was up.
        public var upSeconds: Double
        /// The mean of the measured round trips, in milliseconds; nil when none was measured.
        public var roundTripMilliseconds: Double?
        /// The longest of them.
        public var longestRoundTripMilliseconds: Double?
        /// Bytes that TCP had to send again, as far as its counts of segments tell.
        public var retransmittedBytes: UInt64
        /// Connections at the end of the step.
        public var connections: Int
        /// Connections that were lost.
        public var connectionsLost: UInt64
        /// Bytes of each priority class in this step. A class of which nothing passed is left out.
        public var traffic: [Link.Traffic]

        public init(
            time: Date, seconds: Double, upSeconds: Double, roundTripMilliseconds: Double? = nil,
            longestRoundTripMilliseconds: Double? = nil, retransmittedBytes: UInt64 = 0, connections: Int = 0, connectionsLost: UInt64 = 0,
            traffic: [Link.Traffic] = []
        ) {
            self.time = time
            self.seconds = seconds
            self.upSeconds = upSeconds
            self.roundTripMilliseconds = roundTripMilliseconds
            self.longestRoundTripMilliseconds = longestRoundTripMilliseconds
            self.retransmittedBytes = retransmittedBytes
            self.connections = connections
            self.connectionsLost = connectionsLost
            self.traffic = traffic
        }

        /// Takes in a later part of the same step.
        public mutating func add(_ later: Sample) {
            if let other = later.roundTripMilliseconds {
                // A sample with a round trip stands for the seconds in which the link was up.
                let (own, new) = (roundTripMilliseconds == nil ? 0 : max(upSeconds, 1e-3), max(later.upSeconds, 1e-3))
                roundTripMilliseconds = ((roundTripMilliseconds ?? 0) * own + other * new) / (own + new)
            }
            if let other = later.longestRoundTripMilliseconds {
                longestRoundTripMilliseconds = max(longestRoundTripMilliseconds ?? 0, other)
            }
            seconds += later.seconds
            upSeconds += later.upSeconds
            retransmittedBytes &+= later.retransmittedBytes
            connections = later.connections
            connectionsLost &+= later.connectionsLost
            for part in later.traffic {
                if let index = traffic.firstIndex(where: { $0.trafficClass == part.trafficClass }) {
                    traffic[index].add(part)
                } else {
                    traffic.append(part)
                }
            }
        }
    }

    /// The identifier of the peer edge.
    public var peer: String
    /// How long a step is, in seconds.
    public var stepSeconds: Int
    /// Oldest first. Steps of which nothing is known are left out.
    public var samples: [Sample]

    public init(peer: String, stepSeconds: Int, samples: [Sample]) {
        self.peer = peer
        self.stepSeconds = stepSeconds
        self.samples = samples
    }
}

extension Link.Traffic {
    /// Takes in what passed later.
    mutating func add(_ later: Self) {
        sentBytes &+= later.sentBytes
        sentWireBytes &+= later.sentWireBytes
        receivedBytes &+= later.receivedBytes
        receivedWireBytes &+= later.receivedWireBytes
    }

    /// What has passed since the counters were `earlier`; counters that have begun anew are taken as they are.
    public func since(_ earlier: Self) -> Self {
        let hasBegunAnew =
            sentBytes < earlier.sentBytes || sentWireBytes < earlier.sentWireBytes || receivedBytes < earlier.receivedBytes
            || receivedWireBytes < earlier.receivedWireBytes
        if hasBegunAnew { return self }
        return Self(
            trafficClass: trafficClass, sentBytes: sentBytes - earlier.sentBytes, sentWireBytes: sentWireBytes - earlier.sentWireBytes,
            receivedBytes: receivedBytes - earlier.receivedBytes, receivedWireBytes: receivedWireBytes - earlier.receivedWireBytes)
    }

    /// True when nothing passed.
    public var isEmpty: Bool { sentWireBytes == 0 && receivedWireBytes == 0 && sentBytes == 0 && receivedBytes == 0 }
}
