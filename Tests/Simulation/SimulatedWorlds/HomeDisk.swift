import Blocks
import Disks
import LinkProtocol
import NIOCore
import ReadCache
import SimulatedStorage
import Volumes

/// One disk in the on-prem edge's process: its journal, and the half of the volume that is at home.
final class HomeDisk {
    typealias Core = HomeVolume<CachedDisk<SimulatedFile>, SimulatedDirectory>
    typealias Journal = PointJournal<CachedDisk<SimulatedFile>, SimulatedDirectory>

    private unowned let world: World
    let volume: SimulatedVolume
    private let ends: [LinkEnd]
    private let readCache: ReadCache?
    private(set) var core: Core?
    private var isDead = false
    /// The volume is on its way to another edge: nobody may open it.
    private(set) var isHandingOver = false
    /// The point of an edge without the lease that the journal has let in, which it must not.
    private var strayPoint: PointNumber?

    init(_ volume: SimulatedVolume, ends: [LinkEnd], readCache: ReadCache?, world: World) {
        self.volume = volume
        self.ends = ends
        self.readCache = readCache
        self.world = world
        openJournal()
    }

    /// Nothing of it happens any more. What waits in its core holds this disk, so the core is let go.
    func die() {
        isDead = true
        core = nil
    }

    private func openJournal() {
        if volume.closedAt != nil { return }
        Journal.open(
            disk: CachedDisk(volume.disk, cache: readCache), sectorCount: volume.diskSectorCount,
            directory: world.homeMachine.directory(volume.journalName),
            volume: volume.identifier, keeping: volume.keeping
        ) { [weak self] result in
            guard let self, !isDead else { return }
            switch result {
            case .success(let journal): opened(journal)
            case .failure(.noSpace):
                // The file system is full: the daemon tries again until it is not.
                world.scheduler.schedule(after: .milliseconds(100)) { [weak self] in
                    if self?.isDead == false { self?.openJournal() }
                }
            case .failure(let error):
                if !volume.isRefusalOfCopy() { volume.fail("the journal did not open: \(error)") }
            }
        }
    }

    private func opened(_ journal: Journal) {
        if volume.restoredCopy == nil { volume.checkDisk(position: journal.position) }
        volume.noteApplied(journal.position.applied)
        checkPast(of: journal)
        // The disk may have grown while the journal was opening.
        journal.diskDidGrow(to: volume.diskSectorCount)
        let core = Core(identifier: volume.identifier, journal: journal)
        core.downlink = { [volume, ends] message, trafficClass, isBulk in
            ends[volume.edge].send(message, of: volume.number, trafficClass, isBulk: isBulk)
        }
        self.core = core
        let tell = journal.onApplied
        journal.onApplied = { [weak self] point in
            tell?(point)
            guard let self, !isDead else { return }
            volume.noteApplied(point)
            if world.scheduler.random.chance(percent: 10) { checkPast(of: journal) }
            world.home?.settleGroup()
        }
        journal.onHeld = { [weak self] in if self?.isDead == false { self?.world.home?.settleGroup() } }
        world.home?.settleGroup()
        retryStalled()
    }

    private func retryStalled() {
        world.scheduler.schedule(after: .milliseconds(100)) { [weak self] in
            guard let self, !isDead, let journal = core?.journal else { return }
            if journal.stallReason != nil { world.tally.stalls += 1 }
            journal.retryStalled()
            retryStalled()
        }
    }

    /// Reads what is kept, while points go on coming.
    private func checkPast(of journal: Journal) {
        for past in journal.pastPoints {
            journal.openPast(past.point) { [weak self] result in
                guard let self, !isDead else { return }
                switch result {
                case .success(let view):
                    view.read(SectorRange(from: 0, to: view.sectorCount)) { [weak self] result in
                        view.close()
                        guard let self, !isDead else { return }
                        if case .success(let content) = result { volume.checkPast(past.point, content) }
                    }
                case .failure(.corrupt(let text)): volume.fail("invariant 3: what is kept is damaged: \(text)")
                // Given up for want of room, or too many at once.
                case .failure: break
                }
            }
        }
    }

