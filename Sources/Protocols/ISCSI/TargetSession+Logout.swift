// Logout and asynchronous messages, RFC 7143 sections 11.9, 11.14 and 11.15.

extension TargetSession {
    mutating func receive(_ request: LogoutRequest, _ frame: PDUFrame) {
        guard isInOrder(request.cmdSN, isImmediate: request.isImmediate) else { return }
        guard pendingLogout == nil else { return reject(frame, .waitingForLogout) }
        // Section 4.3: a discovery session is closed as a whole.
        guard identity.sessionType == .normal || request.reason == 0 else { return reject(frame, .protocolError) }
        switch request.reason {
        case 0: break
        case 1:
            guard request.connectionIdentifier == connectionIdentifier else { return answerLogout(request, 1) }
        case 2: return answerLogout(request, 2)
        default: return reject(frame, .invalidPDUField)
        }
        if let token = abortTasks(onLUN: nil) {
            pendingLogout = (token, request)
        } else {
            finishLogout(request)
        }
    }

    mutating func finishLogout(_ request: LogoutRequest) {
        answerLogout(request, 0)
        close(.logout)
    }

    private mutating func answerLogout(_ request: LogoutRequest, _ code: UInt8) {
        var answer = LogoutResponse()
        answer.initiatorTaskTag = request.initiatorTaskTag
        answer.response = code
        answer.time2Wait = UInt16(clamping: parameters.defaultTime2Wait)
        answer.sequence = statusSequence()
        act(.send(.logoutResponse(answer)))
    }

    /// Begins no new commands: what comes, and what has not begun, is left for the initiator's next session.
    public mutating func retire() {
        isRetiring = true
        for handle in tasks.handles where tasks[handle]?.phase != .executing {
            _ = end(handle)
            act(.dropped(handle))
        }
    }

    /// Tells the initiator about an event; for `requestsLogout`, `seconds` is how long it has.
    public mutating func announce(_ event: AsyncMessage.Event, seconds: UInt16 = 0) {
        guard !isClosing else { return }
        var message = AsyncMessage()
        message.eventCode = event.rawValue
        switch event {
        case .requestsLogout: message.parameter3 = seconds
        case .dropsConnection, .dropsAllConnections:
            if event == .dropsConnection { message.parameter1 = connectionIdentifier }
            // Time2Wait, and a Time2Retain of 0: at error recovery level 0 nothing of the session is kept.
            message.parameter2 = UInt16(clamping: parameters.defaultTime2Wait)
        default: break
        }
        message.sequence = statusSequence()
        act(.send(.asyncMessage(message)))
    }
}
