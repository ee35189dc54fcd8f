import Blocks
import Ciphers
import Disks
import NIOCore
import SecureCache
import SimulatedStorage
import WriteLog

// One simulated world: an on-prem edge with some disks, two cloud edges, a line to each, an initiator for each volume, and a
// demon with one seed.
//
// The initiators write, read, flush and seal. The demon kills processes and cuts the power of machines, also while they recover,
// fills file systems, slows disks down, cuts lines, resets connections, makes disks larger, damages the cache's file while nobody
// has it open, gives the cache other sizes while it serves and makes it unreadable for a while, so that another one stands in, divides it, pins and unpins ranges and has it forget volumes (World+Pools.swift),
// gives volumes other keys and their logs other bounds (World+Keys.swift), strikes right behind names that have gone (World+Names.swift), gives volumes from one cloud edge to the other, and puts old copies of a disk and its journal back (World+Demon.swift).
// What is checked:
//
//   invariant 1   each read shows, for each sector, the last acknowledged write or a later one, and only bytes of this volume
//   invariant 2   after a crash of the cloud edge the volume is an exact prefix of the writes, and
//                 no shorter than what was flushed; when only the process was killed, no shorter than
//                 what was acknowledged, for the initiator lives on and takes a later flush for its own
//   invariant 3   whenever the on-prem edge opens a disk, the disk is an exact prefix of the
//                 writes, never shorter than before, and no shorter than a point that was received
//   invariant 4   points of an edge that has lost its lease never reach the disk, and an old copy of a disk is not taken
//                 for the newest
//   groups        in some worlds the volumes are a group, which they leave and join, in which they stop and come late, and which is
//                 detached by force and given to the other edge: whenever nothing is being applied, also after each crash of the
//                 on-prem edge, all disks are at the same cut, and no write is missing in one that was acknowledged before one that
//                 is there was issued
//   regions       what is cloud-only is read back like all else, and never comes home (SimulatedVolume+Regions.swift)
//   tables        the cache's tables agree (SecureCache+Tables.swift)
//   nonces        no place of a log's file is written with different bytes at different times
//   invariant 5   no file of a cloud edge holds what a machine has written, or a key (World+Keys.swift)
//   invariant 7   what a log and the read cache have in memory stays within their bounds
//
// In the end the faults stop, everything goes home, and each disk must equal its volume.

/// What happened that must not happen.
public struct WorldFailure: Error, CustomStringConvertible {
    public let description: String
}

/// How often what is rare has happened.
public struct WorldTally: Sendable, Codable {
    public var crashes = 0
    /// Edges that heard from home that they have lost a lease.
    public var fencings = 0
    /// Old copies of a disk that were put back, and refused.
    public var refusedCopies = 0
    /// Times at which the disks of a group were compared.
    public var cuts = 0
    /// Sizes that a cache was given while it served, and caches that took over from one that had stood in.
    public var resizes = 0
    public var standIns = 0
    /// Divisions that a cache was given while it served, and volumes that it forgot because they left or got other keys.
    public var divisions = 0
    public var forgotten = 0
    /// Keys that volumes were given, and bounds that logs were.
    public var rotations = 0
    public var logResizes = 0
    /// Times that a disk without room was tried again.
    public var stalls = 0
    /// Volumes whose keys were destroyed when another edge had them.
    public var shreddings = 0
    /// Blocks that were named instead of sent, in answers to reads and in points, and those of them that were asked for.
    public var namedInReads: UInt64 = 0
    public var namedInReadsInVain: UInt64 = 0
    public var namedInPoints: UInt64 = 0
    public var namedInPointsInVain: UInt64 = 0
    /// Blocks that reads of disks found in memory, and those that left it for want of room.
    public var foundInReadCache: UInt64 = 0
    public var evictedFromReadCache: UInt64 = 0

    public init() {}

