// What a login agrees on, RFC 7143 section 13, and what a target is ready to agree on.

/// The kind of a session.
public enum SessionType: Equatable, Sendable {
    /// SCSI commands to one target.
    case normal
    /// SendTargets only.
    case discovery
}

/// The result of the negotiation of operational keys. The defaults are those of the standard.
public struct SessionParameters: Equatable, Sendable {
    public var digests = Digests()
    public var initialR2T = true
    public var immediateData = true
    /// The longest data segment that the initiator takes.
    public var initiatorMaxRecvDataSegmentLength = 8192
    public var maxBurstLength = 262_144
    public var firstBurstLength = 65_536
    public var maxOutstandingR2T = 1
    public var defaultTime2Wait = 2
    public var defaultTime2Retain = 20
    /// 2 when both sides speak RFC 7144: its task management functions are then there.
    public var protocolLevel = 1

    public init() {}
}

/// What the target offers and accepts.
public struct NegotiationLimits: Equatable, Sendable {
    /// The longest data segment that the target takes, as it declares it.
    public var maxRecvDataSegmentLength = 262_144
    public var maxBurstLength = 1_048_576
    public var firstBurstLength = 262_144
    public var maxOutstandingR2T = 4
    /// True makes initiators wait for an R2T before any Data-Out PDU.
    public var initialR2T = false
    public var immediateData = true
    /// Our replies; a session that ended is not kept, since error recovery level is 0.
    public var defaultTime2Wait = 0
    public var defaultTime2Retain = 0
    /// False answers None to every offer of a digest.
    public var digests = true
    /// The alias that is told to initiators, when there is one.
    public var targetAlias: String?
    public var targetPortalGroupTag: UInt16 = 1

    public init() {}
}

/// Negotiates the operational keys of one login.
struct OperationalKeys {
    private(set) var parameters = SessionParameters()
    private let limits: NegotiationLimits
    private var seen: Set<String> = []
    var sessionType = SessionType.normal
    /// False when the login reinstates a connection: keys of the session are then no longer open.
    private var isLeading = true

    init(limits: NegotiationLimits) {
        self.limits = limits
    }

    /// Starts from what a session has agreed on; its connection's own keys begin anew.
    mutating func reinstate(_ agreed: SessionParameters) {
        isLeading = false
        parameters = agreed
        parameters.digests = Digests()
        parameters.initiatorMaxRecvDataSegmentLength = SessionParameters().initiatorMaxRecvDataSegmentLength
    }

    /// The answer to one pair.
    enum Answer: Equatable {
        /// The pair needs no answer.
        case silent
        case value(String)
        /// The key was negotiated before: the login fails.
        case repeated
    }

