import Blocks
import NIOCore

// The files that wait for an epoch (see LogSpare.swift), and the room that files have behind their batches. Together they are what the
// log's files take and hold nothing: `fileBytes - contentBytes`.
//
// It is the log's to use and nobody's to wait for. Writers are slowed when three quarters of the bound hold writes, so a quarter of it
// never is in their way before. Beyond that it shrinks faster than what they take: to half of what is left, so that they find the other
// half while files are being removed. At the bound, and when the file system has no more room, there is none.

/// A file that is to become an epoch's.
struct OpenedFile {
    let file: any StorageFile
    /// What it takes already; 0 for a new one.
    let byteCount: UInt64
}

extension WriteLog {
    // MARK: Accounts

    /// What the log's files may take beyond headers and batches, while those have `heldBytes`.
    private func idleBytesMax(heldBytes: UInt64) -> UInt64 {
        if givesAllBack || writing.obstacle == .noSpace { return 0 }
        return min(limits.logBytesMax / 4, (limits.logBytesMax - min(heldBytes, limits.logBytesMax)) / 2)
    }

    private var idleBytes: UInt64 { fileBytes - contentBytes }

    /// True when files take more beyond their batches than they may.
    var hasTooMuchRoom: Bool { idleBytes > idleBytesMax(heldBytes: heldBytes) }

    /// Changes what a file of an epoch takes.
    func resize(_ file: LogFile, _ change: () -> Void) {
        forget(file)
        change()
        fileBytes += file.byteCount
        contentBytes += file.writeOffset
    }

    /// A file is an epoch's no more.
    func forget(_ file: LogFile) {
        fileBytes -= file.byteCount
        contentBytes -= file.writeOffset
    }

    // MARK: From an epoch to the next

    /// Takes a released file out of the row: under the name of a spare, which the completion gets, or from the directory.
    func takeOutOfRow(_ file: LogFile, completion: @escaping (Result<Void, StorageFileError>, _ spareName: String?) -> Void) {
        guard isWorthKeeping(file) else { return removeFromRow(file, completion) }
        let name = nextSpareName()
        changes.make { [directory] done in
            directory.rename(file.name, to: name, completion: done)
        } then: { [self] result in
            switch result {
            case .success: completion(result, name)
            case .failure: removeFromRow(file, completion)
            }
        }
    }

    private func removeFromRow(_ file: LogFile, _ completion: @escaping (Result<Void, StorageFileError>, _ spareName: String?) -> Void) {
        changes.make { [directory] done in
            directory.remove(file.name, completion: done)
        } then: {
            completion($0, nil)
        }
    }

    private func nextSpareName() -> String {
        repeat { spareNumber &+= 1 } while spares.contains { $0.name == LogFormat.spareName(spareNumber) }
        return LogFormat.spareName(spareNumber)
    }

    /// True when there is room for a released file among the spares, for a good part of it at least.
    private func isWorthKeeping(_ file: LogFile) -> Bool {
        guard !isClosed, !sparesRest, !file.isEmpty else { return false }
        if spares.count >= LogFormat.sparesMax, spares.allSatisfy({ $0.byteCount >= file.byteCount }) { return false }
        let idleAfter = idleBytes - (file.byteCount - file.writeOffset)
        let room = idleBytesMax(heldBytes: heldBytes - file.writeOffset)
        return room >= idleAfter && room - idleAfter >= min(file.byteCount, LogFormat.spareBytesMin)
    }

    /// A released file has the name of a spare, durably.
    func keep(_ file: LogFile, as name: String) {
        spares.append(file.becomeSpare(named: name))
        fileBytes += file.byteCount
        tendSpares()
    }

    /// Gives a file the name of an epoch: a spare that is ready, or a new one.
    func openFile(_ name: String, completion: @escaping (Result<OpenedFile, StorageFileError>) -> Void) {
        let ready = spares.indices.filter { spares[$0].isReady }
        // The largest has the most to save.
        guard let index = ready.max(by: { spares[$0].byteCount < spares[$1].byteCount }) else {
            changes.begin()
            return directory.open(name, create: true) { [changes] opened in
                completion(opened.map { OpenedFile(file: $0, byteCount: 0) })
                changes.end()
            }
        }
        let spare = spares.remove(at: index)
        changes.make { [directory] done in
            directory.rename(spare.name, to: name, completion: done)
        } then: { [self] result in
            guard failure == nil else { return spare.close() }
            switch result {
            case .success:
                fileBytes -= spare.byteCount
                completion(.success(OpenedFile(file: spare.file, byteCount: spare.byteCount)))
            case .failure(.notFound):
                // Somebody has removed it by hand.
                drop(spare)
                openFile(name, completion: completion)
            case .failure(let error):
                spares.append(spare)
                completion(.failure(error))
            }
        }
    }

    private func drop(_ spare: LogSpare) {
        fileBytes -= spare.byteCount
        spare.close()
    }

    // MARK: Tending

