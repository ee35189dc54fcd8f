import Blocks
import Ciphers
import Disks
import NIOCore
import SecureCache
import SimulatedStorage
import Volumes
import WriteLog

// One simulated world: two machines, a line, an initiator, and a demon with one seed.
//
// The initiator writes, reads, flushes and seals. The demon kills either process, cuts the power of either machine, fills
// its file system, slows its disks down, cuts the line and resets connections, and the disk grows. What is checked:
//
//   invariant 1   each read shows, for each sector, the last acknowledged write or a later one
//   invariant 2   after a crash of the cloud edge the volume is an exact prefix of the writes, and
//                 no shorter than what was flushed; when only the process was killed, no shorter than
//                 what was acknowledged, for the initiator lives on and takes a later flush for its own
//   invariant 3   whenever the on-prem edge opens the disk, the disk is an exact prefix of the
//                 writes, never shorter than before, and no shorter than a point that was received
//   invariant 4   in ZombieWorld: points of a process that lost its lease never reach the disk
//
// In the end the faults stop, everything goes home, and the disk must equal the volume.

/// What happened that must not happen.
public struct WorldFailure: Error, CustomStringConvertible {
    public let description: String
}

/// One run of a seed.
public final class World {
    /// What decides everything.
    public let seed: UInt64
    public let scheduler: Scheduler
    let cloudMachine: SimulatedMachine
    let homeMachine: SimulatedMachine
    let line: SimulatedLine
    /// How large the disk may become, and how large it is: the rest of it is there, and nobody has been told.
    let sectorCount: UInt64 = 512
    private(set) var diskSectorCount: UInt64
    let volumeIdentifier = VolumeIdentifier(high: 1, low: 2)
    let volumeKey: SecretKey
    let cacheKey: SecretKey
    let policy: VolumePolicy
    let logLimits: WriteLogLimits
    let cacheBytes: UInt64
    let cacheLimits: CacheLimits
    /// The lease as the on-prem state store keeps it: durable the moment it is set.
    var lease = VolumeLease(generation: 1)

    var history: WriteHistory
    private(set) var cloud: CloudProcess?
    private(set) var home: HomeProcess?
    private(set) var failure: WorldFailure?
    private var initiator: Initiator?
    /// Every write up to here must be there when the cloud edge is up again.
    private(set) var mustSurviveThrough: UInt64 = 0
    /// The last write that the disk at home has shown: it never goes back.
    private var diskThrough: UInt64 = 0
    /// The last point of which the cloud edge was told that it is received.
    private(set) var receivedPoint: PointNumber = 0
    public private(set) var crashes = 0
    /// The end of the faults and of new requests.
    private(set) var isCalm = false

    public init(seed: UInt64) throws {
        self.seed = seed
        volumeKey = try SecretKey([UInt8](repeating: 7, count: SecretKey.byteCount))
        cacheKey = try SecretKey([UInt8](repeating: 9, count: SecretKey.byteCount))
        scheduler = Scheduler(seed: seed)
        cloudMachine = SimulatedMachine(scheduler: scheduler)
        homeMachine = SimulatedMachine(scheduler: scheduler)
        line = SimulatedLine(scheduler: scheduler)
        history = WriteHistory(sectorCount: sectorCount)
        let random = scheduler.random
        diskSectorCount = sectorCount - random.below(200)
        // Also behind the end that the disk has now: when it grows there may be something.
        let origin = (0..<random.below(8)).map { [sectorCount] _ in
            let start = random.below(sectorCount)
            return SectorRange(from: start, to: min(sectorCount, start + 1 + random.below(64)))
        }
        _ = homeMachine.disk("disk", holding: history.addOrigin(origin))
        (mustSurviveThrough, diskThrough) = (history.lastNumber, history.lastNumber)
        policy = VolumePolicy(
            recoveryPointObjective: .milliseconds(Int64(random.within(50...800))), sealBytes: 32 << 10, readTimeout: .seconds(600),
            writeTimeout: .seconds(600))
        logLimits = WriteLogLimits(unwrittenBytesMax: random.chance(percent: 30) ? 16 << 10 : 256 << 10, logBytesMax: 4 << 20)
        cacheLimits = CacheLimits(segmentBytes: 64 << 10)
        cacheBytes = random.chance(percent: 50) ? 256 << 10 : 1 << 20
    }

    /// Lives through the world. Throws what must not happen.
    public func run() throws {
        startHome()
        startCloud()
        scheduleDemon()
        scheduleGrowth()
        let end = scheduler.now + .seconds(6)
        _ = scheduler.run(until: end) { self.failure != nil }
        if let failure { throw failure }
        try settle()
    }

    func fail(_ text: String) {
        if failure == nil {
            failure = WorldFailure(description: "seed \(seed), \(scheduler.steps) steps, \(crashes) crashes: \(text)")
        }
    }

    // MARK: Processes

    private func startHome() {
        home = HomeProcess(world: self)
    }

    private func startCloud() {
        let process = CloudProcess(world: self)
        cloud = process
        process.onOpen = { [weak self] volume in self?.cloudIsOpen(volume) }
    }

    private func cloudIsOpen(_ volume: CloudProcess.Served) {
        let initiator = Initiator(world: self, volume: volume)
        self.initiator = initiator
        initiator.start(isRecovering: crashes > 0)
    }

    private func crashCloud(power: Bool) {
        guard let process = cloud else { return }
        crashes += 1
        if power {
            mustSurviveThrough = history.flushedThrough
        } else if let initiator, initiator.isRecovered {
            mustSurviveThrough = max(history.flushedThrough, history.lastAcknowledgedNumber)
        }
        process.die()
        initiator?.die()
        initiator = nil
        cloud = nil
        line.cloudDied()
        if power { cloudMachine.cutPower() } else { cloudMachine.killProcess() }
        scheduler.schedule(microseconds: 1_000...300_000) { [self] in startCloud() }
    }

