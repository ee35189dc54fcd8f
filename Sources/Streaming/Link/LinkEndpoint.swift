import Blocks
import Compression
import LinkProtocol
import Logging
import NIOCore

/// What hears of a link. All calls are made on the link's event loop; they may call the link.
public protocol LinkDelegate: AnyObject {
    /// A new session: nothing of an earlier one survived. Only from now on are messages accepted.
    func linkSessionStarted(_ link: LinkEndpoint)
    /// `link.isConnected` has changed. A session goes on over a loss of all connections.
    func linkConnectivityChanged(_ link: LinkEndpoint)
    func link(_ link: LinkEndpoint, received message: LinkMessage, class trafficClass: TrafficClass)
    /// A class in which a message was refused, or that was full, takes messages again.
    func link(_ link: LinkEndpoint, writable trafficClass: TrafficClass)
}

/// One end of a link: a session, and the channels that carry it. Confined to one event loop.
public final class LinkEndpoint {
    final class Connection {
        let identifier: ConnectionIdentifier
        let channel: any Channel
        /// Written and not flushed.
        var unflushedBytes = 0
        /// What TCP's counts were when they were read last.
        var sentBytes = TCPSentBytes()
        let sendingStreams: SendingStreams
        let decompressor: FrameDecompressor
        let ended: (String?) -> Void

        init(
            _ identifier: ConnectionIdentifier, _ channel: any Channel, _ decompressor: Compressor, _ budget: StreamBudget,
            ended: @escaping (String?) -> Void
        ) {
            self.identifier = identifier
            self.channel = channel
            self.decompressor = FrameDecompressor(decompressor)
            sendingStreams = SendingStreams(budget)
            self.ended = ended
        }
    }

    /// The loop on which the link lives.
    public let eventLoop: any EventLoop
    public weak var delegate: (any LinkDelegate)?
    /// Counts the loop's turns; without it there is no limit to what frames are made of in one.
    public var loopTurns: LoopTurns?
    /// Why the last connection ended, for the operator.
    public private(set) var lastCloseReason: LinkCloseReason?

    private let session: LinkSession
    private var loss = LossEstimate()
    private var congestion: CongestionChooser
    /// What the log has told of.
    private var refusedCongestionControls: Set<String> = []
    private let logger: Logger
    private let compressor = FrameCompressor()
    private let streamBudget = StreamBudget()
    /// For what the connections receive in no stream.
    private let decompressor = Compressor()
    private var connections: [ConnectionIdentifier: Connection] = [:]
    /// The data frame that left last, as it went on the line.
    private var lastFrame = ByteBuffer()
    private var nextConnection: UInt64 = 1
    private var isPumping = false
    private var isPumpScheduled = false
    /// The turn in which frames were made last, and of how many bytes before compression.
    private var transmitted = (turn: UInt64(0), byteCount: 0)
    /// Frames go on leaving in the next turn.
    private var isPaused = false
    /// What frames are made of in one turn of the loop, in bytes before compression; the last one may go beyond it. What shrinks to little would
    /// never fill the line, nor end the turn.
    static let bytesInTurnMax = 64 << 10
    private var timer: Scheduled<Void>?
    private var timerDeadline: NIODeadline?
    /// When `tick` was called last.
    private var tickedAt = NIODeadline.distantPast
    /// A deadline that a tick did not meet is looked at again after this pause, or when something happens. The loop runs tasks that are due before
    /// it looks at sockets, so one that is always due would keep all events away.
    private static let pauseAfterTick = TimeAmount.milliseconds(1)

    /// Makes an end without connections.
    /// - Parameter congestionControl: what decides how fast this end's connections may send; the other end has its own.
    public init(
        role: LinkRole, eventLoop: any EventLoop, logger: Logger, congestionControl: CongestionControl = .automatic,
        times: LinkTimes = LinkTimes(), random: RandomSource = .system
    ) {
        congestion = CongestionChooser(congestionControl)
        self.eventLoop = eventLoop
        self.logger = logger
        self.session = LinkSession(role: role, times: times, random: random, hasPrompt: congestionControl.beginning != nil)
    }

