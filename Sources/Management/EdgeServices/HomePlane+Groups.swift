import Blocks
import Disks
import Volumes

/// The disks of groups go from one cut to the next together.
extension HomePlane {
    /// Where a disk is, and the last cut that it has agreed to.
    func groupPlace(_ identifier: VolumeIdentifier) -> (position: PointPosition, cut: GroupPoint?)? {
        journal(of: identifier).map { ($0.position, $0.agreedCut) }
    }

    /// The number of the last cut of a group that any journal knows of, 0 for none.
    func lastPoint(of group: GroupIdentifier) -> UInt64 {
        journals.flatMap { [$0.agreedCut] + $0.heldPoints.map(\.group) }.compactMap { $0 }.filter { $0.group == group }.map(\.number).max()
            ?? 0
    }

    /// The attached volumes, with a disk that could be opened or not.
    func setAttached(_ volumes: Set<VolumeIdentifier>) {
        attached = volumes
        settleGroups()
    }

    /// Lets the disks go on that may.
    func settleGroups() {
        // Before it is known who is attached, all may be.
        GroupAgreement.settle(journals) { [attached] in attached?.contains($0) ?? true }
    }
}
