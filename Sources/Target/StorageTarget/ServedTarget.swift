import Blocks
import SCSI

/// A target in the server's table.
final class ServedTarget {
    let description: TargetDescription
    /// The logical units by the index of their number.
    private(set) var units: [Int: LogicalUnit] = [:]
    /// The numbers of the units, ascending.
    private(set) var numbers: [LogicalUnitNumber] = []
    /// Who answers for numbers without a unit; it stays when the last unit goes.
    private(set) var identity: LogicalUnitIdentity
    private let allowed: Set<String>?
    private let prepare: (LogicalUnit) -> Void

    /// - Parameter prepare: Tells a unit, when it becomes one of the target's, what it asks the server.
    init(_ description: TargetDescription, prepare: @escaping (LogicalUnit) -> Void) throws(StorageTargetError) {
        guard let first = description.units.min(by: { $0.number < $1.number }) else { throw .invalidDescription("no logical unit") }
        self.description = description
        self.prepare = prepare
        identity = first.unit.identity
        allowed = description.allowedInitiators.map { Set($0.map { $0.lowercased() }) }
        for (number, unit) in description.units {
            guard units[number] == nil else { throw .invalidDescription("logical unit number \(number)") }
            try insert(unit, number: number)
        }
    }

    /// Puts a unit behind a number that is free.
    func insert(_ unit: LogicalUnit, number: Int) throws(StorageTargetError) {
        guard LogicalUnitNumber(index: number) != nil else { throw .invalidDescription("logical unit number \(number)") }
        guard units[number] == nil else { throw .numberInUse }
        units[number] = unit
        unit.isRetired = false
        unit.reportedNumbers = { [weak self] in self?.numbers ?? [] }
        prepare(unit)
        unitsDidChange()
    }

    /// Takes a unit away from its number; commands that have it go on.
    func remove(number: Int) -> LogicalUnit? {
        guard let unit = units.removeValue(forKey: number) else { return nil }
        unit.reportedNumbers = { [] }
        unit.copyPeers = { _ in [] }
        unitsDidChange()
        return unit
    }

    private func unitsDidChange() {
        numbers = units.keys.sorted().compactMap { LogicalUnitNumber(index: $0) }
        if let first = units.min(by: { $0.key < $1.key }) { identity = first.value.identity }
    }

    /// The unit behind a LUN as it stands in a PDU.
    func unit(_ lun: UInt64) -> LogicalUnit? {
        LogicalUnitNumber(rawValue: lun).index.flatMap { units[$0] }
    }

    /// True when an initiator may use the target without having proved anything, whoever it is.
    var isOpen: Bool { allowed == nil && description.chap == nil }

    func allows(_ initiatorName: String) -> Bool { allowed?.contains(initiatorName) ?? true }
}
