import DequeModule
import LinkProtocol
import NIOCore
import NIOPosix

/// All tunnels between this edge and one peer. Confined to one event loop.
///
/// Connections of a class have turns, one piece each; what a stream owes besides (that it was opened, credit, its end) goes with its turn.
public final class TunnelEnd {
    /// How many connections may be open at a time, as long as their first windows take no more than half of the budget; one more is reset
    /// at once.
    public static let connectionsMax = 256
    /// How many services may be about to be connected to, those included that nobody waits for any more.
    static let connectsMax = 16
    /// How long the service may take for a connection.
    static let connectTimeout = TimeAmount.seconds(10)
    /// How long the other end may take to say that it has one.
    static let openPatience = TimeAmount.seconds(30)
    /// The pause before a listener is tried again whose address can't be had.
    static let listenPause = TimeAmount.seconds(5)
    /// What the kernel keeps of a connection that is not read.
    static let receiveBufferBytes: SocketOptionValue = 64 << 10
    /// What is read of a connection at once.
    static let readBytes = 32 << 10
    /// Resets that wait for the link. More are for a peer that keeps no limit, and are forgotten.
    static let resetsMax = 1_024

    /// A tunnel, as it is set.
    final class Tunnel {
        let settings: TunnelSettings
        var statistics = TunnelStatistics()
        var listener: TunnelListener?
        /// Where it listens, once it does.
        var address: SocketAddress?
        /// Why it can't listen, or why the last connection came to nothing.
        var problem: String?
        var isRemoved = false

        init(_ settings: TunnelSettings) { self.settings = settings }
    }

    /// A connection.
    final class Stream {
        let identifier: UInt64
        let tunnel: Tunnel
        var state: TunnelStream
        var channel: (any Channel)?
        /// That it is to be opened, or was.
        var owedOpening: LinkMessage?
        var owedGrant: UInt32 = 0
        /// It is among those that have a turn.
        var isReady = false
        /// The channel was asked to read, and has not answered yet.
        var isReading = false
        var isOutputClosed = false
        /// Arrived while a write was under way.
        var unwritten = ByteBuffer()
        var isWriting = false
        /// Ends the wait for the other end.
        var patience: Scheduled<Void>?

        init(_ identifier: UInt64, _ tunnel: Tunnel, _ state: TunnelStream) {
            self.identifier = identifier
            self.tunnel = tunnel
            self.state = state
        }

        var trafficClass: TrafficClass { tunnel.settings.precedence.trafficClass }
    }

    let eventLoop: any EventLoop
    /// Hands a message to the link; false when the class takes no more, and `linkWritable` will be called.
    public var send: (_ message: LinkMessage, _ trafficClass: TrafficClass) -> Bool = { _, _ in false }
    /// True while the peer is there and knows of tunnels.
    public var isAvailable: () -> Bool = { false }
    /// Something is wrong with a tunnel that the operator should know, once.
    public var onProblem: (_ tunnel: String, _ text: String) -> Void = { _, _ in }

    let budget: WindowBudget
    private var tunnels: [String: Tunnel] = [:]
    private(set) var streams: [UInt64: Stream] = [:]
    private var nextIdentifier: UInt64
    private var connecting = 0
    /// Those that have something to send, by class; and resets of connections that are gone.
    private var ready: [TrafficClass: Deque<UInt64>] = [:]
    private var resets: [TrafficClass: Deque<LinkMessage>] = [:]
    private var pumping: Set<TrafficClass> = []

    /// - Parameters:
    ///   - role: the end of the link: it tells the numbers of this end's connections from those of the other one's.
    ///   - budget: what the windows of all connections take from; the ends of several peers may share it.
    public init(role: LinkRole, eventLoop: any EventLoop, budget: WindowBudget) {
        self.eventLoop = eventLoop
        self.budget = budget
        nextIdentifier = role == .initiator ? 1 : 2
    }

    // MARK: What there is

