import Blocks
import DequeModule
import NIOCore

// One end of a link.
//
// A session outlives its connections. The acceptor (on-prem) names it: each connection begins with the initiator's
// hello, which says in which session the initiator is and how far it has received; the acceptor answers with its own.
//
//   connection   opened --> hello sent / awaited --> established --> closed
//
//   cut          one more connection joins S: the others may be dead without this side knowing it (a NAT that has forgotten them). Those
//                of which nothing was heard lately are in doubt: each is pinged and carries nothing new, and what is on its way on it goes
//                again on others, until it is heard again. It ends when it has been silent for as long as any
//
//   session      none --(a hello of an incarnation we don't know)--> S --(the same)--> S' ...
//                S: the hello names S           what was not acknowledged goes on, from the positions
//                S: same incarnation, other S   the connection joins; the hello was sent before S was known
//                S: other incarnation           the other side has started again: everything of S is dropped
//                S: protocol violation in data  the session is given up, with a new incarnation of our own
//                a hello of a session that the initiator has left: the session it is in is given up likewise, with a new incarnation
//
// A frame is kept until it is acknowledged. When its connection is lost it goes out again on another one, before
// anything new of its class; the other end recognises it by its sequence.
//
// The shell asks `nextTransmission` as long as a connection can take a frame, drains `nextAction` after every call,
// and calls `tick` when `nextDeadline` has come.

/// The name that the shell gives to a connection. It is never used twice.
public struct ConnectionIdentifier: Hashable, Sendable, CustomStringConvertible {
    public let value: UInt64

    public init(_ value: UInt64) { self.value = value }

    public var description: String { "connection \(value)" }
}

/// Which end of a link this is.
public enum LinkRole: Sendable {
    /// Says hello first (the cloud edge, whichever of the two dials).
    case initiator
    /// Names the session (the on-prem edge).
    case acceptor
}

/// What the session wants from its shell.
public enum LinkAction: Equatable, Sendable {
    /// A new session: nothing of an earlier one survived, and nothing that was queued before will be sent.
    case sessionStarted
    /// The link has its first established connection, or has lost its last one.
    case connectivityChanged(isConnected: Bool)
    case deliver(LinkMessage, TrafficClass)
    /// There is room again in a class that was full.
    case becameWritable(TrafficClass)
    /// The connection is no longer the session's. Send `reason.goodbyeFrame` if that is easy, and close it.
    case closeConnection(ConnectionIdentifier, LinkCloseReason)
}

/// A frame that is to be sent now.
public struct LinkTransmission: Sendable {
    public let connection: ConnectionIdentifier
    public let header: FrameHeader
    /// The encoded frame: header and payload, not compressed.
    public let bytes: ByteBuffer
    /// It is the data frame that left last once more, on another connection: it goes as that went.
    public let isCopy: Bool
    /// One of many frames that follow one another; nobody waits for just this one.
    public let isBulk: Bool
    /// The volume whose data it carries, if that is known.
    public let volume: VolumeIdentifier?

    init(
        connection: ConnectionIdentifier, header: FrameHeader, bytes: ByteBuffer, isCopy: Bool = false, isBulk: Bool = false,
        volume: VolumeIdentifier? = nil
    ) {
        self.connection = connection
        self.header = header
        self.bytes = bytes
        self.isCopy = isCopy
        self.isBulk = isBulk
        self.volume = volume
    }

    /// The payload, not compressed.
    public var payload: ByteBuffer {
        bytes.getSlice(at: bytes.readerIndex + FrameHeader.byteCount, length: header.payloadBytes) ?? ByteBuffer()
    }
    /// The frame as the other end's session takes it.
    public var frame: Frame { Frame(header: header, payload: payload) }
}

/// One end of a link, without sockets: see the note at the top of the file. Confined to one event loop.
public final class LinkSession {
    /// What becomes of a connection that may be dead, while nothing is heard of it.
    enum Doubt {
        /// What is on its way on it goes again at this time.
        case until(NIODeadline)
        /// It has gone again on others.
        case givenUp
    }

