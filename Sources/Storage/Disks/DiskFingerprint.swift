import Blocks
import Checksums
import NIOCore

// A disk that is served has a writer elsewhere: blocks of it are cached there, and points are on their way to it. Were
// another file put in its place while the daemon is down (a sibling image, an older copy, one that was mounted and
// changed), both would be mixed into it in silence. So the position file keeps the checksums of a few places, and a
// disk is only taken again when they are what the last applied point left there.
//
// At the start of an attachment the places are the beginning, the end and some between them. Each applied point puts
// its own last pieces first, drops what it has overwritten, and keeps the oldest of the others as far as they fit: the
// newest tell an older copy, the oldest another disk. A point that overwrites all places leaves nothing to know a disk by.

/// What one place of a disk holds.
struct DiskSample: Equatable {
    let range: SectorRange
    /// CRC-32C of the bytes.
    let checksum: UInt32
}

/// By which a journal knows its disk again.
struct DiskFingerprint: Equatable {
    /// Samples that are kept. Those of a point drive out the newest before them.
    static let samplesMax = 8
    /// Samples of one point, so that as many older ones stay.
    private static let samplesPerPointMax = 4
    /// A longer piece is no sample: all of them are read at each start.
    private static let sampleBytesMax = 1 << 20
    /// Where file systems and partition tables have their identity.
    private static let headSectors: UInt64 = 128
    private static let placeSectors: UInt64 = 8
    private static let places: UInt64 = 6

    private(set) var samples: [DiskSample]

    init(samples: [DiskSample] = []) { self.samples = Array(samples.prefix(Self.samplesMax)) }

    /// The places that are looked at when an attachment begins.
    static func firstPlaces(sectorCount: UInt64) -> [SectorRange] {
        guard sectorCount > headSectors + placeSectors * (places + 1) else { return [SectorRange(from: 0, to: sectorCount)] }
        let step = (sectorCount - placeSectors) / places
        return [SectorRange(from: 0, to: headSectors)]
            + (1...places).map { SectorRange(from: $0 * step, to: $0 * step + placeSectors) }.filter { $0.start >= headSectors }
    }

    /// What is known of the disk when these pieces have been applied, in their order.
    func applying(_ pieces: [PointPiece]) -> DiskFingerprint {
        let last = pieces.suffix(Self.samplesMax)
        var fresh: [DiskSample] = []
        for (index, piece) in zip(last.indices, last).reversed() where fresh.count < Self.samplesPerPointMax {
            let isOverwritten = last[(index + 1)...].contains { $0.range.overlaps(piece.range) }
            guard piece.dataOffset != nil, piece.dataBytes <= Self.sampleBytesMax, !isOverwritten else { continue }
            fresh.append(DiskSample(range: piece.range, checksum: piece.checksum))
        }
        return DiskFingerprint(samples: fresh + without(pieces).samples.suffix(Self.samplesMax - fresh.count))
    }

    /// The samples that none of these pieces touches.
    func without(_ pieces: [PointPiece]) -> DiskFingerprint {
        DiskFingerprint(samples: samples.filter { sample in !pieces.contains { $0.range.overlaps(sample.range) } })
    }
}

extension PointJournal {
    /// Looks at the disk as it is now, for an attachment that begins. It is made durable first, whoever wrote it: a disk that
    /// was copied there a moment ago must not be another one after a power cut.
    func takeFingerprint(completion: @escaping (Result<DiskFingerprint, PointJournalError>) -> Void) {
        disk.synchronize { [self] result in
            if case .failure(let error) = result { return completion(.failure(PointJournalError(disk: error))) }
            sample(DiskFingerprint.firstPlaces(sectorCount: sectorCount)[...], []) { result in
                completion(result.map { DiskFingerprint(samples: $0) })
            }
        }
    }

    /// Fails when the disk is not what the last applied point left. What the points in the queue change is not looked at:
    /// a crash may have come while the first of them was being applied. Nor is what `pieces` change.
    func checkFingerprint(besides pieces: [PointPiece] = [], completion: @escaping (Result<Void, PointJournalError>) -> Void) {
        let expected = queue.reduce(record.fingerprint.without(pieces)) { $0.without($1.index.pieces) }.samples
        sample(expected.map(\.range)[...], []) { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let found):
                if found == expected { return completion(.success(())) }
                completion(.failure(.foreignDisk(applied: record.position.applied, isReceivedWaiting: !queue.isEmpty)))
            }
        }
    }

    private func sample(
        _ ranges: ArraySlice<SectorRange>, _ taken: [DiskSample],
        completion: @escaping (Result<[DiskSample], PointJournalError>) -> Void
    ) {
        guard let range = ranges.first else { return completion(.success(taken)) }
        disk.read(at: range.byteOffset, byteCount: range.byteCount) { [self] result in
            switch result {
            case .failure(let error): completion(.failure(PointJournalError(disk: error)))
            case .success(let data):
                let sample = DiskSample(range: range, checksum: CRC32C.checksum(of: data))
                self.sample(ranges.dropFirst(), taken + [sample], completion: completion)
            }
        }
    }
}
