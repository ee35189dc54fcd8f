import APIModels
import Blocks
import Foundation
import Link
import LinkHistory
import LinkProtocol
import NIOCore
import Tunnels
import Volumes

/// The answer to a call: an HTTP status and a body in JSON.
struct ControlAnswer: Sendable {
    let status: UInt16
    let body: ByteBuffer

    /// Runs `body` and makes its result, or its error, an answer.
    static func from<Value: Encodable>(
        isolation: isolated (any Actor)? = #isolation, _ body: () async throws -> Value
    ) async -> ControlAnswer {
        do {
            return ControlAnswer(status: 200, body: try ControlCoding.encode(try await body()))
        } catch {
            let problem = Problem(describing: error)
            let body = (try? ControlCoding.encode(problem)) ?? ByteBuffer()
            return ControlAnswer(status: UInt16(clamping: problem.status), body: body)
        }
    }
}

/// The link to one peer as a role sees it: calls both ways, and the messages of volumes. Lives on the data loop.
final class PeerLink: LinkDelegate {
    /// How many calls of the peer may be in hand; one more is answered with 503 at once.
    static let requestsMax = 256
    /// The reason with which home closes the link of an edge whose rights have ended.
    static let revokedReason = "this edge was revoked"

    /// The identifier of the edge at the other end.
    let peer: String
    let endpoint: LinkEndpoint
    /// Answers a call of the peer; runs on the control plane.
    var onRequest: @Sendable (_ session: UInt64, _ method: String, _ body: ByteBuffer) async -> ControlAnswer = { _, method, _ in
        await ControlAnswer.from { () async throws -> Empty in throw Problem.unknownCall(method) }
    }
    var onNotice: (_ method: String) -> Void = { _ in }
    var onSessionStarted: () -> Void = {}
    var onConnectivityChanged: (_ isConnected: Bool) -> Void = { _ in }
    /// A change, or many, is to be told to the operator.
    var onConnectivityTold: (LinkNotice.Change) -> Void = { _ in }
    /// A class takes messages again.
    var onWritable: () -> Void = {}
    /// It is a volume's turn to send what it has.
    var onTurn: (VolumeIdentifier) -> Void = { _ in }
    /// A message that belongs to a volume.
    var onMessage: (LinkMessage) -> Void = { _ in }

    /// Other limits came into force, by a change or by the time.
    var onShaped: (LinkRates) -> Void = { _ in }
    /// What is sent to the peer at most, and when.
    var shaping = LinkShaping() {
        didSet { shape(at: Date()) }
    }
    /// What of that is in force.
    private(set) var ratesInForce = LinkRates()

    /// What passed over the link, second by second.
    var history = LinkRecorder()
    /// A minute of it is over.
    var onMinute: (LinkHistory.Sample) -> Void = { _ in }
    private var recordedSecond: TimeInterval = 0

    /// The TCP services that are reached over the link.
    var tunnels: TunnelEnd? {
        didSet {
            tunnels?.send = { [endpoint] message, trafficClass in endpoint.send(message, class: trafficClass, bulk: true) }
            tunnels?.preferredPieceBytes = { [endpoint] in endpoint.preferredPieceBytes }
            tunnels?.isAvailable = { [endpoint] in endpoint.isConnected && endpoint.version >= LinkVersion.tunnels }
        }
    }

    /// What the peer was sent of disks; nil where nothing is referred to.
    var blocks: PeerBlocks?

    /// Since when the link has been up, or down.
    private(set) var since = Date()
    /// Since when it has been down, and that its tunnels were told that the peer is gone.
    private var downSince: NIODeadline?
    private var isPeerGone = false
    private var connectivityNotice = LinkNotice()
    /// How many times it came up.
    private(set) var timesUp = 0

    private let eventLoop: any EventLoop
    private let calls = ControlCalls()
    private let turns = LinkTurns<VolumeIdentifier>()
    private var outbox = ControlOutbox()
    private var requestsInHand = 0
    /// Counts sessions: an answer belongs to the session of its call.
    private(set) var session: UInt64 = 0

    init(peer: String, endpoint: LinkEndpoint, eventLoop: any EventLoop, loopTurns: LoopTurns) {
        self.peer = peer
        self.endpoint = endpoint
        self.eventLoop = eventLoop
        endpoint.loopTurns = loopTurns
        turns.loopTurn = { loopTurns.current }
        turns.onPause = { [weak self] in
            loopTurns.later(on: eventLoop) { [weak self] in
                guard let self else { return }
                turns.goOn(onTurn)
            }
        }
    }

