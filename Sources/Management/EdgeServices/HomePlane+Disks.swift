import APIModels
import Blocks
import Disks
import Foundation
import Link
import LinkProtocol
import LocalFiles
import Logging
import NIOCore
import NIOPosix
import Pairing
import ReadCache
import Tunnels
import Volumes

// The disks at home and the volumes on them: how they are opened, served to an edge, and given back.

extension HomePlane {
    /// Opens and locks a disk, brings it to its last received point, and serves it to an edge. A disk of less than
    /// `sectorCountMin`, which the edge knows it to have, has shrunk, and is not served.
    func serve(
        _ identifier: VolumeIdentifier, path: String, sectorCountMin: UInt64, journal: LocalDirectory, keeping: PointKeeping, edge: String,
        completion: @escaping (Result<UInt64, any Error>) -> Void
    ) {
        if let served = served[identifier] { return completion(.success(served.disk.sectorCount)) }
        let threads = NIOThreadPool(numberOfThreads: Self.diskThreadCount)
        threads.start()
        LocalDisk.open(path: path, eventLoop: eventLoop, threadPool: threads) { [self] result in
            switch result {
            case .failure(let error):
                Self.end(threads)
                completion(.failure(Problem(describing: error)))
            case .success(let disk) where disk.sectorCount < sectorCountMin:
                disk.close()
                Self.end(threads)
                let sectorBytes = UInt64(BlockGeometry.sectorBytes)
                completion(.failure(Problem.shrunk(path, from: sectorCountMin * sectorBytes, to: disk.sectorCount * sectorBytes)))
            case .success(let disk):
                let cachedDisk = CachedDisk(disk, cache: readCache)
                Journal.open(
                    disk: cachedDisk, sectorCount: disk.sectorCount, directory: journal, volume: identifier,
                    keeping: keeping,
                    wallClock: { UInt64(max(0, Date().timeIntervalSince1970 * 1_000)) }
                ) { [self] result in
                    switch result {
                    case .failure(let error):
                        cachedDisk.close()
                        Self.end(threads)
                        completion(.failure(Problem(describing: error, disk: path)))
                    case .success(let journal):
                        install(identifier, journal, cachedDisk, threads, edge)
                        completion(.success(disk.sectorCount))
                    }
                }
            }
        }
    }

    private func install(
        _ identifier: VolumeIdentifier, _ journal: Journal, _ disk: CachedDisk<LocalDisk>, _ threads: NIOThreadPool, _ edge: String
    ) {
        let volume = Home(identifier: identifier, journal: journal)
        volume.downlink = { [unowned self] message, trafficClass, isBulk in
            peers[edge]?.send(message, of: identifier, class: trafficClass, bulk: isBulk) ?? false
        }
        volume.preferredPieceBytes = { [unowned self] in peers[edge]?.endpoint.preferredPieceBytes ?? 16 << 10 }
        volume.linkVersion = { [unowned self] in peers[edge]?.endpoint.version ?? LinkVersion.oldest }
        volume.peerBlocks = blocks(of: edge)
        volume.readSource = { [unowned self] source, range, completion in
            // The points of all volumes of the edge wait behind this one: not for a disk that hangs. The edge sends the bytes then.
            guard let named = served[source], named.edge == edge, !named.isHanging else { return completion(nil) }
            let once = FirstAnswer(completion)
            named.volume.sourceBlocks(range) {
                named.isHanging = false
                once.give($0)
            }
            if once.isGiven { return }
            eventLoop.assumeIsolated().scheduleTask(in: Self.sourcePatience) {
                if once.isGiven { return }
                named.isHanging = true
                once.give(nil)
            }
        }
        volume.onReceiving = { [unowned self] isReceiving in hold(identifier, of: edge, !isReceiving) }
        var lastRefusal: (refusal: PointRefusal, at: NIODeadline)?
        volume.onRefused = { [recorder] point, refusal in
            // The edge tries again each second; a minute of that is one event.
            if let last = lastRefusal, last.refusal == refusal, NIODeadline.now() - last.at < .seconds(60) { return }
            lastRefusal = (refusal, .now())
            recorder.record(
                "point.refused", subject: identifier.description, severity: .warning,
                "point \(point) could not be taken: \(Self.explanation(of: refusal))")
        }
        journal.onFailed = { [recorder, weak volume] error in
            volume?.journalStopped()
            recorder.record(
                "journal.failed", subject: identifier.description, severity: .error,
                "the point journal stopped: \(error); received points are kept and are applied when the disk opens again")
        }
        journal.onKeepingGivenUp = { [recorder] point, error in
            recorder.record(
                "points.not_kept", subject: identifier.description, severity: .warning,
                "what point \(point) has overwritten could not be kept: the points before it are given up (\(error))")
        }
        journal.onHeld = { [unowned self] in settleGroups() }
        if journal.keptPoints > 0 {
            recorder.record(
                "points.kept", subject: identifier.description, severity: .warning,
                "\(journal.keptPoints) points of the attachment before were held for its group and are on no disk: they are kept in the "
                    + "journal's directory as held-*.journal until you remove them")
        }
        served[identifier] = Served(volume: volume, cachedDisk: disk, threads: threads, edge: edge)
        settleGroups()
    }

