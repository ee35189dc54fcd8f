import Blocks
import Ciphers
import DequeModule
import NIOCore

// The life of a write in the log:
//
//     append ──► held (no room, or little) ──► ordered: in `map`, in the batch that gathers ──► written ──► durable
//                                                                                       │           │
//                                                             acknowledged, leaves the memory       └ flush answered
//
// "Written" is in the page cache: a killed process loses nothing that it acknowledged. It must not,
// for the initiator lives on, takes the next flush for a flush of all it has written, and never
// writes those bytes again. Only a crash of the machine may lose what no flush has covered.
//
// One batch is written at a time: at once, on the loop, when it is small and the file thinks that no
// device need be waited for, else on another thread. What arrives in one turn of the loop, or while a
// batch is written, gathers in the next one; what waits for durability is answered by one round of
// fdatasyncs. Epochs follow one another in the same sequence of batches:
//
//     epoch:   gathering ──seal()──► closed ──(seal durable)──► sealed ──release()──► gone

/// The write log of one volume. See the module's README for what it promises.
///
/// All calls are made on one event loop, where all completions run too, possibly before the call returns.
public final class WriteLog<Directory: StorageDirectory> {
    /// The volume whose writes these are.
    public let volume: VolumeIdentifier
    /// The name of this log, the same for all its life.
    public let logIdentifier: LogIdentifier
    /// The bounds in force; `resize` changes them.
    public internal(set) var limits: WriteLogLimits
    /// The highest point that was sealed and is durable; the number before the first epoch when there was none.
    public internal(set) var lastSealedPoint: PointNumber
    /// Why the log takes no more writes; nil while it does.
    public internal(set) var failure: WriteLogError?
    /// Is called when `wantsSeal` becomes true.
    public var onWantsSeal: (() -> Void)?
    /// Is called when the first of some appends gathers: call `writeGathered` when the others of this turn of the loop are in,
    /// and they go to the file together. Without it each goes by itself.
    public var onGathering: (() -> Void)?

    /// Is called when the append that waits longest may go on at a time to come, because the log is nearly full: call `admitDue`
    /// then. Without it, what is slowed goes on with the next `observe`.
    public var onAdmissionDue: ((NIODeadline) -> Void)?

    let directory: Directory
    /// The volume's data keys; see WriteLog+Keys.swift.
    var keys: DataKeys
    let encoding: LogEncoding
    var random: RandomSource

    /// All unreleased epochs in order; the last one gathers.
    var epochs: [LogEpoch]
    /// The newest content of every sector, over all unreleased epochs.
    var map: ExtentMap<LogExtent>

    /// The batch that takes writes, and those behind it on the way to the file.
    var gathering: LogBatch?
    var queue: Deque<LogBatch> = []
    /// The sequence number of the next batch, and how far batches were written and made durable.
    var nextSequence: UInt64
    var writtenThrough: UInt64
    var durableThrough: UInt64
    /// A file operation of the writer is in flight; the writer's loop runs; the owner was told to call `writeGathered`.
    var isWriting = false
    var isPumping = false
    var isGatheringTold = false
    /// A round of syncs is in flight; the directory has unsynchronised names.
    var isSynchronizing = false
    var isDirectoryDirty = false
    /// What the file system refuses: batches and new files, and the removal of files.
    var writing = ObstructedWork()
    var removing = ObstructedWork()
    /// A batch that the file system did not take, as it stands in the file. It is kept for the retry: the same nonce must seal the same bytes.
    var encoded: ByteBuffer?
    /// The same for the header of a file in the making.
    var fileInTheMaking: (file: LogFile, header: ByteBuffer)?

    /// Appends that wait, unordered, for room, or for their turn while there is little.
    var held: Deque<PendingAppend> = []
    /// Slows appends while the log is nearly full.
    var pace: AdmissionPace
    /// The latest time that the log was told.
    var timeSeen = NIODeadline.uptimeNanoseconds(0)
    /// For when `onAdmissionDue` was called last, until then.
    var admissionAskedAt: NIODeadline?
    /// Bytes of files that were removed since the last `observe`.
    var releasedBytes: UInt64 = 0
    /// The completions of ordered appends, with the batch that has to be written first.
    var writeWaiters: Deque<(sequence: UInt64, completion: LogCompletion)> = []
    /// What waits until a batch is durable.
    var durabilityWaiters: Deque<(sequence: UInt64, completion: LogCompletion)> = []
    /// Releases whose files are still there.
    var releases: Deque<(through: PointNumber, files: [LogFile], completion: LogCompletion)> = []
    var isReleasing = false
    /// Files without a batch, under an older key, that are being removed.
    var emptyFiles: [LogFile] = []
    var isRemovingEmpty = false
    var isClosed = false
    var closeCompletion: LogCompletion?

