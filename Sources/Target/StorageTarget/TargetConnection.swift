import Blocks
import ISCSI
import NIOCore
import SCSI

// One connection, from accept to the end of its last command:
//
//   login --(finish)--> [a session of the same name ends] --> full feature --(logout, error, retire)--> ending --> ended
//     |                                                                                                   ^
//     +--------------------------------(refused, timeout, garbage, closed by the peer)--------------------+
//
// `ending` lasts until no command of the session can touch a medium any more; the socket may be gone long before.
// Answers made during one turn of the event loop leave together.

/// The channel handler of a connection.
final class TargetConnection: ChannelDuplexHandler, FrontEndConnection {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// A cached read of at most this many bytes is answered on the loop; a longer one costs the loop more than the way to a
    /// thread of the pool and back.
    static var inPlaceByteCount: Int { 32_768 }

    let server: StorageTargetServer
    let channel: any Channel
    var session: TargetSession?
    /// The target of a normal session.
    var target: ServedTarget?
    /// Who logged in, from the end of the negotiation on.
    var identity: LoginIdentity?
    /// Who the logical units take the session for; that of another connection when this one has taken its place.
    var nexus: NexusIdentifier
    /// The portal group of the listener that accepted the connection.
    let portalGroupTag: UInt16
    /// The commands of the session that are not answered yet.
    var commands: [TaskHandle: CommandContext] = [:]
    /// Commands that are with a logical unit.
    var runningCount = 0
    /// Who waits for tasks of this session to end, by the session's token.
    var abortWaiters: [UInt32: () -> Void] = [:]

    /// Who waits for commands on units that the target has lost.
    var departures: [(unit: LogicalUnit, completion: () -> Void)] = []

    var login: LoginNegotiator?
    var decoder: PDUDecoder
    var encoder = PDUEncoder()
    let answers: AnswerBatch
    /// The connection's shares of the memory for data in both directions.
    let dataIn: BudgetShare
    let dataOut: BudgetShare

    enum Phase {
        case login
        /// A login is done, and waits for the session that it replaces.
        case replacing
        case fullFeature
        /// No more commands are taken; those in flight finish.
        case retiring
        case ending
    }
    var phase = Phase.login
    var isActive = false
    private var isProcessing = false
    private var isDraining = false
    var isLogoutRequested = false
    var hasNexus = false
    private var isReadPending = false
    /// What came since the last look at the clock.
    private var sawTraffic = true
    private var sawDataOut = false
    private var progress = PeerProgress(now: .uptimeNanoseconds(0))
    private var openedAt = NIODeadline.uptimeNanoseconds(0)
    var endWaiters: [() -> Void] = []
    var isEnded = false

    init(server: StorageTargetServer, channel: any Channel, portalGroupTag: UInt16) {
        self.server = server
        self.channel = channel
        self.portalGroupTag = portalGroupTag
        nexus = server.makeNexus()
        dataIn = BudgetShare(of: server.dataIn, limit: server.limits.sessionByteCount)
        dataOut = BudgetShare(of: server.dataOut, limit: server.limits.sessionByteCount)
        answers = AnswerBatch(channel: channel, buffers: server.batchBuffers, share: dataIn)
        decoder = PDUDecoder(maximumDataByteCount: LoginNegotiator.maximumTextByteCount)
    }

