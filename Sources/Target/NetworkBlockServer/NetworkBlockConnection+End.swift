import NIOCore
import StorageTarget

// How a connection ends: in order (`retire`, which is also the answer to DISC), after an answer (`closeAfterFlush`), or at
// once (`closeNow`). Each way ends in `finishEnd`, when the last request has left the logical unit.
extension NetworkBlockConnection {
    /// Takes no more requests, lets those in flight finish and answers them, then closes. `completion` runs when no request
    /// of the connection can touch a medium any more.
    func retire(completion: @escaping () -> Void) {
        if isEnded { return completion() }
        endWaiters.append(completion)
        guard phase != .ending else { return }
        phase = .retiring
        abandonIncoming()
        requestDidEnd()
    }

    /// Logs and closes; what was written before still leaves.
    func fail(_ reason: String) {
        guard phase != .ending else { return }
        server.note(reason, from: channel.remoteAddress)
        closeAfterFlush()
    }

    func closeAfterFlush() {
        guard phase != .ending else { return }
        answers.flush()
        FrontEnd.closeAfterAnswers(channel)
        end()
    }

    /// Closes without waiting for anything to be sent.
    func closeNow() {
        channel.close(promise: nil)
        end()
    }

    /// Begins nothing more. The rest of the end comes with the last running request.
    func end() {
        guard phase != .ending else { return finishEnd() }
        phase = .ending
        abandonIncoming()
        runner?.stop()
        finishEnd()
    }

    /// Called after each request that ends.
    func requestDidEnd() {
        switch phase {
        case .retiring: if requestCount == 0 { closeAfterFlush() }
        case .ending: finishEnd()
        // Only who was held up by the limit needs to be woken.
        case .transmission: if requestCount == server.limits.requests - 1 { resume() }
        case .handshake, .upgrading: break
        }
    }

    private func finishEnd() {
        guard requestCount == 0, !isEnded else { return }
        isEnded = true
        answers.release()
        server.closed(self)
        let waiters = endWaiters
        endWaiters.removeAll()
        for waiter in waiters { waiter() }
    }
}