    struct Connection {
        let identifier: ConnectionIdentifier
        var isEstablished = false
        var isWritable = true
        var needsHello: Bool
        var helloSentAt: NIODeadline?
        /// The session that this end's hello has named.
        var helloSession: UInt64 = 0
        let openedAt: NIODeadline
        var heardAt: NIODeadline
        /// It may be dead without this end knowing it; nil for one that is not in doubt.
        var doubt: Doubt?
        var pingAt: NIODeadline
        /// The token of a ping that is to be sent, then of the one that is on its way.
        var pingDue = false
        var pingToken: UInt64 = 0
        var pingSentAt: NIODeadline?
        /// The newest ping that is to be answered.
        var pongDue: UInt64?
        var inFlightBytes = 0
        /// It is the one for what is short and waited for (`LinkSession+Choosing`).
        var isPrompt = false

        /// It can carry frames, as far as is known.
        var isTrusted: Bool { isEstablished && doubt == nil }
        var isDoubted: Bool { if case .until = doubt { true } else { false } }
        var isGivenUp: Bool { if case .givenUp = doubt { true } else { false } }

        /// It has little on its way, with so much more.
        func hasRoomForShort(_ byteCount: Int) -> Bool { inFlightBytes + byteCount <= LinkLimits.promptBytes }
    }

    /// Which end this is.
    public let role: LinkRole
    let times: LinkTimes
    /// Whether the shell can give a connection a TCP that does not pace.
    let hasPrompt: Bool
    var random: RandomSource

    /// The session's name, drawn by the acceptor; 0 while there is none.
    public internal(set) var sessionIdentifier: UInt64 = 0
    /// The version in use; the newest until the other side has said hello.
    public internal(set) var version = LinkVersion.newest
    var incarnation: UInt64
    var peerIncarnation: UInt64 = 0
    /// Sessions that the initiator was in with this incarnation, the newest last, at most `LinkLimits.leftSessions`.
    var leftSessions: [UInt64] = []
    var isClosed = false

    var connections: [Connection] = []
    var senders: [ClassSender]
    var receivers: [ClassReceiver]
    var scheduler = LaneScheduler()
    var shaper = LinkShaper()
    /// What compression leaves of long frames, of one: over some tens of them.
    var rest = 1.0
    /// The congestion window over all connections.
    public internal(set) var window = DelayWindow()

    var actions = Deque<LinkAction>()
    var counters = LinkStatistics()
    var wasConnected = false

    /// Classes whose position the other side does not know, as bits; when it should; and over which connection.
    var unreported: UInt8 = 0
    var reportAt: NIODeadline?
    var framesSinceReport = 0
    var newestArrival: NIODeadline?
    var lastHeardConnection: ConnectionIdentifier?
    /// A second one of the frame that went out last, for another connection: see LinkSession+Choosing.swift.
    var copy: LinkTransmission?
    /// When pacing or a limit lets the next frame go, if only they hold it.
    var paceUntil: NIODeadline?

    /// Makes an end that has no connection and no session yet.
    public init(role: LinkRole, times: LinkTimes = LinkTimes(), random: RandomSource, hasPrompt: Bool = true) {
        self.role = role
        self.times = times
        self.random = random
        self.hasPrompt = hasPrompt
        self.senders = TrafficClass.allCases.map { ClassSender($0) }
        self.receivers = TrafficClass.allCases.map { ClassReceiver($0) }
        self.incarnation = 0
        self.incarnation = drawIdentifier()
    }

    func drawIdentifier() -> UInt64 { max(1, random.next()) }

    /// True while at least one connection is established.
    public var isConnected: Bool { connections.contains { $0.isEstablished } }

