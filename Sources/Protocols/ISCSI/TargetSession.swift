import NIOCore

// The full feature phase of a session with one connection at error recovery level 0, seen by the target.
//
//   frames --> receive --> actions: send a PDU
//                                   started(task)      the owner finds out what it moves, then `prepare`
//                                   execute(task)      all data is here; the owner answers by `complete`
//                                   failed(task, why)  the owner answers by `complete` with sense data
//                                   dropped(task)      gone without an answer
//                                   abort(task)        nobody waits for it; it still ends by `complete`
//                                   taskManagement     what reaches beyond the session; `answerTaskManagement`
//                                   aborted(token)     every task that an abort named is gone
//                                   close(why)
//
// The owner drains the actions after each call. At error recovery level 0 a PDU that is lost ends
// the session: a gap in CmdSN closes the connection (section 7.13.4).

/// What the owner of a session is to do.
public enum SessionAction: Equatable {
    case send(TargetPDU)
    case started(TaskHandle)
    case execute(TaskHandle)
    case failed(TaskHandle, TransportFailure)
    /// The task is gone without an answer; it had not begun to run.
    case dropped(TaskHandle)
    /// Nobody waits for the running task any more. It still ends by `complete`.
    case abort(TaskHandle)
    case taskManagement(TaskManagementRequest)
    case aborted(token: UInt32)
    case close(SessionEnd)
}

/// Why a session ends.
public enum SessionEnd: Equatable, Sendable {
    case logout
    case protocolError(String)
}

/// The limits of a session, by name.
public struct SessionLimits: Equatable, Sendable {
    /// Commands in flight; the initiator sees it as the CmdSN window. More are ignored (section 4.2.2.1).
    public var commandWindow: UInt32 = 128
    /// Immediate commands in flight beyond the window; more are rejected.
    public var immediateCommands = 16
    /// Task management requests that wait for their tasks to end; more are rejected.
    public var taskManagementRequests = 32
    /// PDUs that are rejected in a row, without a command that is taken, before the connection is closed.
    public var rejects = 32

    public init() {}
}

/// What SendTargets tells of one target.
public struct DiscoveredTarget: Equatable, Sendable {
    public var name: String
    public var alias: String?
    /// `address:port,portal group tag`.
    public var addresses: [String]

    public init(name: String, alias: String? = nil, addresses: [String]) {
        self.name = name
        self.alias = alias
        self.addresses = addresses
    }
}

/// One session.
public struct TargetSession {
    public let identity: LoginIdentity
    public let tsih: UInt16
    public internal(set) var parameters: SessionParameters
    /// True while a NOP-In of ours has no answer.
    public var isPingOutstanding: Bool { pingTag != BasicHeader.reservedTag }
    /// True when no new command is begun, because the session is about to end.
    public internal(set) var isRetiring = false

    let limits: SessionLimits
    /// The CID of the session's connection.
    public let connectionIdentifier: UInt16
    /// Answers SendTargets: all targets that this initiator may see, or the one that is named.
    let discover: (String?) -> [DiscoveredTarget]
    /// Whether there is a logical unit behind a LUN.
    let unitNumber: (UInt64) -> Int?
    var statSN: UInt32
    var expCmdSN: UInt32
    var tasks = SessionTaskTable()
    /// Commands that take part in the window and are not answered.
    var windowedCount: UInt32 = 0
    var immediateCount = 0
    var rejectCount = 0
    var nextTargetTransferTag: UInt32 = 1
    var nextAbortToken: UInt32 = 1
    var pendingAborts: [UInt32: Int] = [:]
    /// The tags of task management requests that wait for an abort, by its token.
    var pendingTaskManagement: [UInt32: UInt32] = [:]
    /// Task management requests that have no answer.
    var taskManagementCount = 0
    /// Numbers of commands that were aborted before they came (section 11.5.5); all within the window.
    var abortedCmdSNs: Set<UInt32> = []
    /// The tag of the ping that has no answer.
    var pingTag = BasicHeader.reservedTag
    var pendingLogout: (token: UInt32, request: LogoutRequest)?
    /// The text exchange that is open: our tag, and the initiator's.
    var textTag: UInt32?
    var textTaskTag: UInt32 = BasicHeader.reservedTag
    var incomingText = TextAccumulator()
    var outgoingText = TextSender()
    var isClosing = false
    private var actions: [SessionAction] = []
    private var nextAction = 0

    /// - Parameters:
    ///   - unitNumber: Says which logical unit is behind a LUN; nil when there is none. Several LUNs may mean the same one (SAM-5, 4.7).
    ///   - discover: Answers SendTargets: all targets that this initiator may see, or the one that is named.
    public init(
        _ login: LoginResult, limits: SessionLimits, unitNumber: @escaping (UInt64) -> Int? = { Int(exactly: $0) },
        discover: @escaping (String?) -> [DiscoveredTarget]
    ) {
        identity = login.identity
        tsih = login.tsih
        parameters = login.parameters
        connectionIdentifier = login.connectionIdentifier
        statSN = login.statSN
        expCmdSN = login.cmdSN
        self.limits = limits
        self.unitNumber = unitNumber
        self.discover = discover
    }

    /// The next thing to do, in order; nil when all is done.
    public mutating func popAction() -> SessionAction? {
        guard nextAction < actions.count else {
            if nextAction > 0 {
                actions.removeAll(keepingCapacity: true)
                nextAction = 0
            }
            return nil
        }
        defer { nextAction += 1 }
        return actions[nextAction]
    }