    private func crashHome(power: Bool) {
        guard let process = home else { return }
        crashes += 1
        receivedPoint = max(receivedPoint, cloud?.volume?.pointNumbers.received ?? 0)
        process.die()
        home = nil
        line.homeDied()
        if power { homeMachine.cutPower() } else { homeMachine.killProcess() }
        scheduler.schedule(microseconds: 1_000...300_000) { [self] in startHome() }
    }

    // MARK: The demon

    private func scheduleDemon() {
        scheduler.schedule(microseconds: 5_000...700_000) { [self] in
            if isCalm || failure != nil { return }
            strike()
            scheduleDemon()
        }
    }

    /// The disk grows, home notices, and the cloud edge hears of it a while later, if it lives.
    private func scheduleGrowth() {
        scheduler.schedule(microseconds: 50_000...1_500_000) { [self] in
            if isCalm || failure != nil { return }
            diskSectorCount = min(sectorCount, diskSectorCount + 1 + scheduler.random.below(40))
            let grown = diskSectorCount
            home?.volume?.journal.diskDidGrow(to: grown)
            scheduler.schedule(microseconds: 0...400_000) { [self] in cloud?.volume?.grow(to: grown) }
            scheduleGrowth()
        }
    }

    private func strike() {
        switch scheduler.random.below(12) {
        case 0: crashCloud(power: false)
        case 1, 2: crashCloud(power: true)
        case 3: crashHome(power: false)
        case 4, 5: crashHome(power: true)
        case 6:
            crashCloud(power: true)
            crashHome(power: true)
        case 7:
            line.cut()
            scheduler.schedule(microseconds: 10_000...900_000) { [self] in line.restore() }
        case 8: fillDisk(of: scheduler.random.chance(percent: 70) ? cloudMachine : homeMachine)
        case 9: slowDisks(of: scheduler.random.chance(percent: 50) ? cloudMachine : homeMachine)
        default: line.dropOne()
        }
    }

    /// The file system of a machine gets full, and has room again a while later.
    private func fillDisk(of machine: SimulatedMachine) {
        machine.faults.capacityBytes = machine.usedBytes + Int(scheduler.random.below(64 << 10))
        scheduler.schedule(microseconds: 10_000...1_500_000) { machine.faults.capacityBytes = .max }
    }

    /// The disks of a machine take a hundred times as long for a while.
    private func slowDisks(of machine: SimulatedMachine) {
        let usual = StorageFaults().latencyMicroseconds
        machine.faults.latencyMicroseconds = usual.lowerBound * 100...usual.upperBound * 100
        scheduler.schedule(microseconds: 50_000...800_000) { machine.faults.latencyMicroseconds = usual }
    }

    // MARK: Checks

    /// The on-prem edge has opened its disk: it must show an exact prefix of the writes.
    func checkDisk(_ disk: SimulatedFile, position: PointPosition) {
        receivedPoint = max(receivedPoint, cloud?.volume?.pointNumbers.received ?? 0)
        if position.received < receivedPoint {
            fail("point \(receivedPoint) was received, but home remembers only \(position.received)")
        }
        if position.applied != position.received {
            fail("home opened its disk at point \(position.applied) though it has received \(position.received)")
        }
        checkDiskContent(disk)
    }

    private func checkDiskContent(_ disk: SimulatedFile) {
        guard let stamps = Stamp.writes(in: ByteBuffer(bytes: disk.content), range: SectorRange(from: 0, to: sectorCount)) else {
            return fail("the disk at home holds a sector that nobody has written")
        }
        guard let through = history.prefix(showing: stamps, notBefore: diskThrough) else {
            return fail("the disk at home is no prefix of the writes from \(diskThrough) on")
        }
        diskThrough = through
    }

    /// The faults stop, everything goes home, and the disk must equal the volume.
    private func settle() throws {
        isCalm = true
        line.restore()
        var sealed: Result<PointNumber, BlockDeviceError>?
        var isAsked = false
        let deadline = scheduler.now + .seconds(120)
        let isDone = scheduler.run(until: deadline) { [self] in
            if failure != nil { return true }
            if cloud == nil || home == nil { return false }
            if !isAsked, let initiator, initiator.isIdle, let volume = cloud?.volume {
                isAsked = true
                volume.seal(until: .applied) { sealed = $0 }
            }
            return sealed != nil
        }
        if let failure { throw failure }
        guard isDone, case .success = sealed else {
            throw WorldFailure(
                description: "seed \(seed): the last point did not come home within two minutes of calm (\(String(describing: sealed)), "
                    + "\(initiator?.description ?? "no initiator"), \(String(describing: cloud?.volume?.pointNumbers)))")
        }
        let disk = homeMachine.disk("disk", holding: [])
        checkDiskContent(disk)
        let last = (0..<sectorCount).map { history.visibleStamp(of: history.lastWrite(to: $0, through: history.lastNumber)) }
        if let file = cloudMachine.overwrittenFiles.first(where: { $0.hasPrefix("log/") }) {
            fail("bytes of \(file) were replaced by others: a nonce has sealed two texts")
        }
        if failure == nil, Stamp.writes(in: ByteBuffer(bytes: disk.content), range: SectorRange(from: 0, to: sectorCount)) != last {
            fail("after the last point the disk at home is not the volume")
        }
        if let failure { throw failure }
    }
}
