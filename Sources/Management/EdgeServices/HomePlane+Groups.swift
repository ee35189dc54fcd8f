import Blocks
import Disks
import NIOCore
import Volumes

/// The disks of groups go from one cut to the next together.
extension HomePlane {
    /// Where a disk is, and the last cut that it has agreed to.
    func groupPlace(_ identifier: VolumeIdentifier) -> (position: PointPosition, cut: GroupPoint?)? {
        journal(of: identifier).map { ($0.position, $0.agreedCut) }
    }

    /// The number of the last cut of each group that a journal of one of its volumes knows of. What the points of other volumes say of a group
    /// counts nothing: an edge that has none of its volumes could say anything.
    var lastPoints: [GroupIdentifier: UInt64] {
        var numbers: [GroupIdentifier: UInt64] = [:]
        for journal in journals {
            guard let group = membership?.members[journal.volume]?.group else { continue }
            for cut in [journal.agreedCut] + journal.heldPoints.map(\.group) {
                if let cut, cut.group == group { numbers[group] = max(numbers[group] ?? 0, cut.number) }
            }
        }
        return numbers
    }

    /// Takes over which volumes are in which group, and lets the disks go on that may now. One that was told before another may come after
    /// it, and is out of date.
    func setMembership(_ membership: GroupMembership, number: UInt64) {
        guard number > membershipNumber else { return }
        membershipNumber = number
        self.membership = membership
        settleGroups()
    }

    /// Lets the disks go on that may.
    func settleGroups() { GroupAgreement.settle(journals, membership: membership) }

    /// Takes the leases of volumes away, all at once, so that what home has received of each is final; then the disks go to the last
    /// cut that they have in common.
    func endSessions(_ identifiers: [VolumeIdentifier], completion: @escaping () -> Void) {
        let volumes = identifiers.compactMap { served[$0]?.volume }
        var left = volumes.count + 1
        let done = { [self] in
            left -= 1
            if left > 0 { return }
            settleGroups()
            completion()
        }
        for volume in volumes { volume.sessionLost { volume.journal.setLease(nil, completion: done) } }
        done()
    }

    // MARK: Points that are held for long

    /// How long a point may be held before that is told.
    private static var heldToldAfter: TimeAmount { .seconds(60) }

    /// Tells of volumes whose points are held for long, and for whom; once until they go on.
    func watchHeldPoints() {
        let now = NIODeadline.now()
        let awaited = GroupAgreement.awaited(journals, membership: membership).map(\.description).sorted().joined(separator: ", ")
        for journal in journals {
            guard let first = journal.heldPoints.first?.point else {
                if let held = held.removeValue(forKey: journal.volume), held.isTold {
                    recorder.record("point.released", subject: journal.volume.description, "the disk has gone on with its group")
                }
                continue
            }
            var entry = held[journal.volume] ?? Held(point: first, since: now)
            if entry.point != first, !entry.isTold { entry = Held(point: first, since: now) }
            if !entry.isTold, now - entry.since >= Self.heldToldAfter {
                entry.isTold = true
                recorder.record(
                    "point.held", subject: journal.volume.description, severity: .warning,
                    "point \(first) has waited \(Self.heldToldAfter.nanoseconds / 1_000_000_000) s for the other volumes of its group; the disk "
                        + "stays at point \(journal.position.applied). What is missing: \(awaited.isEmpty ? "a later point of the group" : awaited)"
                )
            }
            held[journal.volume] = entry
        }
    }
}

// MARK: Disks without room

extension HomePlane {
    /// Tries disks again that had no room for a point, and tells of those that have none, once until they have.
    func watchFullDisks() {
        for journal in journals {
            let isFull = journal.stallReason != nil
            if let reason = journal.stallReason, fullDisksTold.insert(journal.volume).inserted {
                recorder.record(
                    "disk.full", subject: journal.volume.description, severity: .error,
                    "the disk has no room for point \(journal.position.applied + 1), and points wait (\(reason)): reads go on, and the cloud edge keeps "
                        + "what home can't take; free space in the file system of the disk")
            }
            journal.retryStalled()
            if !isFull, fullDisksTold.remove(journal.volume) != nil {
                recorder.record("disk.has_room", subject: journal.volume.description, "the disk takes points again")
            }
        }
    }
}
