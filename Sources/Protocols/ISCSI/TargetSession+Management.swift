import NIOCore

// Everything but commands and their data: pings, text, task management, logout.

extension TargetSession {
    // MARK: NOP (sections 11.18 and 11.19)

    mutating func receive(_ nop: NOPOut, _ frame: PDUFrame) {
        guard isInOrder(nop.cmdSN, isImmediate: nop.isImmediate) else { return }
        guard nop.initiatorTaskTag != BasicHeader.reservedTag else {
            // An answer to a ping of ours, or one that wants no answer.
            isPingOutstanding = false
            return
        }
        var answer = NOPIn()
        answer.initiatorTaskTag = nop.initiatorTaskTag
        answer.lun = nop.lun
        var data = nop.data
        answer.data =
            data.readSlice(length: min(data.readableBytes, parameters.initiatorMaxRecvDataSegmentLength)) ?? ByteBuffer()
        answer.sequence = statusSequence()
        act(.send(.nopIn(answer)))
    }

    /// Sends a NOP-In that the initiator must answer.
    public mutating func ping() {
        guard !isClosing else { return }
        isPingOutstanding = true
        var ping = NOPIn()
        ping.targetTransferTag = nextTargetTransferTag
        nextTargetTransferTag = nextTargetTransferTag == BasicHeader.reservedTag - 1 ? 1 : nextTargetTransferTag + 1
        ping.sequence = plainSequence
        act(.send(.nopIn(ping)))
    }

    // MARK: Text (sections 11.10 and 11.11)

    mutating func receive(_ request: TextRequest, _ frame: PDUFrame) {
        guard isInOrder(request.cmdSN, isImmediate: request.isImmediate) else { return }
        if request.isFinal, request.continues { return reject(frame, .protocolError) }
        if request.targetTransferTag == BasicHeader.reservedTag {
            // A new exchange; what an earlier one left is dropped.
            outgoingText = TextSender()
            incomingText = TextAccumulator()
            textTag = nil
        } else if request.targetTransferTag != textTag {
            return reject(frame, .protocolError)
        }
        if outgoingText.isWaiting {
            guard request.data.readableBytes == 0 else { return reject(frame, .protocolError) }
            return sendText(request)
        }
        do {
            guard let pairs = try incomingText.add(request.data, continues: request.continues) else { return sendText(request) }
            outgoingText.start(answers(to: pairs))
            sendText(request)
        } catch {
            incomingText = TextAccumulator()
            reject(frame, .protocolError)
        }
    }

    private mutating func sendText(_ request: TextRequest) {
        let (piece, continues) = outgoingText.next(limit: parameters.initiatorMaxRecvDataSegmentLength)
        var response = TextResponse()
        response.initiatorTaskTag = request.initiatorTaskTag
        response.lun = request.lun
        response.data = piece
        response.continues = continues
        response.isFinal = request.isFinal && !continues
        if response.isFinal {
            textTag = nil
        } else {
            let tag = textTag ?? nextTargetTransferTag
            if textTag == nil { nextTargetTransferTag = tag == BasicHeader.reservedTag - 1 ? 1 : tag + 1 }
            textTag = tag
            response.targetTransferTag = tag
        }
        response.sequence = statusSequence()
        act(.send(.textResponse(response)))
    }

    private mutating func answers(to pairs: [TextPair]) -> [TextPair] {
        var answers: [TextPair] = []
        for pair in pairs {
            switch pair.key {
            case "SendTargets": answers += sendTargets(pair.value)
            case "MaxRecvDataSegmentLength":
                if let value = OperationalKeys.number(pair.value, 512...16_777_215) {
                    parameters.initiatorMaxRecvDataSegmentLength = value
                } else {
                    answers.append(TextPair(pair.key, "Reject"))
                }
            case "InitiatorAlias": break
            case "NotUnderstood", "Irrelevant": break
            default: answers.append(TextPair(pair.key, Self.loginOnlyKeys.contains(pair.key) ? "Reject" : "NotUnderstood"))
            }
        }
        return answers
    }

    /// SendTargets (appendix C): All in a discovery session, the session's own target by an empty value, or a name.
    private func sendTargets(_ value: String) -> [TextPair] {
        let found: [DiscoveredTarget]
        switch (value, identity.sessionType) {
        case ("All", .discovery): found = discover(nil)
        case ("All", .normal), ("", .discovery): return [TextPair("SendTargets", "Reject")]
        case ("", .normal): found = identity.targetName.map { discover($0) } ?? []
        default: found = discover(value.lowercased())
        }
        var answers: [TextPair] = []
        for target in found {
            answers.append(TextPair("TargetName", target.name))
            if let alias = target.alias { answers.append(TextPair("TargetAlias", alias)) }
            answers += target.addresses.map { TextPair("TargetAddress", $0) }
        }
        return answers
    }

