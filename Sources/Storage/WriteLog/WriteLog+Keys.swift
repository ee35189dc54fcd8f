import Blocks
import Ciphers
import NIOCore

// Rotation of the key. What is written from then on goes to a new file of the same epoch, under the new key; what the older files hold
// goes as ever, with its points. Only files without a batch would stay, for as long as nobody writes: those are removed.
//
//     epoch 7, part 0: batches under generation 1  ──use──►  part 1: under generation 2 from the next batch on
//     epoch 7, part 0: no batch, generation 1      ──use──►  part 1: header durable ──► part 0 is removed
//
// It is what a restart does too, so recovery knows such rows of files already.

extension WriteLog {
    /// Takes over the volume's keys as they are now. What is written from now on is sealed under the newest; the others must open
    /// all that is here, see `keyGenerations`.
    public func use(_ keys: DataKeys) {
        self.keys = keys
        pump()
        removeEmptyUnderOlderKeys()
        synchronizeIfNeeded()
    }

    /// The generations under which any file of the log is sealed: none other is needed to open it, now or after a crash. Nil when
    /// that is not known any more, because the log has failed or is closed: files that were to be removed may still be there. Spares
    /// count nothing: they are not opened, and what they hold can't be.
    public var keyGenerations: Set<KeyGeneration>? {
        if failure != nil || isClosed { return nil }
        let leaving = isPlanted(.forgetsKeysOfReleases) ? [] : releases.flatMap(\.files) + emptyFiles
        var generations = Set((epochs.flatMap(\.files) + leaving).map(\.keyGeneration))
        if let making = fileInTheMaking { generations.insert(making.file.keyGeneration) }
        return generations
    }

    /// True when the epoch that gathers has a file without a batch, behind which there is one under the newest key.
    var hasEmptyUnderOlderKey: Bool { current.files.contains(where: isEmptyUnderOlderKey) }

    private func isEmptyUnderOlderKey(_ file: LogFile) -> Bool {
        file !== current.files.last && file.isEmpty && file.keyGeneration != keys.newest
    }

    /// Removes such files, once what takes their place is durable.
    func removeEmptyUnderOlderKeys() {
        guard failure == nil, !isClosed else { return }
        if current.files.last?.isEstablished == true {
            let leaving = current.files.filter(isEmptyUnderOlderKey)
            emptyFiles += leaving
            current.files.removeAll { file in leaving.contains { $0 === file } }
        }
        guard !isRemovingEmpty, !removing.rests, let file = emptyFiles.first else { return }
        isRemovingEmpty = true
        changes.make { [directory] done in
            directory.remove(file.name, completion: done)
        } then: { [self] removed in
            guard failure == nil else { return }
            if case .failure(let error) = removed {
                isRemovingEmpty = false
                guard let obstacle = LogObstacle(error) else { return poison(.file(error)) }
                return removing.met(obstacle)
            }
            directory.synchronize { [self] synchronized in
                isRemovingEmpty = false
                guard failure == nil else { return }
                if case .failure(let error) = synchronized { return poison(.file(error)) }
                removing.succeeded()
                emptyFiles.removeFirst()
                forget(file)
                removeEmptyUnderOlderKeys()
            }
        }
    }
}
