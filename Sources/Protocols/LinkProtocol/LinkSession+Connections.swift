import NIOCore

extension LinkSession {
    /// A connection is up, its other side is known to be the peer, and nothing was sent on it yet. It counts as writable.
    public func connectionOpened(_ identifier: ConnectionIdentifier, now: NIODeadline) {
        if connections.count >= LinkLimits.connections, let dead = connections.first(where: \.isGivenUp) { end(dead.identifier, .silent) }
        guard !isClosed, connections.count < LinkLimits.connections, !connections.contains(where: { $0.identifier == identifier })
        else {
            actions.append(
                .closeConnection(identifier, isClosed ? .closed("this edge has closed the link") : .tooManyConnections))
            return
        }
        connections.append(
            Connection(
                identifier: identifier, needsHello: role == .initiator, openedAt: now, heardAt: now,
                pingAt: now + times.pingInterval))
        choosePrompt(opened: identifier)
    }

    /// The connection is gone, whoever closed it.
    public func connectionClosed(_ identifier: ConnectionIdentifier, now: NIODeadline) {
        forget(identifier)
        if sessionIdentifier != 0, !connections.isEmpty { reportAll(by: now) }
    }

    /// An acknowledgement may have been lost with a connection.
    private func reportAll(by deadline: NIODeadline) {
        for trafficClass in TrafficClass.allCases { report(trafficClass, by: deadline) }
    }

    /// Says whether the connection can take a frame at once.
    public func connectionWritable(_ identifier: ConnectionIdentifier, _ isWritable: Bool) {
        if let index = index(of: identifier) { connections[index].isWritable = isWritable }
    }

    /// What arrived on the connection is not a stream of frames.
    public func violation(_ violation: LinkViolation, on identifier: ConnectionIdentifier) {
        end(identifier, .violation(violation.description))
    }

    /// When `tick` wants to be called; nil when only events matter.
    public var nextDeadline: NIODeadline? {
        var earliest: NIODeadline?
        func consider(_ deadline: NIODeadline?) {
            guard let deadline else { return }
            earliest = earliest.map { min($0, deadline) } ?? deadline
        }
        for connection in connections {
            if !connection.isEstablished { consider(connection.openedAt + times.helloLimit) }
            if connection.isEstablished, !connection.pingDue { consider(connection.pingAt) }
            consider(connection.heardAt + times.silenceLimit)
            if case .until(let time) = connection.doubt { consider(time) }
        }
        // A report that is due already waits for a connection, not for a time.
        if unreported != 0, framesSinceReport < 2, bestConnection(for: nil) != nil {
            consider(reportAt)
        }
        consider(paceUntil)
        return earliest
    }

    /// Does what the time asks for: pings, and the end of connections that are silent.
    public func tick(now: NIODeadline) {
        if let until = paceUntil, until <= now { paceUntil = nil }
        for connection in connections {
            if !connection.isEstablished, now >= connection.openedAt + times.helloLimit {
                end(connection.identifier, .silent)
            } else if now >= connection.heardAt + times.silenceLimit {
                end(connection.identifier, .silent)
            } else if case .until(let time) = connection.doubt, now >= time {
                giveUp(connection.identifier, now: now)
            } else if connection.isEstablished, now >= connection.pingAt, let index = index(of: connection.identifier) {
                connections[index].pingDue = true
                connections[index].pingAt = now + times.pingInterval
            }
        }
    }

    func index(of identifier: ConnectionIdentifier) -> Int? { connections.firstIndex { $0.identifier == identifier } }

    /// Takes a connection out, and lets what was on its way on it be sent again.
    private func forget(_ identifier: ConnectionIdentifier) {
        guard let index = index(of: identifier) else { return }
        connections.remove(at: index)
        choosePrompt(opened: nil)
        counters.connectionsLost += 1
        sendAgain(from: identifier)
        noteConnectivity()
    }

    /// Nothing was heard of a connection in doubt. It may live all the same: then some frames arrive twice.
    private func giveUp(_ identifier: ConnectionIdentifier, now: NIODeadline) {
        guard let index = index(of: identifier) else { return }
        connections[index].doubt = .givenUp
        connections[index].inFlightBytes = 0
        sendAgain(from: identifier)
        reportAll(by: now)
    }

    /// What is on its way on a connection goes again.
    private func sendAgain(from identifier: ConnectionIdentifier) {
        for index in senders.indices { senders[index].connectionLost(identifier) { window.lost($0.wireBytes) } }
    }

    /// Ends a connection from this side.
    func end(_ identifier: ConnectionIdentifier, _ reason: LinkCloseReason) {
        guard index(of: identifier) != nil else { return }
        actions.append(.closeConnection(identifier, reason))
        forget(identifier)
    }

    func endAllConnections(_ reason: LinkCloseReason, except kept: ConnectionIdentifier? = nil, onlyEstablished: Bool = false) {
        for connection in connections where connection.identifier != kept && (connection.isEstablished || !onlyEstablished) {
            end(connection.identifier, reason)
        }
    }

