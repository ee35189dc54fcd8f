import Blocks
import DequeModule

// A division is given as a whole, and taken over while the cache serves. Nothing is moved for it: what a volume has stays in the segments
// that it is in, and counts there, until these are freed; what is used or pinned of it goes over to the volume's own pool then.

extension SecureCache {
    // MARK: Dividing

    /// Divides the cache in another way, at once. Who keeps the division gives it to `open` again: the cache doesn't remember it.
    ///
    /// - Throws: `division` for one that does not fit; then the one before stays. `closed`.
    public func divide(_ division: CacheDivision) throws(CacheError) {
        try checkDivision(division)
        self.division = division
        didDivide()
        makeRoom()
        pump()
    }

    /// Refuses what `divide` would refuse now.
    public func checkDivision(_ division: CacheDivision) throws(CacheError) {
        if isClosed { throw .closed }
        // One that does not fit is mended a step at a time.
        if plan.isLoosened, division.promisesNoMore(than: self.division) {
            // What would fit in no cache is refused all the same.
            return try check(division, segmentCount: CacheFormat.slotsMax / geometry.slotCount)
        }
        if unusable == nil { try check(division, segmentCount: plannableCount(end: min(end, segmentCountWanted))) }
    }

    /// True when the cache can't keep all of its division.
    public var isLoosened: Bool { plan.isLoosened }
    /// What it can't keep of it; nil when it keeps all.
    public var loosening: CacheLoosening? { plan.loosening }

    /// Refuses a smaller size with which the division would not fit.
    func checkDivision(segmentCount: Int) throws(CacheError) {
        // Another one that fits can be set when this one does not.
        if plan.isLoosened { return }
        try check(division, segmentCount: plannableCount(end: segmentCount))
    }

    private func check(_ division: CacheDivision, segmentCount: Int) throws(CacheError) {
        var geometry = geometry
        geometry.segmentCount = segmentCount
        do throws(CacheDivisionError) {
            _ = try CachePlan(division, geometry)
        } catch {
            throw .division(error)
        }
    }

    /// Segments before an end that promises may count on: those that have room, rounded down by less than a sixteenth where some have none, so that
    /// not each one that finds room or none changes what is promised.
    func plannableCount(end: Int) -> Int {
        // They are in their order.
        let before = end - ((withoutRoom.last ?? 0) < end ? withoutRoom.count : withoutRoom.count { $0 < end })
        let usable = mayGrow ? min(before, fileSegmentsMax) : before
        if usable == end { return end }
        // A power of two of sixteen to thirty-one parts.
        let part = max(1, usable) / 16
        let step = part == 0 ? 1 : 1 << (Int.bitWidth - 1 - part.leadingZeroBitCount)
        return usable - usable % step
    }

    /// Plans anew when there are fewer segments to promise than was planned for, or a good deal more.
    func planForRoom() {
        let count = plannableCount(end: end)
        if count == plannedCount { return }
        if count < plannedCount || count == end || count - plannedCount > plannedCount / 8 { didDivide() }
    }

    /// Takes over what the division says for the room that the cache has at present.
    func didDivide() {
        plannedCount = plannableCount(end: end)
        var geometry = geometry
        geometry.segmentCount = plannedCount
        let fresh = CachePlan(loosening: division, geometry)
        if fresh == plan { return }
        let before = plan
        plan = fresh
        let partitions = queues.pools.map(\.bounds.partition)
        let heirs = numberPools()
        var unpinned: Set<Int> = []
        for volume in index.volumes.values {
            let pool = heirs[volume.pool] ?? volume.pool
            assignPool(to: volume)
            let (old, new) = (before.pins[volume.identifier] ?? [], plan.pins[volume.identifier] ?? [])
            // Pinned blocks that may go now, or that are to be in another pool.
            let isKept =
                pool == volume.pool
                && old.allSatisfy { pin in new.contains { $0.contains(pin.lowerBound) && $0.upperBound >= pin.upperBound } }
            if !old.isEmpty, !isKept { unpinned.insert(pool) }
        }
        for pool in unpinned { unpin(pool) }
        // Signatures are known by the numbers of the partitions that their segments are in.
        if heirs.isEmpty, queues.pools.prefix(partitions.count).map(\.bounds.partition) == partitions { return }
        countLiveInPools()
        signatures.removeAll()
        noteSharedBlocks()
    }

    /// Has all blocks of a pool looked at again that were to stay.
    private func unpin(_ pool: Int) {
        for number in queues.pools[pool].pinned { segments[number].queue = .main }
        queues.unpin(pool)
        for segment in filling where segment.pool == pool && segment.queue == .pinned {
            segment.queue = .main
            segments[segment.segment].queue = .main
        }
    }

