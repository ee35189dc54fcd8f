import Foundation

/// The part that an edge plays: it owns disks, or it serves them elsewhere.
public enum EdgeRole: String, Codable, Sendable, CaseIterable {
    /// Owns the disks, the keys and the certificate authority.
    case onprem
    /// Serves volumes to machines near it from a cache, and sends writes home.
    case cloud
}

/// The edge that answers: `GET /v1/edge`.
public struct EdgeStatus: Codable, Sendable, Equatable {
    /// Whether the edge does its work.
    public enum State: String, Codable, Sendable, CaseIterable {
        case starting, running, degraded, stopping
    }

    /// The addresses that the edge listens on, as `host:port` with the port that the system gave; nil when it does not listen.
    public struct Addresses: Codable, Sendable, Equatable {
        /// The management API.
        public var api: String?
        /// The link between edges, where this edge listens for it (on-prem edges, and cloud edges that the on-prem edge dials).
        public var link: String?
        /// The iSCSI portals (cloud edges).
        public var iscsi: [String]
        /// The NBD listeners as the beginnings of URLs, `nbd://host:port` or `nbds://host:port` (cloud edges).
        public var nbd: [String]?

        public init(api: String? = nil, link: String? = nil, iscsi: [String] = [], nbd: [String]? = nil) {
            self.api = api
            self.link = link
            self.iscsi = iscsi
            self.nbd = nbd
        }
    }

    /// The configured name.
    public var name: String
    /// The identifier that pairing gave the edge; stable over restarts. Empty on a cloud edge that was never paired.
    public var identifier: String
    public var role: EdgeRole
    /// The version of the software, for example `0.1.0`.
    public var version: String
    public var startedAt: Date
    public var state: State
    /// Where the edge keeps its state; nil when the edge does not tell.
    public var stateDirectory: String?
    public var addresses: Addresses
    /// What an operator should look at, one sentence each; empty when all is well.
    public var warnings: [String]

    public init(
        name: String, identifier: String, role: EdgeRole, version: String, startedAt: Date, state: State,
        stateDirectory: String? = nil,
        addresses: Addresses = Addresses(), warnings: [String] = []
    ) {
        self.name = name
        self.identifier = identifier
        self.role = role
        self.version = version
        self.startedAt = startedAt
        self.state = state
        self.stateDirectory = stateDirectory
        self.addresses = addresses
        self.warnings = warnings
    }
}

/// An edge that is, or was, paired with the edge that answers: an item of `GET /v1/edges`.
public struct PeerEdge: Codable, Sendable, Equatable {
    public var identifier: String
    public var name: String
    public var role: EdgeRole
    /// True while the link to it is up.
    public var connected: Bool
    public var pairedAt: Date
    /// True once its certificate was revoked: it cannot connect again without a new pairing.
    public var revoked: Bool
    /// When a frame of it last arrived; nil when it never connected.
    public var lastSeen: Date?
    /// `host:port` where this edge dials it; nil when it dials this one.
    public var address: String?

    public init(
        identifier: String, name: String, role: EdgeRole, connected: Bool, pairedAt: Date, revoked: Bool = false,
        lastSeen: Date? = nil, address: String? = nil
    ) {
        self.address = address
        self.identifier = identifier
        self.name = name
        self.role = role
        self.connected = connected
        self.pairedAt = pairedAt
        self.revoked = revoked
        self.lastSeen = lastSeen
    }
}

/// The body of `PATCH /v1/edges/{identifier}` (on-prem): what is left out stays.
public struct EdgeChange: Codable, Sendable, Equatable {
    /// `host:port` where the edge is dialled from now on.
    public var address: String?
    /// True: the edge dials, and is dialled no more.
    public var dials: Bool?

    public init(address: String? = nil, dials: Bool? = nil) {
        self.address = address
        self.dials = dials
    }
}

/// The encrypted connection to a peer: an item of `GET /v1/links`.
public struct Link: Codable, Sendable, Equatable {
    /// Whether frames pass.
    public enum State: String, Codable, Sendable, CaseIterable {
        case up, down, connecting
    }

    /// Bytes of one priority class since the edge started, each way, before and after compression.
    public struct Traffic: Codable, Sendable, Equatable {
        /// The class, for example `demand` or `points`. JSON key: `class`.
        public var trafficClass: String
        /// What was sent, with the headers of frames and what was sent again, before compression.
        public var sentBytes: UInt64
        /// What went out for it, after compression and framing, before TLS.
        public var sentWireBytes: UInt64
        /// What was received, with the headers of frames, after decompression.
        public var receivedBytes: UInt64
        /// What came in for it, before decompression, without TLS.
        public var receivedWireBytes: UInt64

        enum CodingKeys: String, CodingKey {
            case trafficClass = "class"
            case sentBytes, sentWireBytes, receivedBytes, receivedWireBytes
        }