    /// True while a connection is established.
    public var isConnected: Bool { session.isConnected }
    /// The version of the protocol that both edges speak.
    public var version: UInt16 { session.version }
    /// What the link has done, and how the line is.
    public var statistics: LinkStatistics { session.statistics }
    /// How big pieces of data should be cut on this line (4 to 16 KiB).
    public var preferredPieceBytes: Int { session.preferredPieceBytes }

    /// Bytes that TCP has sent again on all connections, as of the last `readRetransmissions`.
    public private(set) var retransmittedBytes: UInt64 = 0

    /// The share of bytes that TCP has sent again lately, 0 to 1.
    public var lossShare: Double { loss.share }

    /// That is so much that the line counts as one that loses packets.
    public var isLossy: Bool { loss.isLossy }

    /// Asks the kernel how much it has sent again, and lets the session know whether the line loses packets. Called about once a second.
    public func readRetransmissions() {
        var new = TCPSentBytes()
        for connection in connections.values {
            guard let counts = LinkChannel.sentBytes(of: connection.channel) else { continue }
            new.add(counts, since: connection.sentBytes)
            connection.sentBytes = counts
        }
        retransmittedBytes &+= new.again
        loss.note(sentBytes: new.first, sentAgainBytes: new.again)
        session.setLossy(loss.isLossy)
        if congestion.note(isLossy: loss.isLossy) { controlCongestion() }
    }

    /// The algorithms that decide how fast the connections of this end may send, each once; mostly all have the same.
    public var congestionControls: [String] {
        Set(connections.values.compactMap { LinkChannel.congestionControl(of: $0.channel) }).sorted()
    }

    /// What connections of this end begin with; nil for what the system gives them.
    var beginningCongestionControl: String? { congestion.control.beginning }

    /// Sees to it that each connection has the algorithm for what it carries.
    private func controlCongestion() {
        // What the system gives a connection may depend on the route.
        if congestion.control == .system { return }
        let system = CongestionControl.systemName
        for connection in connections.values {
            guard let present = LinkChannel.congestionControl(of: connection.channel),
                let name = congestion.name(isPrompt: session.isPrompt(connection.identifier)) ?? system
            else { continue }
            if present == name || LinkChannel.setCongestionControl(name, of: connection.channel) { continue }
            // The line's loss is no fault of anybody: the link goes on, with what it would have if the line lost nothing.
            if let system, present != system { _ = LinkChannel.setCongestionControl(system, of: connection.channel) }
            if !refusedCongestionControls.insert(name).inserted { continue }
            logger.warning(
                "the kernel refuses a congestion control for the link: see net.ipv4.tcp_allowed_congestion_control",
                metadata: ["name": "\(name)", "inForce": "\(LinkChannel.congestionControl(of: connection.channel) ?? present)"])
        }
    }

    /// What this end sends at most.
    public var shape: LinkShape { session.shape }

    /// Puts other limits in force on what this end sends.
    public func setShape(_ shape: LinkShape) {
        eventLoop.preconditionInEventLoop()
        session.setShape(shape, now: .now())
        schedulePump()
    }

    /// True when `send` takes a message of the class.
    public func isWritable(_ trafficClass: TrafficClass, bulk: Bool = false) -> Bool {
        session.isWritable(trafficClass, isBulk: bulk)
    }

    /// Queues a message; it leaves in this turn of the event loop if it may.
    /// - Parameters:
    ///   - bulk: in `demand`, a piece of a long answer, which short ones may overtake.
    ///   - volume: whose data it carries, if it is one's.
    /// - Returns: false when there is no session yet, or when the class is full; `writable` follows then.
    public func send(
        _ message: LinkMessage, class trafficClass: TrafficClass, bulk: Bool = false, of volume: VolumeIdentifier? = nil
    ) -> Bool {
        eventLoop.preconditionInEventLoop()
        guard session.enqueue(message, trafficClass, isBulk: bulk, of: volume) else { return false }
        schedulePump()
        return true
    }

