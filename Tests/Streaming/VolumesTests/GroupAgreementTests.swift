import Blocks
import Disks
import Testing

@testable import Volumes

/// When the disks of a group may go on.
@Suite struct GroupAgreementTests {
    private static let first = VolumeIdentifier(high: 0, low: 1)
    private static let second = VolumeIdentifier(high: 0, low: 2)
    private static let group = GroupIdentifier(high: 9, low: 9)

    /// - Parameter unwritten: a volume to which nothing was written since its point before the cut.
    private static func cut(_ number: UInt64, _ points: [VolumeIdentifier: PointNumber], unwritten: VolumeIdentifier? = nil) -> GroupPoint {
        let parts = points.sorted { $0.key.low < $1.key.low }
        return GroupPoint(
            group: group, number: number, members: parts.map { .init(volume: $0.key, point: $0.value, isSealed: $0.key != unwritten) })
    }

    private static func disk(applied: PointNumber, _ held: [GroupPoint?], cut: GroupPoint? = nil) -> GroupDisk {
        let points = held.enumerated().map { HeldPoint(point: applied + 1 + UInt64($0.offset), group: $0.element) }
        return GroupDisk(received: applied + UInt64(held.count), agreed: applied, held: points, cut: cut)
    }

    private func through(_ disks: [VolumeIdentifier: GroupDisk], _ membership: GroupMembership? = nil)
        -> [VolumeIdentifier: PointNumber]
    {
        Dictionary(uniqueKeysWithValues: GroupAgreement.limits(disks, membership: membership).map { ($0.volume, $0.through) })
    }