    /// Gives each pool of the plan a number, and what pools have that are not in it to those that their volumes are in now.
    /// - Returns: for each pool that is gone, who has got its segments.
    private func numberPools() -> [Int: Int] {
        let wanted = Set(plan.pools.map(\.key))
        let gone = poolNumbers.filter { !wanted.contains($0.key) }
        for key in gone.keys { poolNumbers[key] = nil }
        var taken = Set(poolNumbers.values).union(gone.values)
        var bounds = Array(repeating: CachePoolBounds(), count: queues.pools.count)
        for pool in plan.pools {
            let number = poolNumbers[pool.key] ?? (0...).first { !taken.contains($0) } ?? 0
            taken.insert(number)
            poolNumbers[pool.key] = number
            while bounds.count <= number { bounds.append(CachePoolBounds()) }
            bounds[number] = pool.bounds
        }
        queues.setBounds(bounds, partitions: plan.partitions)
        var heirs: [Int: Int] = [:]
        for (key, number) in gone {
            var heir = 0
            if case .volume(let identifier) = key { heir = self.number(of: identifier) }
            heirs[number] = heir
            for segment in queues.merge(number, into: heir, segments) { segments[segment].pool = UInt8(heir) }
            for segment in filling where segment.pool == number {
                segment.pool = heir
                segments[segment.segment].pool = UInt8(heir)
            }
            if let eviction, segments[eviction.segment].pool == UInt8(number) { segments[eviction.segment].pool = UInt8(heir) }
        }
        return heirs
    }

    private func number(of identifier: VolumeIdentifier) -> Int { plan.keys[identifier].flatMap { poolNumbers[$0] } ?? 0 }

    /// Lets a volume have what the plan has for it.
    func assignPool(to volume: CacheVolume) {
        volume.pool = number(of: volume.identifier)
        volume.pins = ExtentMap()
        for pin in plan.pins[volume.identifier] ?? [] { volume.pins.insert(pin.sectors, ZeroMark()) }
    }

    /// Forgets what a volume was to have, which will not come back: also when the rest is too much for the cache.
    public func forgetShare(of identifier: VolumeIdentifier) {
        if division.shares.removeValue(forKey: identifier) != nil { didDivide() }
    }

    // MARK: A restart

    /// Finds whose the segments are that a run before has filled: most of a segment's blocks tell. One that is full of pinned blocks is
    /// in no danger from the start.
    func findPools() {
        guard plan.pools.count > 1 || plan.pins.contains(where: { !$0.value.isEmpty }) else { return }
        for volume in index.volumes.values { assignPool(to: volume) }
        // The pool that leads in each segment, by how many blocks (Boyer and Moore's vote), and how many are pinned.
        var (leaders, leads) = ([UInt8](repeating: 0, count: segments.count), [Int32](repeating: 0, count: segments.count))
        var pinned = leads
        func vote(_ segment: Int, _ pool: Int, _ isPinned: Bool) {
            if isPinned { pinned[segment] += 1 }
            if leads[segment] == 0 { leaders[segment] = UInt8(pool) }
            leads[segment] += leaders[segment] == UInt8(pool) ? 1 : -1
        }
        for volume in index.volumes.values {
            volume.map.forEach { block, slot in
                if !shared.contains(slot) { vote(geometry.segment(of: slot), volume.pool, volume.isPinned(block)) }
            }
        }
        // What several have votes once.
        shared.forEach { slot, block in
            let references = block.references.compactMap { owner in index[ordinal: owner.volume].map { (volume: $0, block: owner.block) } }
            let pinning = references.first { $0.volume.isPinned($0.block) }
            if let voter = pinning ?? references.first { vote(geometry.segment(of: slot), voter.volume.pool, pinning != nil) }
        }
        let closed = segments.indices.filter { segments[$0].state == .closed }.sorted { segments[$0].sequence < segments[$1].sequence }
        queues.removeAll()
        for number in closed {
            let isGathered = Int(pinned[number]) > geometry.slotCount * CacheQueues.sparseEighths / 8
            segments[number].pool = leaders[number]
            if isGathered { segments[number].queue = .pinned }
            queues.append(number, to: segments[number].queue, of: Int(leaders[number]))
        }
    }

    // MARK: What it has

    /// What a volume, or a partition without the volumes that have shares, has of the cache.
    public struct PoolStatistics: Equatable, Sendable {
        /// The segments, in bytes.
        public var heldBytes: UInt64 = 0
        /// Segments that it had to give because it had come to its bound, since it has one.
        public var segmentsGivenAtBound: UInt64 = 0
    }

    /// What a volume with a share has; nil for others.
    public func statistics(ofShare identifier: VolumeIdentifier) -> PoolStatistics? {
        poolNumbers[.volume(identifier)].map { statistics(of: [$0]) }
    }

    /// What a partition has, its volumes with shares among it; nil when there is none. Nil names the shared one.
    public func statistics(ofPartition name: String?) -> PoolStatistics? {
        guard let first = poolNumbers[.partition(name)] else { return nil }
        let partition = queues.pools[first].bounds.partition
        return statistics(of: poolNumbers.values.filter { queues.pools[$0].bounds.partition == partition })
    }

    private func statistics(of pools: [Int]) -> PoolStatistics {
        pools.reduce(into: PoolStatistics()) {
            $0.heldBytes += UInt64(queues.pools[$1].segmentCount) * UInt64(geometry.segmentBytes)
            $0.segmentsGivenAtBound += queues.pools[$1].countAtCeiling
        }
    }

    /// How many of a volume's pinned blocks are here, those among them that hold zeroes and take no room.
    public func pinnedBlocksHeld(of identifier: VolumeIdentifier) -> UInt64 {
        guard let volume = index[identifier] else { return 0 }
        var count: UInt64 = 0
        volume.pins.forEach { pin in
            count += volume.map.count(in: pin.range.wholeBlocks)
            volume.zeroes.forEach(in: pin.range) { count += UInt64($0.range.wholeBlocks.count) }
        }
        return count
    }
}
