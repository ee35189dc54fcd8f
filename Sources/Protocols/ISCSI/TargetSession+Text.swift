import NIOCore

// Pings and text.

extension TargetSession {
    // MARK: NOP (sections 11.18 and 11.19)

    mutating func receive(_ nop: NOPOut, _ frame: PDUFrame) {
        guard isInOrder(nop.cmdSN, isImmediate: nop.isImmediate) else { return }
        // Section 4.3: a discovery session is for SendTargets and nothing else.
        guard identity.sessionType == .normal else { return reject(frame, .protocolError) }
        guard nop.initiatorTaskTag != BasicHeader.reservedTag else {
            // An answer to a ping of ours, or one that wants no answer.
            if nop.targetTransferTag == pingTag { pingTag = BasicHeader.reservedTag }
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

    /// Sends a NOP-In that the initiator must answer; for normal sessions.
    public mutating func ping() {
        guard !isClosing else { return }
        var ping = NOPIn()
        pingTag = takeTargetTransferTag()
        ping.targetTransferTag = pingTag
        ping.sequence = plainSequence
        act(.send(.nopIn(ping)))
    }

    // MARK: Text (sections 11.10 and 11.11)

    mutating func receive(_ request: TextRequest, _ frame: PDUFrame) {
        guard isInOrder(request.cmdSN, isImmediate: request.isImmediate) else { return }
        guard pendingLogout == nil else { return reject(frame, .waitingForLogout) }
        if request.isFinal, request.continues { return reject(frame, .protocolError) }
        if request.targetTransferTag == BasicHeader.reservedTag {
            // A new exchange; what an earlier one left is dropped.
            outgoingText = TextSender()
            incomingText = TextAccumulator()
            textTag = nil
            textTaskTag = request.initiatorTaskTag
        } else if request.targetTransferTag != textTag || request.initiatorTaskTag != textTaskTag {
            return reject(frame, .protocolError)
        }
        if outgoingText.isWaiting {
            guard request.data.readableBytes == 0 else { return reject(frame, .protocolError) }
            return sendText(request)
        }
        do {
            guard let pairs = try incomingText.add(request.data, continues: request.continues) else { return sendText(request) }
            // Section 6.4: no key comes twice.
            guard Set(pairs.map(\.key)).count == pairs.count else {
                incomingText = TextAccumulator()
                return reject(frame, .protocolError)
            }
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
            let tag = textTag ?? takeTargetTransferTag()
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
        case (_, .discovery): found = discover(value.lowercased())
        case (_, .normal): found = value.lowercased() == identity.targetName ? discover(value.lowercased()) : []
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
}