    static func += (left: inout WorldTally, right: WorldTally) {
        left.crashes += right.crashes
        left.fencings += right.fencings
        left.refusedCopies += right.refusedCopies
        left.cuts += right.cuts
        left.resizes += right.resizes
        left.standIns += right.standIns
        left.divisions += right.divisions
        left.forgotten += right.forgotten
        left.rotations += right.rotations
        left.logResizes += right.logResizes
        left.shreddings += right.shreddings
        left.stalls += right.stalls
        left.namedInReads += right.namedInReads
        left.namedInReadsInVain += right.namedInReadsInVain
        left.namedInPoints += right.namedInPoints
        left.namedInPointsInVain += right.namedInPointsInVain
        left.foundInReadCache += right.foundInReadCache
        left.evictedFromReadCache += right.evictedFromReadCache
    }
}

/// One run of a seed.
public final class World {
    /// What decides everything.
    public let seed: UInt64
    public let scheduler: Scheduler
    let homeMachine: SimulatedMachine
    private(set) var edges: [SimulatedEdge] = []
    private(set) var volumes: [SimulatedVolume] = []
    private(set) var home: HomeProcess?
    /// The group of the volumes, if there is one.
    private(set) var group: GroupIdentifier?
    /// The number of the last cut, as the on-prem state store keeps it.
    var lastCutNumber: UInt64 = 0
    /// The group is being given to the other edge.
    var isHandingGroupOver = false
    /// The order of all that happens to any volume.
    let order = WriteHistory.Order()
    private let cacheKey: SecretKey
    let logLimits: WriteLogLimits
    let cacheBytes: UInt64
    let cacheLimits: CacheLimits
    /// The cache gets other sizes, and is gone for a while.
    private let hasCacheDemon: Bool
    /// The cache is divided, in ways that change (World+Pools.swift).
    let hasPools: Bool
    /// There is a demon that waits for names (World+Names.swift).
    private let hasNamesDemon: Bool
    /// The sizes that it gets.
    static let cacheSegments = 6...20
    static let cacheSegmentBytes = 64 << 10

    /// What home sends an edge for its cache: of volumes, the keys of those that it serves.
    func cacheKeys(ofEdge edge: Int) -> CacheKeys {
        CacheKeys(cache: cacheKey) { [unowned self] volume, generation in
            volumes.first { $0.identifier == volume && $0.edge == edge }?.keys.all[generation]
        }
    }

    static func cacheBytes(segments: Int) -> UInt64 { 4096 + UInt64(segments * cacheSegmentBytes) }

    private(set) var failure: WorldFailure?
    /// The end of the faults and of new requests.
    private(set) var isCalm = false
    public internal(set) var tally = WorldTally()

    /// How long there are faults, in seconds for one volume; several share them.
    private static let faultSeconds: Int64 = 6

    public init(seed: UInt64) throws {
        self.seed = seed
        cacheKey = try SecretKey([UInt8](repeating: 9, count: SecretKey.byteCount))
        scheduler = Scheduler(seed: seed)
        homeMachine = SimulatedMachine(scheduler: scheduler)
        let random = scheduler.random
        logLimits = WriteLogLimits(
            unwrittenBytesMax: random.chance(percent: 30) ? 16 << 10 : 256 << 10, logBytesMax: 4 << 20,
            logBytesPerIndexByte: [8, 8, 8, 64, 256][Int(random.below(5))])
        var limits = CacheLimits(segmentBytes: Self.cacheSegmentBytes)
        limits.sharesBlocks = SeededRandom(seed: seed &* 0xd1b5_4a32_d192_ed03).chance(percent: 80)
        limits.journalBytes = 16 << 10
        limits.fragmentBytesMax = 4 << 10
        // The other worlds are what they were before. A device is not cut when the cache ends before it.
        hasCacheDemon = seed % 5 < 2
        hasPools = hasCacheDemon && SeededRandom(seed: seed &* 0x94d0_49bb_1331_11eb).chance(percent: 60)
        if hasCacheDemon, SeededRandom(seed: seed &* 0x9e37_79b9_7f4a_7c15).chance(percent: 60) {
            limits.deviceBytes = Self.cacheBytes(segments: Self.cacheSegments.upperBound)
            // Here recovery has more to replay: a checkpoint puts right what a record would have had to say.
            limits.journalBytes = 256 << 10
        }
        cacheLimits = limits
        hasNamesDemon = SeededRandom(seed: seed &* 0xbf58_476d_1ce4_e5b9).chance(percent: 30)
        cacheBytes = random.chance(percent: 50) ? 512 << 10 : 1 << 20
        edges = (0..<2).map { SimulatedEdge(number: $0, world: self) }
        for machine in edges.map(\.machine) + [homeMachine] { machine.watchedPrefix = Self.logPrefix }
        try makeVolumes()
    }

