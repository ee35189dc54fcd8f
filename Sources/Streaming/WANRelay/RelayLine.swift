import DequeModule
import Logging
import NIOCore
import NIOPosix

/// The two ways through a relay.
enum RelayWay: Hashable, Sendable {
    case toServer, toClient
}

/// The line with its two ways and all its connections: the queues, the timers that empty them, and who may read. Lives on one event loop.
final class RelayLine {
    private final class Way {
        var queue: RelayQueue
        /// Who stopped reading because the queue was full, the longest waiting first.
        var waiting = Deque<RelayEnd>()
        var timer: Scheduled<Void>?
        var timerDeadline: NIODeadline?

        init(conditions: RelayConditions) { queue = RelayQueue(conditions: conditions) }
    }

    private struct Connection {
        var client: RelayEnd
        var server: RelayEnd
    }

    private let eventLoop: any EventLoop
    private let server: RelayAddress
    private let logger: Logger
    private let toServer: Way
    private let toClient: Way
    private var connections: [Int: Connection] = [:]
    /// Connections whose SYN a blackhole swallowed.
    private var unconnected: [Int] = []
    private var nextConnection = 0
    private var acceptedConnections: UInt64 = 0
    private(set) var state: RelayLineState = .up
    private(set) var conditions: RelayConditions

    init(eventLoop: any EventLoop, server: RelayAddress, conditions: RelayConditions, logger: Logger) {
        self.eventLoop = eventLoop
        self.server = server
        self.conditions = conditions
        self.logger = logger
        toServer = Way(conditions: conditions)
        toClient = Way(conditions: conditions)
    }

    private func way(of end: RelayEnd) -> Way { end.way == .toServer ? toServer : toClient }

    private func destination(of end: RelayEnd) -> RelayEnd? {
        connections[end.connection].map { end.way == .toServer ? $0.server : $0.client }
    }

    // MARK: Connections