    /// Makes a call to the peer.
    func call(_ method: String, body: ByteBuffer, timeout: TimeAmount, completion: @escaping (Result<ByteBuffer, any Error>) -> Void) {
        calls.call(
            method, body: body, timeout: timeout, send: { endpoint.send($0, class: .control, bulk: false) }, completion: completion)
    }

    /// Sends a message of a volume. Volumes that have more than the class takes have equal shares of it.
    /// - Returns: false when the class takes no more, or others come first, volumes or what else the loop has to do; then `onTurn` or `onWritable` will be called.
    func send(_ message: LinkMessage, of volume: VolumeIdentifier, class trafficClass: TrafficClass, bulk: Bool) -> Bool {
        turns.send(message, of: volume, class: trafficClass, isBulk: bulk) {
            endpoint.send(message, class: trafficClass, bulk: bulk, of: volume)
        }
    }

    /// Tells the peer something that has no answer. It is lost with the session: the next one starts with the calls anyway.
    func notify(_ method: String) { say(.notice(method: method, body: ByteBuffer())) }

    private func say(_ message: LinkMessage) {
        _ = outbox.send(message) { [endpoint] in endpoint.send($0, class: .control, bulk: false) }
    }

    /// Fails calls whose time is over, follows the schedule of the limits, records what passed, and tells what has not been told.
    func tick() {
        let now = NIODeadline.now()
        calls.tick(now: now)
        if let change = connectivityNotice.due(now: now) { onConnectivityTold(change) }
        let date = Date()
        if !shaping.schedule.isEmpty { shape(at: date) }
        recordSecond(at: date)
        if let downSince, !isPeerGone, now - downSince >= TunnelEnd.absenceMax {
            isPeerGone = true
            tunnels?.peerIsGone()
        }
    }

    /// Once a second, however often it is called.
    private func recordSecond(at date: Date) {
        let second = date.timeIntervalSince1970.rounded(.down)
        if second == recordedSecond { return }
        recordedSecond = second
        endpoint.readRetransmissions()
        if let minute = history.record(LinkReport.reading(of: self), at: date) { onMinute(minute) }
    }

    private func shape(at date: Date) {
        let rates = shaping.rates(atMinuteOfWeek: LinkShaping.minuteOfWeek(date, in: .current))
        if rates == ratesInForce { return }
        ratesInForce = rates
        endpoint.setShape(rates.shape)
        onShaped(rates)
    }

    func linkSessionStarted(_ link: LinkEndpoint) {
        session &+= 1
        calls.sessionLost()
        turns.reset()
        outbox.reset()
        tunnels?.sessionLost()
        onSessionStarted()
    }

    func linkConnectivityChanged(_ link: LinkEndpoint) {
        since = Date()
        downSince = link.isConnected ? nil : .now()
        isPeerGone = false
        if link.isConnected { timesUp += 1 }
        if let change = connectivityNotice.changed(isConnected: link.isConnected, now: .now()) { onConnectivityTold(change) }
        onConnectivityChanged(link.isConnected)
    }

    func link(_ link: LinkEndpoint, writable trafficClass: TrafficClass) {
        if trafficClass == .control { outbox.run { [endpoint] in endpoint.send($0, class: .control, bulk: false) } }
        turns.run(trafficClass, onTurn)
        onWritable()
        tunnels?.linkWritable(trafficClass)
    }

    func link(_ link: LinkEndpoint, received message: LinkMessage, class trafficClass: TrafficClass) {
        switch message {
        case .request(let call, let method, let body): answer(call, method, body)
        case .reply(let call, let status, let body): calls.receive(call: call, status: status, body: body)
        case .notice(let method, _): onNotice(method)
        case .tunnelOpen, .tunnelOpened, .tunnelData, .tunnelCredit, .tunnelFinish, .tunnelReset: tunnels?.receive(message)
        case .pointBegin, .pointAttributes, .pointData, .pointReferences, .pointZeroes, .pointCommit:
            // They wait for the disk, and only the credit of their own class holds the other edge back meanwhile.
            if trafficClass == .writeBehind { onMessage(message) }
        default: onMessage(message)
        }
    }

    private func answer(_ call: UInt64, _ method: String, _ body: ByteBuffer) {
        guard requestsInHand < Self.requestsMax else {
            return say(.reply(call: call, status: 503, body: ByteBuffer()))
        }
        requestsInHand += 1
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let session = session
        Task { [onRequest, eventLoop] in
            let answer = await onRequest(session, method, body).fitting(method: method)
            eventLoop.execute {
                let link = bound.value
                link.requestsInHand -= 1
                guard session == link.session else { return }
                link.say(.reply(call: call, status: answer.status, body: answer.body))
            }
        }
    }
}
