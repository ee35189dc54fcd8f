import Blocks
import NBD
import NIOCore
import StorageTarget

/// A write whose payload is on its way, piece by piece.
struct IncomingWrite {
    let operation: WriteOperation
    var pieces: NBDBytePieces
    /// Bytes of the budget that the next piece has.
    var reservedByteCount = 0
}

/// A write from its request to its answer.
final class WriteOperation {
    let request: NBDRequest
    /// Pieces with the unit, and one for the payload that still comes.
    var pending = 1
    /// The first error; no piece is begun after it.
    var error: BlockRequestError?

    init(_ request: NBDRequest) { self.request = request }
}

// Requests on their way from the decoder to the logical unit and back.
extension NetworkBlockConnection {
    /// Takes the next request, or the next part of a payload.
    /// - Returns: true when there may be more to do.
    func takeRequest() throws(NBDTransmissionError) -> Bool {
        if incoming != nil { return takePiece() }
        if skippedByteCount > 0 {
            skippedByteCount -= decoder.skip(skippedByteCount)
            return skippedByteCount == 0
        }
        guard let request = try decoder.next() else { return false }
        begin(request)
        return true
    }

    private func begin(_ request: NBDRequest) {
        guard let export, let terms else { return }
        if let refusal = request.refusal(under: terms, exportByteCount: export.byteCount) {
            skippedByteCount = request.payloadByteCount
            replies.writeError(request.handle, refusal, "the request is not one that this export takes", into: &answers.buffer)
            return
        }
        switch request.command {
        case .read where answerInPlace(request, export.unit): return
        case .disconnect: return retire {}
        default: requestCount += 1
        }
        switch request.command {
        case .read: read(request)
        case .write:
            incoming = IncomingWrite(
                operation: WriteOperation(request),
                pieces: NBDBytePieces(
                    offset: request.offset, byteCount: request.byteCount, maximumByteCount: server.limits.pieceByteCount))
        case .flush: perform(.flush) { self.finish(request, $0) }
        case .trim: trim(request)
        case .writeZeroes: writeZeroes(request)
        case .cache: cache(request)
        default: reportAllocation(request)
        }
    }

    /// Gives a request to the unit.
    func perform(_ request: BlockRequest, completion: @escaping (BlockRequestError?) -> Void) {
        runner?.perform(request) { result in
            if case .failure(let error) = result { completion(error) } else { completion(nil) }
        }
    }

    // MARK: Ends

    /// Answers a request that has no data to answer with, or that failed.
    func finish(_ request: NBDRequest, _ error: BlockRequestError?) {
        settle {
            answers.begin()
            if let error {
                replies.writeError(request.handle, NBDErrorNumber(error), error.message, into: &answers.buffer)
            } else {
                replies.writeSuccess(request.handle, into: &answers.buffer)
            }
        }
    }

    /// The end of a request: `answer` runs when there is somebody to hear it.
    func settle(_ answer: () -> Void) {
        requestCount -= 1
        if isOpen {
            answer()
            scheduleFlush()
        }
        requestDidEnd()
    }

    /// True while answers can leave.
    var isOpen: Bool { phase != .ending && channel.isActive }

    // MARK: Writes

    private func takePiece() -> Bool {
        guard var write = incoming else { return false }
        guard let piece = write.pieces.peek() else {
            incoming = nil
            pieceDidEnd(of: write.operation, nil)
            return true
        }
        guard write.reservedByteCount > 0 || reserve(piece.byteCount) else { return false }
        incoming?.reservedByteCount = piece.byteCount
        guard let data = decoder.takePayload(piece.byteCount) else { return false }
        _ = write.pieces.next()
        write.reservedByteCount = 0
        incoming = write
        let operation = write.operation
        operation.pending += 1
        let ended: (BlockRequestError?) -> Void = { [self] error in
            pieceDidEnd(of: operation, error)
            server.writes.release(piece.byteCount)
        }
        if operation.error != nil { ended(nil) } else { perform(Self.write(piece, data, operation.request), completion: ended) }
        return true
    }

