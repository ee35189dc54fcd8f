import APIModels
import Blocks
import LocalFiles
import NIOCore
import Volumes

/// Groups of the volumes that are served here (W4).
extension CloudPlane {
    typealias ServedGroup = Volumes.VolumeGroup<LocalDirectory>

    /// A group that home has granted.
    final class GroupEntry {
        var grant: GroupGrant
        let group: ServedGroup
        /// The volumes for which the group waits, as far as that was told.
        var awaitedTold: [VolumeIdentifier] = []

        init(grant: GroupGrant, group: ServedGroup) {
            self.grant = grant
            self.group = group
        }
    }

    /// Takes over the groups that home grants now: after their volumes were opened, so that a cut has all of them.
    func setGroups(_ grants: [GroupGrant]) {
        for (identifier, entry) in groups where !grants.contains(where: { $0.identifier == identifier.description }) {
            entry.group.setMembers([])
            groups[identifier] = nil
        }
        for grant in grants {
            guard let identifier = GroupIdentifier(hexadecimal: grant.identifier) else { continue }
            let policy = GroupPolicy(
                recoveryPointObjective: .milliseconds(Int64(grant.policy.recoveryPointObjectiveSeconds * 1_000)),
                sealBytes: Int(clamping: grant.policy.sealBytes))
            let entry =
                groups[identifier]
                ?? GroupEntry(
                    grant: grant,
                    group: ServedGroup(identifier: identifier, policy: policy, lastNumber: grant.lastPoint, clock: { .now() }))
            groups[identifier] = entry
            entry.grant = grant
            entry.group.policy = policy
            entry.group.noteLastNumber(grant.lastPoint)
            let volumes = served.values.map(\.volume).filter { grant.volumes.contains($0.identifier.description) }
                .sorted { $0.identifier.description < $1.identifier.description }
            let members = entry.group.members
            let missing = Set(grant.volumes.compactMap { VolumeIdentifier(hexadecimal: $0) }).subtracting(volumes.map(\.identifier))
            if missing != entry.group.missing || members.count != volumes.count || zip(members, volumes).contains(where: { $0 !== $1 }) {
                entry.group.setMembers(volumes, missing: missing)
            }
        }
        for entry in served.values where entry.volume.group == nil { entry.volume.leaveGroup() }
    }

    /// A volume goes: the others of its group have their points without it.
    func takeFromGroup(_ volume: ServedVolume) {
        guard let group = volume.group else { return }
        group.setMembers(group.members.filter { $0 !== volume }, missing: group.missing)
    }

    /// Lets time pass for a group, and tells when it begins and when it ends to wait for a volume.
    func tick(_ entry: GroupEntry) {
        entry.group.tick()
        let awaited = entry.group.awaited
        if awaited == entry.awaitedTold { return }
        entry.awaitedTold = awaited
        let identifiers = awaited.map(\.description).joined(separator: ", ")
        if awaited.isEmpty {
            recorder.record("group.whole", subject: entry.grant.name, logSubject: entry.grant.identifier, "the group has points again")
        } else {
            recorder.record(
                "group.waiting", subject: entry.grant.name, logSubject: entry.grant.identifier, severity: .error,
                "the group has no points until these volumes are served again, or are taken out of it: \(identifiers)")
        }
    }

    func group(named name: String) -> GroupEntry? { groups.values.first { $0.grant.name == name } }

    /// A group as this edge shows it.
    func describe(_ entry: GroupEntry) -> APIModels.VolumeGroup {
        let statistics = entry.group.statistics
        let last = entry.group.lastCut
        let members = entry.group.members.map { volume in
            APIModels.VolumeGroup.Member(
                volume: served[volume.identifier]?.grant.name ?? "", point: last?.point(of: volume.identifier),
                received: volume.pointNumbers.received, applied: volume.pointNumbers.applied)
        }
        return APIModels.VolumeGroup(
            name: entry.grant.name, identifier: entry.grant.identifier, point: last?.number ?? entry.group.lastNumber,
            applied: members.allSatisfy { $0.applied >= $0.point ?? 0 }, members: members.sorted { $0.volume < $1.volume },
            policy: entry.grant.policy,
            cut: .init(
                count: statistics.cuts, lastSeconds: Double(statistics.lastCutTime.nanoseconds) / 1e9,
                longestSeconds: Double(statistics.longestCutTime.nanoseconds) / 1e9))
    }

    /// How far all of a cut has come. A volume that is served no more was brought home before.
    func reached(_ cut: GroupPoint) -> SealResult.State {
        cut.members.map { member in
            guard let numbers = served[member.volume]?.volume.pointNumbers else { return .applied }
            return member.point <= numbers.applied ? .applied : member.point <= numbers.received ? .received : .sealed
        }.min() ?? .sealed
    }
}