    /// Sets which tunnels there are. Those that are as before go on; connections of others are reset.
    public func set(_ wanted: [TunnelSettings]) {
        eventLoop.preconditionInEventLoop()
        let names = Dictionary(wanted.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        for (name, tunnel) in tunnels where names[name] != tunnel.settings { remove(tunnel) }
        for settings in wanted where tunnels[settings.name] == nil {
            let tunnel = Tunnel(settings)
            tunnels[settings.name] = tunnel
            listen(tunnel)
        }
    }

    /// What is known of a tunnel; nil when there is none of that name.
    public func report(of name: String) -> (statistics: TunnelStatistics, address: SocketAddress?, problem: String?)? {
        tunnels[name].map { ($0.statistics, $0.address, $0.problem) }
    }

    /// Ends everything.
    public func stop() { set([]) }

    private func remove(_ tunnel: Tunnel) {
        tunnel.isRemoved = true
        tunnel.listener?.stop()
        tunnel.listener = nil
        tunnels[tunnel.settings.name] = nil
        for stream in streams.values where stream.tunnel === tunnel { reset(stream, .aborted) }
        pump(tunnel.settings.precedence.trafficClass)
    }

    private func listen(_ tunnel: Tunnel) {
        guard !tunnel.isRemoved, case .listens(let host, let port, let allowed) = tunnel.settings.part else { return }
        let bound = NIOLoopBound((end: self, tunnel: tunnel), eventLoop: eventLoop)
        let listener = TunnelListener(eventLoop: eventLoop, host: host, port: port, allowed: allowed) { channel in
            bound.value.end.accepted(channel, tunnel)
        } refused: { _ in
            tunnel.statistics.refusedTotal += 1
        }
        tunnel.listener = listener
        listener.start().whenComplete { result in
            let (end, tunnel) = bound.value
            switch result {
            case .success(let address):
                tunnel.address = address
                tunnel.problem = nil
            case .failure(let error):
                if tunnel.isRemoved { return }
                end.note("can't listen at \(host):\(port): \(error)", of: tunnel)
                end.eventLoop.scheduleTask(in: Self.listenPause) { bound.value.end.listen(bound.value.tunnel) }
            }
        }
    }

    private func note(_ text: String, of tunnel: Tunnel) {
        if tunnel.problem == text { return }
        tunnel.problem = text
        onProblem(tunnel.settings.name, text)
    }

    // MARK: Connections that begin

    /// A client has come.
    private func accepted(_ channel: any Channel, _ tunnel: Tunnel) {
        guard isAvailable(), !tunnel.isRemoved, let stream = add(nextIdentifier, tunnel, TunnelStream()) else {
            tunnel.statistics.refusedTotal += 1
            return Self.abort(channel)
        }
        nextIdentifier += 2
        stream.owedOpening = .tunnelOpen(
            stream: stream.identifier, window: UInt32(clamping: TunnelStream.firstWindowBytes), name: tunnel.settings.name)
        attach(channel, to: stream)
        stream.patience = eventLoop.assumeIsolated().scheduleTask(in: Self.openPatience) { [weak self, weak stream] in
            guard let self, let stream, self.streams[stream.identifier] === stream, stream.state.phase == .opening else { return }
            self.note("the other edge did not answer in time", of: stream.tunnel)
            self.reset(stream, .aborted)
            self.pump(stream.trafficClass)
        }
        makeReady(stream)
        pump(stream.trafficClass)
    }

    /// The peer has a client: connects to the service.
    private func open(_ identifier: UInt64, window: UInt32, name: String) {
        guard let tunnel = tunnels[name], case .connects(let host, let port) = tunnel.settings.part else {
            return queueReset(identifier, .unknown, .control)
        }
        let trafficClass = tunnel.settings.precedence.trafficClass
        guard identifier % 2 != nextIdentifier % 2, streams[identifier] == nil else {
            return queueReset(identifier, .violation, trafficClass)
        }
        guard connecting < Self.connectsMax, let stream = add(identifier, tunnel, TunnelStream(sendCredit: window)) else {
            tunnel.statistics.refusedTotal += 1
            return queueReset(identifier, .busy, trafficClass)
        }
        connecting += 1
        let bound = NIOLoopBound((end: self, stream: stream), eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(Self.connectTimeout)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.readBytes))
            .connect(host: host, port: port)
            .whenComplete { bound.value.end.connected(bound.value.stream, $0) }
    }