    /// Takes a pair and says what to answer.
    mutating func take(_ pair: TextPair) -> Answer {
        guard Self.known.contains(pair.key) else { return .value("NotUnderstood") }
        guard seen.insert(pair.key).inserted else { return .repeated }
        if sessionType == .discovery, Self.irrelevantInDiscovery.contains(pair.key) { return .value("Irrelevant") }
        if !isLeading, Self.leadingOnly.contains(pair.key) { return .value("Irrelevant") }
        let limits = limits
        switch pair.key {
        case "HeaderDigest": return digest(pair.value) { $0.digests.header = $1 }
        case "DataDigest": return digest(pair.value) { $0.digests.data = $1 }
        case "MaxRecvDataSegmentLength":
            guard let value = Self.number(pair.value, 512...16_777_215) else { return .value("Reject") }
            parameters.initiatorMaxRecvDataSegmentLength = value
            return .silent
        case "InitialR2T": return boolean(pair.value, { $0 || limits.initialR2T }) { $0.initialR2T = $1 }
        case "ImmediateData": return boolean(pair.value, { $0 && limits.immediateData }) { $0.immediateData = $1 }
        case "DataPDUInOrder", "DataSequenceInOrder": return boolean(pair.value, { _ in true }) { _, _ in }
        case "IFMarker", "OFMarker": return boolean(pair.value, { _ in false }) { _, _ in }
        case "IFMarkInt", "OFMarkInt", "SendTargets": return .value("Reject")
        case "MaxConnections": return minimum(pair.value, 1...65_535, 1) { _, _ in }
        case "ErrorRecoveryLevel": return minimum(pair.value, 0...2, 0) { _, _ in }
        case "iSCSIProtocolLevel": return minimum(pair.value, 0...31, 2) { $0.protocolLevel = $1 }
        case "MaxBurstLength": return minimum(pair.value, 512...16_777_215, limits.maxBurstLength) { $0.maxBurstLength = $1 }
        case "FirstBurstLength":
            return minimum(pair.value, 512...16_777_215, limits.firstBurstLength) { $0.firstBurstLength = $1 }
        case "MaxOutstandingR2T": return minimum(pair.value, 1...65_535, limits.maxOutstandingR2T) { $0.maxOutstandingR2T = $1 }
        case "DefaultTime2Retain": return minimum(pair.value, 0...3600, limits.defaultTime2Retain) { $0.defaultTime2Retain = $1 }
        case "DefaultTime2Wait":
            guard let value = Self.number(pair.value, 0...3600) else { return .value("Reject") }
            parameters.defaultTime2Wait = max(value, limits.defaultTime2Wait)
            return .value(String(parameters.defaultTime2Wait))
        case "TaskReporting": return .value(pair.value.split(separator: ",").contains("RFC3720") ? "RFC3720" : "Reject")
        default: return .value("NotUnderstood")
        }
    }

    /// The parameters once the login is over: FirstBurstLength never exceeds MaxBurstLength (section 13.14).
    var result: SessionParameters {
        var result = parameters
        result.firstBurstLength = min(result.firstBurstLength, result.maxBurstLength)
        return result
    }

    private mutating func digest(_ value: String, _ set: (inout SessionParameters, Bool) -> Void) -> Answer {
        for offer in value.split(separator: ",") {
            if offer == "CRC32C", limits.digests {
                set(&parameters, true)
                return .value("CRC32C")
            }
            if offer == "None" {
                set(&parameters, false)
                return .value("None")
            }
        }
        return .value("Reject")
    }

    private mutating func boolean(
        _ value: String, _ result: (Bool) -> Bool, _ set: (inout SessionParameters, Bool) -> Void
    ) -> Answer {
        guard value == "Yes" || value == "No" else { return .value("Reject") }
        let agreed = result(value == "Yes")
        set(&parameters, agreed)
        return .value(agreed ? "Yes" : "No")
    }

    private mutating func minimum(
        _ value: String, _ range: ClosedRange<Int>, _ ours: Int, _ set: (inout SessionParameters, Int) -> Void
    ) -> Answer {
        guard let offered = Self.number(value, range) else { return .value("Reject") }
        let agreed = min(offered, ours)
        set(&parameters, agreed)
        return .value(String(agreed))
    }

    /// A numerical value, decimal or hexadecimal (section 6.1), within a range.
    static func number(_ text: String, _ range: ClosedRange<Int>) -> Int? {
        let lower = text.lowercased()
        let value = lower.hasPrefix("0x") ? UInt64(lower.dropFirst(2), radix: 16) : UInt64(lower)
        guard let value, let int = Int(exactly: value), range.contains(int) else { return nil }
        return int
    }

    private static let irrelevantInDiscovery: Set<String> = [
        "MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T",
        "DataPDUInOrder", "DataSequenceInOrder", "TaskReporting", "iSCSIProtocolLevel",
    ]

    /// Section 13: LO, to be used by the leading connection of a session only.
    private static let leadingOnly = irrelevantInDiscovery.union(["DefaultTime2Wait", "DefaultTime2Retain", "ErrorRecoveryLevel"])

    private static let known: Set<String> = irrelevantInDiscovery.union([
        "HeaderDigest", "DataDigest", "MaxRecvDataSegmentLength", "DefaultTime2Wait", "DefaultTime2Retain", "ErrorRecoveryLevel",
        "IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt", "SendTargets",
    ])
}
