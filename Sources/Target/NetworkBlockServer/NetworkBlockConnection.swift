import Blocks
import NBD
import NIOCore
import NIOSSL
import NIOTLS
import StorageTarget

// One connection, from accept to the end of its last request:
//
//   handshake --(export chosen)--> transmission --(DISC, retire)--> retiring --(nothing in flight)--> ending --> ended
//     |  ^                              |                                                              ^
//     v  | TLS is up                    |                                                              |
//   upgrading                           |                                                              |
//     +----------(refused, timeout, garbage, closed by the peer)---------------------------------------+
//
// `ending` lasts until no request of the connection can touch a medium any more; the socket may be gone long before.
// Answers made during one turn of the event loop leave together.

/// The channel handler of a connection.
final class NetworkBlockConnection: ChannelDuplexHandler, FrontEndConnection {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let server: NetworkBlockServer
    let channel: any Channel
    let nexus: NexusIdentifier
    private(set) var client: NetworkBlockClient
    /// Set with the transmission phase, like the three after it.
    private(set) var export: NetworkBlockExport?
    private(set) var terms: NBDTerms?
    private(set) var runner: BlockRequestRunner?
    var replies = NBDReplyEncoder(usesStructuredReplies: false)

    enum Phase {
        case handshake
        /// The client was told to begin TLS.
        case upgrading
        case transmission
        /// No more requests are taken; those in flight finish.
        case retiring
        case ending
    }
    var phase = Phase.handshake

    private var handshake: NBDHandshake?
    /// What came before the transmission phase and is not used yet.
    private var handshakeInput = ByteBuffer()
    var decoder = NBDRequestDecoder()
    /// The write whose payload comes now.
    var incoming: IncomingWrite?
    /// Bytes of a payload that nobody wants.
    var skippedByteCount = 0
    /// True while the next piece of a payload has no room.
    var waitsForRoom = false
    /// Requests that are not answered yet.
    var requestCount = 0

    let answers: AnswerBatch
    /// The connection's share of the server's memory for reads.
    let reads: BudgetShare
    private var isActive = false
    private var isProcessing = false
    private var isReadPending = false
    private var openedAt = NIODeadline.uptimeNanoseconds(0)
    /// When bytes came last, for payloads.
    private var lastTraffic = NIODeadline.uptimeNanoseconds(0)
    private var sawTraffic = false
    /// Since when the client has taken no answers.
    private var unwritableSince: NIODeadline?
    var endWaiters: [() -> Void] = []
    var isEnded = false

    init(server: NetworkBlockServer, channel: any Channel) {
        self.server = server
        self.channel = channel
        nexus = server.makeNexus()
        client = NetworkBlockClient(address: channel.remoteAddress)
        reads = BudgetShare(of: server.reads, limit: server.limits.connectionReadByteCount)
        answers = AnswerBatch(channel: channel, buffers: server.batchBuffers, share: reads)
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
        client = NetworkBlockClient(address: channel.remoteAddress)
        guard server.open(self) else { return turnAway("a connection was refused: there are too many") }
        guard let security = server.security.mode(for: client) else {
            return turnAway("a connection from another machine was refused: there is no TLS, and nbd.allowPlain is not set")
        }
        // The server knows who may see what; the client is known better once TLS is up.
        let handshake = NBDHandshake(
            security: security, list: { [unowned self] in server.names(for: client) },
            find: { [unowned self] name in
                guard let export = server.find(name, for: client) else { return server.isReady ? .unknown : .notReady }
                return .found(NBDExport(export))
            })
        handshake.greet(into: &answers.buffer)
        self.handshake = handshake
        answers.flush()
    }

    private func turnAway(_ reason: String) {
        server.note(reason, from: channel.remoteAddress)
        closeNow()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard phase != .ending else { return }
        sawTraffic = true
        let bytes = unwrapInboundIn(data)
        if handshake == nil { decoder.append(bytes) } else { handshakeInput.writeImmutableBuffer(bytes) }
        process()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        server.wakefulness?.arrived()
        answers.flush()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        unwritableSince = channel.isWritable ? nil : channel.eventLoop.now
        resume()
        context.fireChannelWritabilityChanged()
    }