    private func connected(_ stream: Stream, _ result: Result<any Channel, any Error>) {
        connecting -= 1
        let isThere = streams[stream.identifier] === stream
        switch result {
        case .success(let channel) where isThere:
            stream.tunnel.problem = nil
            stream.owedOpening = .tunnelOpened(stream: stream.identifier, window: UInt32(clamping: TunnelStream.firstWindowBytes))
            attach(channel, to: stream)
            makeReady(stream)
        case .success(let channel): Self.abort(channel)
        case .failure(let error):
            if !isThere { return }
            stream.tunnel.statistics.refusedTotal += 1
            if case .connects(let host, let port) = stream.tunnel.settings.part {
                note("can't connect to \(host):\(port): \(error)", of: stream.tunnel)
            }
            reset(stream, .unreachable)
        }
        pump(stream.trafficClass)
    }

    private func add(_ identifier: UInt64, _ tunnel: Tunnel, _ state: TunnelStream) -> Stream? {
        let share = budget.byteCountMax / 2 / TunnelStream.firstWindowBytes
        guard streams.count < min(Self.connectionsMax, share), budget.take(TunnelStream.firstWindowBytes) else { return nil }
        let stream = Stream(identifier, tunnel, state)
        streams[identifier] = stream
        tunnel.statistics.connections += 1
        tunnel.statistics.connectionsTotal += 1
        return stream
    }

    private func attach(_ channel: any Channel, to stream: Stream) {
        stream.channel = channel
        do {
            try channel.syncOptions?.setOption(.tcpOption(.tcp_nodelay), value: 1)
            try channel.syncOptions?.setOption(.socketOption(.so_keepalive), value: 1)
            // At its end a channel hands over at once what the kernel has, asked or not.
            try channel.syncOptions?.setOption(.socketOption(.so_rcvbuf), value: Self.receiveBufferBytes)
            try channel.pipeline.syncOperations.addHandler(TunnelChannelHandler(self, stream))
        } catch {
            reset(stream, .aborted)
        }
    }

    // MARK: What the peer says

    /// A message of a tunnel has come.
    public func receive(_ message: LinkMessage) {
        switch message {
        case .tunnelOpen(let identifier, let window, let name): open(identifier, window: window, name: name)
        case .tunnelReset(let identifier, let reason):
            guard let stream = streams[identifier] else { return }
            note(reason, on: stream)
            forget(stream)
        case .tunnelOpened(let identifier, _), .tunnelData(let identifier, _, _), .tunnelCredit(let identifier, _),
            .tunnelFinish(let identifier):
            // What was on its way when its connection ended is of no use.
            guard let stream = streams[identifier] else { return }
            if !take(message, stream) { reset(stream, .violation) }
            pump(stream.trafficClass)
        default: break
        }
        for trafficClass in [TrafficClass.control, .migration] where resets[trafficClass]?.isEmpty == false { pump(trafficClass) }
    }

    private func note(_ reason: TunnelReset, on stream: Stream) {
        let text: String?
        switch reason {
        case .aborted: text = nil
        case .unknown: text = "the other edge knows no such tunnel"
        case .unreachable: text = "the other edge can't reach the service"
        case .busy: text = "the other edge has too many connections"
        case .violation: text = "the other edge has ended a connection that broke the rules"
        }
        guard let text else { return }
        stream.tunnel.statistics.refusedTotal += 1
        note(text, of: stream.tunnel)
    }

