import Blocks
import Ciphers
import NIOCore
import WriteLog

// The life of a write in a cloud-only disk:
//
//     write ──► journal (acknowledged, flushed) ──seal──► drain: blocks, seals ──► presence ──► fdatasync ──► epoch released
//
// While an epoch is in the journal, the journal's map hides what the files hold of its sectors, so what a drain does to them is seen
// by nobody. Only reads of the files that began before the epoch was sealed may still be on their way to such a sector: a drain waits
// for those, see `CloudOnlyDisk+Draining.swift`.

/// The bounds of a cloud-only disk, and what happens at each.
public struct CloudOnlyLimits: Sendable {
    /// The bounds of its journal: beyond them writes wait until an epoch was drained.
    public var journal: WriteLogLimits
    /// An epoch of the journal is drained when it holds this many bytes, or when its first write is this old.
    public var drainBytes: UInt64
    public var drainAge: TimeAmount

    public init(
        journal: WriteLogLimits = WriteLogLimits(logBytesMax: 256 << 20), drainBytes: UInt64 = 16 << 20, drainAge: TimeAmount = .seconds(5)
    ) {
        self.journal = journal
        self.drainBytes = drainBytes
        self.drainAge = drainAge
    }
}

/// A run of sectors that the disk holds.
public struct CloudOnlySegment {
    /// The sectors.
    public let range: SectorRange
    /// What they hold.
    public let content: CloudOnlyContent
}

/// What a run of sectors on the disk holds.
public enum CloudOnlyContent {
    /// Zeroes.
    case zeroes
    /// Bytes in the journal.
    case journal(LogSegment)
    /// Bytes in the files.
    case stored
}

/// What is known of a disk, so that a lost, new or old one can be told from it.
public struct CloudOnlyMark: Equatable, Sendable {
    /// The identity of the disk: also one that is made in its place has another.
    public let identifier: LogIdentifier
    /// The last epoch that it had drained for good.
    public let epoch: PointNumber

    public init(identifier: LogIdentifier, epoch: PointNumber) {
        self.identifier = identifier
        self.epoch = epoch
    }
}

/// What a cloud-only disk has done and holds, for the owner to show.
public struct CloudOnlyStatistics: Equatable, Sendable {
    /// Bytes of sectors that the files hold, zeroes among them.
    public var storedBytes: UInt64 = 0
    /// Bytes that the journal takes, and how many it may.
    public var journalBytes: UInt64 = 0
    public var journalBytesMax: UInt64 = 0
    /// Epochs that were drained since the disk was opened.
    public var drainedEpochs: UInt64 = 0

    public init() {}
}

/// The cloud-only writes of one volume. See the module's README for what it promises.
///
/// All calls are made on one event loop, where all completions run too, possibly before the call returns.
public final class CloudOnlyDisk<Directory: StorageDirectory> {
    /// The volume whose writes these are.
    public let volume: VolumeIdentifier
    /// Why the disk takes no more writes, or can't drain; nil while all is well. It doesn't heal.
    public internal(set) var failure: WriteLogError?

    let journal: WriteLog<Directory>
    let limits: CloudOnlyLimits
    let blocks: Directory.File
    let seals: Directory.File
    let presenceFile: Directory.File
    let encoding: CloudOnlyEncoding
    let blockCiphers: EraCiphers
    let sharedBlockCipher: SharedBlockCipher
    let presenceCiphers: EraCiphers
    let clock: () -> NIODeadline

    /// What the files hold; what the journal holds over them is not in it.
    var presence: PresenceMap
    /// Which slot of the root holds what the last epoch that the journal has let go of left.
    var rootSlot: Int
    /// How many sectors were sealed since the disk was opened: their numbers.
    var sealedSectors: UInt64 = 0
    /// Reads of the files in flight, by whether they began before or after the last drain did.
    var readsInFlight = [0, 0]
    var readGeneration = 0
    var onReadsEnded: (() -> Void)?
    var isDraining = false
    var isSealing = false
    var isClosed = false
    /// Changes of the files that are under way: whoever closes the disk waits for them.
    let changes = ChangesInFlight()
    /// The file system took no changes of a drain: not before then is it tried again.
    var drainRetryAt: NIODeadline?
    var drainedEpochs: UInt64 = 0
    /// The last epoch of the journal that no crash brings back.
    var releasedThrough: PointNumber
    var scratch = (blocks: ByteBuffer(), seals: ByteBuffer())

    init(_ opened: OpenedCloudOnlyDisk<Directory>, limits: CloudOnlyLimits, clock: @escaping () -> NIODeadline) {
        volume = opened.journal.volume
        journal = opened.journal
        self.limits = limits
        blocks = opened.files.blocks
        seals = opened.files.seals
        presenceFile = opened.files.presence
        encoding = CloudOnlyEncoding(volume: opened.journal.volume)
        blockCiphers = opened.blockCiphers
        sharedBlockCipher = opened.blockCiphers.current.shared()
        presenceCiphers = opened.presenceCiphers
        presence = opened.presence
        releasedThrough = journal.oldestEpoch - min(journal.oldestEpoch, 1)
        rootSlot = opened.rootSlot
        self.clock = clock
        journal.onWantsSeal = { [weak self] in self?.sealJournal() }
        drainNext()
    }

