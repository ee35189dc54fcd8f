import Blocks
import SimulatedStorage
import Testing

@testable import WriteLog

@Suite struct CutEvidenceTests {
    @Test("what contradicts which cut is the same in one walk as pair by pair", arguments: 1...200)
    func contradicted(seed: UInt64) {
        let random = SeededRandom(seed: seed)
        let volumes = (0..<UInt64(random.within(1...5))).map { VolumeIdentifier(high: 1, low: $0) }
        // Few numbers and points, so that equal ones are frequent.
        let cuts = Set(
            (0..<random.within(1...20)).map { _ in
                let members = volumes.filter { _ in random.chance(percent: 80) }.map {
                    GroupPoint.Member(volume: $0, point: UInt64(random.within(1...6)), isSealed: random.chance(percent: 50))
                }
                return GroupPoint(group: GroupIdentifier(high: 0, low: 1), number: UInt64(random.within(1...8)), members: members)
            })
        let counted = Set(volumes.filter { _ in random.chance(percent: 80) })
        let expected = cuts.filter { cut in
            cut.members.contains { part in counted.contains(part.volume) && cuts.contains { $0.contradicts(part, of: cut) } }
        }
        #expect(GroupPoint.contradicted(among: cuts, volumes: counted) == expected)
    }
}