    /// - Returns: false when the message makes no sense.
    private func take(_ message: LinkMessage, _ stream: Stream) -> Bool {
        switch message {
        case .tunnelOpened(_, let window):
            guard stream.state.opened(window: window) else { return false }
            stream.tunnel.problem = nil
            makeReady(stream)
        case .tunnelCredit(_, let byteCount):
            guard stream.state.credited(byteCount) else { return false }
            makeReady(stream)
        case .tunnelData(_, let isShort, let data):
            guard stream.channel != nil, stream.state.received(data.readableBytes, isShort: isShort) else { return false }
            stream.tunnel.statistics.receivedBytes &+= UInt64(data.readableBytes)
            // However small the pieces are, one write is under way and one buffer waits.
            if stream.unwritten.readableBytes == 0 { stream.unwritten = data } else { stream.unwritten.writeImmutableBuffer(data) }
            write(stream)
        case .tunnelFinish:
            guard stream.channel != nil, stream.state.receivedEnd() else { return false }
            closeOutput(stream)
        default: return false
        }
        return true
    }

    // MARK: What the channels say

    func read(_ bytes: ByteBuffer, _ stream: Stream) {
        stream.state.read(bytes)
        stream.tunnel.statistics.sentBytes &+= UInt64(bytes.readableBytes)
        makeReady(stream)
    }

    /// All that was there has been read.
    func readComplete(_ stream: Stream) {
        stream.isReading = false
        pump(stream.trafficClass)
        readMore(stream)
    }

    func readEnd(_ stream: Stream) {
        stream.state.readEnd()
        makeReady(stream)
        pump(stream.trafficClass)
    }

    /// The channel is closed, by whomever.
    /// - Parameter isBroken: by an error.
    func inactive(_ stream: Stream, isBroken: Bool) {
        guard streams[stream.identifier] === stream else { return }
        stream.channel = nil
        if stream.isOutputClosed, !isBroken {
            // It was closed as it should be: its input has ended behind its output. What it said may still wait for the link.
            if !stream.state.localHasEnded { readEnd(stream) }
            return
        }
        reset(stream, .aborted)
        pump(stream.trafficClass)
    }

    /// Hands over what has arrived, unless a write is under way.
    private func write(_ stream: Stream) {
        let byteCount = stream.unwritten.readableBytes
        guard let channel = stream.channel, !stream.isWriting, byteCount > 0 else { return }
        stream.isWriting = true
        let bound = NIOLoopBound((end: self, stream: stream), eventLoop: eventLoop)
        let bytes = stream.unwritten
        stream.unwritten = ByteBuffer()
        channel.writeAndFlush(bytes).assumeIsolated().whenSuccess { bound.value.end.wrote(byteCount, bound.value.stream) }
    }

    private func wrote(_ byteCount: Int, _ stream: Stream) {
        guard streams[stream.identifier] === stream else { return }
        stream.isWriting = false
        write(stream)
        if let grant = stream.state.wrote(byteCount, budget) {
            stream.owedGrant += grant
            makeReady(stream)
        }
        closeOutput(stream)
        pump(stream.trafficClass)
    }

    private func closeOutput(_ stream: Stream) {
        guard stream.state.outputHasEnded, !stream.isOutputClosed else { return }
        stream.isOutputClosed = true
        if stream.state.isDone { end(stream) } else { stream.channel?.close(mode: .output, promise: nil) }
    }

    private func readMore(_ stream: Stream) {
        guard let channel = stream.channel, !stream.isReading, stream.state.wantsToRead else { return }
        stream.isReading = true
        channel.read()
    }

    /// The channel can be read.
    func active(_ stream: Stream) { readMore(stream) }

    // MARK: What goes out

    /// The link takes messages of a class again.
    public func linkWritable(_ trafficClass: TrafficClass) { pump(trafficClass) }

    /// Nothing of an earlier session survived.
    public func sessionLost() {
        ready = [:]
        resets = [:]
        for stream in streams.values { forget(stream) }
    }

