/// Which blocks were read lately: by 16 bits each of a mixture of disk and block, in rows of four, the newest first.
///
/// Of some ten thousand blocks that were never read one is taken for one that was, which costs the room of a block.
struct RecentReads {
    private static let tagBits: UInt64 = 16
    private static let tagsPerRow = 4

    private let rowCount: Int
    /// Nothing until the first block is noted.
    private var rows: [UInt64] = []

    /// Remembers up to `count` blocks, in two bytes each.
    init(count: Int) { rowCount = max(1, count / Self.tagsPerRow) }

    /// Notes that a block is read.
    /// - Returns: true when it was noted before, and not so long ago that others have taken its place.
    mutating func note(disk: UInt32, block: UInt64) -> Bool {
        if rows.isEmpty { rows = Array(repeating: 0, count: rowCount) }
        let mixed = Self.mix(block ^ UInt64(disk) << 44)
        let row = Int(mixed.multipliedFullWidth(by: UInt64(rows.count)).high)
        let tag = max(1, mixed & (1 << Self.tagBits - 1))
        for place in 0..<Self.tagsPerRow where rows[row] >> (UInt64(place) * Self.tagBits) & (1 << Self.tagBits - 1) == tag {
            return true
        }
        rows[row] = rows[row] << Self.tagBits | tag
        return false
    }

    /// A permutation after which every bit depends on all others (Steele, Lea and Flood, OOPSLA 2014: SplitMix64).
    private static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value &+ 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
