import Blocks
import NIOCore
import SimulatedStorage

@testable import Disks

typealias SimulatedJournal = PointJournal<SimulatedFile, SimulatedDirectory>

/// A piece as a test writes it: bytes, or nil for zeroes.
struct TestPiece {
    let range: SectorRange
    let data: [UInt8]?
}

/// A machine with one small disk and its journal, and what the disk must hold after each point.
final class JournalWorld {
    static let sectorCount: UInt64 = 48
    static let volume = VolumeIdentifier(high: 1, low: 2)
    let scheduler: Scheduler
    let machine: SimulatedMachine
    let random: SeededRandom
    var limits = PointJournalLimits()
    var keeping = PointKeeping.none
    /// The contents of the disk after point 0, 1, 2 ...
    private(set) var states: [[UInt8]]
    /// The pieces of point 1, 2, ...
    private(set) var points: [[TestPiece]] = []

    init(seed: UInt64) {
        scheduler = Scheduler(seed: seed)
        machine = SimulatedMachine(scheduler: scheduler)
        random = scheduler.random
        states = [[UInt8](repeating: 0, count: Int(Self.sectorCount) * 512)]
        // So small that every way of cutting and waiting is taken.
        limits.writeBytes = 3000
        limits.receiveBufferBytesMax = 32 << 10
        limits.journalWritesInFlightMax = 2
        limits.applyBatchBytes = 4096
        limits.diskWritesInFlightMax = 3
        limits.readsInFlightMax = 2
        limits.pointsQueuedMax = 3
    }

    var disk: SimulatedFile { machine.disk("disk", byteCount: Int(Self.sectorCount) * 512) }
    var directory: SimulatedDirectory { machine.directory("journal") }

    /// What a reader says of a journal that nobody has open.
    func report() throws -> JournalReport {
        var result: Result<JournalReport, StorageFileError>?
        let names = directory.names
        JournalReader.read(directory: directory, limits: limits) { result = $0 }
        scheduler.runUntilIdle()
        guard let result else { throw TestFailure("the journal was never read") }
        if directory.names != names { throw TestFailure("a reader has changed the directory") }
        return try result.get()
    }

    /// Opens the journal and waits for it.
    func open(volume: VolumeIdentifier = JournalWorld.volume) -> Result<SimulatedJournal, PointJournalError>? {
        var result: Result<SimulatedJournal, PointJournalError>?
        startOpening(volume: volume) { result = $0 }
        scheduler.runUntilIdle()
        return result
    }

    func startOpening(
        volume: VolumeIdentifier = JournalWorld.volume,
        _ completion: @escaping (Result<SimulatedJournal, PointJournalError>) -> Void
    ) {
        SimulatedJournal.open(
            disk: disk, sectorCount: Self.sectorCount, directory: directory, volume: volume, keeping: keeping, limits: limits,
            wallClock: { [scheduler] in scheduler.now.uptimeNanoseconds / 1_000_000 }, completion: completion)
    }

    /// The pieces of a point, made when it is asked for first and the same ever after.
    func pieces(of point: PointNumber) -> [TestPiece] {
        while points.count < Int(point) { makePoint() }
        return points[Int(point) - 1]
    }

    func state(after point: PointNumber) -> [UInt8] {
        _ = point == 0 ? [] : pieces(of: point)
        return states[Int(point)]
    }

    private func makePoint() {
        var content = states[states.count - 1]
        var pieces: [TestPiece] = []
        // Some points have overlapping pieces, where the later one wins.
        for _ in 0..<random.within(0...9) {
            let start = random.below(Self.sectorCount)
            let range = SectorRange(from: start, to: min(Self.sectorCount, start + 1 + random.below(7)))
            let bytes =
                random.chance(percent: 25) ? nil : (0..<range.byteCount).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            pieces.append(TestPiece(range: range, data: bytes))
            let first = Int(range.byteOffset)
            content.replaceSubrange(
                first..<first + range.byteCount, with: bytes ?? [UInt8](repeating: 0, count: range.byteCount))
        }
        points.append(pieces)
        states.append(content)
    }

    /// Begins, feeds and commits a point, as a link would.
    func send(
        _ point: PointNumber, generation: LeaseGeneration, carrying attributes: PointAttributes? = nil, to journal: SimulatedJournal,
        completion: @escaping (Result<PointPosition, PointJournalError>) -> Void
    ) throws(PointJournalError) {
        guard try journal.begin(point: point, generation: generation) == .accepted else {
            return completion(.success(journal.position))
        }
        if let attributes { try journal.setAttributes(attributes) }
        var digest = PointDigest()
        let pieces = pieces(of: point)
        for piece in pieces {
            if let data = piece.data {
                digest.add(piece.range, data: ByteBuffer(bytes: data))
                try journal.addData(piece.range, data: ByteBuffer(bytes: data))
            } else {
                digest.addZeroes(piece.range)
                try journal.addZeroes(piece.range)
            }
        }
        journal.commit(pieces: UInt64(pieces.count), digest: digest.value, completion: completion)
    }
}
