import Blocks
import ISCSI
import SCSI
import StorageTarget

// Volumes as logical units of targets (T4). The volumes of one machine share a target, which is there as long as one of them is;
// the others come and go while the machine's sessions are up.
//
// A machine that comes back after a restart of this edge must find all its disks at once: one that is missing would be an error to
// it, not a wait. So a target that is not there yet is held until every volume that is granted with it has been tried.
extension CloudPlane {
    /// Keeps a target from coming up with a part of its volumes.
    func holdTarget(_ name: String) { heldTargets.insert(name) }

    /// Every volume of a target has been tried: those that are open are exported.
    func letTarget(_ name: String) {
        heldTargets.remove(name)
        let entries = served.values.filter { $0.grant.target == name && $0.mayBeExported }
        for entry in entries.sorted(by: { $0.logicalUnit < $1.logicalUnit }) { export(entry) }
    }

    /// Shows a volume to initiators.
    func export(_ entry: Served) {
        if entry.isExported || heldTargets.contains(entry.grant.target) { return }
        // What the unit's last sessions have asked for is still under way: a new one must not end with them.
        if entry.isWithdrawing {
            entry.exportsWhenWithdrawn = true
            return
        }
        let identifier = entry.volume.identifier.description
        do {
            if isTargetUp(entry.grant.target, besides: entry) {
                try target.addUnit(entry.unit, number: entry.logicalUnit, toTarget: entry.grant.target)
            } else {
                try target.addTarget(description(of: entry))
            }
            entry.isExported = true
            limit(entry)
            recorder.record("volume.serving", subject: entry.grant.name, logSubject: identifier, "the volume is served")
        } catch {
            recorder.record(
                "target.refused", subject: entry.grant.name, logSubject: identifier, severity: .error,
                "the volume can't be shown to initiators: \(error)")
        }
        exportByNBD(entry)
    }

    private func description(of entry: Served) -> TargetDescription {
        TargetDescription(
            name: entry.grant.target, label: entry.volume.identifier.description, units: [(entry.logicalUnit, entry.unit)],
            chap: entry.credentials,
            allowedInitiators: entry.grant.allowedInitiators.isEmpty ? nil : entry.grant.allowedInitiators)
    }

    private func isTargetUp(_ name: String, besides entry: Served) -> Bool {
        served.values.contains { $0 !== entry && $0.isExported && $0.grant.target == name }
    }

    /// Takes a volume away from initiators, and completes when none of their commands can touch it any more.
    func withdraw(_ entry: Served, completion: @escaping () -> Void = {}) {
        entry.exportsWhenWithdrawn = false
        guard entry.isExported else {
            if entry.isWithdrawing { entry.withdrawWaiters.append(completion) } else { completion() }
            return
        }
        entry.isExported = false
        entry.isWithdrawing = true
        entry.withdrawWaiters.append(completion)
        // What machines have asked for is waited for, and a limit would only make that longer.
        entry.device.limit(nil)
        let latch = Countdown(2) { [weak self] in self?.withdrawn(entry) }
        if isTargetUp(entry.grant.target, besides: entry) {
            target.removeUnit(number: entry.logicalUnit, ofTarget: entry.grant.target) { latch.arrive() }
        } else {
            target.removeTarget(entry.grant.target) { latch.arrive() }
        }
        if let networkBlock { networkBlock.removeExport(entry.grant.name) { latch.arrive() } } else { latch.arrive() }
    }

    /// No request of a machine can touch the volume any more.
    private func withdrawn(_ entry: Served) {
        entry.isWithdrawing = false
        let waiters = entry.withdrawWaiters
        entry.withdrawWaiters = []
        for waiter in waiters { waiter() }
        if entry.exportsWhenWithdrawn, entry.mayBeExported { export(entry) }
    }
}

extension CloudPlane.Served {
    /// The number of the volume's logical unit in its target.
    var logicalUnit: Int { grant.logicalUnit ?? 0 }

    /// Open at home once, and neither stopped nor on its way back.
    var mayBeExported: Bool { wasOpened && volume.isServable && !isReleasing && !grant.isDetaching }
}