    /// Holds the other side back in a class while the layers above are behind, or lets it go on.
    public func setReceiving(_ isReceiving: Bool, class trafficClass: TrafficClass) {
        session.setReceiving(isReceiving, trafficClass, now: .now())
        schedulePump()
    }

    /// Closes all connections and ends the link for good.
    public func close(reason: String) {
        session.close(reason)
        pump()
        timer?.cancel()
        timer = nil
    }

    /// Takes a channel whose TLS is up and whose peer is who it should be.
    /// - Parameter ended: called once, when the channel is no longer used, with the reason if there is one to tell.
    func attach(_ channel: any Channel, ended: @escaping (String?) -> Void) -> any ChannelHandler & RemovableChannelHandler {
        let identifier = ConnectionIdentifier(nextConnection)
        nextConnection += 1
        let connection = Connection(identifier, channel, decompressor, streamBudget, ended: ended)
        connections[identifier] = connection
        session.connectionOpened(identifier, now: .now())
        controlCongestion()
        return LinkFrameHandler(self, identifier)
    }

    // What the channels say.

    /// Bytes have come, of a frame that may not be whole yet.
    func heard(on identifier: ConnectionIdentifier) { session.heard(on: identifier, now: .now()) }

    func received(_ frame: Frame, on identifier: ConnectionIdentifier) {
        let now = NIODeadline.now()
        guard frame.header.compression != .none else {
            session.receive(frame, on: identifier, now: now)
            drain()
            return
        }
        guard let connection = connections[identifier] else { return }
        do {
            let plain = try connection.decompressor.open(frame)
            session.receive(
                Frame(header: frame.header, payload: plain), wireBytes: FrameHeader.byteCount + frame.header.payloadBytes,
                on: identifier, now: now)
        } catch {
            session.violation(LinkViolation("a payload that does not decompress: \(error)"), on: identifier)
        }
        drain()
    }

    func violated(_ violation: LinkViolation, on identifier: ConnectionIdentifier) {
        session.violation(violation, on: identifier)
        pump()
    }

    func writabilityChanged(_ isWritable: Bool, on identifier: ConnectionIdentifier) {
        session.connectionWritable(identifier, isWritable)
        if isWritable { pump() }
    }

    func inactive(_ identifier: ConnectionIdentifier, error: String?) {
        session.connectionClosed(identifier, now: .now())
        connections.removeValue(forKey: identifier)?.ended(error)
        // With one less there may be no prompt connection any more.
        controlCongestion()
        pump()
    }

    // What the session says.

    private func schedulePump() {
        guard !isPumping, !isPumpScheduled else { return }
        isPumpScheduled = true
        eventLoop.assumeIsolated().execute {
            self.isPumpScheduled = false
            self.pump()
        }
    }

    /// Delivers what has arrived, sends what may be sent, and sees to the next deadline.
    func pump() {
        guard !isPumping else { return }
        isPumping = true
        drain()
        // What the layers above send when they hear of room goes out in the same turn.
        repeat { transmit() } while drain()
        isPumping = false
        arm()
    }

    /// Does what the session asks for.
    /// - Returns: false when it asked for nothing.
    @discardableResult
    private func drain() -> Bool {
        var hadAction = false
        while let action = session.nextAction() {
            hadAction = true
            switch action {
            case .sessionStarted:
                compressor.reset()
                delegate?.linkSessionStarted(self)
            case .connectivityChanged: delegate?.linkConnectivityChanged(self)
            case .deliver(let message, let trafficClass): delegate?.link(self, received: message, class: trafficClass)
            case .becameWritable(let trafficClass): delegate?.link(self, writable: trafficClass)
            case .closeConnection(let identifier, let reason): end(identifier, reason)
            }
        }
        return hadAction
    }

