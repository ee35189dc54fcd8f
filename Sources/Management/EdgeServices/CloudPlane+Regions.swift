import APIModels
import Blocks
import Ciphers
import CloudOnlyDisk
import EdgeConfiguration
import Files
import LocalFiles
import NIOCore
import Volumes
import WriteLog

// The write policy of a volume on the data plane: the cloud-only disk is opened, or made when the first region is; a policy is durable
// before it is in force.

extension CloudPlane {
    /// A cloud-only disk, and the generation of the key that it was made with: it stays under that one.
    typealias KeyedDisk = (disk: CloudOnlyDisk<LocalDirectory>, generation: KeyGeneration)

    /// Opens the cloud-only disk of a volume, or makes one when none is expected, under the newest key.
    func openCloudOnlyDisk(
        in directory: OpenDirectory, identifier: VolumeIdentifier, sectorCount: UInt64, keys: DataKeys, expecting disk: CloudOnlyMark?,
        completion: @escaping (Result<KeyedDisk, any Error>) -> Void
    ) {
        openCloudOnlyDisk(
            in: directory, identifier: identifier, sectorCount: sectorCount, keys: keys, trying: keys.generations[...], expecting: disk,
            completion: completion)
    }

    /// Its files do not say which key they are under; one that is not theirs changes nothing in them.
    private func openCloudOnlyDisk(
        in directory: OpenDirectory, identifier: VolumeIdentifier, sectorCount: UInt64, keys: DataKeys,
        trying generations: ArraySlice<KeyGeneration>, expecting disk: CloudOnlyMark?,
        completion: @escaping (Result<KeyedDisk, any Error>) -> Void
    ) {
        let generation = generations.first ?? keys.newest
        let key = keys[generation] ?? keys.newestKey
        let local = LocalDirectory(directory, eventLoop: eventLoop, threadPool: threadPool)
        CloudOnlyDisk.open(
            directory: local, volume: identifier, sectorCount: sectorCount, key: key, expecting: disk, random: .system, clock: { .now() }
        ) { [self] result in
            if case .failure(let error) = result, error.isOfKey, generations.count > 1 {
                return openCloudOnlyDisk(
                    in: directory, identifier: identifier, sectorCount: sectorCount, keys: keys, trying: generations.dropFirst(),
                    expecting: disk, completion: completion)
            }
            completion(
                result.map { ($0, generation) }.mapError { error in
                    Problem(
                        status: 500, code: "cloud_only_disk", title: "The cloud-only disk can't be opened",
                        detail: "the cloud-only disk of volume \(identifier): \(error.text)",
                        action: "free space or mend the disk under the state directory, which must take a file as large as the volume, "
                            + "or put the newest copy of \(directory.path) back. "
                            + StoredRegions.ifLost)
                })
        }
    }

    /// Opens the cloud-only disk of a volume that has one.
    func openRegions(
        _ regions: StoredRegions, identifier: VolumeIdentifier, sectorCount: UInt64, keys: DataKeys,
        completion: @escaping (Result<KeyedDisk?, any Error>) -> Void
    ) {
        guard let directory = regions.directory else { return completion(.success(nil)) }
        openCloudOnlyDisk(in: directory, identifier: identifier, sectorCount: sectorCount, keys: keys, expecting: regions.disk) {
            completion($0.map { $0 })
        }
    }

    /// Changes the policy of a volume, or what becomes of its cloud-only writes. One change of a volume at a time.
    func changeRegions(
        _ entry: Served, _ change: RegionChange, completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        // A volume that has stopped would keep a policy that it never acts on.
        guard entry.volume.isServable else { return completion(.failure(Problem.notServable(entry.grant.name))) }
        if entry.isChangingRegions {
            return completion(.failure(Problem(describing: .busy("its regions are being changed; try again"), volume: entry.grant.name)))
        }
        do {
            // What makes no sense makes no disk either.
            _ = try RegionPlan(change, regions: entry.volume.regions, sectorCount: entry.volume.sectorCount)
        } catch {
            return completion(.failure(error))
        }
        entry.isChangingRegions = true
        let done = { [self] (result: Result<Void, any Error>) in
            entry.isChangingRegions = false
            if entry.mustSaveRegions { saveRegions(of: entry) }
            completion(result)
        }
        needCloudOnlyDisk(of: entry) { [self] result in
            if case .failure(let error) = result { return done(.failure(error)) }
            do {
                let plan = try RegionPlan(change, regions: entry.volume.regions, sectorCount: entry.volume.sectorCount)
                carryOut(plan, entry, completion: done)
            } catch {
                done(.failure(error))
            }
        }
    }

