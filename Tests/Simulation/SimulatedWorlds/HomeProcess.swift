import Blocks
import Disks
import LinkProtocol
import NIOCore
import ReadCache
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
    private var isEndingGroup = false
    /// What each edge was sent: few entries, so that some are forgotten.
    private let blocks: [PeerBlocks]
    /// What the disks are read through: none, or from very few blocks to more than there are.
    let readCache: ReadCache?
    private let readCacheBytesMax: Int

    init(world: World) {
        self.world = world
        sessions = world.edges.map { _ in 0 }
        blocks = SentBlocks(byteCount: 4 << 10).map { table in world.edges.map { PeerBlocks(table: table, salt: UInt64($0.number)) } } ?? []
        let kept = [0, 16 << 10, 128 << 10, 2 << 20][Int(world.scheduler.random.below(4))]
        readCacheBytesMax = kept
        readCache = kept == 0 ? nil : ReadCache(byteCount: kept)
        ends = world.edges.map { _ in LinkEnd(role: .acceptor, scheduler: world.scheduler) }
        disks = world.volumes.map { HomeDisk($0, ends: ends, readCache: readCache, world: world) }
        for (edge, end) in zip(world.edges, ends) {
            end.onAction = { [weak self] action in self?.handle(action, edge: edge.number) }
            edge.line.homeStarted(end)
        }
    }

    func die() {
        isDead = true
        for blocks in blocks {
            world.tally.namedInReads += blocks.statistics.referredBlocks
            world.tally.namedInReadsInVain += blocks.statistics.wrongBlocks
        }
        if let readCache {
            if readCache.statistics.usedBytes > readCacheBytesMax { world.fail("invariant 7: the read cache takes more than it may") }
            world.tally.foundInReadCache += readCache.statistics.foundBlocks
            world.tally.evictedFromReadCache += readCache.statistics.evictedBlocks
        }
        for end in ends { end.die() }
        for disk in disks { disk.die() }
    }

    /// What an edge was sent.
    func blocks(ofEdge number: Int) -> PeerBlocks? { blocks.indices.contains(number) ? blocks[number] : nil }

    /// The home of a volume, once its journal is open.
    func disk(of volume: SimulatedVolume) -> HomeDisk { disks[volume.number] }

    /// The journals of the group, once all of them are open.
    private var groupJournals: [HomeDisk.Journal]? {
        let members = disks.filter(\.volume.isInGroup)
        let journals = members.compactMap { $0.core?.journal }
        return world.group != nil && journals.count == members.count ? journals : nil
    }

    /// As the daemon tells its data plane.
    private var membership: GroupMembership {
        let members = disks.map { disk in
            (
                disk.volume.identifier,
                GroupMembership.Member(group: disk.volume.isInGroup ? world.group : nil, closedAt: disk.volume.closedAt)
            )
        }
        return GroupMembership(members: Dictionary(members, uniquingKeysWith: { $1 }))
    }

    /// Lets the disks of the group go on that may, and looks at them when all are where they may be.
    func settleGroup() {
        guard world.group != nil, !isDead else { return }
        GroupAgreement.settle(disks.compactMap { $0.core?.journal }, membership: membership)
        if world.isHandingGroupOver { return handGroupOver() }
        guard let journals = groupJournals, journals.allSatisfy(isAtRest) else { return }
        world.checkGroup(
            disks.filter(\.volume.isInGroup).compactMap { disk in
                (disk.core?.journal).map { (disk.volume, $0.position.applied, $0.agreedCut) }
            })
    }

    /// True when the disk is where it may be: points that were of no group are on it too.
    private func isAtRest(_ journal: HomeDisk.Journal) -> Bool {
        journal.state == .open && journal.position.applied == journal.agreedPoint && journal.pointsQueued == journal.heldPoints.count
    }

    // MARK: The group goes to another edge

    /// Detaches all volumes of the group by force, as the daemon does: all leases end, the disks go to where they may, and are closed
    /// one by one. A crash in between leaves some of them attached; then it is done again.
    func handGroupOver() {
        let members = disks.filter(\.volume.isInGroup)
        let attached = members.filter { $0.volume.closedAt == nil }
        if attached.isEmpty { return attachGroup(members) }
        guard !isEndingGroup, attached.allSatisfy({ $0.core != nil }) else { return }
        isEndingGroup = true
        var left = attached.count
        for disk in attached {
            disk.endSession { [self] in
                left -= 1
                if left > 0 || isDead { return }
                settleGroup()
                _ = lastCutNumber
                for disk in attached {
                    disk.close { [self] isClosed in
                        if isDead { return }
                        if !isClosed { isEndingGroup = false }
                        handGroupOver()
                    }
                }
            }
        }
    }

    private func attachGroup(_ members: [HomeDisk]) {
        world.isHandingGroupOver = false
        isEndingGroup = false
        world.checkGroup(members.map { ($0.volume, $0.volume.closedAt ?? 0, $0.volume.closedCut) })
        guard let edge = members.first?.volume.edge else { return }
        let next = world.edges[1 - edge]
        for disk in members { disk.attach(to: next.number) }
        if let process = next.process { process.serve(members.map(\.volume)) } else { next.start() }
    }

    /// What home tells a cloud edge of the last cut; nil while it does not know.
    var lastCutNumber: UInt64? {
        let journals = disks.compactMap { $0.core?.journal }
        guard journals.count == disks.count else { return nil }
        let known = journals.map { max($0.agreedCut?.number ?? 0, $0.heldPoints.compactMap(\.group?.number).max() ?? 0) }
        world.lastCutNumber = max(world.lastCutNumber, known.max() ?? 0)
        return world.lastCutNumber
    }

    private func handle(_ action: LinkAction, edge: Int) {
        switch action {
        case .sessionStarted:
            sessions[edge] += 1
            ends[edge].turns.reset()
            for disk in disks where disk.volume.edge == edge { disk.core?.sessionLost() }
        case .becameWritable(let trafficClass):
            ends[edge].turns.run(trafficClass) { number in if disks[number].volume.edge == edge { disks[number].core?.linkWritable() } }
            for disk in disks where disk.volume.edge == edge { disk.core?.linkWritable() }
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
        else {
            _ = ends[edge].send(
                .reply(call: call, status: OpenCoding.refused, body: ByteBuffer(string: "it is not attached")), .control, isBulk: false)
            return
        }
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
        case .readRequest(_, let volume, _), .readPlainRequest(_, let volume, _, _), .allocationRequest(_, let volume, _),
            .pointBegin(let volume, _, _),
            .pointAttributes(let volume, _, _), .pointData(let volume, _, _, _), .pointZeroes(let volume, _, _),
            .pointCommit(let volume, _, _, _), .pointReferences(let volume, _, _, _, _, _), .pointPiece(let volume, _, _, _),
            .pointWithdrawn(let volume, _):
            volume
        default: nil
        }
    }
}