    private func end(_ identifier: ConnectionIdentifier, _ reason: LinkCloseReason) {
        guard let connection = connections.removeValue(forKey: identifier) else { return }
        lastCloseReason = reason
        logger.debug("link connection ended", metadata: ["reason": "\(reason)"])
        connection.channel.writeAndFlush(reason.goodbyeFrame.encoded(), promise: nil)
        connection.channel.close(promise: nil)
        connection.ended("\(reason)")
        controlCongestion()
    }

    private func transmit() {
        while mayTransmit(), let transmission = session.nextTransmission(now: .now()) {
            transmitted.byteCount += transmission.bytes.readableBytes
            // Also when nobody takes it: a copy may follow.
            let bytes = wireBytes(of: transmission)
            guard let connection = connections[transmission.connection] else {
                session.connectionClosed(transmission.connection, now: .now())
                continue
            }
            connection.unflushedBytes += bytes.readableBytes
            connection.channel.write(bytes, promise: nil)
            if connection.unflushedBytes >= LinkLimits.pieceBytes { flush(connection) }
        }
        for connection in connections.values where connection.unflushedBytes > 0 { flush(connection) }
    }

    /// False when this turn has made frames of so much that the loop serves others first.
    private func mayTransmit() -> Bool {
        guard let loopTurns else { return true }
        let turn = loopTurns.current
        if transmitted.turn != turn { transmitted = (turn, 0) }
        if transmitted.byteCount < Self.bytesInTurnMax { return true }
        if isPaused { return false }
        isPaused = true
        loopTurns.later(on: eventLoop) { [weak self] in
            guard let self else { return }
            isPaused = false
            pump()
        }
        return false
    }

    private func flush(_ connection: Connection) {
        connection.unflushedBytes = 0
        connection.channel.flush()
        if !connection.channel.isWritable { session.connectionWritable(connection.identifier, false) }
    }

    /// The frame as it goes on the line; a copy as the frame itself went.
    private func wireBytes(of transmission: LinkTransmission) -> ByteBuffer {
        guard transmission.header.kind == .data else { return transmission.bytes }
        if !transmission.isCopy {
            lastFrame = compressor.encode(
                transmission,
                streams: version >= LinkVersion.compressionStreams ? connections[transmission.connection]?.sendingStreams : nil,
                bytesPerSecond: session.bytesPerSecond(transmission.header.trafficClass))
        }
        session.compressed(transmission, wireBytes: lastFrame.readableBytes)
        return lastFrame
    }

    /// Sees to it that `tick` is called in time. An earlier timer is left alone: it will look again.
    private func arm() {
        guard var deadline = session.nextDeadline else { return }
        if deadline <= tickedAt { deadline = .now() + Self.pauseAfterTick }
        if let armed = timerDeadline, armed <= deadline { return }
        timer?.cancel()
        timerDeadline = deadline
        timer = eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { [weak self] in
            guard let self else { return }
            self.timerDeadline = nil
            self.tickedAt = .now()
            self.session.tick(now: self.tickedAt)
            self.pump()
        }
    }
}

/// The end of a channel's pipeline: bytes to frames, and frames to the endpoint.
final class LinkFrameHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private let endpoint: LinkEndpoint
    private let identifier: ConnectionIdentifier
    private var decoder = FrameDecoder()
    private var isBroken = false
    private var failure: String?

    init(_ endpoint: LinkEndpoint, _ identifier: ConnectionIdentifier) {
        self.endpoint = endpoint
        self.identifier = identifier
    }

    func handlerAdded(context: ChannelHandlerContext) { endpoint.pump() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isBroken else { return }
        decoder.append(unwrapInboundIn(data))
        endpoint.heard(on: identifier)
        do throws(LinkViolation) {
            while let frame = try decoder.next() { endpoint.received(frame, on: identifier) }
        } catch {
            isBroken = true
            endpoint.violated(error, on: identifier)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) { endpoint.pump() }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        endpoint.writabilityChanged(context.channel.isWritable, on: identifier)
    }

    func channelInactive(context: ChannelHandlerContext) { endpoint.inactive(identifier, error: failure) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        isBroken = true
        failure = "\(error)"
        context.close(promise: nil)
    }
}
