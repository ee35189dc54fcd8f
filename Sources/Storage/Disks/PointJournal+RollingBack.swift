import Blocks
import NIOCore

// Back to a past point:
//
//     every undo file read and found whole ──► held points put aside, files of applied ones durably gone
//         ──► target durable in the position file
//         ──► the newest point undone, disk durable, position one lower, durable ──► ... ──► at the target
//         ──► undo files behind it removed, durably ──► target taken out of the position file
//
// A crash anywhere leaves the target in the position file, and opening goes on. Undoing a point twice is undoing it once.

/// The way back to a past point.
final class RollBack {
    let target: PointNumber
    let completion: (Result<Void, PointJournalError>) -> Void
    /// Files are being changed: what fails from now on ends the journal, until it is opened again.
    var hasBegun = false

    init(to target: PointNumber, completion: @escaping (Result<Void, PointJournalError>) -> Void) {
        self.target = target
        self.completion = completion
    }
}

extension PointJournal {
    /// Gives the disk the content that it had at a past point; all that came later is gone. What is held for a group is put aside, as at
    /// the end of an attachment: see `keptPoints`.
    ///
    /// Nobody may be served meanwhile: without a lease, after `whenAgreedApplied`. Nothing is changed when an undo file is damaged.
    /// A journal that fails or is closed on the way goes on when it is opened again.
    public func rollBack(to point: PointNumber, completion: @escaping (Result<PointPosition, PointJournalError>) -> Void) {
        if let refusal { return completion(.failure(refusal)) }
        guard lease == nil, incoming == nil, cleaning == nil, applying == nil, !isRecordingAgreement, !isRecordingKeeping else {
            return completion(.failure(.busy("the disk is in use")))
        }
        guard queue.first.map(isHeldForGroup) ?? true else { return completion(.failure(.busy("points wait to be applied"))) }
        if point == position.applied { return completion(.success(position)) }
        guard isKept(point) else { return completion(.failure(.notKept(point))) }
        let rollBack = RollBack(to: point) { [self] result in completion(result.map { position }) }
        self.rollBack = rollBack
        endViews { .notKept($0) }
        check(position.applied, rollBack)
    }

    /// Reads every undo file before anything is changed.
    private func check(_ point: PointNumber, _ rollBack: RollBack) {
        if state == .closed { return end(rollBack, .failure(.closed)) }
        guard point > rollBack.target else { return removeApplied(rollBack) }
        openUndo(point) { [self] result in
            switch result {
            case .success: check(point - 1, rollBack)
            case .failure(let error): end(rollBack, .failure(error))
            }
        }
    }

    /// The files of applied points must not come back once the position is behind them: they would be taken for received ones.
    private func removeApplied(_ rollBack: RollBack) {
        rollBack.hasBegun = true
        directory.list { [self] result in
            switch result {
            case .failure(let error): end(rollBack, .failure(PointJournalError(journal: error)))
            case .success(let names):
                let applied = names.filter { PointFormat.point(ofFile: $0).map { $0 <= position.applied } ?? false }
                removeNames(applied[...]) { [self] result in
                    if case .failure(let error) = result { return end(rollBack, .failure(error)) }
                    putAside(rollBack)
                }
            }
        }
    }

    private func putAside(_ rollBack: RollBack) {
        putQueueAside { [self] result in
            if case .failure(let error) = result { return end(rollBack, .failure(error)) }
            var next = record
            next.sequence &+= 1
            next.position.received = position.applied
            next.rollingBackTo = rollBack.target
            writePosition(next) { [self] result in
                if case .failure(let error) = result { return end(rollBack, .failure(error)) }
                position = next.position
                undoNext(rollBack)
            }
        }
    }

    /// Goes on with the way back that the position file tells of.
    func resumeRollingBack(to target: PointNumber, completion: @escaping (Result<Void, PointJournalError>) -> Void) {
        let rollBack = RollBack(to: target, completion: completion)
        self.rollBack = rollBack
        undoNext(rollBack)
    }

    private func undoNext(_ rollBack: RollBack) {
        if state == .closed { return end(rollBack, .failure(.closed)) }
        let point = position.applied
        guard point > rollBack.target else { return forgetUndone(rollBack) }
        openUndo(point) { [self] result in
            switch result {
            case .failure(let error): end(rollBack, .failure(error))
            case .success(let undo):
                let application = PointApplication(undo.received, undoing: undo)
                applying = application
                beginWriting(application)
            }
        }
    }

    /// The disk has what it had before a point, durably, and the position says so.
    func undone(_ application: PointApplication<Directory.File>) {
        applying = nil
        guard let rollBack else { return }
        position = record.position
        undoNext(rollBack)
    }

    /// What the position says once `point` is undone.
    func record(undoing point: PointNumber, _ undo: ReceivedPoint<Directory.File>) -> PositionRecord {
        var next = record
        next.sequence &+= 1
        next.position = PointPosition(received: point - 1, applied: point - 1)
        next.fingerprint = next.fingerprint.applying(undo.index.pieces)
        next.mark = undo.attributes
        next.agreed = min(next.agreed, point - 1)
        return next
    }

    /// The undo files of points that are undone must not be taken for those of the next points with their numbers.
    private func forgetUndone(_ rollBack: RollBack) {
        guard let last = undos.last, last.point > rollBack.target else {
            return directory.synchronize { [self] result in
                if case .failure(let error) = result { return end(rollBack, .failure(PointJournalError(journal: error))) }
                var next = record
                next.sequence &+= 1
                next.rollingBackTo = nil
                writePosition(next) { [self] result in end(rollBack, result) }
            }
        }
        directory.remove(PointFormat.undoFileName(last.point)) { [self] result in
            if case .failure(let error) = result { return end(rollBack, .failure(PointJournalError(journal: error))) }
            undos.removeLast()
            undoBytes -= last.byteCount
            forgetUndone(rollBack)
        }
    }

    /// The way back is over. When it failed behind the first change nobody knows what is durable, and the journal has to be opened again.
    func end(_ rollBack: RollBack, _ result: Result<Void, PointJournalError>) {
        self.rollBack = nil
        applying = nil
        if case .failure(let error) = result, rollBack.hasBegun, state == .open { fail(error) }
        rollBack.completion(result)
        pruneUndos()
        startApplying()
        finishCloseIfIdle()
    }
}