    mutating func act(_ action: SessionAction) { actions.append(action) }

    /// A task that is not answered yet.
    public func task(_ handle: TaskHandle) -> SessionTask? { tasks[handle] }

    /// The CmdSN of the command that comes next.
    public var nextCmdSN: UInt32 { expCmdSN }

    /// How many commands are not answered yet, whether they run or collect data.
    public var taskCount: Int { tasks.count }

    /// Takes the next frame of the connection.
    public mutating func receive(_ frame: PDUFrame) {
        guard !isClosing else { return }
        if frame.isDataDigestWrong { return receiveDamaged(frame) }
        let pdu: InitiatorPDU
        do {
            pdu = try InitiatorPDU(frame)
        } catch {
            if case .opcode = error { return reject(frame, .commandNotSupported) }
            // Only its additional headers make a command malformed, so its number is good and used up.
            if isInOrder(frame.header.at24, isImmediate: frame.header.isImmediate) { reject(frame, .invalidPDUField) }
            return
        }
        switch pdu {
        case .scsiCommand(let command): receive(command, frame)
        case .dataOut(let data): receive(data, frame)
        case .nopOut(let nop): receive(nop, frame)
        case .textRequest(let text): receive(text, frame)
        case .taskManagementRequest(let request): receive(request, frame)
        case .logoutRequest(let logout): receive(logout, frame)
        case .snackRequest: reject(frame, .snackReject)
        case .loginRequest: close(.protocolError("a login request in the full feature phase"))
        }
    }

    /// The numbers of a PDU that has a status: StatSN is used up.
    mutating func statusSequence() -> TargetSequence {
        defer { statSN &+= 1 }
        return TargetSequence(statSN: statSN, expCmdSN: expCmdSN, maxCmdSN: maxCmdSN)
    }

    /// The numbers of a PDU that has none.
    var plainSequence: TargetSequence { TargetSequence(statSN: statSN, expCmdSN: expCmdSN, maxCmdSN: maxCmdSN) }

    /// The last CmdSN that is taken. It never moves back: what opens the window is only a command that ends.
    var maxCmdSN: UInt32 { expCmdSN &+ limits.commandWindow &- windowedCount &- 1 }

    /// What CmdSN says about a PDU.
    enum Order {
        case next
        case ignored
        case gap
    }

    /// Checks CmdSN, and uses it up when it is next (section 4.2.2.1).
    mutating func order(_ cmdSN: UInt32, isImmediate: Bool) -> Order {
        if isImmediate { return .next }
        if cmdSN == expCmdSN {
            // The window may be closed: then this number is beyond MaxCmdSN.
            guard windowedCount < limits.commandWindow else { return .ignored }
            expCmdSN &+= 1
            skipAbortedCommands()
            return .next
        }
        if abortedCmdSNs.contains(cmdSN) { return .ignored }
        if SerialNumber.isBefore(cmdSN, expCmdSN) || SerialNumber.isBefore(maxCmdSN, cmdSN) { return .ignored }
        return .gap
    }

    /// Counts commands as received that were aborted before they came.
    mutating func skipAbortedCommands() {
        if abortedCmdSNs.isEmpty { return }
        while abortedCmdSNs.remove(expCmdSN) != nil { expCmdSN &+= 1 }
    }

    /// A tag for an R2T, a ping or a text that goes on; never the reserved one.
    mutating func takeTargetTransferTag() -> UInt32 {
        defer { nextTargetTransferTag = nextTargetTransferTag == BasicHeader.reservedTag - 1 ? 1 : nextTargetTransferTag + 1 }
        return nextTargetTransferTag
    }

    /// True when the PDU is to be processed.
    mutating func isInOrder(_ cmdSN: UInt32, isImmediate: Bool) -> Bool {
        switch order(cmdSN, isImmediate: isImmediate) {
        case .next: return true
        case .ignored: return false
        case .gap:
            close(.protocolError("CmdSN \(cmdSN) instead of \(expCmdSN)"))
            return false
        }
    }

    mutating func reject(_ frame: PDUFrame, _ reason: Reject.Reason) {
        rejectCount += 1
        guard rejectCount <= limits.rejects else { return close(.protocolError("too many PDUs were rejected")) }
        var answer = Reject()
        answer.reasonCode = reason.rawValue
        answer.data.writeBasicHeader(frame.header)
        answer.sequence = statusSequence()
        act(.send(.reject(answer)))
    }

    mutating func close(_ end: SessionEnd) {
        guard !isClosing else { return }
        isClosing = true
        act(.close(end))
    }

    /// A PDU whose data is damaged: rejected; a command that waits for the data fails (section 7.8).
    private mutating func receiveDamaged(_ frame: PDUFrame) {
        reject(frame, .dataDigestError)
        if frame.header.opcode == InitiatorOpcode.dataOut.rawValue, let handle = tasks.handle(tag: frame.header.at16) {
            fail(handle, .dataDigest)
        }
    }

    /// Ends a task that still collects; its owner makes the sense data.
    mutating func fail(_ handle: TaskHandle, _ failure: TransportFailure) {
        guard let task = tasks[handle], task.phase != .executing else { return }
        tasks.update(handle) {
            $0.phase = .executing
            $0.data = ByteBuffer()
            $0.solicitations = []
            $0.isUnsolicitedOpen = false
        }
        act(.failed(handle, failure))
    }
}
