import Blocks
import NIOCore

/// The limits of the link, each with what happens at it.
public enum LinkLimits {
    /// The data in one piece of an answer or of a point. Callers cut; a message with more is refused by `enqueue`.
    public static let pieceBytes = 16 * 1024
    /// The payload of one frame: a piece and the fields before it. A frame that announces more ends its connection.
    public static let framePayloadBytes = pieceBytes + 64
    /// So much longer than its plain bytes may be what a stream of compression makes of a frame. One that announces more ends its connection.
    public static let compressionOverheadBytes = 64
    /// Streams of compression of one connection and direction; a frame has two bits for them. More volumes than that have their frames compressed each on its own.
    public static let compressionStreams = 4
    /// Streams of compression of all connections of a link together, of what this end sends. What finds none is compressed each frame on its own.
    public static let compressionStreamsOfLink = 16
    /// The encoded size of a call, an answer or a notice. Bigger ones are refused by `enqueue`; a reassembly that
    /// grows beyond it ends the session.
    public static let controlMessageBytes = 1024 * 1024
    /// The length of a method's name in bytes.
    public static let methodBytes = 255
    /// The length of the text of a goodbye in bytes; longer ones are cut.
    public static let goodbyeTextBytes = 256
    /// The runs in one answer about allocation. A message with more, or with none, is refused by `enqueue` and ends the session.
    public static let allocationRuns = AllocationExtents.answerMax
    /// The blocks that one message refers to. A message with more, or with none, is refused by `enqueue` and ends the session.
    public static let references = 128
    /// How many of the blocks that a point names make a piece of it, as the digest of the point counts them.
    public static let blocksPerNamedPiece = pieceBytes / BlockGeometry.blockBytes
    /// The length of a tunnel's name in bytes.
    public static let tunnelNameBytes = 63
    /// Bulk may have so much queued in the class of calls, which are not to wait behind more. `enqueue` refuses bulk at it.
    static let controlBulkBytes = 32 * 1024
    /// Connections that carry no bulk on a lossy line, at most.
    static let quietConnections = 2
    /// Connections that carry all but acknowledgements, pings and what is prompt on a clean line; the others are there for a line that begins to
    /// lose packets.
    static let cleanConnections = 4
    /// With so many connections one is for what is short and waited for; with fewer each carries everything.
    static let connectionsWithPrompt = 4
    /// So much may be on its way on the prompt connection, nine full segments: TCP lets ten go at once (RFC 6928, section 2). What would be more goes
    /// with the rest.
    static let promptBytes = 13_000
    /// A connection of which something was heard in the last of so many round trips of an empty line is not in doubt when another joins: that takes
    /// as long, with TCP's and TLS's own.
    static let aliveRoundTrips = 2
    /// What is on its way on a connection in doubt does not go again before so many of the last measured round trips.
    static let doubtRoundTrips = 3
    /// Sessions that an initiator remembers to have left; older ones are forgotten.
    static let leftSessions = 8
    /// How far ahead of the oldest missing frame of its class a frame may be sent; the sender waits at it.
    public static let windowFrames = 4096
    /// Connections of one session. More are closed at once.
    public static let connections = 32

    /// What may be sent of a class before the receiver has granted anything: no more than a receiver of any version takes.
    static func bytesBeforeGrant(_ trafficClass: TrafficClass) -> Int {
        switch trafficClass {
        case .demand: 8 * 1024 * 1024
        case .control: 2 * 1024 * 1024
        case .writeBehind, .prefetch, .migration: 4 * 1024 * 1024
        }
    }

    /// Bytes of a class, frame headers included, that may be queued or on their way: the sender's memory and the
    /// credit that the receiver grants. `enqueue` refuses at it. That is what a gigabit line carries in 200 ms, of long reads, or in 130, of points;
    /// on shorter or slower lines the window holds far less on its way, and so does memory.
    public static func outstandingBytes(_ trafficClass: TrafficClass) -> Int {
        switch trafficClass {
        case .demand: 32 * 1024 * 1024
        case .control: 2 * 1024 * 1024
        case .writeBehind, .migration: 16 * 1024 * 1024
        case .prefetch: 4 * 1024 * 1024
        }
    }

    /// Bytes of a class that may wait to be sent for the first time. `enqueue` refuses at it, so that what is
    /// decided late (which answer comes first) is not decided by a long queue.
    public static func queuedBytes(_ trafficClass: TrafficClass) -> Int {
        trafficClass == .control ? 2 * 1024 * 1024 : 1024 * 1024
    }
}

/// The times of a session. The defaults are for a WAN; tests shorten them.
public struct LinkTimes: Sendable {
    /// How often a connection is pinged.
    public var pingInterval: TimeAmount = .seconds(2)
    /// A connection on which nothing arrived for so long is dead.
    public var silenceLimit: TimeAmount = .seconds(10)
    /// What is on its way on a connection in doubt goes again after so long without a word, and after `LinkLimits.doubtRoundTrips` at the
    /// earliest.
    public var doubtLimit: TimeAmount = .milliseconds(300)
    /// How long the other side may take for its hello.
    public var helloLimit: TimeAmount = .seconds(10)
    /// The longest that an acknowledgement waits for company.
    public var acknowledgementDelay: TimeAmount = .milliseconds(1)

    public init() {}
}

extension TrafficClass {
    /// True for the classes that are delivered in the order of sending.
    public var isOrdered: Bool {
        switch self {
        case .control, .writeBehind, .migration: true
        case .demand, .prefetch: false
        }
    }
}
