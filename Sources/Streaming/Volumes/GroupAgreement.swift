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
//   a cut is known     from the point of any volume that carries it, or from the journal of a disk that has agreed to it
//   a cut is complete  when each of its volumes has received its point; one that is attached no more counts as if it had
//   a disk may go      to its point of the last complete cut; and on over points of no group, as long as no cut that is
//                      incomplete has a point before them (the volume has left its group)
//
// An attached volume whose disk can't be opened holds the others back: what it has received, nobody knows.

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

/// Decides how far the disks of groups may go.
public enum GroupAgreement {
    /// The disks that may go on, and how far.
    static func limits(_ disks: [VolumeIdentifier: GroupDisk], isAttached: (VolumeIdentifier) -> Bool) -> [GroupLimit] {
        var cuts = Set<GroupPoint>()
        for disk in disks.values {
            for case let group? in disk.held.map(\.group) where group.isCut { cuts.insert(group) }
            if let cut = disk.cut { cuts.insert(cut) }
        }
        let isComplete = { (cut: GroupPoint) in
            cut.members.allSatisfy { member in
                disks[member.volume].map { $0.received >= member.point } ?? !isAttached(member.volume)
            }
        }
        let complete = cuts.filter(isComplete)
        let incomplete = cuts.subtracting(complete)
        var limits: [GroupLimit] = []
        for (volume, disk) in disks where !disk.held.isEmpty {
            let parts = complete.compactMap { cut in cut.point(of: volume).map { (cut: cut, point: $0) } }
            let last = parts.max { ($0.point, $0.cut.number) < ($1.point, $1.cut.number) }
            var through = max(disk.agreed, min(last?.point ?? 0, disk.received))
            for held in disk.held where held.point > through && held.group == nil {
                let isWaitedFor = incomplete.contains { cut in
                    cut.point(of: volume).map { $0 > through && $0 <= held.point } ?? false
                }
                if isWaitedFor { break }
                through = held.point
            }
            if through > disk.agreed { limits.append(GroupLimit(volume: volume, through: through, cut: last?.cut)) }
        }
        return limits.sorted { $0.volume.description < $1.volume.description }
    }

    /// Lets the journals go on that may. Called when a journal has been opened, when one says that it holds a point (`onHeld`),
    /// and when an attachment has ended.
    /// - Parameter journals: those that are open, of all volumes that may share a group.
    /// - Parameter isAttached: whether a volume is, with a disk that could be opened or not.
    public static func settle<Disk, Directory>(
        _ journals: [PointJournal<Disk, Directory>], isAttached: (VolumeIdentifier) -> Bool
    ) {
        var disks: [VolumeIdentifier: GroupDisk] = [:]
        for journal in journals {
            disks[journal.volume] = GroupDisk(
                received: journal.position.received, agreed: journal.agreedPoint, held: journal.heldPoints, cut: journal.agreedCut)
        }
        for limit in limits(disks, isAttached: isAttached) {
            journals.first { $0.volume == limit.volume }?.agree(through: limit.through, cut: limit.cut)
        }
    }
}
