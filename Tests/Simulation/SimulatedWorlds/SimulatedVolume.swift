import Blocks
import Ciphers
import Disks
import NIOCore
import SimulatedStorage
import Volumes

/// One disk at home, and what is true of it: which edge has it, what was written to it, and how far that has come.
final class SimulatedVolume {
    /// How large the disk may become: the rest of it is there from the beginning, and nobody has been told.
    static let sectorCountMax: UInt64 = 512

    let number: Int
    /// Of the attachment: a group that is given to the other edge has new ones.
    private(set) var identifier: VolumeIdentifier
    /// Its keys that are not destroyed, and what its cloud-only disk stays under.
    let keys: SimulatedKeys
    /// How large its log may become, as the edge has kept it.
    var logBytesMax: UInt64
    let policy: VolumePolicy
    /// The names of its disk, and of its directories: the journal at home, the log at the cloud edge.
    var diskName: String { "disk-\(number)" }
    var journalName: String { "journal-\(number)" }
    var logName: String { "log-\(number)" }

    var diskSectorCount: UInt64
    /// The cloud edge that has the volume, and the number of the first point of its log.
    private(set) var edge = 0
    private(set) var firstPoint: PointNumber = 1
    /// The lease as the on-prem state store keeps it: durable the moment it is set.
    var lease = VolumeLease(generation: 1)
    /// As the on-prem state store keeps it: whether the volume is in the group, and where its disk was closed, while it is detached.
    var isInGroup = false
    var closedAt: PointNumber?
    /// The cut at which the disk was closed.
    var closedCut: GroupPoint?
    /// The last cut that may lack the volume: the one there was when the cloud edge heard that it is in the group; the largest number
    /// until then.
    var joinedAfter: UInt64 = 0
    /// The volume was out of the group for a while, with points of its own: before there was any cut, perhaps.
    var hasLeftGroup = false
    /// What the edge that has the volume has written.
    private(set) var history: WriteHistory
    /// What an edge has written that had the volume before.
    private(set) var fencedHistory: WriteHistory?
    /// The last write that the disk at home has shown: it never goes back.
    private var diskThrough: UInt64
    /// The last point of which the cloud edge was told that it is received.
    private(set) var receivedPoint: PointNumber = 0

    /// How many past points its disk keeps, and what it held at the last points that it had.
    let keeping: PointKeeping
    private var states: [PointNumber: [UInt64]] = [:]

    /// What is cloud-only of it; nil for nothing, ever.
    private(set) var regions: SimulatedRegions?
    private var oldCopy: (copy: StorageCopy, received: PointNumber)?
    /// Set while an old copy is in the place of the newest state.
    private(set) var restoredCopy: RestoredCopy?

    enum RestoredCopy {
        /// Nobody has noticed yet.
        case unnoticed(newest: StorageCopy)
        /// It was refused, and the newest state is about to come back.
        case refused(newest: StorageCopy)

        var newest: StorageCopy {
            switch self {
            case .unnoticed(let newest), .refused(let newest): newest
            }
        }
    }

    unowned let world: World

    init(number: Int, pattern: UInt64, origin: [SectorRange], hasRegions: Bool, world: World) throws {
        self.number = number
        self.world = world
        let random = world.scheduler.random
        identifier = VolumeIdentifier(high: 1, low: UInt64(number) + 2)
        keys = try SimulatedKeys(volume: number, random: SeededRandom(seed: ~world.seed &+ UInt64(number) << 32))
        logBytesMax = world.logLimits.logBytesMax
        policy = VolumePolicy(
            recoveryPointObjective: .milliseconds(Int64(random.within(50...800))), sealBytes: 32 << 10, readTimeout: .seconds(600),
            writeTimeout: .seconds(600))
        diskSectorCount = Self.sectorCountMax - random.below(200)
        let keptBytes: UInt64 = random.chance(percent: 20) ? 40 << 10 : 1 << 30
        keeping = random.chance(percent: 50) ? PointKeeping(pointsMax: Int(random.within(1...4)), bytesMax: keptBytes) : .none
        let history = WriteHistory(sectorCount: Self.sectorCountMax, pattern: pattern, order: world.order)
        let content = history.addOrigin(origin)
        self.history = history
        diskThrough = history.lastNumber
        _ = world.homeMachine.disk(diskName, holding: content)
        if hasRegions { regions = try SimulatedRegions(history: history) }
    }

    /// The disk as the on-prem edge opens it.
    var disk: SimulatedFile { world.homeMachine.disk(diskName, holding: []) }

    func fail(_ text: @autoclosure () -> String) { world.fail("volume \(number): \(text())") }

    /// False from a crash of the cloud edge until it is known what has survived.
    var isHistoryKnown = true

    func noteReceived(_ point: PointNumber) { receivedPoint = max(receivedPoint, point) }

    /// Home has given the volume to another edge, when `point` was the last on the disk. What the old one has not brought home is given up.
    func handOver(to edge: Int, after point: PointNumber) {
        checkDisk()
        fencedHistory = history
        history = WriteHistory(continuing: history, through: diskThrough)
        lease = VolumeLease(generation: lease.generation + 1)
        firstPoint = point + 1
        self.edge = edge
    }