    /// Takes a socket that a client has opened, and opens the one to the server, each when it would be open on a real line.
    func accept(_ channel: any Channel) throws {
        guard state != .cut, connections.count < WANRelay.connectionLimit else {
            RelayEnd.reset(channel)
            return
        }
        let number = nextConnection
        nextConnection += 1
        acceptedConnections &+= 1
        let connection = Connection(
            client: RelayEnd(line: self, way: .toServer, connection: number),
            server: RelayEnd(line: self, way: .toClient, connection: number))
        connections[number] = connection
        try channel.pipeline.syncOperations.addHandler(connection.client)
        // The SYN needs half a round trip to the server; the client may send when the answer is back.
        let loopBound = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: conditions.oneWayDelay) { loopBound.value.connect(number) }
        eventLoop.scheduleTask(in: conditions.roundTrip) { loopBound.value.connections[number]?.client.start() }
    }

    private func connect(_ number: Int) {
        guard let end = connections[number]?.server else { return }
        if state == .blackhole {
            unconnected.append(number)
            return
        }
        let loopBound = NIOLoopBound((self, end), eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .relaySocketOptions()
            .connect(host: server.host, port: server.port)
            .flatMapThrowing { channel in
                let (line, end) = loopBound.value
                // The line may have been cut meanwhile.
                if line.connections[number] == nil { return RelayEnd.reset(channel) }
                // Here, for a name may stand for several addresses, each with a channel until one is connected.
                try channel.pipeline.syncOperations.addHandler(end)
                end.start()
            }
            .whenComplete { result in
                let (line, _) = loopBound.value
                switch result {
                case .success: break
                case .failure(let error):
                    line.logger.warning("cannot connect", metadata: ["server": "\(line.server)", "error": "\(error)"])
                    line.forget(number)?.client.reset()
                }
            }
    }

    private func forget(_ number: Int) -> Connection? {
        guard let connection = connections.removeValue(forKey: number) else { return nil }
        for way in [toServer, toClient] { way.waiting.removeAll { $0.connection == number } }
        return connection
    }

    // MARK: Bytes

    func receive(_ content: RelayQueue.Content, from end: RelayEnd) {
        if connections[end.connection] == nil { return }
        way(of: end).queue.enqueue(.init(connection: end.connection, content: content), now: .now())
        advance(way(of: end))
    }

    /// Reads from a socket now, or when the queue has room again.
    func readIfThereIsRoom(_ end: RelayEnd) {
        // A receiver that does not take its bytes closes its window: `drained` goes on.
        guard state == .up, !end.isWaiting, let destination = destination(of: end), destination.isWritable else { return }
        let way = way(of: end)
        if way.waiting.isEmpty && way.queue.hasRoom(now: .now()) {
            end.read()
        } else {
            end.isWaiting = true
            way.waiting.append(end)
            schedule(way)
        }
    }

    /// The socket took its bytes: its peer may be read again.
    func drained(_ end: RelayEnd) {
        if let source = destination(of: end) { readIfThereIsRoom(source) }
    }

    /// Hands out what has arrived, lets one waiting socket read when there is room, and sets the timer.
    private func advance(_ way: Way) {
        let now = NIODeadline.now()
        var touched: [Int: RelayEnd] = [:]
        while let segment = way.queue.nextDue(now: now) {
            guard let connection = connections[segment.connection] else { continue }
            let destination = way === toServer ? connection.server : connection.client
            destination.deliver(segment.content)
            touched[segment.connection] = destination
            if case .closed = segment.content, destination.isGone { _ = forget(segment.connection) }
        }
        for end in touched.values { end.flush() }
        letOneRead(way, now: now)
        schedule(way)
    }

    /// One at a time, so that many sockets do not overfill a queue that has room for one.
    private func letOneRead(_ way: Way, now: NIODeadline) {
        guard state == .up, way.queue.hasRoom(now: now), let end = way.waiting.popFirst() else { return }
        end.isWaiting = false
        end.read()
    }

    private func schedule(_ way: Way) {
        var deadline = way.queue.nextDelivery
        if state == .up && !way.waiting.isEmpty {
            let room = way.queue.hasRoom(now: .now()) ? NIODeadline.now() : way.queue.nextDeparture
            deadline = [deadline, room].compactMap { $0 }.min()
        }
        if deadline == way.timerDeadline { return }
        way.timer?.cancel()
        way.timerDeadline = deadline
        let loopBound = NIOLoopBound((self, way), eventLoop: eventLoop)
        way.timer = deadline.map { deadline in
            eventLoop.scheduleTask(deadline: deadline) {
                let (line, way) = loopBound.value
                way.timerDeadline = nil
                line.advance(way)
            }
        }
    }

    // MARK: Faults

    /// Takes the line down, or up again.
    func setState(_ state: RelayLineState) {
        self.state = state
        switch state {
        case .up: restore()
        case .cut: resetConnections()
        case .blackhole:
            for way in [toServer, toClient] {
                way.queue.freeze(now: .now())
                schedule(way)
            }
        }
    }

    private func restore() {
        let numbers = unconnected
        unconnected = []
        numbers.forEach(connect)
        for way in [toServer, toClient] {
            way.queue.thaw(now: .now())
            advance(way)
        }
        for connection in connections.values {
            readIfThereIsRoom(connection.client)
            readIfThereIsRoom(connection.server)
        }
    }

    /// Resets every connection and destroys what was under way.
    func resetConnections() {
        let victims = connections.values
        connections = [:]
        unconnected = []
        for way in [toServer, toClient] {
            way.waiting.removeAll()
            way.queue.removeAll()
            if state != .blackhole { way.queue.thaw(now: .now()) }
            schedule(way)
        }
        for victim in victims {
            victim.client.reset()
            victim.server.reset()
        }
    }

    func setConditions(_ conditions: RelayConditions) {
        self.conditions = conditions
        for way in [toServer, toClient] { way.queue.conditions = conditions }
    }

    var statistics: RelayStatistics {
        var statistics = RelayStatistics()
        statistics.lineState = state
        statistics.conditions = conditions
        statistics.openConnections = connections.count
        statistics.acceptedConnections = acceptedConnections
        statistics.toServer = .init(toServer.queue)
        statistics.toClient = .init(toClient.queue)
        return statistics
    }
}
