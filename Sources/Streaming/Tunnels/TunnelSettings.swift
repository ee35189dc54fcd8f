import LinkProtocol

/// One tunnel as an end of it has to know it.
public struct TunnelSettings: Hashable, Sendable {
    /// When its bytes go.
    public enum Precedence: String, Sendable, CaseIterable {
        /// Ahead of points and of long reads: for services that say little, which somebody waits for.
        case interactive
        /// Behind everything else.
        case bulk

        /// The class of its messages; they must be delivered in order.
        var trafficClass: TrafficClass { self == .interactive ? .control : .migration }
    }

    /// What this end does.
    public enum Part: Hashable, Sendable {
        /// Takes connections at an address, from these networks.
        case listens(host: String, port: Int, allowed: [NetworkRule])
        /// Connects to the service.
        case connects(host: String, port: Int)
    }

    public var name: String
    public var precedence: Precedence
    public var part: Part

    public init(name: String, precedence: Precedence, part: Part) {
        self.name = name
        self.precedence = precedence
        self.part = part
    }
}

/// What a tunnel has done at one end since the end was made.
public struct TunnelStatistics: Equatable, Sendable {
    /// Connections that are open.
    public var connections = 0
    /// Connections that were opened.
    public var connectionsTotal: UInt64 = 0
    /// Connections that were turned away, by the rule of who may come, or by a limit, or because the other side can't be reached.
    public var refusedTotal: UInt64 = 0
    /// Bytes that were sent through it, and that came out of it.
    public var sentBytes: UInt64 = 0
    public var receivedBytes: UInt64 = 0

    public init() {}
}
