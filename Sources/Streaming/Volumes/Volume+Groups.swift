import Blocks
import LinkProtocol
import WriteLog

/// A volume in a group: the group says when it is sealed, and what may be sent.
extension Volume {
    /// True when the volume does not seal by itself.
    var isGrouped: Bool { group != nil || isAwaitingGroup }

    func join(_ group: VolumeGroup<Directory>) {
        self.group = group
        isAwaitingGroup = false
        sendPoints()
    }

    /// The volume is in no group, or in none any more.
    public func leaveGroup() {
        group = nil
        isAwaitingGroup = false
        sendPoints()
        sealAwaited()
    }

    /// Seals for those who asked while the group was not there yet.
    func sealAwaited() {
        let seals = points.sealsAwaitingGroup
        points.sealsAwaitingGroup = []
        for awaited in seals { seal(carrying: awaited.seal, until: awaited.progress, completion: awaited.completion) }
    }

    /// The last point that may be sent: sealed, and of a group all of the cut. While the group is not there yet nobody knows.
    var lastSendable: PointNumber {
        if isAwaitingGroup { return points.received }
        guard let group else { return log.lastSealedPoint }
        return min(log.lastSealedPoint, group.lastSendable(of: self))
    }

    /// True when the log may let go of a point that is home. While the group is not there yet nobody knows what the logs of the others have.
    func mayForget(_ point: PointNumber) -> Bool { isAwaitingGroup ? false : group?.mayForget(point, of: self) ?? true }

    /// What a point carries besides its bytes, as long as it is in the log; nil when it carries nothing.
    public func attributes(of point: PointNumber) -> PointAttributes? { log.attributes(of: point) }

    /// What home is told of a point besides its bytes.
    func attributesToSend(of point: PointNumber) -> PointAttributes? {
        guard var attributes = log.attributes(of: point), linkVersion() >= LinkVersion.pointAttributes else { return nil }
        guard let cut = attributes.group else { return attributes }
        attributes.group = group.flatMap { $0.identifier == cut.group ? $0.told(of: cut) : nil }
        let isPlain = attributes.group == nil && attributes.consistency == .crash && attributes.label.isEmpty
        return isPlain ? nil : attributes
    }
}
