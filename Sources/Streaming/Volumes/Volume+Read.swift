import Blocks
import LinkProtocol
import NIOCore
import SecureCache
import WriteLog

// The read path (R1, R4, R5).
//
// What is cloud-only hides everything else. The unsent writes that overlay a range are looked up next, once. What they leave open is read
// in whole blocks from the cache, or joined to a fetch. A block that the cache can't give after
// all (evicted meanwhile, or damaged) becomes a fetch.

extension Volume {
    public func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        if check(range) != nil { return false }
        if let cloudOnly, cloudOnly.disk.holds(overlapping: range) {
            if !readIfResident(range, into: &buffer, over: cloudOnly) { return false }
        } else if !readBelowIfResident(range, into: &buffer) {
            return false
        }
        count(range)
        statistics.hitBlocks &+= UInt64(range.blocks.count)
        return true
    }

    /// Appends what the log and the cache hold of a range, if all of it is at hand.
    func readBelowIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        let start = buffer.writerIndex
        if !log.hasUnsent(overlapping: range) || isPlanted(.readsCacheBeforeLog) {
            if !readCachedIfResident(range, into: &buffer) { return false }
        } else {
            var position = range.start
            for segment in log.segments(in: range) {
                let gap = SectorRange(from: position, to: segment.range.start)
                guard gap.isEmpty || readCachedIfResident(gap, into: &buffer), log.readIfResident(segment, into: &buffer) else {
                    buffer.moveWriterIndex(to: start)
                    return false
                }
                position = segment.range.end
            }
            let rest = SectorRange(from: position, to: range.end)
            if !rest.isEmpty, !readCachedIfResident(rest, into: &buffer) {
                buffer.moveWriterIndex(to: start)
                return false
            }
        }
        return true
    }

    public func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        if let error = check(range) { return completion(.failure(error)) }
        count(range)
        let operation = ReadOperation(range, completion: completion)
        if let cloudOnly, cloudOnly.disk.holds(overlapping: range) {
            read(operation, over: cloudOnly)
        } else {
            readBelow(range, operation)
        }
        operation.allPiecesExpected()
        sendFetches()
    }

    /// Starts to read what the log, the cache and home hold of a range.
    func readBelow(_ range: SectorRange, _ operation: ReadOperation) {
        if range.isEmpty { return }
        var position = range.start
        for segment in log.segments(in: range) {
            readThroughCache(SectorRange(from: position, to: segment.range.start), operation)
            readUnsent(segment, operation)
            position = segment.range.end
        }
        readThroughCache(SectorRange(from: position, to: range.end), operation)
    }

    private func count(_ range: SectorRange) {
        statistics.reads &+= 1
        statistics.readBytes &+= UInt64(range.byteCount)
    }

    private func readCachedIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        let blocks = range.blocks
        let whole = SectorRange(
            from: blocks.lowerBound * BlockGeometry.sectorsPerBlock, to: blocks.upperBound * BlockGeometry.sectorsPerBlock)
        if whole == range { return cache.readIfResident(identifier, blocks: blocks, into: &buffer) }
        var scratch = ByteBufferAllocator().buffer(capacity: whole.byteCount)
        guard cache.readIfResident(identifier, blocks: blocks, into: &scratch),
            let slice = scratch.getSlice(at: Int(clamping: range.byteOffset - whole.byteOffset), length: range.byteCount)
        else { return false }
        buffer.writeImmutableBuffer(slice)
        return true
    }

    private func readUnsent(_ segment: LogSegment, _ operation: ReadOperation) {
        if isPlanted(.readsThroughZeroes), case .zeroes = segment.content { return readThroughCache(segment.range, operation) }
        statistics.hitBlocks &+= UInt64(segment.range.blocks.count)
        operation.expectPiece()
        if case .zeroes = segment.content { return operation.clear(segment.range) }
        log.read(segment) { [self] result in
            switch result {
            case .success(let data): operation.fill(segment.range, from: data, sourceOffset: 0)
            case .failure(let error):
                // What is not home is nowhere else: nothing goes on beside a damaged copy of it as if nothing were.
                if case .corrupt = error, segment.point.map({ $0 > points.received }) ?? true { _ = deviceError(error) }
                operation.fail(.medium("the write log of volume \(identifier) could not give \(segment.range) back: \(error)"))
            }
        }
    }

    /// Reads sectors that no unsent write covers: runs of cached blocks from the cache, the rest from home.
    private func readThroughCache(_ range: SectorRange, _ operation: ReadOperation) {
        if range.isEmpty { return }
        let blocks = range.blocks
        var block = blocks.lowerBound
        for run in cache.residentRuns(identifier, blocks: blocks) {
            if block < run.lowerBound { fetch(block..<run.lowerBound, of: range, operation) }
            readCached(run, of: range, operation)
            block = run.upperBound
        }
        if block < blocks.upperBound { fetch(block..<blocks.upperBound, of: range, operation) }
    }

    private func readCached(_ blocks: Range<UInt64>, of range: SectorRange, _ operation: ReadOperation) {
        operation.expectPiece()
        let run = Self.sectors(of: blocks)
        let piece = run.intersection(range)
        // Whole blocks are opened in their places; a part of one is cut out of a copy.
        let isWhole = piece == run
        let destination = isWhole ? operation.destination : ReadDestination(byteCount: run.byteCount)
        cache.read(identifier, blocks: blocks, into: destination, at: isWhole ? operation.offset(of: piece) : 0) { [self] result in
            switch result {
            case .success:
                statistics.hitBlocks &+= UInt64(blocks.count)
                if isWhole { return operation.filled(piece) }
                operation.fill(piece, from: destination.take(), sourceOffset: Int(clamping: piece.byteOffset - run.byteOffset))
            case .failure:
                // Evicted meanwhile, or damaged: home has it.
                if let refusal { return operation.fail(refusal) }
                fetch(blocks, of: range, operation)
                operation.skip()
                sendFetches()
            }
        }
    }

    private func fetch(_ blocks: Range<UInt64>, of range: SectorRange, _ operation: ReadOperation) {
        statistics.missedBlocks &+= UInt64(blocks.count)
        let isBulk = operation.range.byteCount > Self.shortReadBytesMax
        var block = blocks.lowerBound
        while block < blocks.upperBound {
            let fetch: Fetch
            if let joined = fetches.fetch(of: block, fitFor: isBulk) {
                fetch = joined
            } else {
                var end = block + 1
                while end < blocks.upperBound, end - block < FetchTable.fetchBlocksMax, fetches.fetch(of: end, fitFor: isBulk) == nil {
                    end += 1
                }
                fetch = fetches.start(blocks: block..<end, sectorCount: sectorCount, isBulk: isBulk, now: clock())
                statistics.fetches &+= 1
            }
            let end = min(fetch.blocks.upperBound, blocks.upperBound)
            operation.expectPiece()
            fetch.waiters.append((operation, Self.sectors(of: block..<end).intersection(range)))
            block = end
        }
    }

    /// Reads up to this size overtake longer ones on the link.
    static var shortReadBytesMax: Int { 16 << 10 }

    static func sectors(of blocks: Range<UInt64>) -> SectorRange {
        SectorRange(from: blocks.lowerBound * BlockGeometry.sectorsPerBlock, to: blocks.upperBound * BlockGeometry.sectorsPerBlock)
    }

    func sendFetches() {
        guard isOpenAtHome else { return }
        while let question = fetches.nextPlainQuestion() {
            let message = LinkMessage.readPlainRequest(
                read: question.fetch, volume: identifier, range: question.range, offset: question.offset)
            guard uplink(message, .demand, false) else { return }
            fetches.plainQuestionWasSent()
        }
        while let fetch = fetches.nextToSend() {
            guard uplink(.readRequest(read: fetch.identifier, volume: identifier, range: fetch.range), .demand, false) else { return }
            fetches.markSent(fetch)
        }
    }

    /// A piece of an answer has come.
    func receiveRead(_ identifier: UInt64, offset: UInt32, data: ByteBuffer?, byteCount: Int) {
        guard let fetch = fetches.receive(identifier: identifier, offset: offset, data: data, byteCount: byteCount) else { return }
        let start = Self.sectors(of: fetch.blocks).byteOffset
        for waiter in fetch.waiters {
            waiter.operation.fill(waiter.piece, from: fetch.data, sourceOffset: Int(clamping: waiter.piece.byteOffset - start))
        }
        if fetch.isOpen { keepInCache(fetch) }
        sendFetches()
    }

    /// Puts what a fetch has brought into the cache. A block that the end of the disk cuts is not cached: the disk may grow, also
    /// while nobody here is told.
    private func keepInCache(_ fetch: Fetch) {
        let blocks = isPlanted(.cachesCutBlock) ? fetch.blocks : fetch.range.wholeBlocks
        guard blocks.lowerBound >= fetch.blocks.lowerBound else { return }
        let offset = Int(blocks.lowerBound - fetch.blocks.lowerBound) * BlockGeometry.blockBytes
        let byteCount = blocks.count * BlockGeometry.blockBytes
        guard let data = fetch.data.getSlice(at: fetch.data.readerIndex + offset, length: byteCount) else { return }
        cache.insert(identifier, block: blocks.lowerBound, data: data)
        noteBlocksOfHome(data, from: blocks.lowerBound)
    }

    /// Home could not answer a read.
    func receiveReadFailure(_ identifier: UInt64, status: ReadStatus) {
        if status == .notOpen {
            // The session at home is not what we think it is; the fetch stays and is sent again after the open.
            if isOpenAtHome { askForOpen() }
            return
        }
        if let query = allocationQueries.remove(identifier: identifier) {
            if case .busy = status {
                query.completion(.success(query.overlay.overMapped(query.asked)))
            } else {
                query.completion(.failure(error(status, query.asked)))
            }
            return sendAllocationQueries()
        }
        guard let fetch = fetches.remove(identifier: identifier) else { return }
        for waiter in fetch.waiters { waiter.operation.fail(error(status, fetch.range)) }
        sendFetches()
    }

    private func error(_ status: ReadStatus, _ range: SectorRange) -> BlockDeviceError {
        switch status {
        case .outOfRange: .outOfRange
        case .busy: .unreachable("home is too busy to read \(range)")
        default: .medium("the disk at home could not read \(range)")
        }
    }

    func expireReads(now: NIODeadline) {
        if isConnected && isOpenAtHome || fetches.isEmpty && allocationQueries.isEmpty { return }
        let error = BlockDeviceError.unreachable("the link to the on-prem edge is down, and the blocks are not in the cache")
        answerAllocationQueriesWithoutHome(startedBefore: now - policy.readTimeout)
        for fetch in fetches.removeAll(startedBefore: now - policy.readTimeout) {
            for waiter in fetch.waiters { waiter.operation.fail(error) }
        }
    }
}
