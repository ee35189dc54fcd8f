import Blocks
import Disks
import LinkProtocol
import NIOCore
import SimulatedStorage
import Volumes

/// The on-prem edge's process in a simulated world: its disks, and an end of the link to each cloud edge.
final class HomeProcess {
    private unowned let world: World
    private(set) var disks: [HomeDisk] = []
    private let ends: [LinkEnd]
    private(set) var isDead = false
    /// How many sessions there were with each edge.
    private var sessions: [Int]

    init(world: World) {
        self.world = world
        sessions = world.edges.map { _ in 0 }
        ends = world.edges.map { _ in LinkEnd(role: .acceptor, scheduler: world.scheduler) }
        disks = world.volumes.map { HomeDisk($0, ends: ends, world: world) }
        for (edge, end) in zip(world.edges, ends) {
            end.onAction = { [weak self] action in self?.handle(action, edge: edge.number) }
            edge.line.homeStarted(end)
        }
    }

    func die() {
        isDead = true
        for end in ends { end.die() }
        for disk in disks { disk.die() }
    }

    /// The home of a volume, once its journal is open.
    func disk(of volume: SimulatedVolume) -> HomeDisk { disks[volume.number] }

    /// The journals of the group, once all of them are open.
    private var groupJournals: [PointJournal<SimulatedFile, SimulatedDirectory>]? {
        let journals = disks.compactMap { $0.core?.journal }
        return world.group != nil && journals.count == disks.count ? journals : nil
    }

    /// Lets the disks of the group go on that may, and looks at them when all are where they may be.
    func settleGroup() {
        guard world.group != nil, !isDead else { return }
        GroupAgreement.settle(disks.compactMap { $0.core?.journal }) { _ in true }
        guard let journals = groupJournals, journals.allSatisfy({ $0.position.applied == $0.agreedPoint && $0.state == .open }) else {
            return
        }
        world.checkGroup(journals)
    }

    /// What home tells a cloud edge of the last cut; nil while it does not know.
    var lastCutNumber: UInt64? {
        groupJournals.map { journals in
            journals.map { max($0.agreedCut?.number ?? 0, $0.heldPoints.compactMap(\.group?.number).max() ?? 0) }.max() ?? 0
        }
    }

    private func handle(_ action: LinkAction, edge: Int) {
        let served = disks.filter { $0.volume.edge == edge }
        switch action {
        case .sessionStarted:
            sessions[edge] += 1
            for disk in served { disk.core?.sessionLost() }
        case .becameWritable: for disk in served { disk.core?.linkWritable() }
        case .deliver(.request(let call, _, let body), _): open(call, body, edge: edge)
        case .deliver(let message, _):
            guard let identifier = message.volume, let disk = disks.first(where: { $0.volume.identifier == identifier }) else { return }
            if disk.volume.edge == edge { disk.core?.receive(message) } else { disk.receiveFromFenced(message, edge: edge) }
        case .connectivityChanged, .closeConnection: break
        }
    }

    private func open(_ call: UInt64, _ body: ByteBuffer, edge: Int) {
        guard let request = OpenCoding.request(from: body),
            let disk = disks.first(where: { $0.volume.identifier.description == request.volume })
        else { return }
        let session = sessions[edge]
        disk.open(request, edge: edge) { [self, end = ends[edge]] status, body in
            // An answer belongs to the session of its call, as in the daemon.
            if sessions[edge] == session { _ = end.send(.reply(call: call, status: status, body: body), .control, isBulk: false) }
        }
    }
}

extension LinkMessage {
    /// The volume that a message to home is about.
    fileprivate var volume: VolumeIdentifier? {
        switch self {
        case .readRequest(_, let volume, _), .allocationRequest(_, let volume, _), .pointBegin(let volume, _, _),
            .pointAttributes(let volume, _, _), .pointData(let volume, _, _, _), .pointZeroes(let volume, _, _),
            .pointCommit(let volume, _, _, _):
            volume
        default: nil
        }
    }
}
