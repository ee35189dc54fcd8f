import Blocks
import Logging
import NBD
import NIOCore
import NIOPosix
import StorageTarget

/// Serves block devices over NBD.
///
/// The server, its connections and its devices live on one event loop; every call is made there.
public final class NetworkBlockServer {
    public let eventLoop: any EventLoop
    public let limits: NetworkBlockLimits
    let security: NetworkBlockSecurity
    /// False while exports may be missing that will be there soon: who asks for an unknown one is then told so.
    public var isReady: Bool
    /// Keeps the processors awake for clients that wait; nil leaves them alone.
    let wakefulness: ProcessorWakefulness?

    let batchBuffers = BatchBuffers()
    let writes: DataBudget
    let reads: DataBudget
    /// Requests that are with logical units, counted one each.
    let running: DataBudget
    /// What a request for zeroes that take up space writes at a time.
    let zeroes: ByteBuffer
    private(set) var exports: [String: NetworkBlockExport] = [:]
    private var connections: [ObjectIdentifier: NetworkBlockConnection] = [:]
    private var isStopped = false
    private var listeners: [any Channel] = []
    private let logger: Logger
    private var logLimiter = LogLimiter()
    private var sweep: RepeatedTask?
    private var lastNexus: UInt64 = 0

    public init(
        eventLoop: any EventLoop, limits: NetworkBlockLimits = NetworkBlockLimits(),
        security: NetworkBlockSecurity = NetworkBlockSecurity(), logger: Logger, isReady: Bool = true,
        wakefulness: ProcessorWakefulness? = nil
    ) {
        self.eventLoop = eventLoop
        self.limits = limits
        self.security = security
        self.logger = logger
        self.isReady = isReady
        self.wakefulness = wakefulness
        writes = DataBudget(limit: limits.writeByteCount)
        reads = DataBudget(limit: limits.readByteCount)
        running = DataBudget(limit: limits.runningRequests)
        zeroes = ByteBuffer(repeating: 0, count: 256 << 10)
    }

    // MARK: Listening

    /// Listens on one more address, such as 127.0.0.1 or ::, and port; port 0 takes a free one.
    /// - Returns: the address with the port in use.
    public func listen(host: String, port: Int) -> EventLoopFuture<SocketAddress> {
        eventLoop.preconditionInEventLoop()
        guard !isStopped else { return eventLoop.makeFailedFuture(NetworkBlockServerError.stopped) }
        startSweep()
        return FrontEnd.listen(
            host: host, port: port, on: eventLoop, outboundByteCount: limits.outboundByteCount,
            accept: { [self] channel in
                try channel.pipeline.syncOperations.addHandler(NetworkBlockConnection(server: self, channel: channel))
            },
            keep: { [self] channel in
                guard !isStopped, let address = channel.localAddress else { throw NetworkBlockServerError.stopped }
                listeners.append(channel)
                return address
            })
    }

    // MARK: Exports

    /// Adds an export; clients see it at once.
    public func addExport(_ export: NetworkBlockExport) throws(NetworkBlockServerError) {
        eventLoop.preconditionInEventLoop()
        guard !isStopped else { throw .stopped }
        guard exports.count < limits.exports else { throw .tooManyExports }
        guard (1...4096).contains(export.name.utf8.count), !export.name.utf8.contains(0) else { throw .invalidName }
        guard exports[export.name] == nil else { throw .nameInUse }
        exports[export.name] = export
    }

    /// Takes an export away. Its connections take no more requests; those in flight finish, then the connections are closed
    /// and `completion` runs. A name that is not there completes at once.
    public func removeExport(_ name: String, completion: @escaping () -> Void = {}) {
        eventLoop.preconditionInEventLoop()
        guard let export = exports.removeValue(forKey: name) else { return completion() }
        retire(connections.values.filter { $0.export?.unit === export.unit }, completion: completion)
    }

    /// The connections to an export.
    public func connections(toExport name: String) -> [NetworkBlockConnectionDescription] {
        guard let export = exports[name] else { return [] }
        return connections.values.filter { $0.export?.unit === export.unit }.map { $0.connectionDescription }
    }

    /// How many connections are open, with those that have no export yet.
    public var connectionCount: Int { connections.count }

    /// Stops listening, lets requests in flight finish, closes all connections, then completes.
    public func stop(completion: @escaping () -> Void = {}) {
        eventLoop.preconditionInEventLoop()
        isStopped = true
        for listener in listeners { listener.close(promise: nil) }
        listeners.removeAll()
        retire(Array(connections.values)) { [self] in
            sweep?.cancel()
            sweep = nil
            exports.removeAll()
            completion()
        }
    }

    /// Ends connections in the orderly way, and by force those that take longer than `stopTime`.
    private func retire(_ ending: [NetworkBlockConnection], completion: @escaping () -> Void) {
        FrontEnd.retire(ending, within: limits.stopTime, on: eventLoop, completion: completion)
    }

    // MARK: What connections ask

    /// True when there is room for one more connection.
    func open(_ connection: NetworkBlockConnection) -> Bool {
        guard !isStopped, connections.count < limits.connections else { return false }
        connections[ObjectIdentifier(connection)] = connection
        return true
    }

    func closed(_ connection: NetworkBlockConnection) {
        connections[ObjectIdentifier(connection)] = nil
    }

    /// The names that a client may know.
    func names(for client: NetworkBlockClient) -> [String] {
        exports.values.filter { client.mayUse($0.allowedClients) }.map(\.name).sorted()
    }

    /// The export behind a name. The empty name is the only export that the client may use, if it is the only one.
    func find(_ name: String, for client: NetworkBlockClient) -> NetworkBlockExport? {
        if name.isEmpty {
            let usable = exports.values.filter { client.mayUse($0.allowedClients) }
            return usable.count == 1 ? usable.first : nil
        }
        guard let export = exports[name], client.mayUse(export.allowedClients) else { return nil }
        return export
    }

    /// A name for a connection among the tasks of a unit. The iSCSI target counts its own from 1.
    func makeNexus() -> NexusIdentifier {
        lastNexus += 1
        return NexusIdentifier(1 << 63 | lastNexus)
    }

    /// Writes a log line about what a peer did, unless there were too many.
    func note(_ message: String, from address: SocketAddress?) {
        guard let suppressed = logLimiter.admit(now: eventLoop.now) else { return }
        var metadata: Logger.Metadata = ["peer": "\(address.map { String(describing: $0) } ?? "unknown")"]
        if suppressed > 0 { metadata["suppressedLines"] = "\(suppressed)" }
        logger.notice("NBD: \(message)", metadata: metadata)
    }

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