        public init(
            trafficClass: String, sentBytes: UInt64 = 0, sentWireBytes: UInt64 = 0, receivedBytes: UInt64 = 0,
            receivedWireBytes: UInt64 = 0
        ) {
            self.trafficClass = trafficClass
            self.sentBytes = sentBytes
            self.sentWireBytes = sentWireBytes
            self.receivedBytes = receivedBytes
            self.receivedWireBytes = receivedWireBytes
        }
    }

    /// Blocks that this edge named instead of sending them, because the peer has equal ones.
    public struct Deduplication: Codable, Sendable, Equatable {
        /// Bytes of the blocks that were named.
        public var referredBytes: UInt64
        /// Bytes of those of them that the peer had no more, and asked for.
        public var wrongBytes: UInt64

        public init(referredBytes: UInt64 = 0, wrongBytes: UInt64 = 0) {
            self.referredBytes = referredBytes
            self.wrongBytes = wrongBytes
        }
    }

    /// What this edge has seen of the line, and how much it keeps on its way.
    public struct Line: Codable, Sendable, Equatable {
        /// The share of bytes that TCP has sent again in the last ten seconds or so, 0 to 1.
        public var lossShare: Double
        /// That is so much that the link sends what is waited for twice, and has BBR.
        public var lossy: Bool
        /// What the line carries; nil until there was enough to send.
        public var bytesPerSecond: UInt64?
        /// What may be on its way, and is, in bytes.
        public var windowBytes: Int
        public var inFlightBytes: Int
        /// What waits to be sent, in bytes.
        public var queuedBytes: Int
        /// Bytes that TCP has sent again since the edge started.
        public var retransmittedBytes: UInt64
        /// Frames that were sent on a second connection, too, since the edge started.
        public var copiedFrames: UInt64

        public init(
            lossShare: Double = 0, lossy: Bool = false, bytesPerSecond: UInt64? = nil, windowBytes: Int = 0, inFlightBytes: Int = 0,
            queuedBytes: Int = 0, retransmittedBytes: UInt64 = 0, copiedFrames: UInt64 = 0
        ) {
            self.lossShare = lossShare
            self.lossy = lossy
            self.bytesPerSecond = bytesPerSecond
            self.windowBytes = windowBytes
            self.inFlightBytes = inFlightBytes
            self.queuedBytes = queuedBytes
            self.retransmittedBytes = retransmittedBytes
            self.copiedFrames = copiedFrames
        }
    }

    /// The identifier of the peer edge.
    public var peer: String
    public var state: State
    /// Connections that are open now.
    public var connections: Int
    /// The newest measured round trip, in milliseconds; nil before the first measurement.
    public var roundTripMilliseconds: Double?
    /// The smallest round trip seen lately: the line without queues, in milliseconds.
    public var baseRoundTripMilliseconds: Double?
    /// Why the link last failed; nil when it never did.
    public var lastError: String?
    public var traffic: [Traffic]
    /// How many times the link came up again since the edge started.
    public var reconnects: Int
    /// How many of its connections were lost since the edge started: the link goes on over the others. Nil of an edge of an earlier version.
    public var connectionsLost: Int?
    /// How the line is; nil of an edge of an earlier version.
    public var line: Line?
    /// When the link entered its present state.
    public var since: Date
    /// What this edge sends at most, and when.
    public var shaping: LinkShaping
    /// What of it is in force now.
    public var ratesInForce: LinkRates
    /// The algorithms of the kernel that decide how fast this edge's connections may send, such as `bbr`: mostly one; none without a connection.
    public var congestionControls: [String]
    /// What did not have to be sent since the edge started; nil where nothing is ever named.
    public var deduplication: Deduplication?

    public init(
        peer: String, state: State, connections: Int = 0, roundTripMilliseconds: Double? = nil,
        baseRoundTripMilliseconds: Double? = nil,
        lastError: String? = nil, traffic: [Traffic] = [], reconnects: Int = 0, connectionsLost: Int? = nil, line: Line? = nil, since: Date,
        shaping: LinkShaping = LinkShaping(),
        ratesInForce: LinkRates = LinkRates(), congestionControls: [String] = [], deduplication: Deduplication? = nil
    ) {
        self.peer = peer
        self.state = state
        self.connections = connections
        self.roundTripMilliseconds = roundTripMilliseconds
        self.baseRoundTripMilliseconds = baseRoundTripMilliseconds
        self.lastError = lastError
        self.traffic = traffic
        self.reconnects = reconnects
        self.connectionsLost = connectionsLost
        self.line = line
        self.since = since
        self.shaping = shaping
        self.ratesInForce = ratesInForce
        self.congestionControls = congestionControls
        self.deduplication = deduplication
    }
}
