import Blocks
import SimulatedStorage
import Volumes

// A volume of which some writes never go home, in a share of the worlds.
//
//     sectors   0 .......... 8 ................ 24 ........................ 160 .......... end
//     policy      on-prem      always cloud-only   changed again and again      on-prem
//
// A crash may lose of each sector what no flush has covered, and the writes to one log without those to the other: so each sector is
// held against the model by itself, where other volumes must be an exact prefix of the writes. At home, sectors that are always
// cloud-only must show what was there in the beginning.

/// The write policy of a simulated volume, and what each of its sectors must show.
final class SimulatedRegions {
    static let cloudOnly = SectorRange(from: 8, to: 24)
    static let changing = SectorRange(from: 24, to: 160)

    /// The policy as the edge has kept it: durable the moment it is set.
    var table = RegionTable()
    /// The policy will not change any more.
    var isLastSet = false
    /// What the disk at home had in the beginning.
    let originStamps: [UInt64]
    /// For each sector the last write that a flush has covered, and the last that must be there after a crash.
    private(set) var flushed: [UInt64]
    private(set) var mustSurvive: [UInt64]
    /// The newest write of each sector that the disk at home has shown.
    private var diskThrough: [UInt64]

    init(history: WriteHistory) throws(RegionError) {
        originStamps = history.lastStamps
        flushed = originStamps
        mustSurvive = originStamps
        diskThrough = originStamps
        try table.set(Self.cloudOnly, to: .cloudOnly, sectorCount: history.sectorCount)
        try table.set(Self.changing, to: .cloudOnly, sectorCount: history.sectorCount)
    }

    func covered(_ numbers: [UInt64]) {
        for (sector, number) in numbers.enumerated() { flushed[sector] = max(flushed[sector], number) }
    }

    func covered(_ range: SectorRange, _ number: UInt64) {
        for sector in range.start..<range.end { flushed[Int(sector)] = max(flushed[Int(sector)], number) }
    }

    /// The edge dies: this must be there when it is back. With its power, what was flushed; else all that it has acknowledged.
    func crashed(acknowledged: [UInt64]?) {
        mustSurvive = flushed
        for (sector, number) in (acknowledged ?? []).enumerated() { mustSurvive[sector] = max(mustSurvive[sector], number) }
    }

    /// What is wrong with the disk at home; nil when nothing is.
    func fault(of stamps: [UInt64], history: WriteHistory) -> String? {
        for (sector, stamp) in stamps.enumerated() {
            if Self.cloudOnly.contains(SectorRange(from: UInt64(sector), to: UInt64(sector) + 1)) {
                if stamp != originStamps[sector] {
                    return "sector \(sector) is cloud-only, and the disk at home shows write \(stamp) of it"
                }
            } else if !history.admits(stamp: stamp, sector: UInt64(sector), notOlderThan: diskThrough[sector]) {
                return "invariant 3: the disk at home shows write \(stamp) of sector \(sector), after it had shown \(diskThrough[sector])"
            }
            diskThrough[sector] = max(diskThrough[sector], stamp)
        }
        return nil
    }

    /// What the disk at home must show when everything has come home that goes there.
    func homeStamps(_ last: [UInt64]) -> [UInt64] {
        last.enumerated().map { sector, stamp in
            Self.cloudOnly.contains(SectorRange(from: UInt64(sector), to: UInt64(sector) + 1)) ? originStamps[sector] : stamp
        }
    }
}

extension World {
    /// The policy of the changing region of some volume changes, now and then.
    func scheduleRegions() {
        scheduler.schedule(microseconds: 20_000...400_000) { [self] in
            if isCalm || failure != nil { return }
            for volume in volumes { if let regions = volume.regions { changeRegion(regions, of: volume) } }
            scheduleRegions()
        }
    }

    private func changeRegion(_ regions: SimulatedRegions, of volume: SimulatedVolume) {
        // The policy is the edge's that serves: one that is down changes nothing.
        guard let core = served(volume)?.core, core.isServable else { return }
        var table = core.regions
        let isCloudOnly = table.regions.contains {
            $0.range.start <= SimulatedRegions.changing.start && $0.range.end >= SimulatedRegions.changing.end && $0.policy == .cloudOnly
        }
        do {
            try table.set(SimulatedRegions.changing, to: isCloudOnly ? .onPrem : .cloudOnly, sectorCount: volume.diskSectorCount)
            if isCloudOnly, scheduler.random.chance(percent: 85) { try table.beginImaging(SimulatedRegions.changing) }
        } catch {
            return volume.fail("the region was refused: \(error)")
        }
        if !isCloudOnly, scheduler.random.chance(percent: 50) { table.endImaging(SimulatedRegions.changing) }
        regions.table = table
        core.setRegions(table)
    }

    /// In the end everything goes home that may: true when it has come into the log.
    func bringRegionsHome(_ volume: SimulatedVolume) -> Bool {
        guard let regions = volume.regions, let core = served(volume)?.core else { return true }
        if !regions.isLastSet {
            regions.isLastSet = true
            var table = core.regions
            try? table.set(SimulatedRegions.changing, to: .onPrem, sectorCount: volume.diskSectorCount)
            try? table.beginImaging(SimulatedRegions.changing)
            regions.table = table
            core.setRegions(table)
        }
        return core.regions.imaging.isEmpty
    }
}
