import Blocks
import ISCSI
import Logging
import NIOCore
import NIOPosix
import SCSI

/// Serves block devices over iSCSI.
///
/// The server, its connections and its devices live on one event loop; every call is made there.
public final class StorageTargetServer {
    public let eventLoop: any EventLoop
    public let limits: StorageTargetLimits
    /// Whom discovery sessions show which targets.
    public let discovery: DiscoveryAuthentication
    /// False while targets may be missing that will be there soon: a login to an unknown one is then answered
    /// with "service unavailable", which initiators try again, instead of "not found".
    public var isReady: Bool
    /// Keeps the processors awake for initiators that wait; nil leaves them alone.
    let wakefulness: ProcessorWakefulness?

    var random: RandomSource
    let dataOut: DataBudget
    let dataIn: DataBudget
    /// Data that has come, or may come, unasked with commands of all sessions that wait for `dataOut`.
    var unaskedByteCount = 0
    let batchBuffers = BatchBuffers()
    var targets: [String: ServedTarget] = [:]
    var connections: [ObjectIdentifier: TargetConnection] = [:]
    private(set) var isStopped = false

    private(set) var portals: [TargetPortal] = []
    private var logger: Logger
    private var logLimiter = LogLimiter()
    private var sweep: RepeatedTask?
    private var lastTSIH: UInt16 = 0
    private var lastNexus: UInt64 = 0

    public init(
        eventLoop: any EventLoop, limits: StorageTargetLimits = StorageTargetLimits(), logger: Logger,
        random: RandomSource = .system, isReady: Bool = true, discovery: DiscoveryAuthentication = .optional,
        wakefulness: ProcessorWakefulness? = nil
    ) {
        self.discovery = discovery
        self.eventLoop = eventLoop
        self.limits = limits
        self.logger = logger
        self.random = random
        self.isReady = isReady
        self.wakefulness = wakefulness
        dataOut = DataBudget(limit: limits.dataOutByteCount)
        dataIn = DataBudget(limit: limits.dataInByteCount)
    }

    // MARK: Listening

    /// Listens on one more address, such as 127.0.0.1 or ::, and port; port 0 takes a free one.
    /// - Parameter portalGroupTag: The portal group that the address belongs to, which is also the relative identifier of the
    ///   targets' port there; that of `limits.negotiation` when nil.
    /// - Returns: the address with the port in use.
    public func listen(host: String, port: Int, portalGroupTag: UInt16? = nil) -> EventLoopFuture<SocketAddress> {
        eventLoop.preconditionInEventLoop()
        guard !isStopped else { return eventLoop.makeFailedFuture(StorageTargetError.stopped) }
        startSweep()
        let tag = portalGroupTag ?? limits.negotiation.targetPortalGroupTag
        return FrontEnd.listen(
            host: host, port: port, on: eventLoop, outboundByteCount: limits.outboundByteCount,
            accept: { [self] channel in
                try channel.pipeline.syncOperations.addHandler(
                    TargetConnection(server: self, channel: channel, portalGroupTag: tag))
            },
            keep: { [self] channel in
                guard !isStopped, let address = channel.localAddress else { throw StorageTargetError.stopped }
                portals.append(TargetPortal(channel: channel, address: address, groupTag: tag))
                return address
            })
    }

    /// The addresses that the server listens on.
    public var localAddresses: [SocketAddress] { portals.map(\.address) }

    /// The portal groups, each of which is a port of every target (RFC 7143 section 4.4.1).
    private var portalGroupTags: [UInt16] { Set(portals.map(\.groupTag)).sorted() }

    // MARK: Targets

    /// Adds a target; initiators see it at once.
    public func addTarget(_ description: TargetDescription) throws(StorageTargetError) {
        eventLoop.preconditionInEventLoop()
        guard !isStopped else { throw .stopped }
        guard targets.count < limits.targets else { throw .tooManyTargets }
        let name = description.name.lowercased()
        guard TargetName.isValid(name) else { throw .invalidDescription("target name") }
        guard targets[name] == nil else { throw .nameInUse }
        targets[name] = try ServedTarget(description) { [weak self] unit in
            unit.relativeTargetPorts = { self?.portalGroupTags ?? [] }
            unit.copyPeers = { self?.copyPeers(of: $0) ?? [] }
        }
    }