    /// How long the blocks that a point names are waited for.
    private static let sourcePatience = TimeAmount.seconds(2)

    /// What an edge was sent, of all its volumes.
    func blocks(of edge: String) -> PeerBlocks? {
        guard let sentBlocks else { return nil }
        if let blocks = peerBlocks[edge] { return blocks }
        let blocks = PeerBlocks(table: sentBlocks, salt: UInt64(peerBlocks.count))
        peerBlocks[edge] = blocks
        return blocks
    }

    /// The journals of all disks that are served.
    var journals: [Journal] { served.values.map(\.volume.journal) }

    func journal(of identifier: VolumeIdentifier) -> Journal? { served[identifier]?.volume.journal }

    private static func explanation(of refusal: PointRefusal) -> String {
        switch refusal {
        case .noSpace: "there is no room for it now; free space in the state directory if this goes on"
        case .medium: "the disk or the journal failed"
        case .fenced: "its writer has lost the lease"
        case .notOpen: "the volume is not open"
        case .outOfSequence: "it is not the next one"
        case .damaged: "it did not arrive as it was sent"
        }
    }

    /// A volume wants no more write-behind for now, or again. The credit is the link's: it is held back while any volume wants that.
    private func hold(_ identifier: VolumeIdentifier, of edge: String, _ isHolding: Bool) {
        var volumes = holding[edge] ?? []
        if isHolding { volumes.insert(identifier) } else { volumes.remove(identifier) }
        holding[edge] = volumes
        peers[edge]?.endpoint.setReceiving(volumes.isEmpty, class: .writeBehind)
    }

    /// Lets go of a disk whose journal has stopped. What it has received stays in the journal's directory.
    func abandon(_ identifier: VolumeIdentifier) {
        guard let served = served.removeValue(forKey: identifier) else { return }
        peerBlocks[served.edge]?.forget(identifier)
        hold(identifier, of: served.edge, false)
        served.volume.sessionLost()
        served.volume.journal.close { served.close() }
    }

    /// What is known of a served volume.
    func progress(_ identifier: VolumeIdentifier) -> (position: PointPosition, sectorCount: UInt64, failure: String?)? {
        guard let served = served[identifier] else { return nil }
        var failure: String?
        if case .failed(let error) = served.volume.journal.state { failure = "\(error)" }
        return (served.volume.journal.position, served.disk.sectorCount, failure)
    }

    /// Ends what an earlier session of the volume left, so that its position is final.
    func prepareOpen(_ identifier: VolumeIdentifier, completion: @escaping (Result<PointPosition, any Error>) -> Void) {
        guard let served = served[identifier], served.volume.journal.state == .open, !closing.contains(identifier) else {
            return completion(.failure(Problem.notServed))
        }
        served.volume.sessionLost { completion(.success(served.volume.journal.position)) }
    }

    /// The lease is durable: takes points of this generation.
    func open(
        _ identifier: VolumeIdentifier, generation: LeaseGeneration, completion: @escaping (Result<PointPosition, any Error>) -> Void
    ) {
        guard let served = served[identifier], !closing.contains(identifier) else { return completion(.failure(Problem.notServed)) }
        served.volume.opened(generation: generation) { completion(.success($0)) }
    }

