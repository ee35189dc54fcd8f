// Segments stand in several tables, each of which changes for reasons of its own. What must be true of them together, at any time between two
// calls, is said here once, for tests and for the simulator: a table that is wrong may do harm much later, or never in a test.

extension SecureCache {
    /// What is wrong in the tables; nil when nothing is. It looks at every block, so nobody asks who serves.
    package var tableFault: String? { faultOfSegments ?? faultOfPools ?? faultOfSize }

    private var faultOfSegments: String? {
        var live = [Int32](repeating: 0, count: segments.count)
        var references: [CacheSlot: Int] = [:]
        for volume in index.volumes.values {
            var isBeyond = false
            volume.map.forEach { _, slot in
                let segment = geometry.segment(of: slot)
                guard segment < live.count else { return isBeyond = true }
                // What several refer to is there once.
                if shared.contains(slot) { references[slot, default: 0] += 1 } else { live[segment] += 1 }
            }
            if isBeyond { return "volume \(volume.identifier) has a block behind the tables" }
        }
        var fault: String?
        shared.forEach { slot, block in
            let (count, known) = (references[slot] ?? 0, block.references.count)
            if known != count || count == 0 { fault = "shared slot \(slot) counts \(known) references and has \(count)" }
            live[geometry.segment(of: slot)] += 1
        }
        if let fault { return fault }
        if shared.referenceCount != references.values.reduce(0, +) { return "references are counted wrong" }
        if segments.reduce(0, { $0 + Int($1.sharedCount) }) != shared.count { return "shared blocks are counted wrong" }
        var rows = [Int](repeating: 0, count: segments.count)
        for number in queues.all + [eviction?.segment].compactMap({ $0 }) {
            guard rows.indices.contains(number) else { return "segment \(number) is to be freed and is none" }
            rows[number] += 1
        }
        for (number, segment) in segments.enumerated() {
            if segment.liveCount != live[number] { return "segment \(number) counts \(segment.liveCount) blocks and has \(live[number])" }
            if segment.adriftCount > segment.sharedCount || segment.adriftCount < 0 {
                return "segment \(number) counts adrift blocks wrong"
            }
            if rows[number] != (segment.state == .closed ? 1 : 0) {
                return "segment \(number), \(segment.state), is in \(rows[number]) queues"
            }
        }
        return nil
    }

    private var faultOfPools: String? {
        var live = [Int](repeating: 0, count: liveInPools.count)
        for segment in segments { live[Int(segment.pool)] += Int(segment.liveCount) }
        if live != liveInPools { return "the blocks of pools are counted wrong" }
        for (number, pool) in queues.pools.enumerated() {
            let open = filling.count { $0.pool == number }
            if pool.openCount != open { return "pool \(number) counts \(pool.openCount) open segments and has \(open)" }
            if let other = (pool.small + pool.main + pool.pinned).first(where: { segments[$0].pool != UInt8(number) }) {
                return "segment \(other) is in pool \(number) and says \(segments[other].pool)"
            }
        }
        return nil
    }

    private var faultOfSize: String? {
        let behind = segments[end...].count { [.open, .closed, .leaving].contains($0.state) }
        if behind != countBehindEnd { return "\(countBehindEnd) segments behind the end are counted, and there are \(behind)" }
        if Set(freeSegments).count != freeSegments.count { return "a segment is free twice" }
        if let number = freeSegments.first(where: { $0 >= segments.count || segments[$0].state != .free }) {
            return "segment \(number) is among the free ones and is not free"
        }
        if let number = withoutRoom.first(where: { $0 >= end || segments[$0].state != .withoutRoom }) {
            return "segment \(number) waits for room, and is none before the end \(end)"
        }
        let inFile = segments.count { $0.isInFile }
        if inFile != fileSegments { return "\(fileSegments) segments are counted in the file, and there are \(inFile)" }
        if withoutRoom.sorted() != Array(withoutRoom) { return "segments that wait for room are not in their order" }
        if plannedCount > plannableCount(end: end) { return "promises count on \(plannedCount) segments, and \(usableCount) can be used" }
        if !mayGrow, let number = freeSegments.first(where: { !segments[$0].hasRoom }) {
            return "segment \(number) is to be filled, and the file may not grow"
        }
        return nil
    }
}