    static func write(_ piece: NBDBytePieces.Piece, _ data: ByteBuffer, _ request: NBDRequest) -> BlockRequest {
        if let part = piece.part {
            return .update(sector: piece.sector, offset: part.lowerBound, data: data, forceUnitAccess: request.forcesUnitAccess)
        }
        let range = SectorRange(from: piece.sector, to: piece.sector + piece.sectorCount)
        return .write(range, data: data, forceUnitAccess: request.forcesUnitAccess)
    }

    /// Takes room for a piece, or stops the connection until there is some.
    private func reserve(_ byteCount: Int) -> Bool {
        if server.writes.reserve(byteCount) { return true }
        waitsForRoom = true
        server.writes.wait(for: byteCount) { [self] in
            roomWasGranted()
            guard phase == .transmission, incoming != nil else { return false }
            incoming?.reservedByteCount = byteCount
            resume()
            return true
        }
        return !waitsForRoom
    }

    private func pieceDidEnd(of operation: WriteOperation, _ error: BlockRequestError?) {
        operation.pending -= 1
        if operation.error == nil { operation.error = error }
        if operation.pending == 0 { finish(operation.request, operation.error) }
    }

    /// Forgets a payload that will not come.
    func abandonIncoming() {
        guard let write = incoming else { return }
        incoming = nil
        if write.reservedByteCount > 0 { server.writes.release(write.reservedByteCount) }
        write.operation.error = .aborted
        pieceDidEnd(of: write.operation, .aborted)
    }

    // MARK: Zeroes

    /// A hint: what is not a whole sector stays as it is.
    private func trim(_ request: NBDRequest) {
        let sectorBytes = UInt64(BlockGeometry.sectorBytes)
        let start = (request.offset + sectorBytes - 1) / sectorBytes
        let end = (request.offset + UInt64(request.byteCount)) / sectorBytes
        let whole = SectorRange(from: start, to: end)
        // Fewer bytes than came, so they fit in 32 bits.
        zero(request, from: whole.byteOffset, byteCount: UInt32(clamping: whole.byteCount), makesHoles: true)
    }

    private func writeZeroes(_ request: NBDRequest) {
        let makesHoles = !request.flags.contains(.noHole)
        let sectorBytes = UInt64(BlockGeometry.sectorBytes)
        let isWhole = request.offset % sectorBytes == 0 && UInt64(request.byteCount) % sectorBytes == 0
        if request.flags.contains(.fastZero), !makesHoles || !isWhole {
            return settle {
                replies.writeError(request.handle, .notSupported, "only holes of whole sectors are made fast", into: &answers.buffer)
            }
        }
        zero(request, from: request.offset, byteCount: request.byteCount, makesHoles: makesHoles)
    }

    /// Writes zeroes piece by piece: as holes, or as data that takes up space.
    private func zero(_ request: NBDRequest, from offset: UInt64, byteCount: UInt32, makesHoles: Bool) {
        let maximum = makesHoles ? server.limits.holeByteCount : server.zeroes.readableBytes
        var pieces = NBDBytePieces(offset: offset, byteCount: byteCount, maximumByteCount: maximum)
        StepLoop { [self] loop in
            guard let piece = pieces.next() else { return finish(request, nil) }
            let step: BlockRequest
            if makesHoles, piece.part == nil {
                let range = SectorRange(from: piece.sector, to: piece.sector + piece.sectorCount)
                step = .writeZeroes(range, forceUnitAccess: request.forcesUnitAccess)
            } else {
                let data = server.zeroes.getSlice(at: server.zeroes.readerIndex, length: piece.byteCount) ?? ByteBuffer()
                step = Self.write(piece, data, request)
            }
            perform(step) { if let error = $0 { self.finish(request, error) } else { loop.next() } }
        }.next()
    }
}
