// Task management, RFC 7143 sections 11.5 and 11.6 and RFC 7144. What reaches beyond the session is the owner's to do.

extension TaskManagementRequest.Function {
    /// True when the function is about the logical unit that its LUN names, and nothing smaller or larger.
    fileprivate var namesUnit: Bool {
        switch self {
        case .abortTaskSet, .clearACA, .clearTaskSet, .logicalUnitReset, .queryTaskSet, .queryAsynchronousEvent: true
        case .abortTask, .targetWarmReset, .targetColdReset, .taskReassign, .queryTask, .nexusReset: false
        }
    }
}

extension TargetSession {
    mutating func receive(_ request: TaskManagementRequest, _ frame: PDUFrame) {
        guard isInOrder(request.cmdSN, isImmediate: request.isImmediate) else { return }
        guard identity.sessionType == .normal else { return reject(frame, .protocolError) }
        guard pendingLogout == nil else { return reject(frame, .waitingForLogout) }
        guard taskManagementCount < limits.taskManagementRequests else { return reject(frame, .immediateCommandReject) }
        taskManagementCount += 1
        guard let function = request.function, function.rawValue <= 8 || parameters.protocolLevel >= 2 else {
            return answerTaskManagement(request, .functionNotSupported)
        }
        if function.namesUnit, unitNumber(request.lun) == nil { return answerTaskManagement(request, .lunDoesNotExist) }
        switch function {
        case .abortTask: abortTask(request)
        case .abortTaskSet: answer(request, after: abortTasks(onLUN: request.lun))
        case .queryTask:
            answerTaskManagement(request, referencedTask(request) == nil ? .functionComplete : .functionSucceeded)
        case .queryTaskSet:
            let isThere = tasks.handles.contains { isTask($0, onLUN: request.lun) }
            answerTaskManagement(request, isThere ? .functionSucceeded : .functionComplete)
        case .clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset, .nexusReset, .queryAsynchronousEvent:
            act(.taskManagement(request))
        case .taskReassign: answerTaskManagement(request, .taskReassignmentNotSupported)
        case .clearACA: answerTaskManagement(request, .functionNotSupported)
        }
    }

    private func referencedTask(_ request: TaskManagementRequest) -> TaskHandle? {
        guard let handle = tasks.handle(tag: request.referencedTaskTag), isTask(handle, onLUN: request.lun) else { return nil }
        return handle
    }

    /// True when a task is on the unit that `lun` means, by whichever LUN it was sent there.
    private func isTask(_ handle: TaskHandle, onLUN lun: UInt64) -> Bool {
        guard let own = tasks[handle]?.lun else { return false }
        return own == lun || unitNumber(own).map { $0 == unitNumber(lun) } ?? false
    }

    /// ABORT TASK (section 11.6.1): a task that is not there has not come yet, when its CmdSN is in the window and before that
    /// of the request; it then counts as received. Otherwise it has ended.
    private mutating func abortTask(_ request: TaskManagementRequest) {
        if let handle = referencedTask(request) { return answer(request, after: abort([handle])) }
        let number = request.refCmdSN
        guard !SerialNumber.isBefore(number, expCmdSN), !SerialNumber.isBefore(maxCmdSN, number),
            SerialNumber.isBefore(number, request.cmdSN)
        else { return answerTaskManagement(request, .taskDoesNotExist) }
        abortedCmdSNs.insert(number)
        skipAbortedCommands()
        answerTaskManagement(request, .functionComplete)
    }

    private mutating func answer(_ request: TaskManagementRequest, after token: UInt32?) {
        if let token {
            pendingTaskManagement[token] = request.initiatorTaskTag
        } else {
            answerTaskManagement(request, .functionComplete)
        }
    }

    /// Answers a task management request that the owner was given.
    /// - Parameter additionalInformation: Three bytes of SAM-5's additional response information, for a query that succeeded.
    public mutating func answerTaskManagement(
        _ request: TaskManagementRequest, _ response: TaskManagementResponse.Response, additionalInformation: UInt32 = 0
    ) {
        answerTaskManagement(tag: request.initiatorTaskTag, response, additionalInformation)
    }

    private mutating func answerTaskManagement(
        tag: UInt32, _ response: TaskManagementResponse.Response, _ additionalInformation: UInt32 = 0
    ) {
        taskManagementCount -= 1
        guard !isClosing else { return }
        var answer = TaskManagementResponse()
        answer.initiatorTaskTag = tag
        answer.responseCode = response.rawValue
        answer.additionalInformation = additionalInformation
        answer.sequence = statusSequence()
        act(.send(.taskManagementResponse(answer)))
    }

    /// Aborts the tasks on one LUN, or all tasks.
    /// - Returns: a token that `aborted` names when the last of them is gone; nil when none runs any more.
    public mutating func abortTasks(onLUN lun: UInt64?) -> UInt32? {
        abort(tasks.handles.filter { handle in lun.map { isTask(handle, onLUN: $0) } ?? true })
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
}