    @Test("no disk goes on before all have received, and then all do")
    func all() {
        let cut = Self.cut(1, [Self.first: 5, Self.second: 8])
        #expect(through([Self.first: Self.disk(applied: 4, [cut]), Self.second: Self.disk(applied: 7, [])]).isEmpty)
        #expect(
            through([Self.first: Self.disk(applied: 4, [cut]), Self.second: Self.disk(applied: 7, [cut])])
                == [Self.first: 5, Self.second: 8])
    }

    @Test("a point that waits for a later cut goes with that one; what the other disk knows of the cut is enough")
    func later() {
        let none = GroupPoint.partOfLater(Self.group)
        let cut = Self.cut(2, [Self.first: 6, Self.second: 8], unwritten: Self.first)
        let before = [Self.first: Self.disk(applied: 4, [none]), Self.second: Self.disk(applied: 7, [cut])]
        #expect(through(before).isEmpty)
        let after = [Self.first: Self.disk(applied: 4, [none, none]), Self.second: Self.disk(applied: 7, [cut])]
        #expect(through(after) == [Self.first: 6, Self.second: 8])
        // The other disk has applied its part already, and its file is gone.
        let replayed = [Self.first: Self.disk(applied: 4, [none, none]), Self.second: Self.disk(applied: 8, [], cut: cut)]
        #expect(through(replayed) == [Self.first: 6])
    }

    @Test("a cut is none when another point is held where it has one that was sealed for it")
    func sealedAgain() {
        // The power failed before the first volume's part of the first cut was durable, and again when its point had been sealed anew and the
        // second volume's not. The cloud edge has let go of that point, and says that the first cut is whole.
        let broken = Self.cut(1, [Self.first: 5, Self.second: 8])
        let next = Self.cut(3, [Self.first: 6, Self.second: 9])
        for sealedAgain in [GroupPoint.partOfLater(Self.group), Self.cut(2, [Self.first: 5, Self.second: 9])] {
            let first = Self.disk(applied: 3, [GroupPoint.partOfLater(Self.group), sealedAgain, next])
            #expect(through([Self.first: first, Self.second: Self.disk(applied: 7, [broken])]).isEmpty)
            #expect(through([Self.first: first, Self.second: Self.disk(applied: 7, [broken, next])]) == [Self.first: 6, Self.second: 9])
        }
        // A point that the first volume has sent since it left the group says nothing.
        let disks = [
            Self.first: Self.disk(applied: 3, [broken, GroupPoint.partOfLater(Self.group)]), Self.second: Self.disk(applied: 7, [broken]),
        ]
        #expect(through(disks, Self.membership(.init(group: nil))) == [Self.first: 5, Self.second: 8])
    }

    @Test("the last complete cut counts, and an incomplete one behind it does not")
    func last() {
        let cuts = (1...3).map { Self.cut(UInt64($0), [Self.first: UInt64($0), Self.second: UInt64($0)]) }
        let disks = [Self.first: Self.disk(applied: 0, cuts), Self.second: Self.disk(applied: 0, Array(cuts.prefix(2)))]
        #expect(through(disks) == [Self.first: 2, Self.second: 2])
    }

    private static func membership(
        _ first: GroupMembership.Member = .init(group: group), _ second: GroupMembership.Member = .init(group: group)
    ) -> GroupMembership { GroupMembership(members: [Self.first: first, Self.second: second]) }

    @Test("a volume whose disk is missing holds the others; so does one that was detached before it had its part")
    func missing() {
        let disks = [Self.first: Self.disk(applied: 4, [Self.cut(1, [Self.first: 5, Self.second: 8])])]
        #expect(through(disks).isEmpty)
        #expect(through(disks, Self.membership()).isEmpty)
        #expect(through(disks, Self.membership(.init(group: Self.group), .init(group: Self.group, closedAt: 7))).isEmpty)
        #expect(through(disks, Self.membership(.init(group: Self.group), .init(group: Self.group, closedAt: 8))) == [Self.first: 5])
        #expect(through(disks, GroupMembership(members: [Self.first: .init(group: Self.group)])).isEmpty, "nobody remembers where it ended")
        let later = Self.cut(2, [Self.first: 6])
        let cuts = [Self.first: Self.disk(applied: 4, [Self.cut(1, [Self.first: 5, Self.second: 8]), later])]
        #expect(through(cuts, Self.membership(.init(group: Self.group), .init(group: Self.group, closedAt: 7))) == [Self.first: 6])
    }

    @Test("what a volume was held for goes on when it leaves the group, and the others do not wait for it")
    func hasLeft() {
        let cut = Self.cut(1, [Self.first: 5, Self.second: 8])
        let none = GroupPoint.partOfLater(Self.group)
        let disks = [Self.first: Self.disk(applied: 4, [cut, none]), Self.second: Self.disk(applied: 6, [none])]
        #expect(through(disks, Self.membership()).isEmpty)
        #expect(through(disks, Self.membership(.init(group: Self.group), .init(group: nil))) == [Self.first: 5, Self.second: 7])
        let other = GroupIdentifier(high: 1, low: 1)
        #expect(through(disks, Self.membership(.init(group: other), .init(group: Self.group))) == [Self.first: 6])
    }

    @Test("what the point of a volume says of a group that it is not in moves no disk of the group")
    func forged() {
        let none = GroupPoint.partOfLater(Self.group)
        let forged = Self.cut(.max, [Self.first: 6, Self.second: 8], unwritten: Self.first)
        let disks = [Self.first: Self.disk(applied: 4, [none, none]), Self.second: Self.disk(applied: 7, [forged])]
        #expect(through(disks, Self.membership()) == [Self.first: 6, Self.second: 8])
        #expect(through(disks, Self.membership(.init(group: Self.group), .init(group: nil))) == [Self.second: 8])
    }

    @Test("points of no group go on behind those of a group that was left, but not past a cut that others wait for")
    func leaving() {
        let none = GroupPoint.partOfLater(Self.group)
        #expect(through([Self.first: Self.disk(applied: 0, [none, nil, nil])]) == [Self.first: 3])
        let cut = Self.cut(4, [Self.first: 1, Self.second: 1])
        #expect(through([Self.first: Self.disk(applied: 0, [cut, nil]), Self.second: Self.disk(applied: 0, [])]).isEmpty)
        #expect(
            through([Self.first: Self.disk(applied: 0, [cut, nil]), Self.second: Self.disk(applied: 0, [cut])])
                == [Self.first: 2, Self.second: 1])
    }
}
