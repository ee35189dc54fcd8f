import Blocks
import DequeModule
import NIOCore

// The way of a point:
//
//   begin ─> add ... ─> commit ─> [file durable] ─> RECEIVED ─> [pieces on the disk] ─> [disk durable]
//                                                              ─> [position durable] ─> APPLIED ─> file removed
//
//   receiving   at most one point (`incoming`); a lost session or an error drops it and its file
//   received    at most `pointsQueuedMax` points (`queue`), applied one after the other
//   held        points of a group (PointJournal+Groups.swift): received, and not applied before all of the cut are
//   kept        what a point overwrites goes into its undo file first (PointKeeping.swift), when past points are to be kept
//   reads       wait for the last received point that overlaps them; a point waits, before it is
//               applied, for the reads that were there before it and overlap it
//
// After a crash: complete files behind the position are applied again in order, others are removed.

/// The redo journal of one on-prem disk: points come in whole, and reach the disk whole and in order.
///
/// All calls are made on the owner's event loop; completions and callbacks run there too, some of them before the
/// call returns.
public final class PointJournal<Disk: DiskFile, Directory: StorageDirectory> {
    /// The attachment whose points the journal takes.
    public let volume: VolumeIdentifier
    /// The size of the disk.
    public private(set) var sectorCount: UInt64
    /// The limits in force.
    public let limits: PointJournalLimits
    /// How far the points have come.
    public internal(set) var position = PointPosition(received: 0, applied: 0)
    /// Whether the journal works.
    public internal(set) var state = PointJournalState.recovering
    /// The generation whose points are taken; nil while nobody has a lease.
    public private(set) var lease: LeaseGeneration?
    /// Called each time a point is durable on the disk.
    public var onApplied: ((PointNumber) -> Void)?
    /// Called when a point is received and some wait for an agreement (see `agree`).
    public var onHeld: (() -> Void)?
    /// Called once, when the journal stops.
    public var onFailed: ((PointJournalError) -> Void)?

    let disk: Disk
    let directory: Directory
    var positionFile: Directory.File?
    var record: PositionRecord

    var incoming: IncomingPoint<Directory.File>?
    /// A refused point whose file is being removed. The next point's file is opened after that.
    var cleaning: IncomingPoint<Directory.File>?
    /// Those who wait until no point is arriving, being committed or being cleaned away.
    var settleWaiters: [() -> Void] = []

    var queue = Deque<ReceivedPoint<Directory.File>>()
    var piecesQueued = 0
    var applying: PointApplication<Directory.File>?
    var appliedWaiters: [(point: PointNumber, completion: (Result<PointPosition, PointJournalError>) -> Void)] = []
    var removalsInFlight = 0
    /// Points of an ended attachment that the opening has put aside, because they were held: see `PointFormat.keptFileName`.
    public internal(set) var keptPoints = 0
    /// The files of such points that were there before.
    var keptNames: Set<String> = []
    /// Points that recovery has applied and whose files it has to remove.
    var recoveredPoints: [PointNumber] = []

    /// What the owner has agreed to and the position file does not say yet.
    var agreement: (through: PointNumber, cut: GroupPoint?)?
    var isRecordingAgreement = false
    /// See PointJournal+Stalling.swift.
    var stall: PointJournalError?
    /// The point of which the disk may have a part, and had no room for the rest, until it has all of it.
    var partialPoint: PointNumber?
    /// Points of groups are applied like any other: a planted bug.
    var appliesHeldPoints = false

    /// How many points are to be kept, and since when undo files are being made says `record`.
    public internal(set) var keeping = PointKeeping.none
    /// The undo files up to that of the applied point, or of the one that is being applied; ascending, without gaps.
    var undos = Deque<UndoFile>()
    /// What they take.
    var undoBytes: UInt64 = 0
    var isRecordingKeeping = false
    /// The past point that must not go, whatever else does; see `pin`.
    var pinnedPoint: PointNumber?
    /// Called when the points before this one could not be kept.
    public var onKeepingGivenUp: ((PointNumber, PointJournalError) -> Void)?
    /// Milliseconds since 1970.
    let wallClock: () -> UInt64
    var views: [ObjectIdentifier: PastView<Disk, Directory>] = [:]
    /// How often all views were ended: those that are being opened count too.
    var viewsEnded: UInt64 = 0
    var rollBack: RollBack?
    /// The point whose undo file can't be read, though it may be half applied.
    var damagedUndo: PointNumber?
    /// Names of undo files that recovery has found and that lead nowhere.
    var staleUndoNames: [String] = []

    var readsInFlight: [UInt64: SectorRange] = [:]
    var readsReady = Deque<WaitingRead>()
    var readsBlocked: [WaitingRead] = []
    var readSerial: UInt64 = 0
    var isStartingReads = false
    var allocationsInFlight = 0

    var closeCompletion: (() -> Void)?

    init(
        disk: Disk, sectorCount: UInt64, directory: Directory, volume: VolumeIdentifier, limits: PointJournalLimits,
        wallClock: @escaping () -> UInt64
    ) {
        self.disk = disk
        self.sectorCount = sectorCount
        self.directory = directory
        self.volume = volume
        self.limits = limits
        self.wallClock = wallClock
        record = PositionRecord(sequence: 0, volume: volume, position: PointPosition(received: 0, applied: 0))
    }

