import Blocks
import ISCSI
import NIOCore
import SCSI

/// A target as its owner describes it.
public struct TargetDescription {
    /// The iSCSI name; names are compared without regard to case.
    public var name: String
    /// What log lines call the target, since its name belongs to the customer.
    public var label: String
    /// The logical units, by number.
    public var units: [(number: Int, unit: LogicalUnit)]
    /// What an initiator must prove; nil lets everyone in who is allowed.
    public var chap: CHAPCredentials?
    /// The initiators that may log in and see the target; nil stands for all.
    public var allowedInitiators: [String]?
    /// The alias that SendTargets tells.
    public var alias: String?

    public init(
        name: String, label: String, units: [(number: Int, unit: LogicalUnit)], chap: CHAPCredentials? = nil,
        allowedInitiators: [String]? = nil, alias: String? = nil
    ) {
        self.name = name
        self.label = label
        self.units = units
        self.chap = chap
        self.allowedInitiators = allowedInitiators
        self.alias = alias
    }
}

/// Why a target was not added.
public enum StorageTargetError: Error, Equatable, Sendable {
    /// There is a target of that name.
    case nameInUse
    /// The name is not one of RFC 7143 section 4.2.7, or a unit number is out of range, missing or used twice.
    case invalidDescription(String)
    /// The server was stopped.
    case stopped
    /// As many targets as `StorageTargetLimits.targets`.
    case tooManyTargets
    /// There is no target of that name.
    case noSuchTarget
    /// The target has a logical unit of that number.
    case numberInUse
    /// As many logical units as `StorageTargetLimits.unitsPerTarget`.
    case tooManyUnits
}

/// Whom SendTargets shows which targets in a discovery session.
public enum DiscoveryAuthentication: String, CaseIterable, Sendable {
    /// Without CHAP, only targets that anyone may use: no secret, no access list. With CHAP, also those whose secret the
    /// initiator has proved to know and whose access list has it.
    case optional
    /// The same, but an initiator that does not authenticate itself by CHAP is refused.
    case required
    /// Without CHAP, all targets whose access list has the name that the initiator gives, also those that ask for a secret
    /// later. Names can be guessed, so this tells what targets there are to anyone who can reach the portal.
    case none
}

/// The limits of a server, by name, with what happens at each.
public struct StorageTargetLimits: Sendable {
    /// Connections; one more is closed at once.
    public var connections = 512
    /// Targets; one more is refused by `addTarget`.
    public var targets = 1024
    /// Logical units of one target; one more is refused by `addUnit`.
    public var unitsPerTarget = 256
    /// From the connection to the end of the login; then it is closed.
    public var loginTime = TimeAmount.seconds(10)
    /// Silence after which the initiator is pinged.
    public var idleTime = TimeAmount.seconds(30)
    /// Silence after a ping after which the connection is closed.
    public var pingTime = TimeAmount.seconds(30)
    /// How long an initiator has to log out when it is asked to, once its commands are answered; then it is hung up on.
    public var logoutTime = TimeAmount.seconds(3)
    /// How long `stop` and `removeTarget` wait for commands in flight before they close connections all the same.
    public var stopTime = TimeAmount.seconds(30)
    /// Bytes of Data-Out in memory or asked for. Beyond it R2Ts are withheld; when as much again has come unasked, of all sessions, BUSY.
    public var dataOutByteCount = 64 << 20
    /// Bytes of Data-In in memory. Beyond it reads wait; short ones have an eighth of it besides (`DataBudget`).
    public var dataInByteCount = 64 << 20
    /// How much of either one session holds. Beyond it its own commands wait, and nobody else's.
    public var sessionByteCount = 16 << 20
    /// How long the data of a write may stand still that the target has asked for; then the connection is closed.
    public var dataTime = TimeAmount.seconds(60)
    /// How long an initiator may stand still while others wait for the memory that it keeps: one whose data does not come, or who takes
    /// no answers. Then the connection is closed.
    public var contendedTime = TimeAmount.seconds(10)
    /// Bytes of answers that wait in one connection's socket before nothing more is read from it.
    public var outboundByteCount = 1 << 20
    /// What a session may have in flight.
    public var session = SessionLimits()
    /// What is offered in logins.
    public var negotiation = NegotiationLimits()

    public init() {}
}

/// A session as an operator sees it.
public struct StorageSessionDescription: Equatable, Sendable {
    public var initiatorName: String
    public var isid: UInt64
    public var tsih: UInt16
    public var remoteAddress: String
    public var commandsInFlight: Int
    public var hasHeaderDigest: Bool
    public var hasDataDigest: Bool
}