    private func needCloudOnlyDisk(of entry: Served, completion: @escaping (Result<Void, any Error>) -> Void) {
        if entry.volume.hasCloudOnlyDisk { return completion(.success(())) }
        let (directory, bound) = (entry.directory, NIOLoopBound((self, entry, completion), eventLoop: eventLoop))
        threadPool.runIfActive(eventLoop: eventLoop) { try StoredRegions.makeDirectory(in: directory) }.whenComplete { result in
            let (plane, entry, completion) = bound.value
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let directory):
                plane.openCloudOnlyDisk(
                    in: directory, identifier: entry.volume.identifier, sectorCount: entry.volume.sectorCount, keys: entry.keys,
                    expecting: nil
                ) { result in
                    let (disk, generation): KeyedDisk
                    switch result {
                    case .success(let opened): (disk, generation) = opened
                    case .failure(let error): return plane.removeUnusedDisk(of: entry, error, completion)
                    }
                    // The volume may have been given back meanwhile.
                    guard plane.served[entry.volume.identifier] === entry, entry.volume.isServable else {
                        return disk.close { _ in completion(.failure(Problem.notOpenHere)) }
                    }
                    entry.volume.attach(disk, table: entry.volume.regions)
                    entry.cloudOnlyKeyGeneration = generation
                    completion(.success(()))
                }
            }
        }
    }

    /// A disk that could not be made was never written to, and would keep the volume from being served again.
    private func removeUnusedDisk(
        of entry: Served, _ error: any Error, _ completion: @escaping (Result<Void, any Error>) -> Void
    ) {
        let (directory, bound) = (entry.directory, NIOLoopBound(completion, eventLoop: eventLoop))
        threadPool.runIfActive(eventLoop: eventLoop) { try StoredRegions.removeUnusedDisk(in: directory) }.whenComplete { _ in
            bound.value(.failure(error))
        }
    }

    private func carryOut(_ plan: RegionPlan, _ entry: Served, completion: @escaping (Result<Void, any Error>) -> Void) {
        keep(plan.table, of: entry) { result in
            if case .failure(let error) = result { return completion(.failure(error)) }
            entry.volume.setRegions(plan.table)
            guard plan.discards else { return completion(.success(())) }
            entry.volume.discardCloudOnly(plan.range) { result in
                completion(result.mapError { Problem(describing: $0, volume: entry.grant.name) })
            }
        }
    }

    private func keep(_ table: RegionTable, of entry: Served, completion: @escaping (Result<Void, any Error>) -> Void) {
        let (directory, disk) = (entry.directory, entry.volume.cloudOnlyMark?.identifier)
        let bound = NIOLoopBound(completion, eventLoop: eventLoop)
        threadPool.runIfActive(eventLoop: eventLoop) { try StoredRegions.keep(table, disk: disk, in: directory) }.whenComplete { result in
            bound.value(
                result.mapError { error in
                    Problem(
                        status: 507, code: "state_directory", title: "The regions can't be kept", detail: "\(error)",
                        action: "make room in the state directory, or mend its file system")
                })
        }
    }

    // MARK: The mark

    /// How often it is kept how far cloud-only disks have come: an old copy that is put back may be so much younger and not be noticed.
    private static let markInterval: TimeAmount = .seconds(10)

    /// Keeps how far the cloud-only disks have come, now and then. Should it fail, it is tried again the next time.
    func keepMarks() {
        guard NIODeadline.now() - marksKeptAt >= Self.markInterval else { return }
        marksKeptAt = .now()
        for entry in served.values {
            guard let mark = entry.volume.cloudOnlyMark, mark != entry.keptMark, !entry.isKeepingMark else { continue }
            entry.isKeepingMark = true
            let (directory, bound) = (entry.directory, NIOLoopBound(entry, eventLoop: eventLoop))
            threadPool.runIfActive(eventLoop: eventLoop) { try StoredRegions.keep(mark, in: directory) }.whenComplete { result in
                bound.value.isKeepingMark = false
                if case .success = result { bound.value.keptMark = mark }
            }
        }
    }

    // MARK: Imaging

    /// The cloud-only writes to a range are in the log: the table that says that they are to go home is kept without that.
    func imaged(_ range: SectorRange, of entry: Served) {
        recorder.record(
            "region.imaged", subject: entry.grant.name, logSubject: entry.volume.identifier.description,
            "the cloud-only writes from \(ByteSize.text(range.byteOffset)) on, \(ByteSize.text(range.count * UInt64(BlockGeometry.sectorBytes))), go home now"
        )
        saveRegions(of: entry)
    }

    /// Should it fail, imaging is done again after a restart, of what is held by then: nothing, or what was written meanwhile.
    private func saveRegions(of entry: Served) {
        entry.mustSaveRegions = entry.isChangingRegions
        if entry.isChangingRegions { return }
        entry.isChangingRegions = true
        keep(entry.volume.regions, of: entry) { [self] _ in
            entry.isChangingRegions = false
            if entry.mustSaveRegions { saveRegions(of: entry) }
        }
    }
}

/// What a request changes: pure.
struct RegionPlan {
    /// The policy from then on.
    private(set) var table: RegionTable
    /// The range that was meant.
    let range: SectorRange
    /// The cloud-only writes to it are to be forgotten.
    let discards: Bool

