import Blocks
import ISCSI
import NIOCore
import SCSI

/// A target as its owner describes it.
public struct TargetDescription<Device: BlockDevice> {
    /// The iSCSI name; names are compared without regard to case.
    public var name: String
    /// What log lines call the target, since its name belongs to the customer.
    public var label: String
    /// The logical units, by number.
    public var units: [(number: Int, unit: LogicalUnit<Device>)]
    /// What an initiator must prove; nil lets everyone in who is allowed.
    public var chap: CHAPCredentials?
    /// The initiators that may log in and see the target; nil stands for all.
    public var allowedInitiators: [String]?
    /// The alias that SendTargets tells.
    public var alias: String?

    public init(
        name: String, label: String, units: [(number: Int, unit: LogicalUnit<Device>)], chap: CHAPCredentials? = nil,
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
}

/// The limits of a server, by name, with what happens at each.
public struct StorageTargetLimits: Sendable {
    /// Connections; one more is closed at once.
    public var connections = 512
    /// Targets; one more is refused by `addTarget`.
    public var targets = 1024
    /// From the connection to the end of the login; then it is closed.
    public var loginTime = TimeAmount.seconds(10)
    /// Silence after which the initiator is pinged.
    public var idleTime = TimeAmount.seconds(30)
    /// Silence after a ping after which the connection is closed.
    public var pingTime = TimeAmount.seconds(30)
    /// How long `stop` and `removeTarget` wait for commands in flight before they close connections all the same.
    public var stopTime = TimeAmount.seconds(30)
    /// Bytes of Data-Out in memory or asked for. Beyond it R2Ts are withheld; when as much again has come unasked, BUSY.
    public var dataOutByteCount = 64 << 20
    /// Bytes of Data-In in memory. Beyond it reads wait.
    public var dataInByteCount = 64 << 20
    /// Bytes of answers that wait in one connection's socket before nothing more is read from it.
    public var outboundByteCount = 1 << 20
    /// How long the loop stays awake after a command, as long as that pays (see `BusyPoll`); zero turns it off.
    public var busyPollTime = TimeAmount.zero
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

/// A target in the server's table.
final class ServedTarget<Device: BlockDevice> {
    let description: TargetDescription<Device>
    /// The logical units by the index of their number.
    let units: [Int: LogicalUnit<Device>]
    let numbers: [LogicalUnitNumber]
    private let allowed: Set<String>?

    init(_ description: TargetDescription<Device>) throws(StorageTargetError) {
        var units: [Int: LogicalUnit<Device>] = [:]
        var numbers: [LogicalUnitNumber] = []
        for (number, unit) in description.units.sorted(by: { $0.number < $1.number }) {
            guard let address = LogicalUnitNumber(index: number), units.updateValue(unit, forKey: number) == nil else {
                throw .invalidDescription("logical unit number \(number)")
            }
            numbers.append(address)
        }
        guard !units.isEmpty else { throw .invalidDescription("no logical unit") }
        self.description = description
        self.units = units
        self.numbers = numbers
        allowed = description.allowedInitiators.map { Set($0.map { $0.lowercased() }) }
        for unit in units.values { unit.reportedNumbers = { numbers } }
    }

    /// The unit behind a LUN as it stands in a PDU.
    func unit(_ lun: UInt64) -> LogicalUnit<Device>? {
        LogicalUnitNumber(rawValue: lun).index.flatMap { units[$0] }
    }

    func allows(_ initiatorName: String) -> Bool { allowed?.contains(initiatorName) ?? true }

    /// Any unit: who answers INQUIRY for numbers that have none.
    var anyUnit: LogicalUnit<Device>? { units.min { $0.key < $1.key }?.value }
}