    private func makeReady(_ stream: Stream) {
        guard !stream.isReady else { return }
        stream.isReady = true
        ready[stream.trafficClass, default: []].append(stream.identifier)
    }

    private func pump(_ trafficClass: TrafficClass) {
        guard pumping.insert(trafficClass).inserted else { return }
        defer { pumping.remove(trafficClass) }
        while let message = resets[trafficClass]?.first {
            guard send(message, trafficClass) else { return }
            resets[trafficClass]?.removeFirst()
        }
        while let identifier = ready[trafficClass]?.popFirst() {
            guard let stream = streams[identifier] else { continue }
            guard let message = next(stream) else {
                stream.isReady = false
                continue
            }
            guard send(message, trafficClass) else {
                ready[trafficClass]?.prepend(identifier)
                return
            }
            sent(message, stream)
            ready[trafficClass]?.append(identifier)
        }
    }

    private func next(_ stream: Stream) -> LinkMessage? {
        if let opening = stream.owedOpening { return opening }
        if stream.owedGrant > 0 { return .tunnelCredit(stream: stream.identifier, byteCount: stream.owedGrant) }
        return stream.state.nextMessage(stream.identifier)
    }

    private func sent(_ message: LinkMessage, _ stream: Stream) {
        switch message {
        case .tunnelOpen, .tunnelOpened: stream.owedOpening = nil
        case .tunnelCredit: stream.owedGrant = 0
        default:
            stream.state.sent(message)
            if stream.state.isDone { end(stream) } else { readMore(stream) }
        }
    }

    // MARK: Connections that end

    /// Both directions have ended as they should.
    private func end(_ stream: Stream) {
        drop(stream)
        stream.channel?.close(promise: nil)
    }

    /// Breaks a connection off, and lets the peer know.
    private func reset(_ stream: Stream, _ reason: TunnelReset) {
        // One of which the peer has not heard needs no word.
        if case .tunnelOpen? = stream.owedOpening {} else { queueReset(stream.identifier, reason, stream.trafficClass) }
        forget(stream)
    }

    private func forget(_ stream: Stream) {
        drop(stream)
        if let channel = stream.channel { Self.abort(channel) }
    }

    private func drop(_ stream: Stream) {
        guard streams[stream.identifier] === stream else { return }
        streams[stream.identifier] = nil
        stream.patience?.cancel()
        stream.state.clear()
        stream.unwritten = ByteBuffer()
        stream.tunnel.statistics.connections -= 1
        budget.giveBack(stream.state.windowBytes)
    }

    private func queueReset(_ identifier: UInt64, _ reason: TunnelReset, _ trafficClass: TrafficClass) {
        guard (resets[trafficClass]?.count ?? 0) < Self.resetsMax else { return }
        resets[trafficClass, default: []].append(.tunnelReset(stream: identifier, reason: reason))
    }

    /// Closes a channel so that its other side sees a reset: an end of file would pass for the end of what was said.
    private static func abort(_ channel: any Channel) {
        (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in channel.close(promise: nil)
        }
    }
}

/// Hands what a channel says to the end of its tunnel.
private final class TunnelChannelHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let end: TunnelEnd
    private let stream: TunnelEnd.Stream
    private var isBroken = false

    init(_ end: TunnelEnd, _ stream: TunnelEnd.Stream) {
        self.end = end
        self.stream = stream
    }

    func handlerAdded(context: ChannelHandlerContext) { if context.channel.isActive { end.active(stream) } }
    func channelActive(context: ChannelHandlerContext) { end.active(stream) }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { end.read(unwrapInboundIn(data), stream) }
    func channelReadComplete(context: ChannelHandlerContext) { end.readComplete(stream) }
    func channelInactive(context: ChannelHandlerContext) { end.inactive(stream, isBroken: isBroken) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if (error as? ChannelError) != .eof { isBroken = true }
        context.close(promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { end.readEnd(stream) }
        context.fireUserInboundEventTriggered(event)
    }
}
