import LinkProtocol
import NIOCore
import SimulatedStorage
import Volumes

// The line between the edges: connections that keep their own order and nothing else. A cut loses
// what is on the way; frames of different connections overtake each other.

/// One end of the link in one process: the true session, and what stands for its sockets.
final class LinkEnd {
    /// Nil once the process is dead: what of it still waits for an answer would keep all that was ever on its way.
    private(set) var session: LinkSession?
    /// What the process makes of the session's actions.
    var onAction: (LinkAction) -> Void = { _ in }
    /// Whose turn it is to send.
    let turns = LinkTurns<Int>()
    private let scheduler: Scheduler
    fileprivate weak var line: SimulatedLine?
    private let isHome: Bool
    private var isPumping = false
    private var tickAt: NIODeadline?
    private(set) var isDead = false

    init(role: LinkRole, scheduler: Scheduler) {
        isHome = role == .acceptor
        session = LinkSession(role: role, random: scheduler.random.source)
        self.scheduler = scheduler
    }

    /// The process died: nothing of it happens any more.
    func die() {
        isDead = true
        session = nil
    }

    /// A message of a volume, if it is that one's turn.
    func send(_ message: LinkMessage, of volume: Int, _ trafficClass: TrafficClass, isBulk: Bool) -> Bool {
        turns.send(message, of: volume, class: trafficClass, isBulk: isBulk) { send(message, trafficClass, isBulk: isBulk) }
    }

    func send(_ message: LinkMessage, _ trafficClass: TrafficClass, isBulk: Bool) -> Bool {
        guard let session, session.enqueue(message, trafficClass, isBulk: isBulk) else { return false }
        // Sending is a matter of its own event, as in the daemon, where a loop turn's messages go out together.
        scheduler.schedule(after: .nanoseconds(0)) { [self] in pump() }
        return true
    }

    /// Does all that the session wants now.
    func pump() {
        guard let session, !isPumping else { return }
        isPumping = true
        repeat {
            while let action = session.nextAction() {
                if case .closeConnection(let connection, _) = action { line?.close(connection) }
                onAction(action)
                if isDead { return }
            }
            while let transmission = session.nextTransmission(now: scheduler.now) {
                line?.carry(transmission.frame, on: transmission.connection, toHome: !isHome)
            }
        } while session.nextAction().map({ put($0) }) ?? false
        isPumping = false
        scheduleTick()
    }

    private func put(_ action: LinkAction) -> Bool {
        if case .closeConnection(let connection, _) = action { line?.close(connection) }
        onAction(action)
        return !isDead
    }

    private func scheduleTick() {
        guard let deadline = session?.nextDeadline, tickAt.map({ deadline < $0 }) ?? true else { return }
        tickAt = deadline
        scheduler.schedule(after: max(.nanoseconds(1), deadline - scheduler.now)) { [self] in
            guard let session else { return }
            tickAt = nil
            session.tick(now: scheduler.now)
            pump()
        }
    }
}

/// The WAN between two link ends.
final class SimulatedLine {
    private struct Connection {
        let home: LinkEnd
        let cloud: LinkEnd
        /// When the last frame in each direction arrives: a connection keeps its order.
        var lastArrival: [NIODeadline]
    }

    private let scheduler: Scheduler
    private var connections: [ConnectionIdentifier: Connection] = [:]
    private var nextIdentifier: UInt64 = 1
    /// The ends that are up; a process that dies takes its end away.
    private var home: LinkEnd?
    private var cloud: LinkEnd?
    private(set) var isCut = false
    /// How many connections the cloud edge keeps up.
    let connectionsMax = 2
    var delayMicroseconds = 500...20_000

    init(scheduler: Scheduler) { self.scheduler = scheduler }

    func homeStarted(_ end: LinkEnd) {
        home = end
        end.line = self
        dialSoon()
    }

    func cloudStarted(_ end: LinkEnd) {
        cloud = end
        end.line = self
        dialSoon()
    }

    func homeDied() {
        home = nil
        closeAll()
    }

    func cloudDied() {
        cloud = nil
        closeAll()
    }

    /// The line goes dark; frames on the way are lost.
    func cut() {
        isCut = true
        closeAll()
    }

    func restore() {
        isCut = false
        dialSoon()
    }

    /// One connection is reset.
    func dropOne() {
        let identifiers = connections.keys.sorted { $0.value < $1.value }
        if identifiers.isEmpty { return }
        close(identifiers[Int(scheduler.random.below(UInt64(identifiers.count)))])
    }

    func close(_ identifier: ConnectionIdentifier) {
        guard let connection = connections.removeValue(forKey: identifier) else { return }
        // Each side notices in its own time, and its process may be dead by then.
        for end in [connection.home, connection.cloud] {
            scheduler.schedule(microseconds: delayMicroseconds) { [scheduler] in
                guard let session = end.session else { return }
                session.connectionClosed(identifier, now: scheduler.now)
                end.pump()
            }
        }
        dialSoon()
    }

    private func closeAll() {
        for identifier in connections.keys.sorted(by: { $0.value < $1.value }) { close(identifier) }
    }

    private func dialSoon() {
        scheduler.schedule(microseconds: 1_000...200_000) { [self] in dial() }
    }

    private func dial() {
        guard !isCut, let home, let cloud, connections.count < connectionsMax else { return }
        let identifier = ConnectionIdentifier(nextIdentifier)
        nextIdentifier += 1
        connections[identifier] = Connection(home: home, cloud: cloud, lastArrival: [scheduler.now, scheduler.now])
        for end in [home, cloud] {
            end.session?.connectionOpened(identifier, now: scheduler.now)
            end.pump()
        }
        if connections.count < connectionsMax { dialSoon() }
    }

    func carry(_ frame: Frame, on identifier: ConnectionIdentifier, toHome: Bool) {
        guard var connection = connections[identifier] else { return }
        let direction = toHome ? 0 : 1
        let delay = TimeAmount.microseconds(Int64(scheduler.random.within(delayMicroseconds)))
        let arrival = max(connection.lastArrival[direction], scheduler.now + delay)
        connection.lastArrival[direction] = arrival
        connections[identifier] = connection
        let end = toHome ? connection.home : connection.cloud
        scheduler.schedule(after: arrival - scheduler.now) { [self] in
            guard connections[identifier] != nil, let session = end.session else { return }
            session.receive(frame, on: identifier, now: scheduler.now)
            end.pump()
        }
    }
}