    /// One volume, two or three. Some begin as copies of one image, and write the same content.
    private func makeVolumes() throws {
        let random = scheduler.random
        let count = random.chance(percent: 60) ? 1 : random.within(2...3)
        let isAlike = random.chance(percent: 50)
        if count > 1, random.chance(percent: 50) { group = GroupIdentifier(high: 5, low: seed) }
        var origin: [SectorRange] = []
        // A chance of its own, so that worlds without regions are what they were before there were any. A group has one cut for all disks.
        let hasRegions = group == nil && SeededRandom(seed: seed &* 0x2545_f491_4f6c_dd1d).chance(percent: 30)
        for number in 0..<count {
            if number == 0 || !isAlike { origin = randomOrigin() }
            volumes.append(
                try SimulatedVolume(
                    number: number, pattern: isAlike ? 0 : UInt64(number), origin: origin, hasRegions: hasRegions, world: self))
            volumes[number].isInGroup = group != nil
        }
    }

    /// What is on a disk from the beginning, also behind the end that it has now: when it grows there may be something.
    private func randomOrigin() -> [SectorRange] {
        let end = SimulatedVolume.sectorCountMax
        return (0..<scheduler.random.below(8)).map { _ in
            let start = scheduler.random.below(end)
            return SectorRange(from: start, to: min(end, start + 1 + scheduler.random.below(64)))
        }
    }

    /// Lives through the world. Throws what must not happen.
    public func run() throws {
        startHome()
        edges[0].start()
        scheduleDemon()
        scheduleGrowth()
        if volumes.contains(where: { $0.regions != nil }) { scheduleRegions() }
        if hasCacheDemon { scheduleCacheDemon() }
        if hasPools { scheduleTableChecks() }
        if hasNamesDemon { scheduleNamesDemon() }
        if SeededRandom(seed: seed &* 0xa076_1d64_78bd_642f).chance(percent: 40) { scheduleKeysAndSizes() }
        let end = scheduler.now + .milliseconds(Self.faultSeconds * 2_000 / Int64(volumes.count + 1))
        _ = scheduler.run(until: end) { self.failure != nil }
        if let failure { throw failure }
        try settle()
    }

    /// Lets go of everything: what waits and what runs hold one another, and a million worlds need memory.
    func end() {
        for edge in edges { edge.end() }
        home?.die()
        home = nil
        scheduler.removeAll()
        homeMachine.discard()
    }

    /// Tells this course of the world from any other: how long it took, in steps and in its own time, and what chance would say next.
    var digest: UInt64 {
        [scheduler.steps, scheduler.now.uptimeNanoseconds, UInt64(tally.crashes), scheduler.random.next()].reduce(seed) {
            SeededRandom(seed: $0 ^ $1).next()
        }
    }

    func fail(_ text: @autoclosure () -> String) {
        if failure == nil {
            failure = WorldFailure(description: "seed \(seed), \(scheduler.steps) steps, \(tally.crashes) crashes: \(text())")
        }
    }

    // MARK: Processes

    func startHome() {
        if home == nil { home = HomeProcess(world: self) }
    }

    /// The process at home dies, or its machine with it.
    func stopHome(power: Bool) {
        for edge in edges {
            for served in edge.process?.volumes ?? [] where !served.isFenced {
                served.volume.noteReceived(served.core?.pointNumbers.received ?? 0)
            }
            edge.line.homeDied()
        }
        home?.die()
        home = nil
        if power { homeMachine.cutPower() } else { homeMachine.killProcess() }
    }

    /// The volume in the process of the edge that has it.
    func served(_ volume: SimulatedVolume) -> ServedVolume? {
        edges[volume.edge].process?.volumes.first { $0.volume === volume && !$0.isFenced }
    }

