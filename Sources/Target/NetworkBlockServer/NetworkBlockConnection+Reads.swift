import Blocks
import NBD
import NIOCore
import StorageTarget

// Reads, and what else looks at the medium.
extension NetworkBlockConnection {
    /// The longest read that is answered in place, in bytes.
    private static var inPlaceByteCount: Int { 65_536 }
    /// The most that a request to fill the cache reads at a time: 1 MiB.
    private static var cachePieceSectors: UInt64 { 2048 }

    /// The way of a cached read: header and data go into the batch without a buffer in between.
    func answerInPlace(_ request: NBDRequest, _ unit: LogicalUnit) -> Bool {
        let byteCount = Int(request.byteCount)
        let sectors = sectors(of: request)
        guard byteCount > 0, byteCount <= Self.inPlaceByteCount, sectors.byteCount == byteCount, reads.reserve(byteCount) else {
            return false
        }
        answers.begin()
        let start = answers.buffer.writerIndex
        replies.writeReadHeader(request.handle, offset: request.offset, byteCount: byteCount, isLast: true, into: &answers.buffer)
        let dataStart = answers.buffer.writerIndex
        guard unit.readIfResident(sectors, into: &answers.buffer) else {
            answers.buffer.moveWriterIndex(to: start)
            reads.release(byteCount)
            return false
        }
        if replies.usesStructuredReplies, answers.buffer.isZero(at: dataStart - answers.buffer.readerIndex, byteCount: byteCount) {
            answers.buffer.moveWriterIndex(to: start)
            reads.release(byteCount)
            replies.writeHole(request.handle, offset: request.offset, byteCount: byteCount, isLast: true, into: &answers.buffer)
        } else {
            answers.holds(byteCount)
        }
        return true
    }

    /// The sectors that a request touches. It lies within the export.
    private func sectors(of request: NBDRequest) -> SectorRange {
        let sectorBytes = UInt64(BlockGeometry.sectorBytes)
        let end = request.offset + UInt64(request.byteCount)
        return SectorRange(from: request.offset / sectorBytes, to: (end + sectorBytes - 1) / sectorBytes)
    }

    /// A read in pieces, one after the other. With structured replies each is a chunk, sent as it comes; a simple reply, or
    /// one that must not be fragmented, begins when all are here.
    func read(_ request: NBDRequest) {
        if request.byteCount == 0 { return settle { replies.writeEmptyRead(request.handle, into: &answers.buffer) } }
        let isWhole = !replies.usesStructuredReplies || request.flags.contains(.dontFragment)
        let whole = sectors(of: request)
        if isWhole {
            reserve(whole.byteCount) { [self] in gather(request, whole) }
        } else {
            send(request, whole)
        }
    }

    private func send(_ request: NBDRequest, _ whole: SectorRange) {
        var position = whole.start
        StepLoop { [self] loop in
            let piece = SectorRange(from: position, to: min(whole.end, position + pieceSectors))
            position = piece.end
            reserve(piece.byteCount) { [self] in
                runner?.perform(.read(piece)) { [self] result in
                    switch result {
                    case .failure(let error):
                        finish(request, error)
                        reads.release(piece.byteCount)
                    case .success(let data):
                        let isLast = piece.end == whole.end
                        chunk(request, piece, data, isLast: isLast)
                        if isLast { settle {} } else { loop.next() }
                    }
                }
            }
        }.next()
    }

    /// Sends the data of a piece, of which the sectors may hold more than the client wants.
    private func chunk(_ request: NBDRequest, _ piece: SectorRange, _ data: ByteBuffer, isLast: Bool) {
        guard isOpen else { return reads.release(piece.byteCount) }
        let (offset, wanted) = wanted(by: request, of: piece, data)
        if wanted.isZero(at: 0, byteCount: wanted.readableBytes) {
            replies.writeHole(request.handle, offset: offset, byteCount: wanted.readableBytes, isLast: isLast, into: &answers.buffer)
            return reads.release(piece.byteCount)
        }
        answers.begin(headerByteCount: replies.readHeaderByteCount, dataByteCount: wanted.readableBytes)
        replies.writeReadHeader(request.handle, offset: offset, byteCount: wanted.readableBytes, isLast: isLast, into: &answers.buffer)
        answers.append(wanted)
        answers.holds(piece.byteCount)
        scheduleFlush()
    }

