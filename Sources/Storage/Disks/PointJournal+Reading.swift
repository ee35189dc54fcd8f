import Blocks
import DequeModule
import NIOCore

/// A read that waits for a point or for a place among those in flight.
struct WaitingRead {
    let range: SectorRange
    /// The point that must be on the disk first.
    let point: PointNumber
    let completion: (Result<ByteBuffer, PointJournalError>) -> Void
}

extension PointJournal {
    /// Reads `range` as it is after every point that has been received before the call. A range that such a point
    /// changes, and that is not on the disk yet, is read when the point has been applied.
    public func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, PointJournalError>) -> Void) {
        if let refusal { return completion(.failure(refusal)) }
        guard !range.isEmpty, range.end <= sectorCount, range.byteCount <= limits.readBytesMax else {
            return completion(.failure(.outOfRange(range)))
        }
        guard readsReady.count + readsBlocked.count < limits.readsQueuedMax else {
            return completion(.failure(.busy("\(limits.readsQueuedMax) reads wait")))
        }
        // What is held, and what stands behind it, is laid over what the disk says: its group may take long.
        let last = pointsBeforeHeld.last { $0.index.overlaps(range) }
        let read = WaitingRead(range: range, point: last?.index.point ?? 0, completion: completion)
        if read.point > position.applied {
            readsBlocked.append(read)
        } else {
            readsReady.append(read)
            startReads()
        }
    }

    /// True when a read of `range` would wait for nothing but the disk.
    public func isReadable(_ range: SectorRange) -> Bool {
        guard refusal == nil, readsBlocked.isEmpty else { return false }
        return pointsBeforeHeld.last { $0.index.overlaps(range) }.map { $0.index.point <= position.applied } ?? true
    }

    /// Lets go the reads whose point is on the disk now.
    func unblockReads() {
        guard !readsBlocked.isEmpty else { return }
        readsReady.append(contentsOf: readsBlocked.lazy.filter { $0.point <= self.position.applied })
        readsBlocked.removeAll { $0.point <= position.applied }
        startReads()
    }

    func startReads() {
        // A read may end before the call returns, and asks for the next one then.
        if isStartingReads { return }
        isStartingReads = true
        defer { isStartingReads = false }
        while readsInFlight.count < limits.readsInFlightMax, let read = readsReady.popFirst() {
            readSerial &+= 1
            let serial = readSerial
            readsInFlight[serial] = read.range
            // None of them is being applied: it would have waited for the read, or the read for it.
            let hasGroup = queue.contains { $0.attributes?.group != nil }
            let over =
                hasGroup || partialPoint != nil && !isPlanted(.readsDiskWithoutRoom) ? queue.filter { $0.index.overlaps(read.range) } : []
            let ended = { [self] (result: Result<ByteBuffer, PointJournalError>) in
                readsInFlight[serial] = nil
                // Whoever waits goes on before the answer: the owner may close the journal in it.
                startReads()
                startApplying()
                read.completion(result)
                finishCloseIfIdle()
            }
            disk.read(at: read.range.byteOffset, byteCount: read.range.byteCount) { [self] result in
                switch result {
                case .failure(let error): ended(.failure(PointJournalError(disk: error)))
                case .success(let buffer) where buffer.readableBytes == read.range.byteCount:
                    if over.isEmpty { return ended(.success(buffer)) }
                    lay(over[...], over: buffer, of: read.range, completion: ended)
                case .success(let buffer):
                    ended(.failure(.disk("\(buffer.readableBytes) bytes came for \(read.range): the disk has become shorter")))
                }
            }
        }
    }
}
