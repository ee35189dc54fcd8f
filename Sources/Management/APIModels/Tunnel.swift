/// A TCP service that is reached over the link (X1): an item of `GET /v1/tunnels`.
public struct Tunnel: Codable, Sendable, Equatable {
    /// Which way connections are made.
    public enum Direction: String, Codable, Sendable, CaseIterable {
        /// From the cloud edge's side to a service at home.
        case toHome
        /// From home's side to a service in the cloud.
        case toCloud
    }

    /// When its bytes go.
    public enum Precedence: String, Codable, Sendable, CaseIterable {
        /// Ahead of points and of long reads: for services that say little, which somebody waits for.
        case interactive
        /// Behind everything else.
        case bulk
    }

    /// What the edge that answers does for it.
    public enum State: String, Codable, Sendable, CaseIterable {
        /// It listens.
        case listening
        /// It connects to the service when somebody comes to the other edge.
        case connecting
        /// It should listen, and can't.
        case failed
        /// The link has not been up since the edge started.
        case waiting
    }

    public var name: String
    /// The identifier of the cloud edge; nil at that edge.
    public var edge: String?
    public var direction: Direction
    /// `host:port` where the listening edge takes connections; nil at the other one, if that is the cloud edge.
    public var listen: String?
    /// `host:port` of the service, as the other edge reaches it; nil at the listening edge, if that is the cloud edge.
    public var connect: String?
    public var precedence: Precedence
    /// From which networks clients may come.
    public var allow: [String]
    public var state: State
    /// What is wrong.
    public var message: String?
    /// Connections that are open; that were opened, and that were turned away, since the link's end was made.
    public var connections: Int
    public var connectionsTotal: UInt64
    public var refusedTotal: UInt64
    /// Bytes that this edge has sent through it, and got out of it.
    public var sentBytes: UInt64
    public var receivedBytes: UInt64

    public init(
        name: String, edge: String? = nil, direction: Direction, listen: String? = nil, connect: String? = nil, precedence: Precedence,
        allow: [String] = [], state: State, message: String? = nil, connections: Int = 0, connectionsTotal: UInt64 = 0,
        refusedTotal: UInt64 = 0, sentBytes: UInt64 = 0, receivedBytes: UInt64 = 0
    ) {
        self.name = name
        self.edge = edge
        self.direction = direction
        self.listen = listen
        self.connect = connect
        self.precedence = precedence
        self.allow = allow
        self.state = state
        self.message = message
        self.connections = connections
        self.connectionsTotal = connectionsTotal
        self.refusedTotal = refusedTotal
        self.sentBytes = sentBytes
        self.receivedBytes = receivedBytes
    }
}

/// The body of `POST /v1/tunnels` (on-prem).
public struct TunnelCreate: Codable, Sendable, Equatable {
    public var name: String
    /// The cloud edge, by identifier or name.
    public var edge: String
    /// `toHome` when left out.
    public var direction: Tunnel.Direction?
    public var listen: String
    public var connect: String
    /// `interactive` when left out.
    public var precedence: Tunnel.Precedence?
    /// Networks such as `10.0.0.0/8`. May be left out where `listen` is a loopback address: this machine then.
    public var allow: [String]?

    public init(
        name: String, edge: String, direction: Tunnel.Direction? = nil, listen: String, connect: String,
        precedence: Tunnel.Precedence? = nil, allow: [String]? = nil
    ) {
        self.name = name
        self.edge = edge
        self.direction = direction
        self.listen = listen
        self.connect = connect
        self.precedence = precedence
        self.allow = allow
    }
}