    private static let loginOnlyKeys: Set<String> = [
        "HeaderDigest", "DataDigest", "MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength",
        "DefaultTime2Wait", "DefaultTime2Retain", "MaxOutstandingR2T", "DataPDUInOrder", "DataSequenceInOrder",
        "ErrorRecoveryLevel", "SessionType", "InitiatorName", "TargetName", "AuthMethod", "TaskReporting", "iSCSIProtocolLevel",
    ]

    // MARK: Task management (sections 11.5 and 11.6)

    mutating func receive(_ request: TaskManagementRequest, _ frame: PDUFrame) {
        guard isInOrder(request.cmdSN, isImmediate: request.isImmediate) else { return }
        guard identity.sessionType == .normal else { return reject(frame, .protocolError) }
        switch request.function {
        case .abortTask:
            guard let handle = tasks.handle(tag: request.referencedTaskTag), tasks[handle]?.lun == request.lun else {
                return answerTaskManagement(request, .taskDoesNotExist)
            }
            answer(request, after: abort([handle]))
        case .abortTaskSet: answer(request, after: abortTasks(onLUN: request.lun))
        case .clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset: act(.taskManagement(request))
        case .taskReassign: answerTaskManagement(request, .taskReassignmentNotSupported)
        case .clearACA: answerTaskManagement(request, .functionNotSupported)
        case nil: answerTaskManagement(request, .functionRejected)
        }
    }

    private mutating func answer(_ request: TaskManagementRequest, after token: UInt32?) {
        if let token {
            pendingTaskManagement[token] = request.initiatorTaskTag
        } else {
            answerTaskManagement(request, .functionComplete)
        }
    }

    /// Answers a task management request.
    public mutating func answerTaskManagement(_ request: TaskManagementRequest, _ response: TaskManagementResponse.Response) {
        answerTaskManagement(tag: request.initiatorTaskTag, response)
    }

    private mutating func answerTaskManagement(tag: UInt32, _ response: TaskManagementResponse.Response) {
        guard !isClosing else { return }
        var answer = TaskManagementResponse()
        answer.initiatorTaskTag = tag
        answer.responseCode = response.rawValue
        answer.sequence = statusSequence()
        act(.send(.taskManagementResponse(answer)))
    }

    /// Aborts the tasks on one LUN, or all tasks.
    /// - Returns: a token that `aborted` names when the last of them is gone; nil when none runs any more.
    public mutating func abortTasks(onLUN lun: UInt64?) -> UInt32? {
        abort(tasks.handles.filter { lun == nil || tasks[$0]?.lun == lun })
    }

    private mutating func abort(_ handles: [TaskHandle]) -> UInt32? {
        let token = nextAbortToken
        var running = 0
        for handle in handles {
            guard let task = tasks[handle] else { continue }
            tasks.update(handle) { $0.isAborted = true }
            if task.phase == .executing {
                tasks.update(handle) { $0.abortTokens.append(token) }
                running += 1
                act(.abort(handle))
            } else {
                _ = end(handle)
                act(.dropped(handle))
            }
        }
        guard running > 0 else { return nil }
        nextAbortToken &+= 1
        pendingAborts[token] = running
        return token
    }

    /// One task that an abort named is gone.
    mutating func settleAbort(_ token: UInt32) {
        guard let left = pendingAborts[token] else { return }
        guard left <= 1 else {
            pendingAborts[token] = left - 1
            return
        }
        pendingAborts[token] = nil
        if let tag = pendingTaskManagement.removeValue(forKey: token) {
            answerTaskManagement(tag: tag, .functionComplete)
        } else if let logout = pendingLogout, logout.token == token {
            finishLogout(logout.request)
        } else {
            act(.aborted(token: token))
        }
    }

    // MARK: Logout and asynchronous messages (sections 11.9, 11.14 and 11.15)

    mutating func receive(_ request: LogoutRequest, _ frame: PDUFrame) {
        guard isInOrder(request.cmdSN, isImmediate: request.isImmediate) else { return }
        guard pendingLogout == nil else { return reject(frame, .waitingForLogout) }
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

    private mutating func finishLogout(_ request: LogoutRequest) {
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

    /// Tells the initiator about an event; for `requestsLogout`, `seconds` is how long it has.
    public mutating func announce(_ event: AsyncMessage.Event, seconds: UInt16 = 0) {
        guard !isClosing else { return }
        var message = AsyncMessage()
        message.eventCode = event.rawValue
        switch event {
        case .requestsLogout: message.parameter3 = seconds
        case .dropsConnection: message.parameter1 = connectionIdentifier
        default: break
        }
        message.sequence = statusSequence()
        act(.send(.asyncMessage(message)))
    }
}
