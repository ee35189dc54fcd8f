import Blocks
import Ciphers
import CloudOnlyDisk
import NIOCore
import SimulatedStorage
import Volumes
import WriteLog

/// One volume in one process of a cloud edge: its log, the volume over it, and the machine that uses it.
final class ServedVolume {
    typealias Core = Volume<SimulatedDirectory>

    private unowned let world: World
    private unowned let process: CloudProcess
    let volume: SimulatedVolume
    private let edge: Int
    /// Of this volume in this process: no other has the same.
    let incarnation: UInt64
    private(set) var core: Core?
    private(set) var initiator: Initiator?
    private var isDead = false
    private var isStopped = false
    private var lastCall = 0
    private var memoryWatch: LogMemoryWatch?

    init(_ volume: SimulatedVolume, process: CloudProcess, world: World) {
        self.volume = volume
        self.process = process
        self.world = world
        edge = volume.edge
        incarnation = world.scheduler.random.next()
        openLog()
    }

    /// The volume belongs to another edge by now. This one may not know it yet.
    var isFenced: Bool { volume.edge != edge }

    /// What must not happen; of an edge that has lost its lease nothing is expected but that nothing of it comes home.
    func fail(_ text: @autoclosure () -> String) { if !isFenced { volume.fail(text()) } }

    /// The same of an operation that has failed, which happens only when the log has: then its edge has to be started again.
    func operationFailed(_ text: String) {
        guard isStopped || world.edges[edge].isLosingWrites else { return fail(text) }
        isStopped = true
        volume.isHistoryKnown = false
        initiator?.die()
    }

    func die() {
        isDead = true
        initiator?.die()
    }

    /// Something has failed: the volume stops, and its edge has to be started again.
    func stop() {
        isStopped = true
        volume.isHistoryKnown = false
        initiator?.die()
        core?.openRefused("something failed")
    }

    private func openLog() {
        var limits = world.logLimits
        limits.logBytesMax = volume.logBytesMax
        memoryWatch = LogMemoryWatch(limits: limits)
        WriteLog.open(
            directory: world.edges[edge].machine.directory(volume.logName), volume: volume.identifier,
            keys: volume.keys.all, limits: limits, random: world.scheduler.random.source, now: world.scheduler.now,
            firstEpoch: volume.firstPoint
        ) { [weak self] result in
            guard let self, !isDead else { return }
            switch result {
            case .success(let log):
                if volume.regions == nil { start(log, nil) } else { openDisk(log) }
            case .failure(.file(.noSpace)): later { $0.openLog() }
            case .failure(.file(.failed)) where world.edges[edge].isLosingWrites: later { $0.openLog() }
            case .failure(let error): fail("the log did not open: \(error)")
            }
        }
    }

    private func openDisk(_ log: WriteLog<SimulatedDirectory>) {
        CloudOnlyDisk.open(
            directory: world.edges[edge].machine.directory("\(volume.logName)-cloud-only"), volume: volume.identifier,
            sectorCount: volume.diskSectorCount, key: volume.keys.first,
            limits: CloudOnlyLimits(journal: world.logLimits, drainBytes: 64 << 10, drainAge: .milliseconds(400)),
            random: world.scheduler.random.source, clock: { [scheduler = world.scheduler] in scheduler.now }
        ) { [weak self] result in
            guard let self, !isDead else { return }
            switch result {
            case .success(let disk): start(log, disk)
            case .failure(.file(.noSpace)): later { $0.openDisk(log) }
            case .failure(.file(.failed)) where world.edges[edge].isLosingWrites: later { $0.openDisk(log) }
            case .failure(let error): fail("the cloud-only disk did not open: \(error)")
            }
        }
    }

    /// Tries again what can't be done now.
    private func later(_ body: @escaping (ServedVolume) -> Void) {
        world.scheduler.schedule(after: .milliseconds(100)) { [weak self] in
            if let self, !isDead { body(self) }
        }
    }

