import NIOCore
import SecureCache
import SimulatedStorage

/// One cloud edge: its machine, its line to home, and the process on it while there is one.
final class SimulatedEdge {
    let number: Int
    let machine: SimulatedMachine
    let line: SimulatedLine
    private(set) var process: CloudProcess?
    /// The volume of the group that the next process can't open for a while.
    var lateVolume: Int?
    /// The size that the cache is to have, as the state directory keeps it.
    private(set) var cacheBytes: UInt64
    /// How the cache is to be divided, kept in the same way.
    private(set) var cacheDivision = CacheDivision()
    private unowned let world: World
    private var copyOfCache: StorageCopy?
    /// Syncs of the logs fail, and what they have lost of the medium is still in memory: whoever kills the process now takes as much away as a
    /// power cut may. Volumes may stop, or not open.
    private(set) var isLosingWrites = false

    init(number: Int, world: World) {
        self.number = number
        self.world = world
        cacheBytes = world.cacheBytes
        machine = SimulatedMachine(scheduler: world.scheduler)
        line = SimulatedLine(scheduler: world.scheduler)
    }

    func start() {
        if process == nil { process = CloudProcess(edge: self, world: world) }
    }

    /// The process ends with the world.
    func end() {
        process?.die()
        process = nil
        copyOfCache = nil
        machine.discard()
    }

    /// The process dies, or the machine with it; what its volumes must have when they are back is noted.
    func crash(power: Bool) {
        guard let process else { return }
        let mayLose = power || isLosingWrites
        for volume in world.volumes where volume.edge == number {
            let history = volume.history
            volume.isHistoryKnown = false
            let isRecovered = world.served(volume)?.initiator?.isRecovered == true
            if mayLose || isRecovered {
                volume.regions?.crashed(acknowledged: mayLose ? nil : history.lastAcknowledgedNumbers)
            }
            if mayLose {
                history.mustSurvive(through: history.flushedThrough)
            } else if isRecovered {
                history.mustSurvive(through: max(history.flushedThrough, history.lastAcknowledgedNumber))
            }
        }
        process.die()
        self.process = nil
        line.cloudDied()
        if power { machine.cutPower() } else { machine.killProcess() }
    }

    // MARK: Syncs of the logs

    /// From now on syncs of the logs fail, and lose some of what they should have written.
    func failLogs() {
        isLosingWrites = true
        machine.faults.failsSyncsOf = Self.logFiles
    }

    /// Syncs of the logs succeed again; a process that has seen one fail is dead by now.
    func mendLogs() {
        isLosingWrites = false
        if machine.faults.failsSyncsOf == Self.logFiles { machine.faults.failsSyncsOf = nil }
    }

    private static let logFiles = "epoch-"

    // MARK: The cache's size and division

    /// Gives the cache another size, which is kept a while later: an edge that dies before starts with the size that there was.
    func resizeCache(to byteCount: UInt64) {
        guard let process, process.resizeCache(to: byteCount) else { return }
        world.scheduler.schedule(microseconds: 0...400_000) { [weak self] in
            if self?.process === process { self?.cacheBytes = byteCount }
        }
    }

    /// Divides the cache in another way; that is kept a while later, too.
    func divideCache(_ division: CacheDivision) -> Bool {
        guard let process, process.divideCache(division) else { return false }
        world.scheduler.schedule(microseconds: 0...400_000) { [weak self] in
            if self?.process === process { self?.cacheDivision = division }
        }
        return true
    }

    // MARK: Old copies

    /// Somebody copies the cache, blocks and records, while the edge is down.
    func keepCopyOfCache() { copyOfCache = machine.copy(directories: CloudProcess.cacheDirectories) }

    /// Somebody puts the copy back; nobody may notice but by missing blocks.
    func restoreCopyOfCache() {
        if let copyOfCache { machine.restore(copyOfCache) }
    }
}