    /// Nothing is being applied to any disk of the group: all of them must be at one cut, and it must be one.
    func checkGroup(_ disks: [(volume: SimulatedVolume, applied: PointNumber, cut: GroupPoint?)]) {
        guard let last = disks.compactMap(\.cut).max(by: { $0.number < $1.number }) else {
            guard let early = disks.first(where: { $0.applied > 0 && !$0.volume.hasLeftGroup }) else { return }
            return fail("invariant 3: disk \(early.volume.identifier) of the group is at \(early.applied), and there was no cut")
        }
        // One that has joined since goes with the others from the first cut on that was made with it.
        let parts = disks.filter { $0.volume.joinedAfter < last.number }
        for part in parts where part.applied != last.point(of: part.volume.identifier) {
            return fail(
                "invariant 3: the disks of the group are not at one point: cut \(last), disk \(part.volume.identifier) at \(part.applied)")
        }
        checkCut(parts.map(\.volume))
    }

    /// The disks must be at one instant.
    private func checkCut(_ volumes: [SimulatedVolume]) {
        // What a crash of the cloud edge has lost is not known yet.
        guard volumes.allSatisfy(\.isHistoryKnown) else { return }
        tally.cuts += 1
        let cuts = volumes.map { (number: $0.number, cut: $0.cut) }
        for (number, cut) in cuts {
            guard let cut else { return fail("invariant 3: the disk of volume \(number) is no prefix of the writes") }
            for (other, otherCut) in cuts {
                guard let otherCut, otherCut.firstMissing < cut.lastIssued else { continue }
                return fail(
                    "the cut is none: volume \(other) lacks a write that was acknowledged before one was issued that volume \(number) has")
            }
        }
    }

    // MARK: The end

    /// The faults stop, everything goes home, and each disk must equal its volume.
    private func settle() throws {
        isCalm = true
        for edge in edges { edge.line.restore() }
        var sealed: [Int: Result<PointNumber, BlockDeviceError>] = [:]
        let isGrouped = group != nil
        var asked: [Int: UInt64] = [:]
        _ = scheduler.run(until: scheduler.now + .seconds(120)) { [self] in
            if failure != nil { return true }
            // While an old copy is in place, both edges may be started once more.
            guard let home, volumes.allSatisfy({ $0.restoredCopy == nil }) else { return false }
            for volume in volumes where sealed[volume.number] == nil {
                // A volume that is still on its way to another edge is that one's to bring home, and one whose log fails the next process's.
                guard !home.disk(of: volume).isHandingOver, !edges[volume.edge].isLosingWrites, let served = served(volume),
                    let core = served.core,
                    served.initiator?.isIdle == true, bringRegionsHome(volume), asked[volume.number] != served.incarnation
                else { continue }
                // Of a process that ends nobody has an answer: the next one is asked again.
                asked[volume.number] = served.incarnation
                core.seal(until: .applied) { result in
                    // A group may wait for one that has stopped, and comes back with its edge.
                    if case .failure = result, isGrouped { asked[volume.number] = nil } else { sealed[volume.number] = result }
                }
            }
            return sealed.count == volumes.count
        }
        if let failure { throw failure }
        for volume in volumes {
            if case .success? = sealed[volume.number] { continue }
            let served = served(volume)
            volume.fail(
                "the last point did not come home within two minutes of calm (\(String(describing: sealed[volume.number])), "
                    + "\(served?.initiator?.description ?? "no initiator"), \(String(describing: served?.core?.pointNumbers)))")
        }
        for volume in volumes where failure == nil { volume.checkDiskIsVolume() }
        checkNonces()
        checkConfidentiality()
        if let failure { throw failure }
    }

    /// What the paths of the logs' directories begin with.
    private static let logPrefix = "log-"

    /// A file's path is that under which it was opened: a file of an epoch may have been a spare then.
    private func isOfLog(_ path: String) -> Bool {
        path.hasPrefix(Self.logPrefix) && (path.contains("/epoch-") || path.contains("/spare-"))
    }

    private func checkNonces() {
        for edge in edges {
            guard let file = edge.machine.overwrittenFiles.filter({ isOfLog($0) }).min() else { continue }
            fail("bytes of \(file) were replaced by others: a nonce has sealed two texts")
        }
    }
}
