// What each stage of a login does with the keys that arrive in it.

extension LoginNegotiator {
    /// Reads the names, which must be in the first request (section 6.3), and asks whether they are welcome.
    mutating func identify(_ pairs: [TextPair], _ request: LoginRequest) -> (LoginStatus, String)? {
        var names: [String: String] = [:]
        for pair in pairs where Self.naming.contains(pair.key) {
            guard names.updateValue(pair.value, forKey: pair.key) == nil else { return (.initiatorError, "\(pair.key) twice") }
        }
        guard let initiator = names["InitiatorName"], Self.isName(initiator) else {
            return (.missingParameter, "InitiatorName is missing or malformed")
        }
        let type: SessionType
        switch names["SessionType"] ?? "Normal" {
        case "Normal": type = .normal
        case "Discovery": type = .discovery
        default: return (.sessionTypeNotSupported, "unknown SessionType")
        }
        if type == .normal, names["TargetName"] == nil { return (.missingParameter, "TargetName is missing") }
        // iSCSI names are compared without regard to case (RFC 3722).
        let found = LoginIdentity(
            initiatorName: initiator.lowercased(), targetName: type == .normal ? names["TargetName"]?.lowercased() : nil,
            sessionType: type, isid: request.isid)
        identity = found
        operational.sessionType = type
        switch admit(found) {
        case .refused(let status, let reason): return (status, reason)
        case .admitted(let wanted):
            authentication = wanted
            guard case .required(let credentials) = wanted else {
                isAuthenticated = true
                break
            }
            guard stage == .securityNegotiation else { return (.authenticationFailure, "the target asks for CHAP") }
            chap = CHAPExchange(credentials)
        }
        return nil
    }

    /// The security stage. Returns true when it may be left.
    mutating func security(
        _ pairs: [TextPair], _ answers: inout [TextPair], _ refusal: inout (LoginStatus, String)?
    ) -> Bool {
        var keys: [String: String] = [:]
        for pair in pairs where !Self.naming.contains(pair.key) && pair.key != "InitiatorAlias" {
            if pair.key == "AuthMethod" || pair.key.hasPrefix("CHAP_") {
                guard keys.updateValue(pair.value, forKey: pair.key) == nil else {
                    refusal = (.initiatorError, "\(pair.key) twice")
                    return false
                }
            } else {
                // Operational keys belong to the next stage, but some initiators send them here.
                answerOperational(pair, &answers, &refusal)
            }
        }
        if let offer = keys["AuthMethod"] {
            if let found = chooseMethod(offer, &answers) {
                refusal = found
                return false
            }
        }
        guard !isAuthenticated, chap != nil else { return isAuthenticated }
        switch chap?.take(keys, random: random) {
        case .answer(let pairs): answers += pairs
        case .authenticated(let pairs, let credentials):
            answers += pairs
            isAuthenticated = true
            provenCredentials = credentials
        case .failed(let reason): refusal = (.authenticationFailure, reason)
        case nil: break
        }
        return isAuthenticated
    }

    /// Picks a method of the initiator's list, which is in the order of its preference (section 12.1).
    private mutating func chooseMethod(_ offer: String, _ answers: inout [TextPair]) -> (LoginStatus, String)? {
        guard !hasChosenMethod else { return (.initiatorError, "AuthMethod was negotiated before") }
        hasChosenMethod = true
        let methods = offer.split(separator: ",")
        let accepted: [Substring]
        switch authentication {
        case .none: accepted = ["None"]
        case .required: accepted = ["CHAP"]
        case .accepted: accepted = ["CHAP", "None"]
        }
        guard let method = methods.first(where: { accepted.contains($0) }) else {
            return (.authenticationFailure, "the initiator does not offer \(accepted.joined(separator: " or "))")
        }
        if case .accepted(let credentials) = authentication, method == "CHAP" {
            isAuthenticated = false
            chap = CHAPExchange(credentials)
        }
        answers.append(TextPair("AuthMethod", String(method)))
        return nil
    }

    /// The operational stage, which is done whenever the initiator says so.
    mutating func operation(
        _ pairs: [TextPair], _ answers: inout [TextPair], _ refusal: inout (LoginStatus, String)?
    ) -> Bool {
        guard isAuthenticated else {
            refusal = (.authenticationFailure, "the security stage was left without authentication")
            return false
        }
        for pair in pairs where !Self.naming.contains(pair.key) && pair.key != "InitiatorAlias" {
            // Section 6.3.2: what belongs to the security stage has no place behind it.
            if pair.key == "AuthMethod" || pair.key.hasPrefix("CHAP_") {
                refusal = (.initiatorError, "\(pair.key) outside of the security stage")
                return false
            }
            answerOperational(pair, &answers, &refusal)
        }
        if !hasDeclaredLength {
            hasDeclaredLength = true
            answers.append(TextPair("MaxRecvDataSegmentLength", String(limits.maxRecvDataSegmentLength)))
        }
        return true
    }

    private mutating func answerOperational(
        _ pair: TextPair, _ answers: inout [TextPair], _ refusal: inout (LoginStatus, String)?
    ) {
        // An answer that rejects or does not understand something is never answered again (section 6.2).
        if ["NotUnderstood", "Reject", "Irrelevant"].contains(pair.value) { return }
        switch operational.take(pair) {
        case .silent: break
        case .value(let value): answers.append(TextPair(pair.key, value))
        case .repeated: refusal = (.initiatorError, "\(pair.key) was negotiated before")
        }
    }

    private static let naming: Set<String> = ["InitiatorName", "TargetName", "SessionType"]

    /// RFC 7143 section 4.2.7: iqn., eui. or naa., at most 223 bytes, no blanks or control characters.
    static func isName(_ name: String) -> Bool {
        let lower = name.lowercased()
        guard lower.hasPrefix("iqn.") || lower.hasPrefix("eui.") || lower.hasPrefix("naa.") else { return false }
        return name.utf8.count <= 223 && name.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F }
    }
}

/// iSCSI names.
public enum TargetName {
    /// True for a name that RFC 7143 section 4.2.7 allows.
    public static func isValid(_ name: String) -> Bool { LoginNegotiator.isName(name) }
}
