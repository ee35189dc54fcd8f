import Blocks
import Checksums
import DequeModule
import NIOCore

// Points of a volume that is in a group are held: received, durable, and not applied before the owner agrees, because all disks of
// the group have their part of a cut (`GroupAgreement` in Volumes decides). What is agreed to is durable before any of it is
// applied, so that after a crash in the middle of it this disk goes on by itself, whether the others are there or not.
//
//   received ─> held ─> agree ─> [agreed durable in the position file] ─> applied
//
// Reads see what is held: it is laid over what the disk says.

/// A received point that waits for an agreement.
public struct HeldPoint: Equatable, Sendable {
    public let point: PointNumber
    /// Nil for one that belongs to no group and stands behind one that does.
    public let group: GroupPoint?

    public init(point: PointNumber, group: GroupPoint?) {
        self.point = point
        self.group = group
    }
}

extension PointJournal {
    /// The received points from the first that is held on, in order.
    public var heldPoints: [HeldPoint] {
        queue.drop { !isHeldForGroup($0) }.map { HeldPoint(point: $0.index.point, group: $0.attributes?.group) }
    }

    var hasHeldPoints: Bool { queue.contains { isHeldForGroup($0) } }

    /// The received points that are applied as soon as may be: a read waits for them. What stands behind may wait long; see
    /// PointJournal+Stalling.swift for the other reason.
    var pointsBeforeHeld: Deque<ReceivedPoint<Directory.File>>.SubSequence { queue.prefix { !isHeld($0) } }

    /// The last cut that was agreed to; nil for none.
    public var agreedCut: GroupPoint? { record.cut }

    /// What the applied point carried besides its bytes; nil for nothing.
    public var appliedAttributes: PointAttributes? { record.mark }

    /// Points up to here are applied or may be.
    public var agreedPoint: PointNumber { max(record.agreed, agreement?.through ?? 0, position.applied) }

    /// True when the point may not be applied before the owner agrees. Where one that is held goes first, those behind it wait anyway.
    func isHeldForGroup(_ received: ReceivedPoint<Directory.File>) -> Bool {
        guard received.attributes?.group != nil else { return false }
        return received.index.point > record.agreed && !appliesHeldPoints && !isPlanted(.appliesBeforeGroupIsReceived)
    }

    /// All disks of the group have their part of the cut: points up to `point` may be applied.
    public func agree(through point: PointNumber, cut: GroupPoint?) {
        guard point > max(record.agreed, agreement?.through ?? 0) else { return }
        agreement = (point, cut)
        startApplying()
    }

    /// Makes an agreement durable, between two points: nothing else writes the position then.
    func recordAgreement() {
        guard let agreement, agreement.through > record.agreed, !isRecordingAgreement, !isRecordingKeeping else { return }
        isRecordingAgreement = true
        var next = record
        next.sequence &+= 1
        next.position.received = max(next.position.received, agreement.through)
        next.agreed = agreement.through
        if let cut = agreement.cut { next.cut = cut }
        writePosition(next) { [self] result in
            isRecordingAgreement = false
            if case .failure(let error) = result { return state == .closed ? finishCloseIfIdle() : fail(error) }
            startApplying()
            finishCloseIfIdle()
        }
    }

    // MARK: Reading

    /// Lays what held points have for `range` over what the disk has, point by point.
    func lay(
        _ held: ArraySlice<ReceivedPoint<Directory.File>>, over buffer: ByteBuffer, of range: SectorRange,
        completion: @escaping (Result<ByteBuffer, PointJournalError>) -> Void
    ) {
        let parts = held.flatMap { point in point.index.pieces(touching: range).map { (point: point, piece: $0) } }
        lay(parts[...], over: buffer, of: range, completion: completion)
    }

    private func lay(
        _ parts: ArraySlice<(point: ReceivedPoint<Directory.File>, piece: PointPiece)>, over buffer: ByteBuffer, of range: SectorRange,
        completion: @escaping (Result<ByteBuffer, PointJournalError>) -> Void
    ) {
        var (buffer, rest) = (buffer, parts)
        // Zeroes are laid here and now, however many there are; only data has to be waited for.
        while let (point, piece) = rest.popFirst() {
            let part = piece.range.intersection(range)
            let target = SectorRange(from: range.start, to: part.start).byteCount
            guard let offset = piece.dataOffset else {
                buffer.setRepeatingByte(0, count: part.byteCount, at: buffer.readerIndex + target)
                continue
            }
            return point.file.read(at: offset, byteCount: piece.dataBytes) { [self, buffer, rest] result in
                switch result {
                case .failure(let error): completion(.failure(PointJournalError(journal: error)))
                case .success(let data):
                    let skipped = SectorRange(from: piece.range.start, to: part.start).byteCount
                    guard CRC32C.checksum(of: data) == piece.checksum,
                        let bytes = data.getSlice(at: data.readerIndex + skipped, length: part.byteCount)
                    else { return completion(.failure(.corrupt("the data of point \(point.index.point) has changed in its file"))) }
                    var laid = buffer
                    laid.setBuffer(bytes, at: laid.readerIndex + target)
                    lay(rest, over: laid, of: range, completion: completion)
                }
            }
        }
        completion(.success(buffer))
    }
}