    /// True when `enqueue` takes a message of the class. Bulk in `demand` has a limit of its own, below that of the rest.
    public func isWritable(_ trafficClass: TrafficClass, isBulk: Bool = false) -> Bool {
        sessionIdentifier != 0 && !isClosed && !senders[Int(trafficClass.rawValue)].isFull(isBulk: isBulk)
    }

    /// Queues a message.
    /// - Parameter isBulk: in the class `demand`, an answer that may be overtaken by others: a piece of a long read. In the class `control`, what
    ///   leaves most of the room to calls.
    /// - Parameter volume: whose data it carries: what the frames of one volume have in common, compression may use.
    /// - Returns: false when there is no session yet, when the class is full (`becameWritable` will follow), or when
    ///   the message breaks a limit of the protocol.
    public func enqueue(
        _ message: LinkMessage, _ trafficClass: TrafficClass, isBulk: Bool = false, of volume: VolumeIdentifier? = nil
    ) -> Bool {
        guard sessionIdentifier != 0, !isClosed else { return false }
        let index = Int(trafficClass.rawValue)
        if senders[index].isFull(isBulk: isBulk) {
            noteFull(index, isBulk: isBulk)
            return false
        }
        guard senders[index].enqueue(message, isBulk: isBulk, of: volume) else { return false }
        if senders[index].isFull(isBulk: isBulk) { noteFull(index, isBulk: isBulk) }
        return true
    }

    private func noteFull(_ index: Int, isBulk: Bool) {
        if isBulk, senders[index].hasLimitForBulk { senders[index].wasFullForBulk = true } else { senders[index].wasFull = true }
    }

    /// Stops or resumes the granting of credit in a class: the way to hold the other side back while the layers
    /// above are behind. What was granted already (`LinkLimits.outstandingBytes`) may still arrive.
    public func setReceiving(_ isReceiving: Bool, _ trafficClass: TrafficClass, now: NIODeadline) {
        receivers[Int(trafficClass.rawValue)].setReceiving(isReceiving)
        if isReceiving { report(trafficClass, by: now) }
    }

    /// What this end sends at most.
    public var shape: LinkShape { shaper.shape }

    /// Puts other limits in force on what this end sends, from the next frame on.
    public func setShape(_ shape: LinkShape, now: NIODeadline) {
        shaper.set(shape, now: now)
        paceUntil = nil
    }

    /// What may be sent of a class in a second: what the line carries, or a limit; 0 while unknown.
    public func bytesPerSecond(_ trafficClass: TrafficClass) -> Double {
        shaper.bytesPerSecond(trafficClass, line: window.bytesPerSecond)
    }

    /// How big pieces of data should be cut on this line, with its limits and with what compression leaves of them (4 to 16 KiB).
    public var preferredPieceBytes: Int { window.preferredPieceBytes(bytesPerSecond: bytesPerSecond(.demand) / rest) }

    /// The next thing that the shell has to do; drain it after every call.
    public func nextAction() -> LinkAction? { actions.popFirst() }

    /// Ends the link: every connection is closed, and nothing is accepted any more.
    public func close(_ reason: String) {
        isClosed = true
        endAllConnections(.closed(reason))
        resetSession()
    }

    /// What the link has done, and how the line is.
    public var statistics: LinkStatistics {
        var result = counters
        result.roundTripMilliseconds = window.latestRoundTrip.map { Double($0.nanoseconds) / 1e6 }
        result.baseRoundTripMilliseconds = window.baseRoundTrip.map { Double($0.nanoseconds) / 1e6 }
        result.windowBytes = window.windowBytes
        result.inFlightBytes = window.inFlightBytes
        result.lineBytesPerSecond = window.bytesPerSecond
        result.connections = connections.count { $0.isEstablished }
        for sender in senders {
            result[sender.trafficClass].queuedBytes = sender.queuedBytes
            result[sender.trafficClass].unacknowledgedBytes = sender.unacknowledgedBytes
        }
        return result
    }
}
