import NIOCore

// The login phase, RFC 7143 section 6.3, seen by the target:
//
//               T, NSG=1                    T, NSG=3
//   security ------------> operational ----------------> full feature
//       |                                                     ^
//       +------------------------ T, NSG=3 -------------------+
//
// A login may start in either of the first two stages, but in the second only when the target
// asks for no authentication. The target agrees to leave a stage when the initiator sets T and
// nothing is open in it. A failure answers with a status and closes the connection.

/// Who logs in, and to what.
public struct LoginIdentity: Equatable, Sendable {
    public var initiatorName: String
    /// Nil in a discovery session.
    public var targetName: String?
    public var sessionType: SessionType
    public var isid: InitiatorSessionIdentifier
}

/// What the owner of the targets says to a login.
public enum LoginAdmission: Equatable, Sendable {
    /// Welcome, after CHAP when there are credentials.
    case admitted(CHAPCredentials?)
    case refused(LoginStatus, reason: String)
}

/// The result of a login.
public struct LoginResult: Equatable, Sendable {
    public var identity: LoginIdentity
    public var parameters: SessionParameters
    public var tsih: UInt16
    public var connectionIdentifier: UInt16
    /// The CmdSN of the first command.
    public var cmdSN: UInt32
    /// The StatSN of the next response.
    public var statSN: UInt32
}

/// What to do after a login request.
public enum LoginStep: Equatable, Sendable {
    /// Send this and wait for the next request.
    case respond(LoginResponse)
    /// Send this and close. The reason is for the log and holds no secret.
    case fail(LoginResponse, reason: String)
    /// Send this; the connection is in the full feature phase.
    case finish(LoginResponse, LoginResult)
}

/// The login of one connection.
public struct LoginNegotiator {
    /// More requests than this make no login.
    public static let maximumRequestCount = 64
    /// Login PDUs carry at most this much text, whatever is agreed for later (section 13.12).
    public static let maximumTextByteCount = 8192

    let limits: NegotiationLimits
    let tsih: UInt16
    let admit: (LoginIdentity) -> LoginAdmission
    let random: (Int) -> [UInt8]

    var stage: LoginStage?
    var identity: LoginIdentity?
    var operational: OperationalKeys
    var chap: CHAPExchange?
    var isAuthenticated = false
    var hasDeclaredLength = false
    var first: LoginRequest?
    private var requestCount = 0
    private var statSN: UInt32 = 0
    private var incoming = TextAccumulator()
    private var outgoing = TextSender()
    private var transitAfterText = false

    /// - Parameters:
    ///   - tsih: The handle that the session gets if the login succeeds; not 0.
    ///   - random: Gives that many unpredictable bytes.
    ///   - admit: Says whether this initiator may use this target, and by which credentials.
    public init(
        limits: NegotiationLimits, tsih: UInt16, random: @escaping (Int) -> [UInt8],
        admit: @escaping (LoginIdentity) -> LoginAdmission
    ) {
        self.limits = limits
        self.tsih = tsih
        self.random = random
        self.admit = admit
        operational = OperationalKeys(limits: limits)
    }

    /// Takes the next login request.
    public mutating func receive(_ request: LoginRequest) -> LoginStep {
        requestCount += 1
        guard requestCount <= Self.maximumRequestCount else { return fail(request, .initiatorError, "too many login requests") }
        if first == nil { statSN = request.expStatSN }
        if let refusal = checkHeader(request) { return fail(request, refusal.0, refusal.1) }
        if first == nil { first = request }
        if outgoing.isWaiting {
            guard request.data.readableBytes == 0 else {
                return fail(request, .initiatorError, "text while the target's goes on")
            }
            return continueText(request)
        }
        let pairs: [TextPair]?
        do {
            pairs = try incoming.add(request.data, continues: request.continues)
        } catch {
            return fail(request, .initiatorError, "malformed login text")
        }
        guard let pairs else { return .respond(response(to: request)) }
        return take(pairs, of: request)
    }

