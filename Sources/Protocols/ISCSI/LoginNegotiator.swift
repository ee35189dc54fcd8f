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

/// What an initiator has to prove before its login goes on.
public enum LoginAuthentication: Equatable, Sendable {
    /// Nothing; an initiator that insists on CHAP is refused, since nobody here could check its answer.
    case none
    /// CHAP with one of these.
    case required([CHAPCredentials])
    /// CHAP with one of these if the initiator prefers it to None; the login's result says what was proved.
    case accepted([CHAPCredentials])
}

/// What the owner of the targets says to a login.
public enum LoginAdmission: Equatable, Sendable {
    /// Welcome, once it has proved what it must.
    case admitted(LoginAuthentication)
    case refused(LoginStatus, reason: String)
}

/// What the owner of the sessions says to a login that names one of them by its TSIH (section 6.3.1).
public enum LoginContinuation: Equatable, Sendable {
    /// It reinstates the session's only connection; what was agreed for the session stays.
    case reinstates(SessionParameters)
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
    /// True when the login took the place of the session's connection instead of making a session.
    public var reinstatesConnection = false
    /// The credentials that the initiator has proved to know; none without CHAP.
    public var provenCredentials: [CHAPCredentials] = []
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
    let find: (LoginIdentity, _ tsih: UInt16, _ connectionIdentifier: UInt16) -> LoginContinuation
    let random: (Int) -> [UInt8]

    var stage: LoginStage?
    var identity: LoginIdentity?
    var operational: OperationalKeys
    /// What the initiator has to prove, once it is known who it is.
    var authentication = LoginAuthentication.none
    var chap: CHAPExchange?
    var isAuthenticated = false
    var provenCredentials: [CHAPCredentials] = []
    var hasChosenMethod = false
    var hasDeclaredLength = false
    var first: LoginRequest?
    private var requestCount = 0
    private var statSN: UInt32 = 0
    private var incoming = TextAccumulator()
    private var outgoing = TextSender()
    private var transitAfterText = false
    private var isContinuationKnown = false

    /// - Parameters:
    ///   - tsih: The handle that the session gets if the login succeeds; not 0.
    ///   - random: Gives that many unpredictable bytes.
    ///   - find: Says whether there is the session that a login with a TSIH names, and what becomes of its connection.
    ///   - admit: Says whether this initiator may use this target, and by which credentials.
    public init(
        limits: NegotiationLimits, tsih: UInt16, random: @escaping (Int) -> [UInt8],
        find: @escaping (LoginIdentity, _ tsih: UInt16, _ connectionIdentifier: UInt16) -> LoginContinuation = { _, _, _ in
            .refused(.sessionDoesNotExist, reason: "no such session")
        },
        admit: @escaping (LoginIdentity) -> LoginAdmission
    ) {
        self.limits = limits
        self.tsih = tsih
        self.random = random
        self.admit = admit
        self.find = find
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
            if let refusal = identify(pairs, request) ?? continuation(of: request) { return fail(request, refusal.0, refusal.1) }
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
        if let refusal = refusal ?? continuation(of: request) { return fail(request, refusal.0, refusal.1) }
        // Without authentication the full feature phase is out of reach, by whatever stages.
        guard isAuthenticated || chap != nil else {
            return fail(request, .authenticationFailure, "the target asks for CHAP")
        }
        transitAfterText = request.transits && isStageDone
        outgoing.start(answers)
        return continueText(request)
    }

    /// Looks for the session that a TSIH names, as soon as the initiator has proved that it may ask.
    private mutating func continuation(of request: LoginRequest) -> (LoginStatus, String)? {
        guard request.tsih != 0, isAuthenticated, !isContinuationKnown, let identity else { return nil }
        isContinuationKnown = true
        switch find(identity, request.tsih, request.connectionIdentifier) {
        case .refused(let status, let reason): return (status, reason)
        case .reinstates(let parameters):
            operational.reinstate(parameters)
            return nil
        }
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
        if request.tsih == 0 { answer.tsih = tsih }
        let result = LoginResult(
            identity: identity, parameters: operational.result, tsih: answer.tsih,
            connectionIdentifier: request.connectionIdentifier, cmdSN: request.cmdSN, statSN: statSN,
            reinstatesConnection: request.tsih != 0, provenCredentials: provenCredentials)
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
