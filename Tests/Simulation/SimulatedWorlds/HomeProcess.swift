import Blocks
import Disks
import LinkProtocol
import NIOCore
import SimulatedStorage
import Volumes

/// The on-prem edge's process in a simulated world: its disk, its journal, its end of the link.
final class HomeProcess {
    typealias Home = HomeVolume<SimulatedFile, SimulatedDirectory>

    private unowned let world: World
    let end: LinkEnd
    private(set) var volume: Home?
    private(set) var isDead = false

    init(world: World) {
        self.world = world
        end = LinkEnd(role: .acceptor, scheduler: world.scheduler)
        openJournal()
    }

    private func openJournal() {
        let disk = world.homeMachine.disk("disk", holding: [])
        PointJournal.open(
            disk: disk, sectorCount: world.diskSectorCount, directory: world.homeMachine.directory("journal"),
            volume: world.volumeIdentifier
        ) { [weak self] result in
            guard let self, !isDead else { return }
            switch result {
            case .success(let journal): opened(journal, disk)
            case .failure(.noSpace):
                // The file system is full: the daemon tries again until it is not.
                world.scheduler.schedule(after: .milliseconds(100)) { [weak self] in
                    if self?.isDead == false { self?.openJournal() }
                }
            case .failure(let error): world.fail("the journal did not open: \(error)")
            }
        }
    }

    func die() {
        isDead = true
        end.die()
    }

    private func opened(_ journal: PointJournal<SimulatedFile, SimulatedDirectory>, _ disk: SimulatedFile) {
        world.checkDisk(disk, position: journal.position)
        // The disk may have grown while the journal was opening.
        journal.diskDidGrow(to: world.diskSectorCount)
        let volume = Home(identifier: world.volumeIdentifier, journal: journal)
        volume.downlink = { [end] message, trafficClass, isBulk in end.send(message, trafficClass, isBulk: isBulk) }
        self.volume = volume
        end.onAction = { [weak self] action in self?.handle(action) }
        world.line.homeStarted(end)
    }

    private func handle(_ action: LinkAction) {
        switch action {
        case .sessionStarted: volume?.sessionLost()
        case .becameWritable: volume?.linkWritable()
        case .deliver(.request(let call, _, let body), _): open(call, body)
        case .deliver(let message, _): volume?.receive(message)
        case .connectivityChanged, .closeConnection: break
        }
    }

    /// The open of a volume, as the daemon does it: the lease is durable before the answer goes out.
    private func open(_ call: UInt64, _ body: ByteBuffer) {
        guard let volume, let request = OpenCoding.request(from: body) else { return }
        // Points of an earlier session end first: the position must be final when the lease is judged.
        volume.sessionLost { [self] in
            if isDead { return }
            do {
                _ = try world.lease.open(request, receivedPoint: volume.journal.position.received)
            } catch {
                return world.fail("the volume was refused: \(error)")
            }
            let generation = world.lease.generation
            volume.opened(generation: generation) { [self] position in
                if isDead { return }
                let reply = VolumeOpenReply(
                    generation: generation, receivedPoint: position.received, appliedPoint: position.applied)
                _ = end.send(.reply(call: call, status: 200, body: OpenCoding.encode(reply)), .control, isBulk: false)
            }
        }
    }
}

/// The open call in the simulator's own plain coding; the daemon's is JSON, and tested elsewhere.
enum OpenCoding {
    static func encode(_ request: VolumeOpenRequest) -> ByteBuffer {
        var buffer = ByteBuffer(string: request.volume + request.logIdentifier)
        buffer.writeInteger(request.incarnation)
        buffer.writeInteger(request.oldestPoint)
        buffer.writeInteger(request.lastSealedPoint)
        return buffer
    }

    static func request(from buffer: ByteBuffer) -> VolumeOpenRequest? {
        var buffer = buffer
        guard let volume = buffer.readString(length: 32), let log = buffer.readString(length: 32),
            let incarnation = buffer.readInteger(as: UInt64.self), let oldest = buffer.readInteger(as: UInt64.self),
            let lastSealed = buffer.readInteger(as: UInt64.self)
        else { return nil }
        return VolumeOpenRequest(
            volume: volume, logIdentifier: log, incarnation: incarnation, oldestPoint: oldest, lastSealedPoint: lastSealed)
    }

    static func encode(_ reply: VolumeOpenReply) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(reply.generation)
        buffer.writeInteger(reply.receivedPoint)
        buffer.writeInteger(reply.appliedPoint)
        return buffer
    }

    static func reply(from buffer: ByteBuffer) -> VolumeOpenReply? {
        var buffer = buffer
        guard let generation = buffer.readInteger(as: UInt64.self), let received = buffer.readInteger(as: UInt64.self),
            let applied = buffer.readInteger(as: UInt64.self)
        else { return nil }
        return VolumeOpenReply(generation: generation, receivedPoint: received, appliedPoint: applied)
    }
}
