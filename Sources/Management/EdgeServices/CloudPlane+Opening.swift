import APIModels
import Blocks
import Ciphers
import CloudOnlyDisk
import Files
import LinkProtocol
import LocalFiles
import NIOCore
import SCSI
import SecureCache
import StorageTarget
import Volumes
import WriteLog

extension CloudPlane {
    /// Reads the reservations of a granted volume, then opens its log, then the volume at home, then its target.
    func open(
        _ grant: VolumeGrant, identifier: VolumeIdentifier, secrets: VolumeSecrets, directory: OpenDirectory, logSize: LogSize,
        regions: StoredRegions, policy: VolumePolicy, completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        guard cache != nil, served[identifier] == nil else { return completion(.success(())) }
        let file = ReservationFile(
            directory: directory, volume: identifier, keys: secrets.keys, eventLoop: eventLoop, threadPool: threadPool)
        file.load { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let reservations):
                openLog(
                    grant, identifier: identifier, directory: directory, secrets: secrets, logSize: logSize, regions: regions,
                    policy: policy,
                    reservations: (file, reservations), completion: completion)
            }
        }
    }

    private func openLog(
        _ grant: VolumeGrant, identifier: VolumeIdentifier, directory: OpenDirectory, secrets: VolumeSecrets, logSize: LogSize,
        regions: StoredRegions, policy: VolumePolicy, reservations: (file: ReservationFile, state: PersistentReservations?),
        completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        guard served[identifier] == nil else { return completion(.success(())) }
        let keys = secrets.keys
        let local = LocalDirectory(directory, eventLoop: eventLoop, threadPool: threadPool)
        WriteLog.open(directory: local, volume: identifier, keys: keys, limits: logSize.limits, random: .system, now: .now()) {
            [self] result in
            switch result {
            case .failure(let error):
                completion(
                    .failure(
                        Problem(
                            status: 500, code: "write_log", title: "The write log can't be opened",
                            detail: "the write log of volume \(identifier): \(error.text)",
                            action: Self.remedy(for: error))))
            case .success(let log):
                openRegions(regions, identifier: identifier, sectorCount: grant.sectorCount, keys: keys) { [self] result in
                    // The cache may have taken over from another one since.
                    guard case .success(let disk) = result, let cache else {
                        // The next attempt opens the log again.
                        return log.close { _ in completion(result.map { _ in () }) }
                    }
                    cache.attach(volume: identifier, key: keys.newestKey, generation: keys.newest)
                    serve(
                        grant, identifier: identifier, secrets: secrets, directory: directory, log: log,
                        disk: disk.map { ($0.disk, regions.table, $0.generation) },
                        logSize: logSize, cache: cache, policy: policy, reservations: reservations, completion: completion)
                }
            }
        }
    }

    /// What an operator does about a write log that does not open.
    static func remedy(for error: WriteLogError) -> String {
        switch error {
        case .wrongKey, .missingKey:
            "put back the newest copy of home's `state.sqlite`, which has the key; or export what opens with `causeway recover export` and a key "
                + "that was exported, then detach the volume with --force"
        case .corrupt:
            "`causeway recover verify` shows what is whole, and `causeway recover export --through` brings out what is before the damage; then "
                + "detach the volume with --force and attach it anew"
        case .foreign: "put the state directory of this edge back: its parts belong to different copies"
        case .noSpace, .file: "free space or mend the disk under the state directory, then restart this edge"
        case .tooLarge, .cipher, .closed: "look at this edge's log; if it does not help, report this with the log"
        }
    }

    private func serve(
        _ grant: VolumeGrant, identifier: VolumeIdentifier, secrets: VolumeSecrets, directory: OpenDirectory, log: WriteLog<LocalDirectory>,
        disk: (CloudOnlyDisk<LocalDirectory>, RegionTable, KeyGeneration)?, logSize: LogSize, cache: SecureCache<LocalDirectory>,
        policy: VolumePolicy,
        reservations: (file: ReservationFile, state: PersistentReservations?),
        completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        guard let tag = freeTag() else {
            return completion(.failure(Problem(status: 503, code: "too_many_volumes", title: "This edge serves too many volumes")))
        }
        let volume = ServedVolume(
            identifier: identifier, routingTag: tag, sectorCount: grant.sectorCount, policy: policy, log: log, cache: cache,
            clock: { .now() })
        volume.uplink = { [unowned self] message, trafficClass, isBulk in
            link?.send(message, of: identifier, class: trafficClass, bulk: isBulk) ?? false
        }
        volume.linkVersion = { [unowned self] in link?.endpoint.version ?? LinkVersion.newest }
        volume.homeBlocks = homeBlocks
        volume.gatherTurns(of: eventLoop)
        if let (disk, table, _) = disk { volume.attach(disk, table: table) }
        volume.preferredPieceBytes = { [unowned self] in link?.endpoint.preferredPieceBytes ?? 16 << 10 }
        let identity = LogicalUnitIdentity(
            uniqueHigh: Self.integer(grant.identity.prefix(8)), uniqueLow: Self.integer(grant.identity.suffix(8)), targetName: grant.target,
            isRemovable: grant.isRemovable ?? false)
        volume.isWriteProtected = grant.isReadOnly ?? false
        volume.isAwaitingGroup = grant.isGrouped ?? false
        let device = ServedDevice(volume, eventLoop: eventLoop)
        let number = LogicalUnitNumber(index: grant.logicalUnit ?? 0) ?? LogicalUnitNumber(rawValue: 0)
        let unit = LogicalUnit(device: device, identity: identity, number: number)
        unit.pace(by: eventLoop)
        keep(reservations, of: unit, grant: grant)
        let entry = Served(
            grant: grant, secrets: secrets, reservations: reservations.file, device: device, unit: unit, directory: directory)
        entry.cloudOnlyKeyGeneration = disk?.2
        reservations.file.use(secrets.keys)
        entry.ownLogBytes = logSize.ownBytes
        entry.logSizeBytes = logSize.limits.logBytesMax
        // Before its first point is larger than the file system has room for.
        stateSpace.lookedAt = nil
        entry.openWaiters.append(completion)
        volume.onEvent = { [weak self, weak entry] event in
            guard let self, let entry else { return }
            handle(event, of: entry)
        }
        add(entry, tag: tag)
        volume.linkConnectivityChanged(isConnected: link?.endpoint.isConnected ?? false)
        volume.linkSessionStarted()
    }

    private static func integer(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }

    // MARK: At home

    /// Asks home to open the volume for this process; called for each new session.
    func openAtHome(_ entry: Served) {
        // One at a time: a lost session fails the call that is out, and the new session asks again.
        guard !entry.isOpening, let link, let body = try? ControlCoding.encode(entry.volume.openRequest(incarnation: incarnation)) else {
            return
        }
        entry.isOpening = true
        link.call(ControlMethod.open, body: body, timeout: .seconds(30)) { [weak self, weak entry] result in
            guard let self, let entry else { return }
            entry.isOpening = false
            do {
                let reply = try ControlCoding.decode(VolumeOpenReply.self, from: result.get())
                entry.volume.opened(reply)
                opened(entry)
            } catch let problem as Problem where problem.status == 409 {
                // History split, or the volume is no longer this edge's: trying again can't help.
                entry.volume.openRefused(problem.detail ?? problem.title)
                answerWaiters(of: entry, .failure(problem))
            } catch {
                // The link, or home's disk for now: the volume asks again by itself.
                answerWaiters(of: entry, .failure(error))
            }
        }
    }

    private func opened(_ entry: Served) {
        entry.wasOpened = true
        if entry.mayBeExported { export(entry) }
        answerWaiters(of: entry, .success(()))
    }

    private func answerWaiters(of entry: Served, _ result: Result<Void, any Error>) {
        let waiters = entry.openWaiters
        entry.openWaiters = []
        for waiter in waiters { waiter(result) }
    }
}