    private func gather(_ request: NBDRequest, _ whole: SectorRange) {
        var position = whole.start
        var gathered: [ByteBuffer] = []
        StepLoop { [self] loop in
            let piece = SectorRange(from: position, to: min(whole.end, position + pieceSectors))
            position = piece.end
            runner?.perform(.read(piece)) { [self] result in
                switch result {
                case .failure(let error):
                    finish(request, error)
                    reads.release(whole.byteCount)
                case .success(let data):
                    gathered.append(wanted(by: request, of: piece, data).data)
                    if piece.end < whole.end { return loop.next() }
                    guard isOpen else {
                        reads.release(whole.byteCount)
                        return settle {}
                    }
                    settle {
                        let byteCount = Int(request.byteCount)
                        answers.begin(headerByteCount: replies.readHeaderByteCount, dataByteCount: byteCount)
                        replies.writeReadHeader(
                            request.handle, offset: request.offset, byteCount: byteCount, isLast: true, into: &answers.buffer)
                        for data in gathered { answers.append(data) }
                        answers.holds(whole.byteCount)
                    }
                }
            }
        }.next()
    }

    private var pieceSectors: UInt64 { UInt64(max(1, server.limits.pieceByteCount / BlockGeometry.sectorBytes)) }

    /// The part of a piece that the client asked for, and where it begins.
    private func wanted(by request: NBDRequest, of piece: SectorRange, _ data: ByteBuffer) -> (offset: UInt64, data: ByteBuffer) {
        let start = max(request.offset, piece.byteOffset)
        let end = min(request.offset + UInt64(request.byteCount), piece.byteOffset + UInt64(piece.byteCount))
        let slice = data.getSlice(at: data.readerIndex + Int(start - piece.byteOffset), length: Int(end - start))
        return (start, slice ?? ByteBuffer())
    }

    /// Runs `body` when there is memory for a read; a request whose client has gone meanwhile ends.
    private func reserve(_ byteCount: Int, _ body: @escaping () -> Void) {
        reads.wait(for: byteCount) { [self] in
            guard isOpen else {
                settle {}
                return false
            }
            body()
            return true
        }
    }

    /// Has the blocks of a range at hand, as far as the cache keeps them.
    func cache(_ request: NBDRequest) {
        let whole = sectors(of: request)
        var position = whole.start
        StepLoop { [self] loop in
            let piece = SectorRange(from: position, to: min(whole.end, position + Self.cachePieceSectors))
            if piece.isEmpty || !isOpen { return finish(request, nil) }
            position = piece.end
            reserve(piece.byteCount) { [self] in
                perform(.read(piece)) { [self] error in
                    reads.release(piece.byteCount)
                    if let error { finish(request, error) } else { loop.next() }
                }
            }
        }.next()
    }

    /// BLOCK_STATUS for `base:allocation`.
    func reportAllocation(_ request: NBDRequest) {
        guard let export else { return settle {} }
        let whole = sectors(of: request)
        let limit = request.flags.contains(.requestOne) ? 1 : server.limits.extents
        export.unit.allocation(of: whole, limit: limit) { [self] result in
            switch result {
            case .failure(let error): finish(request, error)
            case .success(let extents):
                settle { replies.writeAllocation(request.handle, Self.descriptors(extents, request), into: &answers.buffer) }
            }
        }
    }

    /// Extents of sectors as extents of the bytes that were asked for.
    private static func descriptors(_ extents: [(range: SectorRange, isDeallocated: Bool)], _ request: NBDRequest)
        -> [(byteCount: UInt32, allocation: NBDAllocation)]
    {
        let end = request.offset + UInt64(request.byteCount)
        return extents.compactMap { range, isDeallocated in
            let from = max(request.offset, range.byteOffset)
            let to = min(end, range.byteOffset + UInt64(range.byteCount))
            return to > from ? (UInt32(clamping: to - from), isDeallocated ? [.hole, .zero] : []) : nil
        }
    }
}
