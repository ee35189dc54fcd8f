import Blocks
import LocalFiles
import WriteLog

// The last instant at which all volumes of a group were: each sealed point that was made for a cut says which points make up the cut,
// and the logs tell together whether it came about (`CutEvidence`). Cuts that are older than what the logs hold are on the disks at home.

extension OfflineState {
    /// The last whole cut of the group that a volume is in. Reads the logs of all volumes that there is a key for.
    func lastCut(of key: RecoveryKey) async throws(OfflineError) -> GroupPoint {
        var logs: [VolumeIdentifier: LogReader<LocalDirectory>] = [:]
        for place in try logPlaces() where logs[place.identifier] == nil {
            guard let key = keys[place.identifier] else { continue }
            logs[place.identifier] = try await readLog(place, key)
        }
        let cuts = Set(logs.values.flatMap(\.cuts)).filter { $0.point(of: key.identifier) != nil }
        // A volume may have been in another group before: its own log tells the last.
        let newest = logs[key.identifier]?.cuts.last ?? cuts.max { $0.number < $1.number }
        guard let group = newest?.group else {
            throw OfflineError(
                "no log in \(directory.path) has a cut of a group with volume \(key.name)",
                action: "It is in no group, or home has its last cut: export without --last-cut, or use the disks at home.")
        }
        let ofGroup = cuts.filter { $0.group == group }
        for cut in ofGroup.sorted(by: { $0.number > $1.number }) {
            if try isWhole(cut, logs, ofGroup) { return cut }
        }
        throw OfflineError(
            "none of the cuts of the group of volume \(key.name) is whole in the logs",
            action: "The disks at home are at the last one: use them as they are.")
    }

    private func isWhole(
        _ cut: GroupPoint, _ logs: [VolumeIdentifier: LogReader<LocalDirectory>], _ others: Set<GroupPoint>
    ) throws(OfflineError) -> Bool {
        for part in cut.members {
            guard let log = logs[part.volume] else {
                throw OfflineError(
                    "nobody knows whether cut \(cut.number) of the group is whole: "
                        + (keys[part.volume].map { "there is no log of its volume \($0.name)" }
                            ?? "there is no key for its volume \(part.volume)"),
                    action: "causeway volume recovery-key --all at the on-prem edge writes the keys of all volumes; "
                        + "--through ends with a point of this one.")
            }
            guard cut.isHeld(part, by: log), !others.contains(where: { $0.contradicts(part, of: cut) }) else { return false }
        }
        return true
    }
}
