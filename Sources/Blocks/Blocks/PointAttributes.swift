import NIOCore

// What a point carries besides its bytes. Most points carry nothing: they have no `PointAttributes` at all.
//
// Encoded, big-endian; the write log keeps it in the descriptors of the seal, the link carries it behind `pointBegin`, and
// the journal at home keeps it behind the header of the point's file:
//
//      version u8 (1) │ consistency u8 │ has group u8 │ label length u8 │ label, UTF-8
//      with a group:  group 16 │ number u64 │ members u8 │ members x (volume 16, point u64, is sealed u8)

/// The name of a group of volumes: 16 random bytes.
public struct GroupIdentifier: Hashable, Sendable, CustomStringConvertible {
    /// The first and the second eight bytes, big-endian.
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// From 32 hexadecimal digits; nil for anything else.
    public init?(hexadecimal: String) {
        guard let parsed = VolumeIdentifier(hexadecimal: hexadecimal) else { return nil }
        self.init(high: parsed.high, low: parsed.low)
    }

    /// 32 hexadecimal digits.
    public var description: String { VolumeIdentifier(high: high, low: low).description }
}

/// What whoever opens a disk at a point may expect of it.
public enum PointConsistency: UInt8, Sendable {
    /// What a machine finds whose power was cut.
    case crash = 0
    /// Those who write had been asked to come to rest, and had not gone on yet.
    case application = 1
}

/// A point of a group: one cut through all its volumes.
public struct GroupPoint: Hashable, Sendable {
    /// One volume's part of the cut.
    public struct Member: Hashable, Sendable {
        public let volume: VolumeIdentifier
        /// The volume's last point before the cut.
        public let point: PointNumber
        /// The point was sealed for this cut; else nothing was written since it was sealed.
        public let isSealed: Bool

        public init(volume: VolumeIdentifier, point: PointNumber, isSealed: Bool) {
            self.volume = volume
            self.point = point
            self.isSealed = isSealed
        }
    }

    /// How many volumes a group may have: what one turn of the loop seals, and one message carries.
    public static let membersMax = 16

    public let group: GroupIdentifier
    /// Counts the cuts of a group, with gaps: a later cut has a larger number, also after volumes have left and joined. 0 where there is no cut: the point belongs to a later one.
    public let number: UInt64
    /// All volumes of the cut; none where there is no cut.
    public let members: [Member]

    public init(group: GroupIdentifier, number: UInt64, members: [Member]) {
        self.group = group
        self.number = number
        self.members = members
    }

    /// What a volume's point carries that was sealed for a cut which never came about: it waits for the next cut.
    public static func partOfLater(_ group: GroupIdentifier) -> GroupPoint { GroupPoint(group: group, number: 0, members: []) }

    /// How many numbers a group has for its cuts until its volumes change.
    static let numbersPerTerm: UInt64 = 1_000_000_000

    /// The number that is taken for the last one when the volumes of a group have changed, and the last cut that is known is `number`.
    ///
    /// A volume that was out of the group comes back with what its log holds, and that may be cuts that nobody else knows of. They are older
    /// than what the others have agreed to meanwhile, so they must have lower numbers: each change begins a term of its own.
    public static func numberBeforeNextTerm(after number: UInt64) -> UInt64 {
        let (first, isTooLarge) = (number / numbersPerTerm + 1).multipliedReportingOverflow(by: numbersPerTerm)
        return isTooLarge ? .max : first
    }

    /// True when this is a cut, false when the point waits for a later one.
    public var isCut: Bool { number > 0 }

    /// The point of a volume in the cut.
    public func point(of volume: VolumeIdentifier) -> PointNumber? { members.first { $0.volume == volume }?.point }
}

/// What a point carries besides its bytes.
public struct PointAttributes: Hashable, Sendable {
    /// The longest label, in bytes of UTF-8; a longer one is cut.
    public static let labelBytesMax = 64
    /// No encoded attributes are longer, in bytes.
    public static let encodedBytesMax = 512

    public var consistency: PointConsistency
    /// What whoever asked for the point calls it; may be empty.
    public let label: String
    /// Nil for a volume in no group.
    public var group: GroupPoint?

    public init(consistency: PointConsistency = .crash, label: String = "", group: GroupPoint? = nil) {
        self.consistency = consistency
        self.label = label.utf8.count <= Self.labelBytesMax ? label : Self.cut(label)
        self.group = group
    }

    private static func cut(_ label: String) -> String {
        var text = label[...]
        while text.utf8.count > labelBytesMax { text = text.dropLast() }
        return String(text)
    }

    private static let version: UInt8 = 1

    /// The encoded form, at most `encodedBytesMax`.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(Self.version, consistency.rawValue, UInt8(group == nil ? 0 : 1), UInt8(label.utf8.count))
        buffer.writeString(label)
        guard let group else { return }
        let members = group.members.prefix(GroupPoint.membersMax)
        buffer.writeMultipleIntegers(group.group.high, group.group.low, group.number, UInt8(members.count))
        for member in members {
            buffer.writeMultipleIntegers(member.volume.high, member.volume.low, member.point, UInt8(member.isSealed ? 1 : 0))
        }
    }

    /// How long the encoded form is, in bytes.
    public var encodedBytes: Int {
        4 + label.utf8.count + (group.map { 25 + 25 * min($0.members.count, GroupPoint.membersMax) } ?? 0)
    }

    /// Reads attributes from the front of `buffer`; nil for anything that breaks a rule.
    public init?(from buffer: inout ByteBuffer) {
        guard let (version, consistencyByte, hasGroup, labelBytes) = buffer.readMultipleIntegers(as: (UInt8, UInt8, UInt8, UInt8).self),
            version == Self.version, let consistency = PointConsistency(rawValue: consistencyByte), hasGroup <= 1,
            Int(labelBytes) <= Self.labelBytesMax, let label = buffer.readSlice(length: Int(labelBytes)),
            let text = String(validating: label.readableBytesView, as: UTF8.self)
        else { return nil }
        var group: GroupPoint?
        if hasGroup == 1 {
            guard let read = GroupPoint(from: &buffer) else { return nil }
            group = read
        }
        self.init(consistency: consistency, label: text, group: group)
    }
}

extension GroupPoint {
    fileprivate init?(from buffer: inout ByteBuffer) {
        guard let (high, low, number, count) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt8).self),
            Int(count) <= Self.membersMax, (number > 0) == (count > 0)
        else { return nil }
        var members: [Member] = []
        for _ in 0..<count {
            guard let (volumeHigh, volumeLow, point, isSealed) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt8).self),
                isSealed <= 1
            else { return nil }
            let volume = VolumeIdentifier(high: volumeHigh, low: volumeLow)
            // A volume that stood there twice would have two points in one cut.
            if members.contains(where: { $0.volume == volume }) { return nil }
            members.append(Member(volume: volume, point: point, isSealed: isSealed == 1))
        }
        self.init(group: GroupIdentifier(high: high, low: low), number: number, members: members)
    }
}
