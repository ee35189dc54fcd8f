import NIOCore

/// Counters of one class, since the link began.
public struct LinkClassStatistics: Equatable, Sendable {
    public var framesSent: UInt64 = 0
    public var framesReceived: UInt64 = 0
    /// Bytes before compression, frame headers included.
    public var plainBytesSent: UInt64 = 0
    public var plainBytesReceived: UInt64 = 0
    /// Bytes on the line, before TLS.
    public var wireBytesSent: UInt64 = 0
    public var wireBytesReceived: UInt64 = 0
    /// Frames that were sent again after a connection was lost, and frames that arrived twice.
    public var framesSentAgain: UInt64 = 0
    public var framesReceivedTwice: UInt64 = 0
    /// Frames of which a second one went out on another connection, because the line is lossy.
    public var framesCopied: UInt64 = 0
    /// Bytes that wait to be sent, and bytes that wait for an acknowledgement, now.
    public var queuedBytes = 0
    public var unacknowledgedBytes = 0

    public init() {}
}

/// What a link has done and how the line is.
public struct LinkStatistics: Equatable, Sendable {
    /// The last measured round trip, and the one without a queue; nil until measured.
    public var roundTripMilliseconds: Double?
    public var baseRoundTripMilliseconds: Double?
    /// The bytes that may be on their way, and that are.
    public var windowBytes = 0
    public var inFlightBytes = 0
    /// What the line was seen to carry; 0 while unknown.
    public var lineBytesPerSecond: Double = 0
    /// Connections that are up.
    public var connections = 0
    /// Connections that have ended, and sessions that have begun, since the link began.
    public var connectionsLost: UInt64 = 0
    public var sessionsStarted: UInt64 = 0
    /// By class, at the index of its raw value.
    public var classes = [LinkClassStatistics](repeating: LinkClassStatistics(), count: TrafficClass.allCases.count)

    public init() {}

    /// The counters of a class.
    public subscript(trafficClass: TrafficClass) -> LinkClassStatistics {
        get { classes[Int(trafficClass.rawValue)] }
        set { classes[Int(trafficClass.rawValue)] = newValue }
    }
}