    init(_ change: RegionChange, regions: RegionTable, sectorCount: UInt64) throws {
        table = regions
        range = try Self.range(of: change, sectorCount: sectorCount)
        let isWhole = change.startBytes == nil
        if isWhole, change.policy == .default {
            throw Problem.badRegion("the policy default is for a range, which it takes out of its region")
        }
        do throws(RegionError) {
            switch (change.policy, isWhole) {
            case (.onPrem?, true): table.defaultPolicy = .onPrem
            case (.cloudOnly?, true): table.defaultPolicy = .cloudOnly
            case (.onPrem?, false): try table.set(range, to: .onPrem, origin: Self.origin(change), sectorCount: sectorCount)
            case (.cloudOnly?, false): try table.set(range, to: .cloudOnly, origin: Self.origin(change), sectorCount: sectorCount)
            case (.default?, false): try table.remove(range, sectorCount: sectorCount)
            case (.default?, true), (nil, _): break
            }
        } catch {
            throw Self.problem(of: error)
        }
        let writes = change.writes ?? Self.usualWrites(change, table)
        discards = writes == .discard
        do throws(RegionError) {
            switch writes {
            case .image where change.writes == nil:
                // What a region of its own keeps here is not meant.
                for part in table.onPremParts(of: range) { try table.beginImaging(part) }
            case .image: try table.beginImaging(range)
            case .discard: table.endImaging(range)
            case .keep: if change.writes != nil || change.policy == .cloudOnly { table.endImaging(range) }
            }
        } catch {
            throw Self.problem(of: error)
        }
    }

    /// Nothing that somebody has written is left behind unless he says so: what becomes on-prem is brought home.
    private static func usualWrites(_ change: RegionChange, _ table: RegionTable) -> RegionChange.Writes {
        switch change.policy {
        case .onPrem: .image
        case .default: table.defaultPolicy == .onPrem ? .image : .keep
        case .cloudOnly, nil: .keep
        }
    }

    private static func origin(_ change: RegionChange) -> RegionOrigin { change.origin == .found ? .found : .operator }

    private static func range(of change: RegionChange, sectorCount: UInt64) throws -> SectorRange {
        let sectorBytes = UInt64(BlockGeometry.sectorBytes)
        switch (change.startBytes, change.sizeBytes) {
        case (nil, nil): return SectorRange(from: 0, to: sectorCount)
        case (let start?, let size?):
            guard start % sectorBytes == 0, size % sectorBytes == 0 else { throw problem(of: .unaligned) }
            guard let range = SectorRange(start: start / sectorBytes, count: size / sectorBytes) else { throw problem(of: .outOfRange) }
            if range.isEmpty { throw problem(of: .empty) }
            if range.end > sectorCount { throw problem(of: .outOfRange) }
            return range
        default: throw Problem.badRegion("give both startBytes and sizeBytes, or neither for the whole volume")
        }
    }

    private static func problem(of error: RegionError) -> Problem {
        switch error {
        case .empty: .badRegion("the range is empty")
        case .unaligned:
            .badRegion("a region begins and ends at a multiple of \(BlockGeometry.blockBytes) bytes, or at the end of the disk")
        case .outOfRange: .badRegion("the range ends behind the end of the disk")
        case .tooMany(let limit):
            Problem(
                status: 409, code: "too_many_regions", title: "The volume has too many regions",
                detail: "A volume may have \(limit) regions, and this change would make more.",
                action: "remove some, or make one of several that lie close together")
        case .tooManyImaging(let limit):
            Problem(
                status: 409, code: "too_many_imaged", title: "Too many ranges are on their way home",
                detail: "The cloud-only writes of \(limit) ranges are being brought home, and there can't be more at once.",
                action: "wait until `causeway volume region list` says that no writes are being brought home, or name larger ranges")
        }
    }
}

extension Problem {
    fileprivate static func notServable(_ volume: String) -> Problem {
        Problem(
            status: 409, code: "volume_stopped", title: "The volume has stopped",
            detail: "volume \(volume) takes no changes at this edge any more: it was fenced, or has failed",
            action: "see `causeway volume show \(volume)` for the reason")
    }

    fileprivate static func badRegion(_ detail: String) -> Problem {
        Problem(
            status: 400, code: "invalid_region", title: "The range can't be a region", detail: detail,
            action: "see `causeway volume region list` and the size in `causeway volume show`")
    }

    /// Cloud-only writes would be lost with the grant.
    static func hasCloudOnlyWrites(of served: CloudPlane.ServedVolume, name volume: String) -> Problem {
        let byteCount = served.cloudOnlyBytes(in: SectorRange(from: 0, to: served.sectorCount))
        return Problem(
            status: 409, code: "cloud_only_writes", title: "The volume has cloud-only writes",
            detail: "\(ByteSize.rounded(byteCount)) of volume \(volume) are at the cloud edge only",
            action: "bring them home or give them up first: `causeway volume region settle \(volume) --writes image` or `discard`")
    }
}