    private func start(_ log: WriteLog<SimulatedDirectory>, _ disk: CloudOnlyDisk<SimulatedDirectory>?) {
        let core = Core(
            identifier: volume.identifier, routingTag: UInt16(volume.number + 1), sectorCount: volume.diskSectorCount,
            policy: volume.policy,
            log: log, cache: process.cache(for: volume), clock: { [scheduler = world.scheduler] in scheduler.now })
        core.uplink = { [end = process.end, number = volume.number] message, trafficClass, isBulk in
            end.send(message, of: number, trafficClass, isBulk: isBulk)
        }
        core.homeBlocks = process.homeBlocks
        core.gatherTurns { [weak self, weak core, scheduler = world.scheduler] in
            scheduler.schedule(microseconds: 0...200) {
                // What waits for a dead process's disk may hold the core for a while.
                if self?.isDead == false { core?.writeGathered() }
            }
        }
        if let disk, let regions = volume.regions { core.attach(disk, table: regions.table) }
        core.onEvent = { [weak self] event in self?.handle(event) }
        core.isAwaitingGroup = process.isGrouped(volume)
        self.core = core
        // Of keys that came while the log was opened it hears now.
        useKeys()
        tick()
        process.isReady(self)
    }

    private func tick() {
        if isDead { return }
        core?.tick()
        retireKeys()
        if let core, !isStopped, let excess = memoryWatch?.excess(in: core) { volume.fail("invariant 7: \(excess)") }
        world.scheduler.schedule(after: .milliseconds(50)) { [weak self] in self?.tick() }
    }

    /// Tells home of the keys that nothing is sealed under any more. The call takes its time, and this process may be dead by then.
    private func retireKeys() {
        guard let core, !isStopped, !isFenced, volume.keys.count > 1, let needed = core.logKeyGenerations else { return }
        let newest = keysInUse
        world.scheduler.schedule(microseconds: 0...300_000) { [volume, edge] in
            if volume.edge == edge { volume.keys.retire(before: newest, needed: needed) }
        }
    }

    /// The newest key that this process knows of.
    private(set) var keysInUse: KeyGeneration = 0

    /// Takes over the keys as they are at home.
    func useKeys() {
        guard let core, !isStopped, !isFenced else { return }
        keysInUse = volume.keys.all.newest
        core.use(volume.keys.all)
    }

    /// Gives the log another bound, which is kept a while later: an edge that dies before starts with the one that there was.
    func resizeLog(to byteCount: UInt64) {
        guard let core, !isStopped, !isFenced else { return }
        core.resizeLog(to: byteCount)
        world.scheduler.schedule(microseconds: 0...400_000) { [weak self] in
            if let self, !isDead { volume.logBytesMax = byteCount }
        }
    }

    private func handle(_ event: VolumeEvent) {
        switch event {
        case .needsOpen: open()
        case .fenced:
            if isFenced { world.tally.fencings += 1 }
            fail("invariant 4: the volume was fenced, and nobody else has it")
        case .stopped(let reason):
            if volume.restoredCopy == nil, !isStopped, !world.edges[edge].isLosingWrites { fail("the volume stopped: \(reason)") }
        case .point, .pointDelayed, .logFilling, .logEased, .logFull, .cacheFailed, .logObstructed, .logUnobstructed, .unsentLate,
            .unsentCaughtUp:
            break
        case .imaged(let range): volume.regions?.table.endImaging(range)
        }
    }

    private func open() {
        guard let core, !isDead else { return }
        lastCall += 1
        let call = lastCall
        process.call(OpenCoding.encode(core.openRequest(incarnation: incarnation))) { [weak self] status, body in
            // The answer to the last question counts.
            guard let self, !isDead, call == lastCall else { return }
            opened(status, body)
        }
    }

    private func opened(_ status: UInt16, _ body: ByteBuffer) {
        guard let core, !isStopped else { return }
        switch (status, OpenCoding.reply(from: body)) {
        case (OpenCoding.done, let reply?):
            core.opened(reply)
            if initiator == nil, !isFenced {
                let initiator = Initiator(world: world, owner: self, volume: core)
                self.initiator = initiator
                initiator.start()
            }
        case (OpenCoding.later, _): later { $0.open() }
        default:
            // What the machine had in flight fails then, as it should.
            if !isFenced, volume.isRefusalOfCopy() { initiator?.die() }
            core.openRefused(String(buffer: body))
        }
    }
}