    func read(context: ChannelHandlerContext) {
        if isPaused { isReadPending = true } else { context.read() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent { tlsDidBegin() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if phase == .upgrading { server.note("TLS failed: \(error)", from: channel.remoteAddress) }
        context.close(promise: nil)
    }

    /// True while nothing may be taken from the connection: its answers are not leaving, or it has enough in flight.
    private var isPaused: Bool {
        switch phase {
        case .handshake: !channel.isWritable
        case .upgrading: false
        case .transmission: !channel.isWritable || waitsForRoom || requestCount >= server.limits.requests
        case .retiring, .ending: true
        }
    }

    /// Goes on with what has arrived, if nothing stands in the way.
    func resume() {
        guard !isPaused, !isProcessing else { return }
        process()
        answers.flush()
        if isReadPending, !isPaused {
            isReadPending = false
            channel.pipeline.syncOperations.read()
        }
    }

    private func process() {
        guard !isProcessing else { return }
        isProcessing = true
        defer { isProcessing = false }
        do {
            while !isPaused {
                let goesOn = handshake == nil ? try takeRequest() : try negotiate()
                if !goesOn { break }
                if answers.isLong { answers.flush() }
            }
        } catch let error as NBDHandshakeError {
            fail("a handshake ended: \(error)")
        } catch {
            fail("not NBD: \(error)")
        }
    }

    // MARK: Handshake

    /// - Returns: true when there may be more to do.
    private func negotiate() throws(NBDHandshakeError) -> Bool {
        guard let step = try handshake?.step(&handshakeInput, &answers.buffer) else { return false }
        switch step {
        case .answered: return true
        case .needsBytes:
            handshakeInput.discardReadBytes()
            return false
        case .startTLS:
            if handshakeInput.readableBytes > 0 { throw .bytesBeforeTLS }
            startTLS()
            return false
        case .enter(let terms):
            enter(terms)
            return true
        case .close:
            closeAfterFlush()
            return false
        }
    }

    private func startTLS() {
        guard let tls = server.security.tls else { return fail("TLS was offered without a certificate") }
        phase = .upgrading
        answers.isEncrypted = true
        answers.flush()
        do {
            try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls.context), position: .first)
        } catch {
            fail("TLS can't begin: \(error)")
        }
    }

    private func tlsDidBegin() {
        guard phase == .upgrading else { return }
        client.identify(by: try? channel.pipeline.syncOperations.nioSSL_peerCertificate())
        handshake?.tlsDidBegin()
        phase = .handshake
        resume()
    }

    private func enter(_ terms: NBDTerms) {
        // It was found in this very turn of the loop.
        guard let export = server.find(terms.export.name, for: client) else { return fail("an export went away") }
        self.export = export
        self.terms = terms
        runner = BlockRequestRunner(server: server, unit: export.unit, nexus: nexus)
        replies = NBDReplyEncoder(usesStructuredReplies: terms.usesStructuredReplies)
        phase = .transmission
        handshake = nil
        if handshakeInput.readableBytes > 0 { decoder.append(handshakeInput) }
        handshakeInput = ByteBuffer()
    }

    /// Answers that are made while requests are taken leave when all of these are.
    func scheduleFlush() {
        if !isProcessing { answers.scheduleFlush() }
    }

    // MARK: Memory

    /// A payload has room now, and its client's time begins.
    func roomWasGranted() {
        waitsForRoom = false
        lastTraffic = channel.eventLoop.now
    }

    // MARK: Time

    func lookAtClock(_ now: NIODeadline) {
        if sawTraffic {
            sawTraffic = false
            lastTraffic = now
        }
        switch phase {
        case .handshake, .upgrading:
            if now - openedAt >= server.limits.handshakeTime { fail("no export was chosen in time") }
        case .transmission:
            let payloadTime = server.writes.waitingByteCount > 0 ? server.limits.contendedTime : server.limits.payloadTime
            if incoming != nil, !isPaused, now - lastTraffic >= payloadTime {
                fail("the payload of a write did not come")
            } else if let unwritableSince, reads.isContended, now - unwritableSince >= server.limits.contendedTime {
                fail("the answers are not taken, and others wait for their memory")
            }
        case .retiring, .ending: break
        }
    }

    /// The connection for operators.
    var connectionDescription: NetworkBlockConnectionDescription {
        NetworkBlockConnectionDescription(
            remoteAddress: channel.remoteAddress.map { String(describing: $0) } ?? "",
            isEncrypted: (try? channel.pipeline.syncOperations.handler(type: NIOSSLServerHandler.self)) != nil,
            requestsInFlight: requestCount)
    }
}

extension NBDExport {
    init(_ export: NetworkBlockExport) {
        self.init(name: export.name, byteCount: export.byteCount, isReadOnly: export.unit.isWriteProtected)
    }
}
