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
    /// How many connections to services may be about to be made, in all and for one tunnel, those included that nobody waits for any more:
    /// the clients of a service that does not answer leave room for those of others.
    static let connectsMax = 128
    static let connectsOfTunnelMax = 16
    /// How long the service may take for a connection.
    static let connectTimeout = TimeAmount.seconds(10)
    /// How long the other end may take to say that it has one.
    static let openPatience = TimeAmount.seconds(30)
    /// The pause before a listener is tried again whose address can't be had.
    static let listenPause = TimeAmount.seconds(5)
    /// What the kernel keeps of a connection that is not read.
    static let receiveBufferBytes: SocketOptionValue = 64 << 10
    /// How long a peer may be away before the connections through its link end, as those of a machine that is gone do.
    public static let absenceMax = TimeAmount.minutes(7)
    /// A connection whose machine is gone ends after seven minutes: five of silence and four questions, half a minute apart (TCP_KEEPIDLE,
    /// TCP_KEEPINTVL and TCP_KEEPCNT).
    static let keepAlive: [(option: CInt, value: SocketOptionValue)] = [(4, 300), (5, 30), (6, 4)]
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
        /// Connections to its service that are about to be made.
        var connecting = 0

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
    /// How long a piece should be on this line: others wait behind it.
    public var preferredPieceBytes: () -> Int = { LinkLimits.pieceBytes }
    /// True while the peer is there and knows of tunnels.
    public var isAvailable: () -> Bool = { false }
    /// Something is wrong with a tunnel that the operator should know, once.
    public var onProblem: (_ tunnel: String, _ text: String) -> Void = { _, _ in }

    let budget: WindowBudget
    var tunnels: [String: Tunnel] = [:]
    var streams: [UInt64: Stream] = [:]
    var nextIdentifier: UInt64
    var connecting = 0
    /// Those that have something to send, by class; and resets of connections that are gone.
    private var ready: [TrafficClass: Deque<UInt64>] = [:]
    var resets: [TrafficClass: Deque<LinkMessage>] = [:]
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

    func note(_ text: String, of tunnel: Tunnel) {
        if tunnel.problem == text { return }
        tunnel.problem = text
        onProblem(tunnel.settings.name, text)
    }

    // MARK: What goes out

    /// The link takes messages of a class again.
    public func linkWritable(_ trafficClass: TrafficClass) { pump(trafficClass) }

    /// Nothing of an earlier session survived.
    public func sessionLost() {
        ready = [:]
        resets = [:]
        for stream in streams.values { forget(stream) }
    }

    /// The peer has been away for longer than a machine may be: services and clients need not wait for it any more. Should it come back in the
    /// same session, it is told.
    public func peerIsGone() {
        let classes = Set(streams.values.map(\.trafficClass))
        for stream in Array(streams.values) { reset(stream, .aborted) }
        for trafficClass in classes { pump(trafficClass) }
    }

    func makeReady(_ stream: Stream) {
        guard !stream.isReady else { return }
        stream.isReady = true
        ready[stream.trafficClass, default: []].append(stream.identifier)
    }

    func pump(_ trafficClass: TrafficClass) {
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
        return stream.state.nextMessage(stream.identifier, pieceBytes: preferredPieceBytes())
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
    func end(_ stream: Stream) {
        drop(stream)
        stream.channel?.close(promise: nil)
    }

    /// Breaks a connection off, and lets the peer know.
    func reset(_ stream: Stream, _ reason: TunnelReset) {
        // One of which the peer has not heard needs no word.
        if case .tunnelOpen? = stream.owedOpening {} else { queueReset(stream.identifier, reason, stream.trafficClass) }
        forget(stream)
    }

    func forget(_ stream: Stream) {
        drop(stream)
        if let channel = stream.channel { Self.abort(channel) }
    }

    func drop(_ stream: Stream) {
        guard streams[stream.identifier] === stream else { return }
        streams[stream.identifier] = nil
        stream.patience?.cancel()
        stream.state.clear()
        stream.unwritten = ByteBuffer()
        stream.tunnel.statistics.connections -= 1
        budget.giveBack(stream.state.windowBytes)
    }

    func queueReset(_ identifier: UInt64, _ reason: TunnelReset, _ trafficClass: TrafficClass) {
        guard (resets[trafficClass]?.count ?? 0) < Self.resetsMax else { return }
        resets[trafficClass, default: []].append(.tunnelReset(stream: identifier, reason: reason))
    }

    /// Closes a channel so that its other side sees a reset: an end of file would pass for the end of what was said.
    static func abort(_ channel: any Channel) {
        (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in channel.close(promise: nil)
        }
    }
}
