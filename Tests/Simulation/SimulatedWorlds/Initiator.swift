import Blocks
import NIOCore
import SimulatedStorage
import Volumes

/// A machine that uses the volume: it has several requests in flight, and believes nothing.
final class Initiator: CustomStringConvertible {
    private static let requestsMax = 6

    private unowned let world: World
    private unowned let owner: ServedVolume
    /// Its owner's, who lives longer than anything here is asked for: what waits in a dead core must not keep that core.
    private unowned let volume: ServedVolume.Core
    private let history: WriteHistory
    private var inFlight = 0
    private var isIssuing: Bool { !world.isCalm }
    /// What survived the last crash is known.
    private(set) var isRecovered = false
    private var isDead = false
    /// Sectors with a write in flight: no second one is sent to them.
    private var isBusy = [Bool](repeating: false, count: Int(SimulatedVolume.sectorCountMax))

    init(world: World, owner: ServedVolume, volume: ServedVolume.Core) {
        self.world = world
        self.owner = owner
        self.volume = volume
        history = owner.volume.history
    }

    var description: String { "initiator: \(inFlight) in flight, recovered \(isRecovered), issuing \(isIssuing)" }
    var isIdle: Bool { inFlight == 0 && isRecovered }
    private var random: SeededRandom { world.scheduler.random }

    func die() { isDead = true }

    /// The whole volume is read first: after a crash it tells how much of the writes survived.
    func start() { recover() }

    private func recover() {
        let whole = SectorRange(from: 0, to: volume.sectorCount)
        inFlight += 1
        volume.read(whole) { [self] result in
            if isDead { return }
            inFlight -= 1
            switch result {
            case .success(let data): learn(data, whole)
            case .failure(.unreachable): world.scheduler.schedule(after: .milliseconds(50)) { [self] in if !isDead { recover() } }
            case .failure(let error): owner.operationFailed("the first read failed: \(error)")
            }
        }
    }

    private func learn(_ data: ByteBuffer, _ range: SectorRange) {
        guard let stamps = history.stamp.writes(in: data, range: range) else {
            return owner.fail("invariant 1: when the cloud edge has opened the volume a sector holds what nobody has written")
        }
        if let regions = owner.volume.regions {
            if let sector = history.forgetLost(showing: stamps, floors: regions.mustSurvive) {
                return owner.fail(
                    "invariant 2: after a restart of the cloud edge sector \(sector) shows write \(stamps[sector]), but "
                        + "\(regions.mustSurvive[sector]) must have survived")
            }
            isRecovered = true
            return issue()
        }
        guard let survived = history.longestPrefix(showing: stamps, notBefore: history.mustSurviveThrough) else {
            return owner.fail(
                "invariant 2: after a restart of the cloud edge the volume is no prefix of the writes from \(history.mustSurviveThrough) "
                    + "(must survive; flushed: \(history.flushedThrough)) to \(history.lastNumber)")
        }
        history.forget(after: survived)
        owner.volume.isHistoryKnown = true
        isRecovered = true
        issue()
    }

    private func issue() {
        if isDead { return }
        if isIssuing, inFlight < Self.requestsMax { request() }
        world.scheduler.schedule(microseconds: 200...12_000) { [weak self] in self?.issue() }
    }

    /// Where the lease is lost nobody answers reads any more.
    private func request() {
        switch random.below(owner.isFenced ? 50 : 100) {
        case 0..<45: write(isZeroes: false)
        case 45..<50: write(isZeroes: true)
        case 50..<76: read()
        case 76..<80: rewrite()
        case 80..<85: askForAllocation()
        case 85..<97: flush()
        default: seal()
        }
    }

    private func pick() -> SectorRange {
        // Half of the requests fall on whole blocks, and half on a small hot region.
        // The end of the disk, which may be anywhere in a block, gets its share too.
        let end = volume.sectorCount
        if random.chance(percent: 10) { return SectorRange(from: end - 1 - random.below(16), to: end) }
        let span = random.chance(percent: 50) ? end / 8 : end
        var start = random.below(span)
        var count = 1 + random.below(random.chance(percent: 10) ? 100 : 24)
        if random.chance(percent: 50) {
            start &= ~7
            count = (count + 7) & ~7
        }
        return SectorRange(from: start, to: min(end, start + count))
    }

    private func write(isZeroes: Bool) {
        let range = pick()
        let sectors = Int(range.start)..<Int(range.end)
        if isBusy[sectors].contains(true) { return }
        for sector in sectors { isBusy[sector] = true }
        inFlight += 1
        let number = history.record(range, isZeroes: isZeroes)
        let isDurable = random.chance(percent: 10)
        let completion: (Result<Void, BlockDeviceError>) -> Void = { [self] result in
            if isDead { return }
            inFlight -= 1
            for sector in sectors { isBusy[sector] = false }
            switch result {
            case .success:
                history.acknowledge(number)
                if isDurable {
                    history.flushed(through: number)
                    owner.volume.regions?.covered(range, number)
                }
            case .failure(let error): owner.operationFailed("a write failed: \(error)")
            }
        }
        let durability: WriteDurability = isDurable ? .durable : .ordered
        if isZeroes {
            volume.writeZeroes(range, durability: durability, completion: completion)
        } else {
            volume.write(range, data: history.stamp.data(range, write: number), durability: durability, completion: completion)
        }
    }