    // MARK: Channel events

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { start() }
    }

    func channelActive(context: ChannelHandlerContext) {
        start()
        context.fireChannelActive()
    }

    private func start() {
        guard !isActive else { return }
        isActive = true
        openedAt = channel.eventLoop.now
        progress = PeerProgress(now: openedAt)
        guard server.open(self) else {
            phase = .ending
            server.note("a connection was refused: there are too many", from: channel.remoteAddress)
            channel.close(promise: nil)
            return
        }
        let (server, tag) = (server, portalGroupTag)
        var limits = server.limits.negotiation
        limits.targetPortalGroupTag = tag
        login = LoginNegotiator(
            limits: limits, tsih: server.makeTSIH(), random: { server.random.bytes($0) },
            find: { server.continuation(of: $0, tsih: $1, connectionIdentifier: $2, portalGroupTag: tag) },
            admit: { server.admit($0) })
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard phase != .ending else { return }
        sawTraffic = true
        decoder.append(unwrapInboundIn(data))
        process()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        server.wakefulness?.arrived()
        answers.flush()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        resume()
        context.fireChannelWritabilityChanged()
    }

    func read(context: ChannelHandlerContext) {
        if isPaused { isReadPending = true } else { context.read() }
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    /// True while nothing may be taken from the connection: its answers are not leaving, or it waits for something.
    private var isPaused: Bool {
        switch phase {
        case .login, .fullFeature, .retiring: !channel.isWritable
        case .replacing, .ending: true
        }
    }

    /// Goes on with what has come, when nothing stands in the way any more.
    func resume() {
        guard !isPaused else { return }
        process()
        answers.flush()
        if isReadPending, !isPaused {
            isReadPending = false
            channel.pipeline.syncOperations.read()
        }
    }

    // MARK: Frames

    private func process() {
        guard !isProcessing else { return }
        isProcessing = true
        defer { isProcessing = false }
        do {
            while !isPaused, let frame = try decoder.next() {
                switch phase {
                case .login: try negotiate(frame)
                case .fullFeature, .retiring:
                    if frame.isDataOut { sawDataOut = true }
                    session?.receive(frame)
                    drain()
                case .replacing, .ending: break
                }
            }
        } catch {
            fail("not iSCSI: \(error)")
        }
    }

    // MARK: Actions of the session

    /// Carries out what the session wants. Commands that end at once add to the queue of the outermost call.
    func drain() {
        guard !isDraining else { return }
        isDraining = true
        defer { isDraining = false }
        while let action = session?.popAction() { carryOut(action) }
        if !isProcessing { answers.scheduleFlush() }
    }

    private func carryOut(_ action: SessionAction) {
        switch action {
        case .send(let pdu): write(pdu)
        case .started(let handle): begin(handle)
        case .execute(let handle): execute(handle)
        case .failed(let handle, let failure): answer(handle, failure)
        case .dropped(let handle): drop(handle)
        case .abort(let handle): abort(handle)
        case .taskManagement(let request): manage(request)
        case .aborted(let token): abortWaiters.removeValue(forKey: token)?()
        case .close(.logout): closeAfterFlush()
        case .close(.protocolError(let reason)): fail("protocol error: \(reason)")
        }
    }

    func write(_ pdu: TargetPDU) {
        guard isActive, channel.isActive else { return }
        if case .dataIn(let data) = pdu, data.data.readableBytes >= AnswerBatch.gatherByteCount {
            answers.begin(headerByteCount: encoder.headerByteCount, dataByteCount: data.data.readableBytes)
            encoder.writeHeader(data.header, dataByteCount: data.data.readableBytes, into: &answers.buffer)
            answers.appendAsItIs(data.data)
            guard encoder.hasTrailer(for: data.data) else { return }
            answers.begin()
            encoder.writeTrailer(for: data.data, into: &answers.buffer)
        } else {
            answers.begin()
            encoder.write(pdu.frame, into: &answers.buffer)
        }
        if answers.isLong { answers.handOver() }
    }

    // MARK: Time

    func lookAtClock(_ now: NIODeadline) {
        noteProgress(now)
        switch phase {
        case .login: if now - openedAt >= server.limits.loginTime { fail("no login in time") }
        case .fullFeature:
            guard let session else { return }
            let silence = progress.silence(now)
            let dataTime = dataOut.isContended ? server.limits.contendedTime : server.limits.dataTime
            if progress.dataSilence(now) >= dataTime {
                fail("the data of a write did not come")
            } else if progress.isFull, dataIn.isContended, silence >= server.limits.contendedTime {
                fail("the answers are not taken, and others wait for their memory")
            } else if session.identity.sessionType == .discovery {
                // Nothing but SendTargets may be said there, so there is no ping.
                if silence >= server.limits.idleTime { fail("a silent discovery session") }
            } else if session.isPingOutstanding {
                if silence >= server.limits.idleTime + server.limits.pingTime { fail("no answer to a ping") }
            } else if silence >= server.limits.idleTime {
                self.session?.ping()
                drain()
            }
        // Who replaces a session waits for its commands, which may wait for the other site.
        case .replacing, .retiring, .ending: break
        }
    }

    private func noteProgress(_ now: NIODeadline) {
        let held = channel.isWritable ? nil : try? channel.syncOptions?.getOption(.bufferedWritableBytes)
        progress.look(now, sawTraffic: sawTraffic, sawData: sawDataOut, outboundByteCount: held, awaitsData: isAwaitingData)
        (sawTraffic, sawDataOut) = (false, false)
    }

    /// True while a command has the memory for its data, and the data is still to come.
    private var isAwaitingData: Bool {
        commands.values.contains { !$0.isRunning && $0.reservedByteCount > 0 && $0.transfer.direction == .fromInitiator }
    }

    /// The session for operators.
    var sessionDescription: StorageSessionDescription? {
        guard let session else { return nil }
        return StorageSessionDescription(
            initiatorName: session.identity.initiatorName, isid: session.identity.isid.value, tsih: session.tsih,
            remoteAddress: channel.remoteAddress.map { String(describing: $0) } ?? "", commandsInFlight: session.taskCount,
            hasHeaderDigest: session.parameters.digests.header, hasDataDigest: session.parameters.digests.data)
    }
}
