import Blocks

/// Which sectors of an image were written.
struct WrittenRanges {
    private struct Mark: ExtentValue {
        func dropping(sectors: UInt64) -> Mark { self }
    }

    private var map = ExtentMap<Mark>()

    mutating func insert(_ range: SectorRange) { map.insert(range, Mark()) }

    /// The ranges in ascending order, joined where they touch.
    var ranges: [SectorRange] {
        var joined: [SectorRange] = []
        map.forEach { extent in
            if let last = joined.last, last.end == extent.range.start {
                joined[joined.count - 1] = SectorRange(from: last.start, to: extent.range.end)
            } else {
                joined.append(extent.range)
            }
        }
        return joined
    }

    /// A map file in the form of GNU ddrescue, which other programs read too: `+` for what is in the image, `?` for what is not.
    func mapFile(byteCount: UInt64) -> String {
        var lines = [
            "# Mapfile. Ranges with + are in the image, those with ? are not: they are as on the base.",
            "# current_pos  current_status  current_pass", "0x00000000     +               1", "#      pos        size  status",
        ]
        var position: UInt64 = 0
        func add(to end: UInt64, _ status: String) {
            if end > position { lines.append("0x\(String(position, radix: 16))  0x\(String(end - position, radix: 16))  \(status)") }
            position = max(position, end)
        }
        for range in ranges {
            add(to: range.byteOffset, "?")
            add(to: range.end * UInt64(BlockGeometry.sectorBytes), "+")
        }
        add(to: byteCount, "?")
        return lines.joined(separator: "\n") + "\n"
    }
}
