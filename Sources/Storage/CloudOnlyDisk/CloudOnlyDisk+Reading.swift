import Blocks
import NIOCore
import WriteLog

extension CloudOnlyDisk {
    // MARK: The layer

    /// True when nothing at all is held.
    public var isEmpty: Bool { presence.isEmpty && !journal.hasWrites }

    /// True when at least one sector of `range` is held.
    public func holds(overlapping range: SectorRange) -> Bool {
        if !journal.hasUnsent(overlapping: range) { return presence.holds(overlapping: range) }
        return !segments(in: range, limit: 1).isEmpty
    }

    /// What is held of `range`, clipped, in ascending order: the first segments, at most `limit`.
    public func segments(in range: SectorRange, limit: Int = .max) -> [CloudOnlySegment] {
        var found: [CloudOnlySegment] = []
        var position = range.start
        func addStored(to end: UInt64) {
            presence.visitRuns(in: SectorRange(from: position, to: end)) { run, state in
                if found.count < limit { found.append(CloudOnlySegment(range: run, content: state == .data ? .stored : .zeroes)) }
                return found.count < limit
            }
        }
        // Removals count nothing, so that the journal's runs are not as many as asked for.
        for segment in journal.segments(in: range) {
            addStored(to: segment.range.start)
            if found.count >= limit { return found }
            switch segment.content {
            case .absent: break
            case .zeroes: found.append(CloudOnlySegment(range: segment.range, content: .zeroes))
            case .data: found.append(CloudOnlySegment(range: segment.range, content: .journal(segment)))
            }
            position = segment.range.end
            if found.count >= limit { return found }
        }
        addStored(to: range.end)
        return found
    }

    /// How many sectors of a range are held.
    public func heldSectors(in range: SectorRange) -> UInt64 {
        var count = presence.heldSectors(in: range)
        for segment in journal.segments(in: range) {
            count -= presence.heldSectors(in: segment.range)
            if case .absent = segment.content { continue }
            count += segment.range.count
        }
        return count
    }

    // MARK: Reading

    /// Appends the bytes of a segment to `buffer` if they are at hand.
    /// - Returns: false, with `buffer` unchanged, when they are not, or are not what was written; `read` says which.
    public func readIfResident(_ segment: CloudOnlySegment, into buffer: inout ByteBuffer) -> Bool {
        switch segment.content {
        case .zeroes:
            buffer.writeRepeatingByte(0, count: segment.range.byteCount)
            return true
        case .journal(let segment): return journal.readIfResident(segment, into: &buffer)
        case .stored:
            let range = segment.range
            scratch.blocks.clear()
            scratch.seals.clear()
            return blocks.readIfResident(
                at: CloudOnlyFormat.blockOffset(range.start), byteCount: range.byteCount, into: &scratch.blocks)
                && seals.readIfResident(
                    at: CloudOnlyFormat.sealOffset(range.start), byteCount: Int(range.count) * CloudOnlyFormat.sealBytes,
                    into: &scratch.seals)
                && encoding.open(blocks: scratch.blocks, seals: scratch.seals, range: range, ciphers: blockCiphers, into: &buffer)
        }
    }

    /// Reads the bytes of a segment, which was looked up in this turn of the loop.
    public func read(_ segment: CloudOnlySegment, completion: @escaping (Result<ByteBuffer, WriteLogError>) -> Void) {
        switch segment.content {
        case .zeroes: completion(.success(ByteBuffer(repeating: 0, count: segment.range.byteCount)))
        case .journal(let segment): journal.read(segment, completion: completion)
        case .stored: readStored(segment.range, completion: completion)
        }
    }

    private func readStored(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, WriteLogError>) -> Void) {
        let generation = readGeneration
        readsInFlight[generation] += 1
        let finish = { [self] (result: Result<ByteBuffer, WriteLogError>) in
            readsInFlight[generation] -= 1
            completion(result)
            if readsInFlight[generation] == 0, generation != readGeneration, let ended = onReadsEnded {
                onReadsEnded = nil
                ended()
            }
        }
        blocks.read(at: CloudOnlyFormat.blockOffset(range.start), byteCount: range.byteCount) { [self] sealed in
            seals.read(
                at: CloudOnlyFormat.sealOffset(range.start), byteCount: Int(range.count) * CloudOnlyFormat.sealBytes
            ) { [self] seals in
                switch (sealed, seals) {
                case (.failure(let error), _), (_, .failure(let error)): finish(.failure(.file(error)))
                case (.success(let sealed), .success(let seals)):
                    var buffer = ByteBufferAllocator().buffer(capacity: range.byteCount)
                    if encoding.open(blocks: sealed, seals: seals, range: range, ciphers: blockCiphers, into: &buffer) {
                        finish(.success(buffer))
                    } else {
                        finish(.failure(.corrupt("\(range) on the cloud-only disk is not what was written there")))
                    }
                }
            }
        }
    }
}
