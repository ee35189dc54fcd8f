import Blocks
import Ciphers
import NIOCore

extension LogRecovery {
    /// Makes of what was found a log that can go on.
    func settle(random: RandomSource, firstEpoch: PointNumber) {
        self.random = random
        guard let expected, let log = logIdentifier else {
            if vanishingEpoch != nil { return fail(.corrupt("the log begins in the middle of an epoch, and nothing follows it")) }
            return makeFresh(firstEpoch)
        }
        guard claimedDurable < expected else {
            return fail(.corrupt("batch \(claimedDurable) was durable, but the log ends before batch \(expected)"))
        }
        let settleFiles = { [self] in
            cutTornEnd { [self] in
                synchronize(epochs.flatMap(\.files)[...]) { [self] in
                    // The newest first: until the last of them is gone the row stays broken where it is.
                    remove(discarded.reversed()[...]) { [self] in
                        synchronizeNames { [self] in goOn(log: log, at: expected) }
                    }
                }
            }
        }
        if isPlanted(.trustsNamesThatAreGone) { return settleFiles() }
        // The names as they were found, too: a process that was killed may have taken away the first file of a released epoch, and nothing
        // of that is durable. If the power brought it back when the others are gone, there would be a hole in the row.
        synchronizeNames(then: settleFiles)
    }

    private func synchronizeNames(then next: @escaping () -> Void) {
        directory.synchronize { [self] result in step(result, next) }
    }

    private func cutTornEnd(then next: @escaping () -> Void) {
        guard let last = lastParts.last, last.size > last.file.writeOffset else { return next() }
        cutRoom(of: [last.file], then: next)
    }

    private func synchronize(_ files: ArraySlice<LogFile>, then next: @escaping () -> Void) {
        guard let file = files.first else { return next() }
        file.isHeaderDurable = true
        file.isEstablished = true
        file.synchronize { [self] result in step(result) { self.synchronize(files.dropFirst(), then: next) } }
    }

    private func remove(_ names: ArraySlice<String>, then next: @escaping () -> Void) {
        guard let name = names.first else { return next() }
        directory.remove(name) { [self] result in step(result) { self.remove(names.dropFirst(), then: next) } }
    }

    // MARK: Going on

    /// Makes the file that takes the next batches: a new epoch's, or a new part of the open one.
    private func goOn(log: LogIdentifier, at sequence: UInt64) {
        guard let last = epochs.last else { return fail(.corrupt("the log has a name and no epoch")) }
        if last.sealBatch != nil {
            guard last.number < .max else { return fail(.corrupt("epoch numbers have run out")) }
            let epoch = LogEpoch(number: last.number + 1)
            epochs.append(epoch)
            return makeFile(log: log, epoch: epoch, part: 0, sequence: sequence) { [self] in finish(log: log, at: sequence) }
        }
        if isPlanted(.reusesSaltAfterRecovery) { return finish(log: log, at: sequence) }
        guard let part = lastParts.last, part.number < .max else {
            return fail(.corrupt("part numbers of an epoch have run out"))
        }
        makeFile(log: log, epoch: last, part: part.number + 1, sequence: sequence) { [self] in
            // Parts without batches add nothing, and each restart would leave one more.
            let empty = lastParts.filter { $0.batchCount == 0 }.map { $0.file.name }
            last.files.removeAll { empty.contains($0.name) }
            remove(empty[...]) { [self] in
                if empty.isEmpty { return finish(log: log, at: sequence) }
                // Durable too: one that came back might want a key that is destroyed by then.
                synchronizeNames { [self] in finish(log: log, at: sequence) }
            }
        }
    }

    private func makeFresh(_ firstEpoch: PointNumber) {
        guard firstEpoch > 0 else { return fail(.corrupt("the first epoch has number 0")) }
        let log = LogIdentifier(high: random.next(), low: random.next())
        let epoch = LogEpoch(number: firstEpoch)
        epochs = [epoch]
        // The spares too, which are of a log that had other numbers.
        remove((discarded + spareNames)[...]) { [self] in
            spareNames = []
            makeFile(log: log, epoch: epoch, part: 0, sequence: 1) { [self] in finish(log: log, at: 1) }
        }
    }