    /// Takes the lease away, applies what was received, and gives the disk back: at the last common point of its group, if it is in one.
    /// What is held is no part of that. It stays in the journal, and is an error when nothing may be `given up`.
    /// - Parameter completion: hears the last point on the disk, and how many are held.
    func close(
        _ identifier: VolumeIdentifier, givesUp: Bool, rollingBackTo past: PointNumber? = nil,
        completion closed: @escaping (Result<(applied: PointNumber, held: Int), any Error>) -> Void
    ) {
        guard let served = served[identifier], closing.insert(identifier).inserted else { return closed(.failure(Problem.notServed)) }
        let completion = { [self] (result: Result<(applied: PointNumber, held: Int), any Error>) in
            closing.remove(identifier)
            if case .failure = result { served.volume.sessionWasEnded() }
            closed(result)
        }
        let journal = served.volume.journal
        endSessions([identifier]) {
            journal.whenAgreedApplied { [self] result in
                let position: PointPosition
                switch result {
                case .failure(let error): return completion(.failure(Problem(describing: error, disk: served.disk.path)))
                case .success(let reached): position = reached
                }
                let heldCount = journal.heldPoints.count
                if heldCount > 0, !givesUp { return completion(.failure(Problem.held(heldCount))) }
                guard let past else { return giveBack(identifier, served) { completion(.success((position.applied, heldCount))) } }
                journal.rollBack(to: past) { [self] result in
                    switch result {
                    case .failure(let error): completion(.failure(Problem(describing: error, disk: served.disk.path)))
                    // How far it had come, for the group: the way back was asked for.
                    case .success: giveBack(identifier, served) { completion(.success((position.applied, heldCount))) }
                    }
                }
            }
        }
    }

    private func giveBack(_ identifier: VolumeIdentifier, _ entry: Served, completion: @escaping () -> Void) {
        entry.volume.journal.close { [self] in
            entry.close()
            served[identifier] = nil
            peerBlocks[entry.edge]?.forget(identifier)
            held[identifier] = nil
            hold(identifier, of: entry.edge, false)
            completion()
        }
    }

    /// Looks at the size of a served disk again, or makes it larger, and has its journal take what lies behind the old end.
    /// - Returns: true when it has grown.
    func changeSize(
        _ identifier: VolumeIdentifier, to byteCount: UInt64?, completion: @escaping (Result<Bool, any Error>) -> Void
    ) {
        guard let served = served[identifier] else { return completion(.failure(Problem.notServed)) }
        let changed = { (result: Result<Bool, LocalDiskError>) in
            served.volume.journal.diskDidGrow(to: served.disk.sectorCount)
            completion(result.mapError { Problem(describing: $0) })
        }
        if let byteCount {
            served.disk.grow(to: byteCount, completion: changed)
        } else {
            served.disk.rescan(completion: changed)
        }
    }

    /// Makes a file larger that no volume has open.
    func grow(_ path: String, to byteCount: UInt64, completion: @escaping (Result<Bool, any Error>) -> Void) {
        LocalDisk.open(path: path, eventLoop: eventLoop, threadPool: threadPool) { result in
            switch result {
            case .failure(let error): completion(.failure(Problem(describing: error)))
            case .success(let disk):
                disk.grow(to: byteCount) { result in
                    disk.close()
                    completion(result.mapError { Problem(describing: $0) })
                }
            }
        }
    }

    /// What stands at `path`, looked at by opening it for a moment: locked disks show as such.
    func probe(_ path: String, completion: @escaping (Result<(kind: LocalDiskKind, sectorCount: UInt64), any Error>) -> Void) {
        LocalDisk.open(path: path, eventLoop: eventLoop, threadPool: threadPool) { result in
            completion(
                result.map { disk in
                    disk.close()
                    return (disk.kind, disk.sectorCount)
                }.mapError { $0 })
        }
    }
}

/// Passes on the first of several answers. Confined to an event loop.
private final class FirstAnswer {
    private var completion: ((ByteBuffer?) -> Void)?

    init(_ completion: @escaping (ByteBuffer?) -> Void) { self.completion = completion }

    var isGiven: Bool { completion == nil }

    func give(_ answer: ByteBuffer?) {
        let completion = completion
        self.completion = nil
        completion?(answer)
    }
}
