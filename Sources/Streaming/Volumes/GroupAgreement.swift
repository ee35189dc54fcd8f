import Blocks
import Disks

// When the disks of a group may go on to its next point (invariant 3, for groups).
//
// The points of the volumes of a group are held in their journals. A cut names the last point of each volume before it. When every
// one of these has been received, all disks may go there; not before. A received point is never lost, so whatever crashes
// then, each journal gets there by replay, and no disk goes beyond: all of them are opened at one cut.
//
// It is worked out anew from what the journals hold, so that there is nothing to keep and nothing to restore:
//
//   a cut is known     from the point of any volume of the group that carries it, or from the journal of a disk that has agreed to it. What
//                      the point of another volume says of the group counts nothing: its edge may never have had one of it
//   a cut is complete  when each of its volumes that is in the group has received its point; one that was detached counts with the
//                      point at which its disk was closed; one that has left the group does not count
//   a cut is none      when another point is held where one of its volumes has a point that was sealed for it: a crash of the cloud
//                      edge took that one away. The cloud edge tells so as long as its logs do, and each forgets what is home
//   a disk may go      to its point of the last complete cut; and on over points of no group, or of one that the volume has
//                      left, as long as no cut that is incomplete has a point before them
//
// An attached volume whose disk can't be opened holds the others back: what it has received, nobody knows. So does an attachment that
// nobody remembers, until a later cut comes without it. A disk that is detached by force goes to where it may go, and no further.

/// What a journal says of its points.
struct GroupDisk {
    var received: PointNumber
    /// Points up to here are applied, or may be.
    var agreed: PointNumber
    var held: [HeldPoint]
    /// The last cut that it agreed to.
    var cut: GroupPoint?
}

/// How far a disk may go.
struct GroupLimit: Equatable {
    let volume: VolumeIdentifier
    let through: PointNumber
    /// The last complete cut that the disk is a part of.
    let cut: GroupPoint?
}

/// Which volumes are in which group, as the owner of the disks knows it.
public struct GroupMembership: Equatable, Sendable {
    /// What is known of one attachment.
    public struct Member: Equatable, Sendable {
        /// Nil for a volume in no group.
        public let group: GroupIdentifier?
        /// Where its disk was closed when the attachment ended; nil while it is attached.
        public let closedAt: PointNumber?

        public init(group: GroupIdentifier?, closedAt: PointNumber? = nil) {
            self.group = group
            self.closedAt = closedAt
        }
    }

    /// The last attachment of each volume.
    public var members: [VolumeIdentifier: Member]

    public init(members: [VolumeIdentifier: Member]) { self.members = members }
}

/// Decides how far the disks of groups may go.
public enum GroupAgreement {
    /// The disks that may go on, and how far.
    /// - Parameter membership: nil before it is known; then every volume of a cut counts, and has to be there.
    static func limits(_ disks: [VolumeIdentifier: GroupDisk], membership: GroupMembership?) -> [GroupLimit] {
        let cuts = heldCuts(disks, membership).union(disks.values.compactMap(\.cut))
        let complete = cuts.filter { cut in cut.members.allSatisfy { has($0, of: cut.group, disks, membership) } }
        let incomplete = cuts.subtracting(complete)
        var limits: [GroupLimit] = []
        for (volume, disk) in disks where !disk.held.isEmpty {
            let isBound = { (group: GroupIdentifier) in Self.isBound(volume, group, membership) }
            let parts = complete.compactMap { cut in cut.point(of: volume).map { (cut: cut, point: $0) } }.filter { isBound($0.cut.group) }
            let last = parts.max { ($0.point, $0.cut.number) < ($1.point, $1.cut.number) }
            var through = max(disk.agreed, min(last?.point ?? 0, disk.received))
            for held in disk.held where held.point > through && held.group.map({ !isBound($0.group) }) ?? true {
                let isWaitedFor = incomplete.contains { cut in
                    isBound(cut.group) && cut.point(of: volume).map { $0 > through && $0 <= held.point } ?? false
                }
                if isWaitedFor { break }
                through = held.point
            }
            if through > disk.agreed { limits.append(GroupLimit(volume: volume, through: through, cut: last?.cut)) }
        }
        return limits.sorted { $0.volume.description < $1.volume.description }
    }

    /// The cuts of which points are held.
    private static func heldCuts(_ disks: [VolumeIdentifier: GroupDisk], _ membership: GroupMembership?) -> Set<GroupPoint> {
        var cuts = Set<GroupPoint>()
        for (volume, disk) in disks {
            for case let group? in disk.held.map(\.group)
            where group.isCut && isBound(volume, group.group, membership) && !isContradicted(group, disks, membership) {
                cuts.insert(group)
            }
        }
        return cuts
    }

    /// True when a volume is in the group, as far as is known.
    private static func isBound(_ volume: VolumeIdentifier, _ group: GroupIdentifier, _ membership: GroupMembership?) -> Bool {
        membership?.members[volume].map { $0.group == group } ?? true
    }

    /// True when a point is held that was sealed again, after a crash had taken away the one of the cut. It is held until a later cut is complete,
    /// and before that each volume has sent what it has of this one.
    private static func isContradicted(
        _ cut: GroupPoint, _ disks: [VolumeIdentifier: GroupDisk], _ membership: GroupMembership?
    ) -> Bool {
        if isPlanted(.trustsPartOfCut) { return false }
        return cut.members.contains { part in
            guard part.isSealed, isBound(part.volume, cut.group, membership),
                let held = disks[part.volume]?.held.first(where: { $0.point == part.point })
            else { return false }
            return held.group?.group != cut.group || held.group?.number != cut.number
        }
    }

    /// True when a volume's part of a cut is at home, or the volume is in the group no more.
    private static func has(
        _ part: GroupPoint.Member, of group: GroupIdentifier, _ disks: [VolumeIdentifier: GroupDisk], _ membership: GroupMembership?
    ) -> Bool {
        if !isBound(part.volume, group, membership) { return true }
        return (disks[part.volume]?.received ?? membership?.members[part.volume]?.closedAt).map { $0 >= part.point } ?? false
    }

    /// Lets the journals go on that may. Called when a journal has been opened, when one says that it holds a point (`onHeld`),
    /// when an attachment has ended, and when a group has changed.
    /// - Parameter journals: those that are open, of all volumes that may share a group.
    public static func settle<Disk, Directory>(_ journals: [PointJournal<Disk, Directory>], membership: GroupMembership?) {
        for limit in limits(disks(journals), membership: membership) {
            journals.first { $0.volume == limit.volume }?.agree(through: limit.through, cut: limit.cut)
        }
    }

    /// The volumes whose parts are missing at home of the cuts that wait there.
    public static func awaited<Disk, Directory>(
        _ journals: [PointJournal<Disk, Directory>], membership: GroupMembership?
    ) -> Set<VolumeIdentifier> {
        let disks = disks(journals)
        let cuts = heldCuts(disks, membership)
        return Set(cuts.flatMap { cut in cut.members.filter { !has($0, of: cut.group, disks, membership) }.map(\.volume) })
    }

    private static func disks<Disk, Directory>(_ journals: [PointJournal<Disk, Directory>]) -> [VolumeIdentifier: GroupDisk] {
        var disks: [VolumeIdentifier: GroupDisk] = [:]
        for journal in journals {
            disks[journal.volume] = GroupDisk(
                received: journal.position.received, agreed: journal.agreedPoint, held: journal.heldPoints, cut: journal.agreedCut)
        }
        return disks
    }
}
