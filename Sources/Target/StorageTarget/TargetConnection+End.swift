import NIOCore

// How a connection ends: in order (`retire`), after an answer (`closeAfterFlush`), or at once (`closeNow`). Each way ends in
// `finishEnd`, when the last command has left its logical unit.
extension TargetConnection {
    /// Runs `completion` when no command of the connection can touch a medium any more.
    func whenEnded(_ completion: @escaping () -> Void) {
        if isEnded { completion() } else { endWaiters.append(completion) }
    }

    /// Takes no more commands, lets those in flight finish and answers them, asks the initiator to log out, and closes when it
    /// has, or when `logoutTime` is over.
    func retire(completion: @escaping () -> Void) {
        whenEnded(completion)
        guard phase != .ending, phase != .retiring else { return }
        phase = .retiring
        // What still waits for data or room will not get it.
        session?.retire()
        drain()
        askForLogout()
    }

    /// Goes on with a retirement when nothing runs any more.
    private func askForLogout() {
        guard phase == .retiring, runningCount == 0, !isLogoutRequested else { return }
        isLogoutRequested = true
        let time = server.limits.logoutTime
        guard session?.identity.sessionType == .normal, time > .zero else { return hangUp() }
        session?.announce(.requestsLogout, seconds: UInt16(clamping: max(1, time.nanoseconds / 1_000_000_000)))
        drain()
        let bound = NIOLoopBound({ [self] in if phase == .retiring { hangUp() } }, eventLoop: channel.eventLoop)
        channel.eventLoop.scheduleTask(in: time) { bound.value() }
    }

    /// Takes no more commands and closes a moment later: an initiator that reads an answer and the end of the connection at once
    /// may take the answer for lost.
    func closeSoon() {
        guard phase == .fullFeature else { return closeAfterFlush() }
        phase = .retiring
        isLogoutRequested = true
        session?.retire()
        drain()
        let bound = NIOLoopBound({ [self] in closeAfterFlush() }, eventLoop: channel.eventLoop)
        channel.eventLoop.scheduleTask(in: .milliseconds(200)) { bound.value() }
    }

    /// Tells the initiator that its connection ends, and ends it.
    func hangUp() {
        session?.announce(.dropsAllConnections)
        drain()
        closeAfterFlush()
    }

    /// Leaves the session to another connection: its tasks end, but the logical units keep its nexus. `closeNow` follows.
    func surrender() -> (nexus: NexusIdentifier, expCmdSN: UInt32)? {
        guard let session, hasNexus, let target, phase == .fullFeature else { return nil }
        hasNexus = false
        runningCount += 1
        let latch = Countdown(target.units.count + 1) { [self] in
            runningCount -= 1
            commandDidEnd()
        }
        for unit in target.units.values { unit.abortTasks(.nexus(nexus)) { latch.arrive() } }
        latch.arrive()
        return (nexus, session.nextCmdSN)
    }

    /// Logs and closes; what was written before still leaves.
    func fail(_ reason: String) {
        guard phase != .ending else { return }
        server.note(reason, from: channel.remoteAddress)
        closeAfterFlush()
    }

    func closeAfterFlush() {
        guard phase != .ending else { return }
        phase = .ending
        answers.flush()
        FrontEnd.closeAfterAnswers(channel)
        end()
    }

    /// Closes without waiting for anything to be sent.
    func closeNow() {
        phase = .ending
        channel.close(promise: nil)
        end()
    }

    /// Leaves the target. The rest of the end comes with the last running command.
    func end() {
        phase = .ending
        guard session != nil || hasNexus else { return finishEnd() }
        session = nil
        for (handle, command) in commands where !command.isRunning { drop(handle) }
        let waiters = abortWaiters.values
        abortWaiters.removeAll()
        for waiter in waiters { waiter() }
        guard hasNexus, let target else { return finishEnd() }
        hasNexus = false
        runningCount += 1
        let latch = Countdown(target.units.count + 1) { [self] in
            runningCount -= 1
            commandDidEnd()
        }
        for unit in target.units.values { unit.removeNexus(nexus) { latch.arrive() } }
        latch.arrive()
    }

    /// Called after each command that leaves a logical unit.
    func commandDidEnd() {
        switch phase {
        case .retiring: askForLogout()
        case .ending: finishEnd()
        case .login, .replacing, .fullFeature: break
        }
    }

    private func finishEnd() {
        guard runningCount == 0, !isEnded, !hasNexus else { return }
        isEnded = true
        answers.release()
        server.closed(self)
        let waiters = endWaiters
        endWaiters.removeAll()
        for waiter in waiters { waiter() }
    }
}
