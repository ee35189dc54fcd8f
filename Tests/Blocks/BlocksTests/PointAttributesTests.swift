import Blocks
import NIOCore
import Testing

@Suite struct PointAttributesTests {
    private static let volume = VolumeIdentifier(high: 3, low: 4)

    private static func encoded(_ attributes: PointAttributes) -> ByteBuffer {
        var buffer = ByteBuffer()
        attributes.encode(into: &buffer)
        return buffer
    }

    private static func largest() -> PointAttributes {
        let members = (0..<UInt64(GroupPoint.membersMax)).map {
            GroupPoint.Member(volume: VolumeIdentifier(high: 1, low: $0), point: .max, isSealed: $0 % 2 == 0)
        }
        return PointAttributes(
            consistency: .application, label: String(repeating: "ü", count: 32),
            group: GroupPoint(group: GroupIdentifier(high: .max, low: 0), number: .max, members: members))
    }

    @Test("the largest attributes keep the bound, and survive their encoding")
    func largest() {
        let attributes = Self.largest()
        var buffer = Self.encoded(attributes)
        #expect(buffer.readableBytes == attributes.encodedBytes)
        #expect(buffer.readableBytes <= PointAttributes.encodedBytesMax)
        #expect(PointAttributes(from: &buffer) == attributes)
        #expect(buffer.readableBytes == 0)
    }

    @Test("whatever is cut off, or changed where only one value is right, is refused")
    func damage() {
        let whole = Self.encoded(Self.largest())
        for length in 0..<whole.readableBytes {
            var part = whole.getSlice(at: 0, length: length) ?? ByteBuffer()
            #expect(PointAttributes(from: &part) == nil)
        }
        for (offset, value) in [(0, 2), (1, 2), (2, 2), (3, 65), (4, 0xFF)] as [(Int, UInt8)] {
            var bytes = whole
            bytes.setInteger(value, at: offset)
            #expect(PointAttributes(from: &bytes) == nil, "byte \(offset)")
        }
    }

    @Test("a term of a group begins behind all numbers of the one before")
    func terms() {
        for number: UInt64 in [0, 1, 999_999_999, 1_000_000_000, 1_000_000_001, 77_123_456_789] {
            let next = GroupPoint.numberBeforeNextTerm(after: number)
            #expect(next > number && next % 1_000_000_000 == 0 && next - number <= 1_000_000_000)
        }
        #expect(GroupPoint.numberBeforeNextTerm(after: .max) == .max)
    }

    @Test("a volume stands in a cut once, and no cut has no number")
    func rules() {
        let member = GroupPoint.Member(volume: Self.volume, point: 1, isSealed: true)
        for group in [
            GroupPoint(group: GroupIdentifier(high: 1, low: 1), number: 1, members: [member, member]),
            GroupPoint(group: GroupIdentifier(high: 1, low: 1), number: 0, members: [member]),
            GroupPoint(group: GroupIdentifier(high: 1, low: 1), number: 1, members: []),
        ] {
            var buffer = Self.encoded(PointAttributes(group: group))
            #expect(PointAttributes(from: &buffer) == nil)
        }
    }

    @Test("a label that is too long is cut between characters")
    func label() {
        #expect(PointAttributes(label: String(repeating: "a", count: 63) + "ü").label.utf8.count == 63)
    }
}