    /// The volume was detached by force, with the others of its group, and is attached to another edge.
    func attach(to edge: Int) {
        closedAt = nil
        handOver(to: edge, after: 0)
        identifier = VolumeIdentifier(high: 2, low: identifier.low)
        receivedPoint = 0
        states = [:]
    }

    // MARK: Old copies

    /// Somebody copies the disk and its journal while home is down; home had received points up to `received`.
    func keepCopy(received: PointNumber) {
        oldCopy = (world.homeMachine.copy(disks: [diskName], directories: [journalName]), received)
    }

    /// True when there is a copy that lacks points of which the cloud edge was told that they are at home.
    var canRestoreCopy: Bool { restoredCopy == nil && oldCopy.map { $0.received + 1 < receivedPoint } ?? false }

    /// Puts the old copy in the place of the newest state, which is kept.
    func restoreCopy() {
        guard let oldCopy else { return }
        restoredCopy = .unnoticed(newest: world.homeMachine.copy(disks: [diskName], directories: [journalName]))
        states = [:]
        world.homeMachine.restore(oldCopy.copy)
    }

    /// Puts the newest state back.
    func restoreNewest() {
        guard let restoredCopy else { return }
        states = [:]
        world.homeMachine.restore(restoredCopy.newest)
        self.restoredCopy = nil
    }

    /// Home, or the edge that has the volume, does not go on, and says why. True when it is the old copy that it refuses.
    func isRefusalOfCopy() -> Bool {
        guard let restoredCopy else { return false }
        if case .unnoticed(let newest) = restoredCopy {
            self.restoredCopy = .refused(newest: newest)
            world.copyWasRefused(self)
        }
        return true
    }

    /// Home has opened the volume for the edge, with points up to `received`. With an old copy of the disk that is right only when
    /// the edge still has all points that the copy lacks.
    func opened(received: PointNumber, oldestPoint: PointNumber) {
        guard restoredCopy != nil else { return }
        if oldestPoint > received + 1 { return fail("invariant 4: an old copy of the disk at home was taken for the newest") }
        (restoredCopy, receivedPoint, diskThrough) = (nil, received, 0)
    }

    // MARK: Checks

    /// The on-prem edge has opened its disk: it must show an exact prefix of the writes.
    func checkDisk(position: PointPosition) {
        if position.received < receivedPoint {
            fail("invariant 3: point \(receivedPoint) was received, but home remembers only \(position.received)")
        }
        // What a group's disk has received and is held is the group's to look at; see `World.checkGroup`.
        if position.applied != position.received, world.group == nil {
            fail("invariant 3: home opened its disk at point \(position.applied) though it has received \(position.received)")
        }
        checkDisk()
    }

    /// The disk must show an exact prefix of the writes, and no shorter one than before.
    func checkDisk() {
        guard let stamps = diskStamps else { return fail("invariant 3: the disk at home holds a sector that nobody has written") }
        if let fencedHistory, let stray = stamps.first(where: { !history.contains($0) && fencedHistory.contains($0) && $0 > 0 }) {
            return fail("invariant 4: the disk at home holds write \(stray) of an edge that has lost its lease")
        }
        if let regions {
            if let fault = regions.fault(of: stamps, history: history) { fail(fault) }
            return
        }
        guard let through = history.prefix(showing: stamps, notBefore: diskThrough) else {
            return fail("invariant 3: the disk at home is no prefix of the writes from \(diskThrough) on")
        }
        diskThrough = through
    }

    /// Everything is home: the disk must show the last write to each sector.
    func checkDiskIsVolume() {
        checkDisk()
        let expected = regions?.homeStamps(history.lastStamps) ?? history.lastStamps
        if world.failure == nil, diskStamps != expected { fail("after the last point the disk at home is not the volume") }
    }

    /// The disk is at a point.
    func noteApplied(_ point: PointNumber) {
        guard keeping.pointsMax > 0, let stamps = diskStamps else { return }
        states[point] = stamps
        for old in states.keys where old + 8 < point { states[old] = nil }
    }

    /// A past point that is kept must be what the disk held then, whatever crashes there were; where nobody has looked at the disk then,
    /// a prefix of the writes.
    func checkPast(_ point: PointNumber, _ content: ByteBuffer) {
        let range = SectorRange(from: 0, to: UInt64(content.readableBytes / BlockGeometry.sectorBytes))
        guard let stamps = history.stamp.writes(in: content, range: range) else {
            return fail("invariant 3: point \(point) is kept, and holds a sector that nobody has written")
        }
        if let expected = states[point], expected.prefix(stamps.count) != stamps[...] {
            fail("invariant 3: point \(point) is kept, and is not what the disk held then")
        }
    }

    /// What the disk shows as a part of a cut; nil when that can't be said.
    var cut: (lastIssued: UInt64, firstMissing: UInt64)? { diskStamps.flatMap { history.cut(showing: $0) } }

    private var diskStamps: [UInt64]? {
        disk.content.withUnsafeBytes { history.stamp.writes(in: $0, range: SectorRange(from: 0, to: Self.sectorCountMax)) }
    }
}