    private mutating func take(_ pairs: [TextPair], of request: LoginRequest) -> LoginStep {
        var answers: [TextPair] = []
        if identity == nil {
            if let refusal = identify(pairs, request) { return fail(request, refusal.0, refusal.1) }
            if identity?.sessionType == .normal {
                answers.append(TextPair("TargetPortalGroupTag", String(limits.targetPortalGroupTag)))
                if let alias = limits.targetAlias { answers.append(TextPair("TargetAlias", alias)) }
            }
        }
        var refusal: (LoginStatus, String)?
        let isStageDone: Bool
        switch stage {
        case .securityNegotiation: isStageDone = security(pairs, &answers, &refusal)
        default: isStageDone = operation(pairs, &answers, &refusal)
        }
        if let refusal { return fail(request, refusal.0, refusal.1) }
        // Without authentication the full feature phase is out of reach, by whatever stages.
        guard isAuthenticated || chap != nil else {
            return fail(request, .authenticationFailure, "the target asks for CHAP")
        }
        transitAfterText = request.transits && isStageDone
        outgoing.start(answers)
        return continueText(request)
    }

    private mutating func continueText(_ request: LoginRequest) -> LoginStep {
        let (piece, continues) = outgoing.next(limit: Self.maximumTextByteCount)
        var answer = response(to: request)
        answer.data = piece
        answer.continues = continues
        guard !continues, transitAfterText, request.transits, let next = request.nextStage else { return .respond(answer) }
        answer.transits = true
        answer.nextStageCode = next.rawValue
        stage = next
        guard next == .fullFeaturePhase, let identity else { return .respond(answer) }
        answer.tsih = tsih
        let result = LoginResult(
            identity: identity, parameters: operational.result, tsih: tsih, connectionIdentifier: request.connectionIdentifier,
            cmdSN: request.cmdSN, statSN: statSN)
        return .finish(answer, result)
    }

    /// What the header must say (sections 6.3.1 and 11.12).
    private mutating func checkHeader(_ request: LoginRequest) -> (LoginStatus, String)? {
        guard request.versionMin == 0 else { return (.unsupportedVersion, "protocol version \(request.versionMin)") }
        guard let current = request.currentStage, current != .fullFeaturePhase else {
            return (.initiatorError, "no such login stage")
        }
        if request.continues, request.transits { return (.initiatorError, "T and C together") }
        if request.transits {
            guard let next = request.nextStage, next.rawValue > current.rawValue else {
                return (.initiatorError, "no such transit of stages")
            }
        }
        if let first {
            guard request.currentStage == stage, request.isid == first.isid, request.initiatorTaskTag == first.initiatorTaskTag,
                request.connectionIdentifier == first.connectionIdentifier, request.tsih == first.tsih
            else { return (.invalidRequestDuringLogin, "the login changed its stage or its names") }
        } else {
            guard request.tsih == 0 else { return (.sessionDoesNotExist, "a second connection of a session") }
            if stage == nil { stage = current }
            guard stage == current else { return (.invalidRequestDuringLogin, "the login changed its stage") }
        }
        return nil
    }

    private mutating func response(to request: LoginRequest) -> LoginResponse {
        var answer = LoginResponse()
        answer.currentStageCode = request.currentStageCode
        answer.isid = request.isid
        answer.tsih = request.tsih
        answer.initiatorTaskTag = request.initiatorTaskTag
        answer.sequence = TargetSequence(statSN: statSN, expCmdSN: request.cmdSN, maxCmdSN: request.cmdSN)
        statSN &+= 1
        return answer
    }

    private mutating func fail(_ request: LoginRequest, _ status: LoginStatus, _ reason: String) -> LoginStep {
        var answer = response(to: request)
        answer.status = status
        return .fail(answer, reason: reason)
    }
}
