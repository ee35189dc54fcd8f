import Blocks

// A cut of a group is whole when every volume's log has its part of it durable. Each log tells that of itself alone: what its sealed points
// carry, and where it begins and ends. Whoever serves the volumes asks their logs (VolumeGroup); whoever has nothing but the files asks the
// readers of them (OfflineRecovery).

/// What a log tells of the points that it holds, or has held.
public protocol CutEvidence {
    /// The last point that was sealed and is durable.
    var lastSealedPoint: PointNumber { get }
    /// The first point that is sealed and was not released, or the one that gathers writes. All before it were durable, and home has them.
    var oldestHeldPoint: PointNumber { get }
    /// What a sealed point says of a cut of a group that it is part of; nil for a point that was sealed for none, or was released.
    func groupPoint(of point: PointNumber) -> GroupPoint?
    /// The cuts that sealed points carry which were not released, oldest first.
    var cuts: [GroupPoint] { get }
}

extension GroupPoint {
    /// True when a volume's log vouches for the volume's part of this cut.
    public func isHeld(_ part: Member, by log: some CutEvidence) -> Bool {
        guard part.point <= log.lastSealedPoint else { return false }
        if let found = log.groupPoint(of: part.point), found.group == group { return part.isSealed ? found == self : found.number < number }
        // One that is home and forgotten here was sealed for this cut, or it would be here still (`VolumeGroup.mayForget`). One that
        // carries no cut was sealed for none.
        return !part.isSealed || part.point < log.oldestHeldPoint
    }

    /// True when this later cut says that a part of an earlier one was sealed again for it: a crash had taken away what was sealed first.
    public func contradicts(_ part: Member, of cut: GroupPoint) -> Bool {
        guard number > cut.number, let own = members.first(where: { $0.volume == part.volume }) else { return false }
        return own.point < part.point || own.point == part.point && own.isSealed
    }

    /// Those of the cuts of a group of which a later one contradicts a part; only the parts of some volumes count. It is what `contradicts` says
    /// of each pair, in one walk from the latest cut to the first: the lowest point that later cuts have of a volume decides.
    public static func contradicted(among cuts: Set<GroupPoint>, volumes: Set<VolumeIdentifier>) -> Set<GroupPoint> {
        var later: [VolumeIdentifier: Member] = [:]
        var contradicted = Set<GroupPoint>()
        // Cuts of one number are not later than each other.
        var ofNumber: [Member] = []
        var number = UInt64.max
        for cut in cuts.sorted(by: { $0.number > $1.number }) {
            if cut.number < number {
                for member in ofNumber { later[member.volume] = lower(member, later[member.volume]) }
                ofNumber = []
                number = cut.number
            }
            ofNumber += cut.members
            let isContradicted = cut.members.contains { part in
                guard volumes.contains(part.volume), let lowest = later[part.volume] else { return false }
                return lowest.point < part.point || lowest.point == part.point && lowest.isSealed
            }
            if isContradicted { contradicted.insert(cut) }
        }
        return contradicted
    }

    /// The part that says more against earlier ones.
    private static func lower(_ member: Member, _ other: Member?) -> Member {
        guard let other, other.point < member.point || other.point == member.point && other.isSealed else { return member }
        return other
    }
}

extension WriteLog: CutEvidence {
    public var oldestHeldPoint: PointNumber { epochs.first { $0.isSealed && $0.sealedAt != nil }?.number ?? currentEpoch }

    public func groupPoint(of point: PointNumber) -> GroupPoint? { attributes(of: point)?.group }

    public var cuts: [GroupPoint] { epochs.compactMap { $0.isSealed ? $0.attributes?.group : nil }.filter(\.isCut) }
}

extension LogReader: CutEvidence {
    public var oldestHeldPoint: PointNumber { points.first(where: \.isSealed)?.number ?? lastSealedPoint + 1 }

    public func groupPoint(of point: PointNumber) -> GroupPoint? { points.first { $0.number == point && $0.isSealed }?.attributes?.group }

    public var cuts: [GroupPoint] { points.compactMap { $0.isSealed ? $0.attributes?.group : nil }.filter(\.isCut) }
}