    /// Writes once more what is there: whole blocks, of which home has some already. Whatever becomes of it, nothing changes.
    private func rewrite() {
        let start = random.below(volume.sectorCount) & ~7
        let range = SectorRange(from: start, to: min(start + 8 * (1 + random.below(6)), volume.sectorCount & ~7))
        let sectors = Int(range.start)..<Int(max(range.start, range.end))
        if sectors.isEmpty || isBusy[sectors].contains(true) { return }
        var data = ByteBuffer()
        for sector in range.start..<range.end {
            let last = history.lastWrite(to: sector, through: history.lastNumber)
            if history.lastAcknowledged(sector) != last { return }
            let stamp = history.visibleStamp(of: last)
            if stamp == 0 {
                data.writeRepeatingByte(0, count: BlockGeometry.sectorBytes)
            } else {
                data.writeImmutableBuffer(history.stamp.data(SectorRange(from: sector, to: sector + 1), write: stamp))
            }
        }
        for sector in sectors { isBusy[sector] = true }
        inFlight += 1
        volume.write(range, data: data, durability: .ordered) { [self] result in
            if isDead { return }
            inFlight -= 1
            for sector in sectors { isBusy[sector] = false }
            if case .failure(let error) = result { owner.operationFailed("a write failed: \(error)") }
        }
    }

    private func flush() {
        inFlight += 1
        let acknowledged = history.lastAcknowledgedNumber
        let regions = owner.volume.regions
        let covered = regions == nil ? [] : history.lastAcknowledgedNumbers
        volume.flush { [self] result in
            if isDead { return }
            inFlight -= 1
            switch result {
            case .success:
                history.flushed(through: acknowledged)
                regions?.covered(covered)
            case .failure(let error): owner.operationFailed("a flush failed: \(error)")
            }
        }
    }

    private func seal() {
        volume.seal(until: .received) { _ in }
    }

    private func read() {
        let range = pick()
        let floors = (range.start..<range.end).map { history.lastAcknowledged($0) }
        inFlight += 1
        var resident = ByteBuffer()
        if volume.readIfResident(range, into: &resident) {
            inFlight -= 1
            return check(resident, range, floors)
        }
        volume.read(range) { [self] result in
            if isDead { return }
            inFlight -= 1
            switch result {
            case .success(let data): check(data, range, floors)
            case .failure(.unreachable): break
            case .failure(let error): owner.operationFailed("a read failed: \(error)")
            }
        }
    }

    /// What is told to be deallocated must read as zeroes: by the last acknowledged write, or by one that was under way.
    private func askForAllocation() {
        let range = random.chance(percent: 50) ? SectorRange(from: pick().start, to: volume.sectorCount) : pick()
        let floors = (range.start..<range.end).map { history.lastAcknowledged($0) }
        inFlight += 1
        volume.allocation(of: range) { [self] result in
            if isDead { return }
            inFlight -= 1
            switch result {
            case .success(let extents): check(extents, range, floors)
            case .failure(.unreachable): break
            case .failure(let error): owner.operationFailed("the question for the allocation of \(range) failed: \(error)")
            }
        }
    }

    private func check(_ extents: [AllocationExtent], _ range: SectorRange, _ floors: [UInt64]) {
        var position = range.start
        for extent in extents {
            guard extent.range.start == position, !extent.range.isEmpty, range.contains(extent.range) else {
                return owner.fail("the answer about the allocation of \(range) has a gap at sector \(position)")
            }
            position = extent.range.end
            if extent.allocation == .mapped { continue }
            for sector in extent.range.start..<extent.range.end {
                let floor = floors[Int(sector - range.start)]
                if !history.admits(stamp: 0, sector: sector, notOlderThan: floor) {
                    return owner.fail(
                        "invariant 1: sector \(sector) was told to be deallocated, but write \(floor) to it had been acknowledged")
                }
            }
        }
        if extents.isEmpty { owner.fail("the answer about the allocation of \(range) is empty") }
    }

    private func check(_ data: ByteBuffer, _ range: SectorRange, _ floors: [UInt64]) {
        guard data.readableBytes == range.byteCount, let stamps = history.stamp.writes(in: data, range: range) else {
            return owner.fail("invariant 1: a read of \(range) returned what nobody has written")
        }
        for (index, stamp) in stamps.enumerated() {
            let sector = range.start + UInt64(index)
            if !history.admits(stamp: stamp, sector: sector, notOlderThan: floors[index]) {
                return owner.fail(
                    "invariant 1: a read of sector \(sector) returned write \(stamp), but \(floors[index]) had been acknowledged")
            }
        }
    }
}