    func noteConnectivity() {
        let now = isConnected
        if now != wasConnected {
            wasConnected = now
            actions.append(.connectivityChanged(isConnected: now))
        }
    }

    /// Drops everything of the session, and leaves none.
    func resetSession() {
        window.lost(window.inFlightBytes)
        for index in connections.indices { connections[index].inFlightBytes = 0 }
        senders = TrafficClass.allCases.map { ClassSender($0) }
        receivers = TrafficClass.allCases.map { ClassReceiver($0) }
        scheduler = LaneScheduler()
        sessionIdentifier = 0
        peerIncarnation = 0
        unreported = 0
        framesSinceReport = 0
        reportAt = nil
        paceUntil = nil
        copy = nil
    }

    /// The other side sent what would be just as wrong when it is sent again: nothing but a new session helps.
    func failSession(_ violation: LinkViolation) { leaveSession(.violation(violation.description)) }

    /// Ends everything, and is another one to the other side from now on: it begins a new session.
    private func leaveSession(_ reason: LinkCloseReason) {
        endAllConnections(reason)
        resetSession()
        incarnation = drawIdentifier()
        leftSessions = []
    }

    func receiveHello(_ hello: HelloBody, on index: Int, now: NIODeadline) throws(LinkViolation) {
        guard !connections[index].isEstablished else { throw LinkViolation("a second hello") }
        let identifier = connections[index].identifier
        version = min(LinkVersion.newest, hello.newestVersion)
        let earlier = window.latestRoundTrip ?? .zero
        let joins =
            switch role {
            case .acceptor: acceptHello(hello, on: index)
            case .initiator: try adoptHello(hello, on: identifier)
            }
        // Other connections, or this one, may have ended meanwhile.
        guard let place = self.index(of: identifier) else { return }
        if let sentAt = connections[place].helloSentAt { window.measured(roundTrip: now - sentAt, now: now) }
        connections[place].isEstablished = true
        connections[place].pingDue = true
        if joins { doubtSilentConnections(roundTrip: max(earlier, window.latestRoundTrip ?? .zero), now: now) }
        noteConnectivity()
    }

    /// One more connection was needed: others may be gone. One whose bytes have left the other side since it was asked for is not.
    private func doubtSilentConnections(roundTrip: TimeAmount, now: NIODeadline) {
        let alive = (window.baseRoundTrip ?? .zero) * LinkLimits.aliveRoundTrips
        let until = now + max(times.doubtLimit, roundTrip * LinkLimits.doubtRoundTrips)
        // Also of one that was given up: where none was trusted since, it may have been sent on again.
        for index in connections.indices
        where connections[index].isEstablished && !connections[index].isDoubted && connections[index].heardAt + alive < now {
            connections[index].doubt = .until(until)
            connections[index].pingDue = true
        }
    }

    /// The acceptor's side: it decides which session the connection belongs to.
    /// - Returns: true when the other side knew the session.
    private func acceptHello(_ hello: HelloBody, on index: Int) -> Bool {
        connections[index].needsHello = true
        guard sessionIdentifier != 0, hello.incarnation == peerIncarnation else {
            startSession(drawIdentifier(), peer: hello.incarnation, on: connections[index].identifier)
            return false
        }
        guard hello.session == sessionIdentifier else { return false }
        takePositions(hello.positions)
        return true
    }

    /// The initiator's side: it goes where the acceptor says. Into a session that it has left it can't: the frames that it would send there would be
    /// taken for those that it has sent, and it would wait for those that it has had. What it remembers of them, and what the acceptor has received,
    /// tell.
    /// - Returns: true when the connection was opened in the session.
    private func adoptHello(_ hello: HelloBody, on identifier: ConnectionIdentifier) throws(LinkViolation) -> Bool {
        guard hello.session != 0 else { throw LinkViolation("a hello without a session") }
        if hello.session == sessionIdentifier {
            takePositions(hello.positions)
            return self.index(of: identifier).map { connections[$0].helloSession == sessionIdentifier } ?? false
        }
        guard !leftSessions.contains(hello.session), hello.positions.allSatisfy(\.isAtStart) else {
            leaveSession(.sessionEnded)
            return false
        }
        if sessionIdentifier != 0 { leftSessions = (leftSessions + [sessionIdentifier]).suffix(LinkLimits.leftSessions) }
        startSession(hello.session, peer: hello.incarnation, on: identifier)
        return false
    }

    private func startSession(_ identifier: UInt64, peer: UInt64, on connection: ConnectionIdentifier) {
        endAllConnections(.sessionEnded, except: connection, onlyEstablished: true)
        resetSession()
        sessionIdentifier = identifier
        peerIncarnation = peer
        counters.sessionsStarted += 1
        actions.append(.sessionStarted)
    }

    /// The positions in a hello are an acknowledgement that came late.
    private func takePositions(_ positions: [ClassPosition]) {
        do throws(LinkViolation) {
            for position in positions { try take(position) }
            noteRoom()
        } catch {
            failSession(error)
        }
    }
}