    /// Takes a target away. Its sessions take no more commands; those in flight finish, then the sessions are closed
    /// and `completion` runs. A name that is not there completes at once.
    public func removeTarget(_ name: String, completion: @escaping () -> Void = {}) {
        eventLoop.preconditionInEventLoop()
        guard let target = targets.removeValue(forKey: name.lowercased()) else { return completion() }
        retire(connections.values.filter { $0.target === target }) { Self.retire([target], completion: completion) }
    }

    /// The names of the targets.
    public var targetNames: [String] { targets.keys.sorted() }

    /// How many sessions are in the full feature phase, discovery sessions among them.
    public var sessionCount: Int { connections.values.count { $0.session != nil } }

    /// How many connections are open, with those that have not logged in.
    public var connectionCount: Int { connections.count }

    /// The sessions of a target.
    public func sessions(ofTarget name: String) -> [StorageSessionDescription] {
        guard let target = targets[name.lowercased()] else { return [] }
        return connections.values.filter { $0.target === target }.compactMap { $0.sessionDescription }
    }

    /// Stops listening, lets commands in flight finish, closes all connections, then completes.
    public func stop(completion: @escaping () -> Void = {}) {
        eventLoop.preconditionInEventLoop()
        isStopped = true
        for portal in portals { portal.channel.close(promise: nil) }
        portals.removeAll()
        retire(Array(connections.values)) { [self] in
            sweep?.cancel()
            sweep = nil
            let ending = Array(targets.values)
            targets.removeAll()
            Self.retire(ending, completion: completion)
        }
    }

    /// Ends the service of all units of targets that have no more sessions.
    private static func retire(_ targets: [ServedTarget], completion: @escaping () -> Void) {
        let units = targets.flatMap { $0.units.values }
        let latch = Countdown(units.count + 1, completion: completion)
        for unit in units { unit.retire { latch.arrive() } }
        latch.arrive()
    }

    /// Ends connections in the orderly way, and by force those that take longer than `stopTime`.
    private func retire(_ ending: [TargetConnection], completion: @escaping () -> Void) {
        FrontEnd.retire(ending, within: limits.stopTime, on: eventLoop, completion: completion)
    }

    // MARK: What connections ask

    /// True when there is room for one more connection.
    func open(_ connection: TargetConnection) -> Bool {
        guard !isStopped, connections.count < limits.connections else { return false }
        connections[ObjectIdentifier(connection)] = connection
        return true
    }

    func closed(_ connection: TargetConnection) {
        connections[ObjectIdentifier(connection)] = nil
    }

    /// A session handle that no session has.
    func makeTSIH() -> UInt16 {
        repeat { lastTSIH &+= 1 } while lastTSIH == 0 || connections.values.contains { $0.session?.tsih == lastTSIH }
        return lastTSIH
    }

    func makeNexus() -> NexusIdentifier {
        lastNexus += 1
        return NexusIdentifier(lastNexus)
    }

    /// Writes a log line about what a peer did, unless there were too many.
    func note(_ message: String, from address: SocketAddress?) {
        guard let suppressed = logLimiter.admit(now: eventLoop.now) else { return }
        var metadata: Logger.Metadata = ["peer": "\(address.map { String(describing: $0) } ?? "unknown")"]
        if suppressed > 0 { metadata["suppressedLines"] = "\(suppressed)" }
        logger.notice("\(message)", metadata: metadata)
    }

    // MARK: Time

    /// One timer looks after all connections.
    private func startSweep() {
        guard sweep == nil else { return }
        let look: () -> Void = { [weak self] in
            guard let self else { return }
            let now = eventLoop.now
            for connection in Array(connections.values) { connection.lookAtClock(now) }
        }
        let bound = NIOLoopBound(look, eventLoop: eventLoop)
        sweep = eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in bound.value() }
    }
}

/// Runs a closure when a number of things have happened.
package final class Countdown {
    private var remaining: Int
    private let completion: () -> Void

    package init(_ count: Int, completion: @escaping () -> Void) {
        remaining = count
        self.completion = completion
    }

    package func arrive() {
        remaining -= 1
        if remaining == 0 { completion() }
    }
}