    /// Does what is to be done to spares and to the room behind batches, one thing after the other: gives back what is too much, and takes
    /// the headers from files that had an epoch.
    func tendSpares() {
        guard failure == nil, !isTendingSpares else { return }
        // Writers have come to the bound faster than this: what they want goes at once.
        if !sparesRest, fileBytes + UInt64(unwrittenBytes) > limits.logBytesMax, giveBackExcess() { return }
        // Before what is too much goes, for it makes of a file that somebody may have read until now one that can be cut.
        if !sparesRest, !givesAllBack, let spare = spares.first(where: { $0.state == .used }) { return blank(spare) }
        if !sparesRest, giveBackExcess() { return }
        guard givesAllBack else { return }
        // There is no more of it: the writer tries again what the file system had no room for.
        givesAllBack = false
        guard writerAwaitsRoom else { return }
        writerAwaitsRoom = false
        isWriting = false
        pump()
    }

    /// Gives back what files take beyond their batches: something else on the file system has no room. What is released later is kept
    /// again.
    public func giveRoomBack() {
        guard failure == nil, !isClosed, !givesAllBack, idleBytes > 0 else { return }
        givesAllBack = true
        tendSpares()
    }

    /// The file system has no room for what is to be written. True when files are given back for it first, and it is tried again.
    func givesRoomBack() -> Bool {
        // What is being given back just now is listed no more.
        guard !sparesRest, !writerAwaitsRoom, isTendingSpares || idleBytes > 0 && (!spares.isEmpty || fileWithRoom != nil) else {
            return false
        }
        givesAllBack = true
        writerAwaitsRoom = true
        isWriting = true
        tendSpares()
        return true
    }

    /// Removes the header that ties a file to the epoch that it held.
    ///
    /// Not of a file that has another name besides: a backup may be linked to it, and a file system without a journal may bring both names of a
    /// rename through a crash, of which one is an epoch's.
    private func blank(_ spare: LogSpare) {
        isTendingSpares = true
        changes.make { done in
            spare.file.nameCount { names in
                guard case .success(1) = names else { return done(.failure(.failed("\(spare.name) has other names"))) }
                spare.file.write(ByteBuffer(repeating: 0, count: LogFormat.headerBytes), at: 0) { result in
                    guard case .success = result, !isPlanted(.takesSpareBeforeItIsBlank) else { return done(result) }
                    spare.file.synchronize(completion: done)
                }
            }
        } then: { [self] result in
            isTendingSpares = false
            if case .success = result { spare.state = .ready } else { spare.state = .spoilt }
            let grown = max(spare.byteCount, UInt64(LogFormat.headerBytes))
            fileBytes += grown - spare.byteCount
            spare.byteCount = grown
            tendSpares()
        }
    }

    /// Starts to give something back when there is too much; false when there is not, or nothing that can be given.
    private func giveBackExcess() -> Bool {
        let (idle, bound) = (idleBytes, idleBytesMax(heldBytes: heldBytes))
        let excess = idle - min(idle, bound)
        // The smallest has the least to save.
        let smallest = spares.min { ($0.state == .spoilt ? 0 : 1, $0.byteCount) < ($1.state == .spoilt ? 0 : 1, $1.byteCount) }
        if let smallest, excess > 0 || spares.count > LogFormat.sparesMax || smallest.state == .spoilt {
            let kept = smallest.byteCount - min(smallest.byteCount, excess)
            if smallest.isReady, kept >= LogFormat.spareBytesMin, spares.count <= LogFormat.sparesMax {
                cut(smallest, to: kept)
            } else {
                remove(smallest)
            }
            return true
        }
        guard excess > 0, let file = fileWithRoom else { return false }
        isTendingSpares = true
        cutRoom(of: file) { [self] in
            isTendingSpares = false
            tendSpares()
        }
        return true
    }

    /// A file that takes no more batches and has room behind them.
    private var fileWithRoom: LogFile? {
        for epoch in epochs {
            let isWritten = epoch.sealBatch.map { $0 <= writtenThrough } ?? false
            for file in isWritten ? epoch.files[...] : epoch.files.dropLast() where file.byteCount > file.writeOffset {
                return file
            }
        }
        return nil
    }

    /// Gives back what a file has behind its last batch. Should that fail, it goes with the file.
    func cutRoom(of file: LogFile, then next: @escaping () -> Void = {}) {
        resize(file) { file.roomThrough = 0 }
        changes.make { done in
            file.truncate(to: file.writeOffset, completion: done)
        } then: { _ in
            next()
        }
    }

    private func cut(_ spare: LogSpare, to byteCount: UInt64) {
        isTendingSpares = true
        spares.removeAll { $0 === spare }
        changes.make { done in
            spare.file.truncate(to: byteCount, completion: done)
        } then: { [self] result in
            isTendingSpares = false
            guard failure == nil else { return spare.close() }
            if case .success = result {
                fileBytes -= spare.byteCount - byteCount
                spare.byteCount = byteCount
            } else {
                spare.state = .spoilt
            }
            spares.append(spare)
            tendSpares()
        }
    }

    /// A spare that comes back after a crash is one again, so nothing waits until it has durably gone.
    private func remove(_ spare: LogSpare) {
        isTendingSpares = true
        spares.removeAll { $0 === spare }
        changes.make { [directory] done in
            directory.remove(spare.name, completion: done)
        } then: { [self] result in
            isTendingSpares = false
            guard failure == nil else { return spare.close() }
            if case .success = result {
                drop(spare)
            } else {
                spares.append(spare)
                sparesRest = true
            }
            tendSpares()
        }
    }
}