    var unwrittenBytes = 0
    /// Bytes of all files that stand in the directory, and how many of them are headers and batches of epochs. The others are room
    /// that the files have already; see WriteLog+Spares.swift.
    var fileBytes: UInt64
    var contentBytes: UInt64
    /// What the index takes of memory, but for `map`.
    var epochsIndexBytes: Int
    /// Files without an epoch, which the next ones take.
    var spares: [LogSpare]
    var spareNumber: UInt64
    /// Something is being done to a spare, or to the room behind an epoch's batches; it can't be done for now; all of it is given back, and
    /// the writer waits for that.
    var isTendingSpares = false
    var sparesRest = false
    var givesAllBack = false
    var writerAwaitsRoom = false
    /// Changes of files and names that a close waits for.
    let changes = ChangesInFlight()
    var appendedBytes: UInt64 = 0
    var waitedAppends: UInt64 = 0
    var waitedTime = TimeAmount.zero
    var syncs: UInt64 = 0
    var batches: UInt64 = 0
    var hasAskedForSeal = false
    var scratch = ByteBuffer()
    /// A batch that is written at once, which leaves its memory for the next.
    var atOnce = ByteBuffer()

    init(
        recovered state: RecoveredLog<Directory>, directory: Directory, keys: DataKeys, limits: WriteLogLimits,
        random: RandomSource
    ) {
        volume = state.volume
        logIdentifier = state.logIdentifier
        self.limits = limits
        pace = AdmissionPace(startPercent: limits.slowingPercent)
        self.directory = directory
        self.keys = keys
        self.random = random
        encoding = LogEncoding(volume: state.volume)
        epochs = state.epochs
        map = state.map
        contentBytes = state.epochs.reduce(0) { $0 + $1.contentBytes }
        epochsIndexBytes = state.epochs.reduce(0) { $0 + $1.indexSize.byteCount }
        fileBytes = state.epochs.reduce(0) { $0 + $1.fileBytes } + state.spares.reduce(0) { $0 + $1.byteCount }
        spares = state.spares
        spareNumber = state.spareNumber
        nextSequence = state.nextSequence
        writtenThrough = state.nextSequence - 1
        durableThrough = state.nextSequence - 1
        lastSealedPoint = (state.epochs.last?.number ?? 1) - 1
    }

    // MARK: State

    /// The epoch that gathers. There always is one.
    var current: LogEpoch { epochs[epochs.count - 1] }
    /// The number of the epoch that gathers: the next point.
    public var currentEpoch: PointNumber { current.number }
    /// The oldest epoch that was not released.
    public var oldestEpoch: PointNumber { epochs[0].number }

    /// True while appends wait for room, in the log or in its file system.
    public var isWaitingForSpace: Bool { writing.obstacle != nil || isFull }

    /// What keeps the file system from taking what the log has for it; nil while nothing does. It stands until a retry has succeeded.
    public var obstacle: LogObstacle? { writing.obstacle ?? removing.obstacle }

    /// True while appends wait for room within the log's bound.
    public var isFull: Bool { held.first.map { !hasLogRoom(for: fileCost(of: $0)) } ?? false }

    /// True when only a seal brings room: the log is full, or it is half full and the epoch that gathers holds a sixteenth of it.
    /// Room comes back a point at a time; in smaller steps writers that are slowed for it go on more evenly.
    public var wantsSeal: Bool {
        guard failure == nil, current.hasWrites else { return false }
        if isFull && writing.obstacle == nil { return true }
        let gathered = max(current.contentBytes, limits.logBytes(ofIndex: current.indexSize.byteCount))
        return usedBytes >= limits.logBytesMax / 2 && gathered >= limits.logBytesMax / 16
    }

    /// What counts for `WriteLogLimits.logBytesMax`: `heldBytes`, or what the index in memory stands for when that is more.
    public var usedBytes: UInt64 { max(heldBytes, limits.logBytes(ofIndex: indexBytes)) }

    /// Bytes of writes in files and on their way to them. Room that the files have beyond that does not count, for it is given back before
    /// writers want it.
    var heldBytes: UInt64 { contentBytes + UInt64(unwrittenBytes) }

    /// What the log's index takes of memory; see LogIndexSize.swift.
    public var indexBytes: Int { epochsIndexBytes + map.count * LogIndexSize.extentBytes }