    /// Which disk this is, and how far it has come.
    public var mark: CloudOnlyMark {
        CloudOnlyMark(identifier: journal.logIdentifier, epoch: releasedThrough)
    }

    /// What the disk has done and holds.
    public var statistics: CloudOnlyStatistics {
        var statistics = CloudOnlyStatistics()
        statistics.storedBytes = presence.root.heldSectors * UInt64(BlockGeometry.sectorBytes)
        statistics.journalBytes = journal.usedBytes
        statistics.journalBytesMax = journal.limits.logBytesMax
        statistics.drainedEpochs = drainedEpochs
        return statistics
    }

    // MARK: Changing

    /// Writes sectors. Completes when the death of the process can't lose the write; that of the machine may until a flush.
    public func write(
        _ range: SectorRange, data: ByteBuffer, completion: @escaping (Result<Void, WriteLogError>) -> Void
    ) {
        if let failure { return completion(.failure(failure)) }
        journal.append(range, data: data, now: clock(), completion: completion)
    }

    /// Makes sectors read as zeroes; their space is freed when that is drained.
    public func writeZeroes(_ range: SectorRange, completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        if let failure { return completion(.failure(failure)) }
        journal.appendZeroes(range, now: clock(), completion: completion)
    }

    /// Forgets sectors: what is below the disk shows again. Durable with the next flush, as a write is.
    public func remove(_ range: SectorRange, completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        if let failure { return completion(.failure(failure)) }
        journal.appendAbsence(range, now: clock(), completion: completion)
    }

    /// Completes when every change that was ordered before the call survives a crash.
    public func flush(completion: @escaping (Result<Void, WriteLogError>) -> Void) { journal.flush(completion: completion) }

    /// Completes when every change that was acknowledged before the call survives a crash.
    public func flushAcknowledged(completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        journal.flushAcknowledged(completion: completion)
    }

    /// Brings what is in the journal to the files now. By itself the disk does so as `CloudOnlyLimits` say.
    public func drain() { sealJournal() }

    // MARK: Time

    /// Work that falls due with time. Called every 100 ms or sooner.
    public func tick() {
        let now = clock()
        journal.observe(now: now)
        if let retry = drainRetryAt, now >= retry { drainRetryAt = nil }
        // Also what was sealed after whoever waited for it had been told that it takes too long.
        drainNext()
        guard !isSealing, journal.currentEpochStartedAt != nil else { return }
        let isOld = journal.currentEpochStartedAt.map { now - $0 >= limits.drainAge } ?? false
        if isOld || journal.currentEpochBytes >= limits.drainBytes || journal.wantsSeal { sealJournal() }
    }

    /// Tries again what the journal's file system had no room for. Called about once a second.
    public func retryJournal() { journal.tick(now: clock()) }

    /// True while writes wait for room: in the journal, or in the file system.
    public var isWaitingForSpace: Bool { journal.isWaitingForSpace }
    /// What keeps the file system from taking what is ordered; nil while nothing does.
    public var obstacle: LogObstacle? { journal.obstacle }

    /// Fails the writes that wait for room since before `deadline`.
    public func failHeld(appendedBefore deadline: NIODeadline, _ error: WriteLogError) {
        journal.failHeld(appendedBefore: deadline, error)
    }

    /// Fails everything that waits for room.
    public func failWaiting(_ error: WriteLogError) { journal.failWaiting(error) }

    /// What arrives in one turn of the owner's loop goes to the journal together; see `WriteLog.onGathering`.
    public var onGathering: (() -> Void)? {
        get { journal.onGathering }
        set { journal.onGathering = newValue }
    }

    /// See `WriteLog.onAdmissionDue`.
    public var onAdmissionDue: ((NIODeadline) -> Void)? {
        get { journal.onAdmissionDue }
        set { journal.onAdmissionDue = newValue }
    }

    /// Writes what has gathered.
    public func writeGathered() { journal.writeGathered() }

    /// Lets writes go on that were put off until now.
    public func admitDue(now: NIODeadline) { journal.admitDue(now: now) }

    /// Flushes and gives the files back. What is not drained stays in the journal.
    public func close(completion: @escaping (Result<Void, WriteLogError>) -> Void) {
        isClosed = true
        journal.close { [self] result in
            failure = failure ?? .closed
            changes.whenEnded { [self] in
                for file in [blocks, seals, presenceFile] { file.close() }
                completion(result)
            }
        }
    }

    /// Ends the disk: what it holds in memory and in its files can still be read.
    func fail(_ error: WriteLogError) {
        if failure == nil { failure = error }
    }
}
