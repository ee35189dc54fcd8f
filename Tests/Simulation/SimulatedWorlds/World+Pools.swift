import Blocks
import SecureCache
import SimulatedStorage

// Worlds in which the cache is divided: into partitions and shares, with pinned ranges. What is said of that changes while the cache serves, gets
// other sizes and lacks room, and differs from what an edge that starts again was told. A division moves blocks and never changes one, so all that is
// checked of reads holds as it is. What the cache's tables say must agree at any time.

extension World {
    /// Looks at the tables of all caches again and again: what is wrong there may be put right, or do harm, at any time.
    func scheduleTableChecks() {
        scheduler.schedule(after: .milliseconds(5)) { [self] in
            if isCalm || failure != nil { return }
            for edge in edges { edge.process?.checkCache() }
            scheduleTableChecks()
        }
    }

    /// The cache is divided in another way, has no more room for a while, or forgets a volume.
    func strikePools(of edge: SimulatedEdge) {
        let random = scheduler.random
        switch random.below(10) {
        case 0..<6:
            // Many don't fit.
            for _ in 0..<4 where edge.divideCache(randomDivision()) {
                tally.divisions += 1
                return
            }
        case 6: if edge.divideCache(CacheDivision()) { tally.divisions += 1 }
        case 7:
            let bytesMax = random.chance(percent: 30) ? .max : Self.cacheBytes(segments: Int(random.below(20)))
            edge.process?.boundCacheFile(bytesMax: bytesMax)
        case 8:
            // The cache's own file system: a log has its room.
            edge.machine.faults.lacksRoomFor = "state/cache"
            scheduler.schedule(microseconds: 10_000...1_500_000) { edge.machine.faults.lacksRoomFor = nil }
        default:
            let volume = volumes[Int(random.below(UInt64(volumes.count)))]
            edge.process?.forgetInCache(volume, changesKey: random.chance(percent: 50))
        }
    }

    /// Any division, which may not fit.
    private func randomDivision() -> CacheDivision {
        let random = scheduler.random
        var division = CacheDivision()
        if random.chance(percent: 30) { division.partitions["lab"] = UInt64(random.within(6...9) * Self.cacheSegmentBytes) }
        for volume in volumes where random.chance(percent: 80) {
            var share = CacheDivision.Share()
            if !division.partitions.isEmpty, random.chance(percent: 50) { share.partition = "lab" }
            if random.chance(percent: 40) { share.guaranteedBytes = UInt64(random.within(1...4) * Self.cacheSegmentBytes) }
            if random.chance(percent: 40) { share.bytesMax = UInt64(random.within(6...10) * Self.cacheSegmentBytes) }
            let end = SimulatedVolume.sectorCountMax / UInt64(BlockGeometry.sectorsPerBlock)
            for _ in 0..<random.below(4) {
                let start = random.below(end)
                share.pins.append(start..<min(end, start + 1 + random.below(16)))
            }
            division.shares[volume.identifier] = share
        }
        return division
    }
}