    /// What the log has done and holds.
    public var statistics: WriteLogStatistics {
        var statistics = WriteLogStatistics()
        statistics.fileBytes = fileBytes
        statistics.usedBytes = usedBytes
        statistics.unwrittenBytes = unwrittenBytes
        statistics.indexBytes = indexBytes
        statistics.oldestAppendAt = epochs.first { $0.hasWrites }?.firstAppendAt
        statistics.appendedBytes = appendedBytes
        statistics.syncs = syncs
        statistics.batches = batches
        statistics.waitingAppends = held.count
        statistics.waitedAppends = waitedAppends
        statistics.waitedTime = waitedTime
        statistics.releasedBytesPerSecond = UInt64(pace.releaseRate)
        return statistics
    }

    // MARK: Appending

    /// Orders a write behind all before it. `data` has exactly `range.byteCount` readable bytes.
    ///
    /// Completes when the write is in the file: the death of the process can't lose it, that of the machine may until a flush
    /// has completed. Reads see it from the time it was ordered. At a limit the append waits (see `WriteLogLimits`).
    public func append(
        _ range: SectorRange, data: ByteBuffer, now: NIODeadline, completion: @escaping (Result<Void, WriteLogError>) -> Void
    ) {
        assert(data.readableBytes == range.byteCount, "a write has as many bytes as its range")
        guard data.readableBytes == range.byteCount, range.byteCount <= LogFormat.batchDataBytesMax / 4 else {
            return completion(.failure(.tooLarge(data.readableBytes)))
        }
        take(PendingAppend(range: range, data: data, now: now, completion: completion))
    }

    /// Orders the zeroing of a range behind all writes before it. Completes as `append` does.
    public func appendZeroes(
        _ range: SectorRange, now: NIODeadline, completion: @escaping (Result<Void, WriteLogError>) -> Void
    ) {
        take(PendingAppend(range: range, data: nil, kind: .zeroes, now: now, completion: completion))
    }

    /// Orders that a range is no longer in this layer, behind all writes before it: `segments` tell it as absent. For a log under
    /// which there is something, and which does not go home. Completes as `append` does.
    public func appendAbsence(
        _ range: SectorRange, now: NIODeadline, completion: @escaping (Result<Void, WriteLogError>) -> Void
    ) {
        take(PendingAppend(range: range, data: nil, kind: .absent, now: now, completion: completion))
    }

    private func take(_ append: PendingAppend) {
        if let refusal { return append.completion(.failure(refusal)) }
        if append.range.isEmpty { return append.completion(.success(())) }
        let cost = fileCost(of: append)
        if cost > limits.logBytesMax {
            return append.completion(.failure(.noSpace("a write of \(append.range.byteCount) bytes is larger than the log")))
        }
        timeSeen = max(timeSeen, append.now)
        if !held.isEmpty || !hasRoom(for: append) || dueTime(of: append) != nil {
            held.append(append)
            askForAdmission()
            askForSeal()
            return
        }
        order(append)
        gathered()
        askForSeal()
    }

    /// Has what was ordered written: when the owner says that this turn is over, if it does.
    private func gathered() {
        guard let onGathering else { return pump() }
        if isGatheringTold || isWriting || isPumping { return }
        isGatheringTold = true
        onGathering()
    }

    /// Writes what has been appended; see `onGathering`.
    public func writeGathered() {
        isGatheringTold = false
        pump()
    }

    /// The error that answers every change; nil while the log takes them.
    var refusal: WriteLogError? { failure ?? (isClosed ? .closed : nil) }

    /// What an append takes in a file when it is a batch of its own.
    private func fileCost(of append: PendingAppend) -> UInt64 {
        UInt64(LogFormat.aligned(LogFormat.batchHeaderBytes + 64 + LogFormat.sealedBytes(append.data?.readableBytes ?? 0)))
    }

    func hasRoom(for append: PendingAppend) -> Bool {
        let byteCount = append.data?.readableBytes ?? 0
        // A write alone always has memory: it has arrived.
        let hasMemory = unwrittenBytes == 0 || unwrittenBytes + byteCount <= limits.unwrittenBytesMax
        return hasMemory && writing.obstacle == nil && hasLogRoom(for: fileCost(of: append))
    }

    /// True when there is room for a write of this cost in the files, and in the index for one of any.
    private func hasLogRoom(for cost: UInt64) -> Bool {
        heldBytes + cost + UInt64(LogFormat.headerBytes) <= limits.logBytesMax
            && limits.logBytes(ofIndex: indexBytes + LogIndexSize.writeBytesMax) <= limits.logBytesMax
    }