    /// The open of a volume, as the daemon does it: the lease is durable before the answer goes out.
    func open(_ request: VolumeOpenRequest, edge: Int, answer: @escaping (UInt16, ByteBuffer) -> Void) {
        guard edge == volume.edge else { return answer(OpenCoding.refused, ByteBuffer(string: "the volume is another edge's")) }
        guard let core, !isHandingOver else { return answer(OpenCoding.later, ByteBuffer()) }
        // Points of an earlier session end first: the position must be final when the lease is judged.
        core.sessionLost { [self] in
            guard let core = self.core, !isDead, !isHandingOver, edge == volume.edge else { return }
            do throws(VolumeOpenRefusal) {
                _ = try volume.lease.open(request, receivedPoint: core.journal.position.received)
            } catch {
                return answer(OpenCoding.refused, ByteBuffer(string: error.explanation))
            }
            volume.opened(received: core.journal.position.received, oldestPoint: request.oldestPoint)
            let generation = volume.lease.generation
            core.peerBlocks = world.home?.blocks(ofEdge: edge)
            core.readSource = { [unowned self] source, range, completion in
                let disk = world.home?.disks.first { $0.volume.identifier == source && $0.volume.edge == edge }
                guard let core = disk?.core else { return completion(nil) }
                core.sourceBlocks(range, completion: completion)
            }
            core.opened(generation: generation) { [self] position in
                if isDead || isHandingOver || edge != volume.edge { return }
                let reply = VolumeOpenReply(generation: generation, receivedPoint: position.received, appliedPoint: position.applied)
                answer(OpenCoding.done, OpenCoding.encode(reply))
            }
        }
    }

    // MARK: Another edge

    /// Takes the lease away; what was received is final then.
    func endSession(completion: @escaping () -> Void) {
        isHandingOver = true
        core?.sessionLost { [self] in core?.journal.setLease(nil, completion: completion) }
    }

    /// Closes the disk where it may go, and says where that is. A journal that has stopped is opened anew, and has to be closed again.
    func close(completion: @escaping (_ isClosed: Bool) -> Void) {
        guard let journal = core?.journal else { return completion(false) }
        journal.whenAgreedApplied { [self] result in
            if isDead { return }
            journal.close { [self] in
                if isDead { return }
                core = nil
                if case .success(let position) = result {
                    volume.closedCut = journal.agreedCut
                    volume.closedAt = position.applied
                } else {
                    openJournal()
                }
                completion(volume.closedAt != nil)
            }
        }
    }

    /// The volume is attached to another edge, anew.
    func attach(to edge: Int) {
        volume.attach(to: edge)
        isHandingOver = false
        openJournal()
    }

    /// Gives the volume to another edge: takes the lease away, applies what was received, and tells no one.
    func handOver(to edge: Int, completion: @escaping () -> Void) {
        guard let core, !isHandingOver else { return }
        isHandingOver = true
        let journal = core.journal
        core.sessionLost { [self] in
            journal.setLease(nil) { [self, unowned journal] in
                journal.whenAllApplied { [self] result in
                    isHandingOver = false
                    if isDead { return }
                    // A disk without room stays whose it is, and that one goes on.
                    guard case .success(let position) = result else { return core.sessionWasEnded() }
                    volume.handOver(to: edge, after: position.applied)
                    completion()
                }
            }
        }
    }

    /// Messages of an edge that has lost the lease get through to the journal here, as if nothing else at home knew of the change:
    /// the generation alone must keep its points out. Nobody answers its reads.
    func receiveFromFenced(_ message: LinkMessage, edge: Int) {
        guard let journal = core?.journal else { return }
        switch message {
        case .pointBegin(_, let generation, let point):
            strayPoint = nil
            do {
                if try journal.begin(point: point, generation: generation) == .accepted { strayPoint = point }
            } catch {
                guard case .fenced = error else { return }
                tell(.pointRefused(volume: volume.identifier, point: point, refusal: .fenced), edge)
            }
        case .pointData(_, let point, let start, let data) where point == strayPoint:
            guard let range = SectorRange(start: start, count: UInt64(data.readableBytes / BlockGeometry.sectorBytes)) else { return }
            try? journal.addData(range, data: data)
        case .pointZeroes(_, let point, let range) where point == strayPoint: try? journal.addZeroes(range)
        case .pointCommit(_, let point, let pieces, let digest) where point == strayPoint:
            journal.commit(pieces: pieces, digest: digest) { _ in }
        default: break
        }
    }

    private func tell(_ message: LinkMessage, _ edge: Int) { _ = ends[edge].send(message, .control, isBulk: false) }
}