    /// Makes a file with a durable header and a durable name.
    private func makeFile(log: LogIdentifier, epoch: LogEpoch, part: UInt32, sequence: UInt64, then next: @escaping () -> Void) {
        let header = LogFileHeader(
            volume: volume, log: log, epoch: epoch.number, part: part, firstBatch: sequence,
            epochFirstBatch: epoch.firstBatch ?? sequence, durableThrough: sequence - 1, keyGeneration: keys.newest,
            salt: random.bytes(LogFormat.saltBytes))
        let cipher: BlockCipher
        do throws(CipherError) {
            cipher = BlockCipher(key: try keys.newestKey.derive(salt: header.salt, purpose: LogFormat.keyPurpose))
        } catch {
            return fail(.cipher("\(error)"))
        }
        guard let bytes = header.encoded(cipher: cipher) else { return fail(.cipher("AES-256-GCM refused to seal a header")) }
        let name = LogFormat.fileName(epoch: epoch.number, part: part)
        let finish: (Result<LogFile, StorageFileError>) -> Void = { [self] in
            step($0) { file in
                epoch.files.append(file)
                next()
            }
        }
        write(bytes, of: header, cipher: cipher, to: name) { [self] result in
            let withRoom = epochs.flatMap(\.files).filter { $0.byteCount > $0.writeOffset }
            guard case .failure(.noSpace) = result, !spareNames.isEmpty || !withRoom.isEmpty else { return finish(result) }
            // The file system is full, and what holds nothing takes room.
            let names = spareNames
            spareNames = []
            remove(names[...]) { [self] in
                cutRoom(of: withRoom[...]) { [self] in write(bytes, of: header, cipher: cipher, to: name, completion: finish) }
            }
        }
    }

    private func cutRoom(of files: ArraySlice<LogFile>, then next: @escaping () -> Void) {
        guard let file = files.first else { return next() }
        file.roomThrough = 0
        file.truncate(to: file.writeOffset) { [self] result in step(result) { cutRoom(of: files.dropFirst(), then: next) } }
    }

    /// Makes the file, its header and its name durable. What failed may be tried again with the same bytes.
    private func write(
        _ bytes: ByteBuffer, of header: LogFileHeader, cipher: BlockCipher, to name: String,
        completion: @escaping (Result<LogFile, StorageFileError>) -> Void
    ) {
        directory.open(name, create: true) { [directory] opened in
            opened.then(or: completion) { opened in
                let named = { (result: Result<Void, StorageFileError>) in
                    let file = LogFile(file: opened, name: name, header: header, cipher: cipher)
                    file.isHeaderDurable = true
                    file.isEstablished = true
                    completion(result.map { file })
                }
                let synchronized = { (result: Result<Void, StorageFileError>) in
                    result.then(or: completion) { directory.synchronize(completion: named) }
                }
                opened.write(bytes, at: 0) { written in
                    written.then(or: completion) { opened.synchronize(completion: synchronized) }
                }
            }
        }
    }

    private func finish(log: LogIdentifier, at sequence: UInt64) {
        openSpares(spareNames[...], []) { [self] spares in
            let number = spareNames.compactMap { LogFormat.parse(spareName: $0) }.max() ?? 0
            succeed(
                RecoveredLog(
                    volume: volume, logIdentifier: log, epochs: epochs, map: map, nextSequence: sequence, spares: spares,
                    spareNumber: number))
        }
    }

    /// Takes over the files that wait for an epoch. One that can't be opened stays where it is: the log does without it.
    private func openSpares(_ names: ArraySlice<String>, _ found: [LogSpare], then next: @escaping ([LogSpare]) -> Void) {
        guard let name = names.first else { return next(found) }
        if found.count >= LogFormat.sparesMax {
            return directory.remove(name) { [self] _ in openSpares(names.dropFirst(), found, then: next) }
        }
        directory.open(name, create: false) { [self] result in
            guard case .success(let file) = result else { return openSpares(names.dropFirst(), found, then: next) }
            file.size { [self] size in
                var spares = found
                if case .success(let byteCount) = size {
                    spares.append(LogSpare(file: file, name: name, byteCount: min(byteCount, LogFormat.fileBytesMax)))
                }
                openSpares(names.dropFirst(), spares, then: next)
            }
        }
    }
}

extension WriteLog {
    /// Opens the log in `directory`, which it has for itself, or makes one there.
    ///
    /// - Parameters:
    ///   - keys: the volume's data keys; what is written from now on is sealed under the newest.
    ///   - now: becomes the age of what is found: a log does not know how long its machine was off.
    ///   - firstEpoch: the number of the first point of a log that is made.
    public static func open(
        directory: Directory, volume: VolumeIdentifier, keys: DataKeys, limits: WriteLogLimits = WriteLogLimits(), random: RandomSource,
        now: NIODeadline, firstEpoch: PointNumber = 1, completion: @escaping (Result<WriteLog, WriteLogError>) -> Void
    ) {
        let recovery = LogRecovery(
            directory: directory, volume: volume, keys: keys, now: now,
            purpose: .serving(random: random, firstEpoch: firstEpoch) { result in
                completion(
                    result.map { WriteLog(recovered: $0, directory: directory, keys: keys, limits: limits, random: random) })
            })
        recovery.start()
    }
}

extension Result where Failure == StorageFileError {
    /// Goes on with a success; a failure is the end.
    fileprivate func then<Value>(or completion: (Result<Value, StorageFileError>) -> Void, _ next: (Success) -> Void) {
        switch self {
        case .success(let value): next(value)
        case .failure(let error): completion(.failure(error))
        }
    }
}