    /// Gives the append its place in the journal and in the maps, in that order.
    private func order(_ append: PendingAppend) {
        let indexedBefore = indexBytes
        let batch = openBatch()
        let before = batch.isEmpty ? 0 : batch.byteCount
        let extent = batch.add(append.kind, start: append.range.start, count: append.range.count, data: append.data)
        let epoch = current
        changeIndex(of: epoch) {
            epoch.countRecord()
            epoch.insert(append.range, extent, isData: append.data != nil)
        }
        map.insert(append.range, extent)
        if epoch.firstAppendAt == nil { epoch.firstAppendAt = append.now }
        let byteCount = append.data?.readableBytes ?? 0
        unwrittenBytes += byteCount
        appendedBytes += UInt64(byteCount)
        let cost = max(UInt64(batch.byteCount - before), limits.logBytes(ofIndex: indexBytes - indexedBefore))
        pace.admitted(cost: cost, used: usedBytes, bound: limits.logBytesMax, now: timeSeen)
        if batch.sealedBytes >= limits.batchBytesMax || batch.records.count >= LogFormat.batchRecordsMax - 1 { closeBatch() }
        if isPlanted(.acknowledgesBeforeWritten) { return append.completion(.success(())) }
        writeWaiters.append((batch.sequence, append.completion))
    }

    /// The batch that takes writes.
    func openBatch() -> LogBatch {
        if let gathering { return gathering }
        let batch = LogBatch(epoch: current.number, sequence: nextSequence)
        if current.firstBatch == nil { current.firstBatch = nextSequence }
        changeIndex(of: current) { current.countBatch(records: 0) }
        nextSequence += 1
        gathering = batch
        return batch
    }

    /// Changes what an epoch has in memory.
    func changeIndex(of epoch: LogEpoch, _ change: () -> Void) {
        let before = epoch.indexSize.byteCount
        change()
        epochsIndexBytes += epoch.indexSize.byteCount - before
    }

    /// Sends the batch that gathers on its way.
    func closeBatch() {
        guard let batch = gathering else { return }
        gathering = nil
        queue.append(batch)
    }

    /// Orders held appends as long as there is room and their time has come.
    func admitHeld() {
        while failure == nil, let first = held.first, hasRoom(for: first), dueTime(of: first) == nil {
            held.removeFirst()
            waitedAppends += 1
            waitedTime = waitedTime + max(.zero, timeSeen - first.now)
            order(first)
        }
        askForAdmission()
        pump()
        askForSeal()
    }

    /// Acknowledges what is in the file.
    func completeWritten() {
        while let first = writeWaiters.first, first.sequence <= writtenThrough {
            writeWaiters.removeFirst()
            first.completion(.success(()))
        }
    }

    /// Tells the owner once when a seal would bring room.
    func askForSeal() {
        let wants = wantsSeal
        defer { hasAskedForSeal = wants }
        if wants, !hasAskedForSeal { onWantsSeal?() }
    }

    // MARK: Time and trouble

    /// Tries again what the file system did not take. The owner calls it about once a second.
    public func tick(now: NIODeadline) {
        sparesRest = false
        guard failure == nil, obstacle != nil else { return }
        writing.retry()
        removing.retry()
        // What is held waits until this has been written.
        pump()
        removeReleased()
        removeEmptyUnderOlderKeys()
    }

    /// Fails what waits for room: the owner's deadline for it has passed. What was ordered stays in the log.
    public func failWaiting(_ error: WriteLogError) {
        var failing = held.map(\.completion)
        held.removeAll()
        failing += writeWaiters.map(\.completion)
        writeWaiters.removeAll()
        if writing.obstacle != nil {
            failing += durabilityWaiters.map(\.completion)
            durabilityWaiters.removeAll()
        }
        for completion in failing { completion(.failure(error)) }
    }

    /// The file system did not take a batch or a new file. What was ordered stays in memory for the next try; when the log is being
    /// closed there is none, and the owner hears it.
    func couldNotWrite(_ error: StorageFileError) {
        guard let obstacle = LogObstacle(error) else { return poison(.file(error)) }
        if obstacle == .noSpace, givesRoomBack() { return }
        if !isClosed { return writing.met(obstacle) }
        if case .noSpace(let text) = error { poison(.noSpace(text)) } else { poison(.file(error)) }
    }

    /// Ends the log for writing: whatever waits fails, loudly, and everything later too.
    func poison(_ error: WriteLogError) {
        if failure != nil { return }
        failure = error
        var failing = held.map(\.completion)
        failing += writeWaiters.map(\.completion)
        failing += durabilityWaiters.map(\.completion)
        failing += releases.map(\.completion)
        held.removeAll()
        writeWaiters.removeAll()
        durabilityWaiters.removeAll()
        releases.removeAll()
        for completion in failing { completion(.failure(error)) }
    }
}