    /// Opens the journal in `directory`, which it has for itself, and brings the disk to the last received point first.
    ///
    /// When the directory belongs to another attachment, what that one left is applied, but for points that it held, which are put
    /// aside (`keptPoints`), and the points of `volume` start at 1; the past points of that one are not kept any more. The disk stays
    /// the caller's to close, after `close`.
    /// - Parameter wallClock: milliseconds since 1970, for people who look for a past point.
    public static func open(
        disk: Disk, sectorCount: UInt64, directory: Directory, volume: VolumeIdentifier, keeping: PointKeeping = .none,
        limits: PointJournalLimits = PointJournalLimits(), wallClock: @escaping () -> UInt64 = { 0 },
        completion: @escaping (Result<PointJournal, PointJournalError>) -> Void
    ) {
        let journal = PointJournal(
            disk: disk, sectorCount: sectorCount, directory: directory, volume: volume, limits: limits, wallClock: wallClock)
        journal.keeping = keeping
        journal.recover { result in
            switch result {
            case .success:
                journal.state = .open
                journal.keep(keeping)
                completion(.success(journal))
            case .failure(let error):
                if journal.state == .recovering { journal.state = .failed(error) }
                journal.closeFiles()
                completion(.failure(error))
            }
        }
    }

    /// Points that are received and not applied.
    public var pointsQueued: Int { queue.count }

    /// The point that is arriving, if one is.
    public var unfinishedPoint: PointNumber? { incoming?.header.point }

    /// From now on only points of `generation` are taken (nil: none). An unfinished point of another is dropped; the
    /// completion runs when it is gone, or committed when that was under way: then `position` is final for the old lease.
    public func setLease(_ generation: LeaseGeneration?, completion: @escaping () -> Void = {}) {
        lease = generation
        if let incoming, incoming.header.generation != generation, incoming.commitCompletion == nil {
            refuse(incoming, .fenced(lease: generation, offered: incoming.header.generation))
        }
        whenSettled(completion)
    }

    /// The disk has become larger: points that begin from now on, and reads, may reach the new end.
    public func diskDidGrow(to sectorCount: UInt64) { self.sectorCount = max(self.sectorCount, sectorCount) }

    /// Completes when every point that is received now is durable on the disk.
    public func whenAllApplied(completion: @escaping (Result<PointPosition, PointJournalError>) -> Void) {
        if case .failed(let error) = state { return completion(.failure(error)) }
        if state == .closed { return completion(.failure(.closed)) }
        whenApplied(through: position.received, completion: completion)
    }

    /// Completes when every point that may be applied now is durable on the disk; what is held stays so.
    public func whenAgreedApplied(completion: @escaping (Result<PointPosition, PointJournalError>) -> Void) {
        if case .failed(let error) = state { return completion(.failure(error)) }
        if state == .closed { return completion(.failure(.closed)) }
        let through = agreement?.through ?? 0
        whenApplied(
            through: queue.prefix { !isHeldForGroup($0) || $0.index.point <= through }.last?.index.point ?? position.applied,
            completion: completion
        )
    }

    func whenApplied(through point: PointNumber, completion: @escaping (Result<PointPosition, PointJournalError>) -> Void) {
        if position.applied >= point { return completion(.success(position)) }
        appliedWaiters.append((point, completion))
    }

    /// Stops: drops an unfinished point and lets what is in flight end. Received points that are not applied stay in
    /// the journal for the next `open`. Call it once.
    public func close(completion: @escaping () -> Void) {
        if case .failed = state {} else { state = .closed }
        if let incoming, incoming.commitCompletion == nil { refuse(incoming, .closed) }
        failWaiters(.closed)
        closeCompletion = completion
        if let applying, applying.waitsForReads { stop(applying, .closed) }
        finishCloseIfIdle()
    }

    func finishCloseIfIdle() {
        guard closeCompletion != nil, incoming == nil || incoming?.failure != nil, cleaning == nil, applying == nil,
            rollBack == nil, !isRecordingAgreement, !isRecordingKeeping, readsInFlight.isEmpty, allocationsInFlight == 0,
            removalsInFlight == 0
        else { return }
        let completion = closeCompletion
        closeCompletion = nil
        closeFiles()
        completion?()
    }

    private func closeFiles() {
        for point in queue { point.file.close() }
        positionFile?.close()
        positionFile = nil
    }

    /// Stops the journal for good: nothing is applied any more, and everybody who waits hears why.
    func fail(_ error: PointJournalError) {
        if case .failed = state { return }
        let wasOpen = state == .open
        state = .failed(error)
        if let incoming, incoming.commitCompletion == nil { refuse(incoming, error) }
        failWaiters(error)
        if let applying, applying.waitsForReads { stop(applying, error) }
        if wasOpen { onFailed?(error) }
        finishCloseIfIdle()
    }

    private func failWaiters(_ error: PointJournalError) {
        let reads = readsBlocked + readsReady
        readsBlocked = []
        readsReady = []
        let waiters = appliedWaiters
        appliedWaiters = []
        for read in reads { read.completion(.failure(error)) }
        for waiter in waiters { waiter.completion(.failure(error)) }
    }

    /// The error of a journal that takes nothing at the moment.
    var refusal: PointJournalError? {
        switch state {
        case .open: rollBack.map { .busy("the disk goes back to point \($0.target)") }
        case .recovering: .busy("the journal is recovering")
        case .failed(let error): error
        case .closed: .closed
        }
    }
}

extension PointJournalError {
    /// The error of a file of the journal.
    init(journal error: StorageFileError) {
        switch error {
        case .noSpace(let text): self = .noSpace(text)
        case .notFound(let text), .denied(let text), .locked(let text), .failed(let text): self = .journal(text)
        }
    }

    /// The error of the disk.
    init(disk error: StorageFileError) {
        switch error {
        case .noSpace(let text): self = .noSpace(text)
        case .notFound(let text), .denied(let text), .locked(let text), .failed(let text): self = .disk(text)
        }
    }
}
