import Blocks
import LinkProtocol
import NIOCore
import WriteLog

// Points whose blocks home has already (X4): it is sent their names and digests in place of their bytes, by what it was sent and what it has sent
// before (`SentBlocks`). Nobody asks first. What home does not have under that name it asks for, and has it ahead of what the point has besides.

extension Volume {
    /// Puts a run of data in the outbox, with names in the place of blocks that home has.
    func addToOutbox(_ range: SectorRange, _ data: ByteBuffer) {
        guard let transmission = points.transmission else { return }
        guard let homeBlocks, !transmission.isPlain, linkVersion() >= LinkVersion.references else { return addBytes(range, data) }
        var run = NamedRun()
        // From here on nothing has been put in the outbox, up to `run`.
        var start = range.start
        for block in range.wholeBlocks {
            let first = block * BlockGeometry.sectorsPerBlock
            guard let bytes = slice(of: data, range, Self.sectors(of: block..<block + 1)), let digest = homeBlocks.digest(of: bytes) else {
                start = end(&run, orGoOnFrom: start)
                continue
            }
            // One that is named too: its place is newer than the one that it is named after.
            points.noteBlock(of: transmission.point, digest, block)
            guard let source = homeBlocks.source(of: digest, isUrgent: true) else {
                start = end(&run, orGoOnFrom: start)
                continue
            }
            if !run.continues(with: source) {
                start = end(&run, orGoOnFrom: start)
                addBytes(SectorRange(from: start, to: first), slice(of: data, range, SectorRange(from: start, to: first)))
                run = NamedRun(start: first, source: source)
            }
            run.blocks.append((bytes, digest))
        }
        start = end(&run, orGoOnFrom: start)
        addBytes(SectorRange(from: start, to: range.end), slice(of: data, range, SectorRange(from: start, to: range.end)))
    }

    /// Puts a run of named blocks in the outbox, if there is one.
    /// - Returns: the sector behind it, or `start`.
    private func end(_ run: inout NamedRun, orGoOnFrom start: UInt64) -> UInt64 {
        guard let source = run.source else { return start }
        let end = run.start + UInt64(run.blocks.count) * BlockGeometry.sectorsPerBlock
        if let message = points.transmission?.message(for: run.blocks, from: run.start, source: source, volume: identifier) {
            points.outbox.append(message)
        }
        homeBlocks?.noteReferred(UInt64(run.blocks.count))
        run = NamedRun()
        return end
    }

    private func addBytes(_ range: SectorRange, _ data: ByteBuffer?) {
        guard !range.isEmpty, let data else { return }
        let pieceBytes = preferredPieceBytes()
        let messages = points.transmission?.messages(for: range, data: data, pieceBytes: pieceBytes, volume: identifier) ?? []
        points.outbox.append(contentsOf: messages)
    }

    /// The bytes of a part of a run.
    private func slice(of data: ByteBuffer, _ range: SectorRange, _ part: SectorRange) -> ByteBuffer? {
        data.getSlice(at: data.readerIndex + Int(clamping: part.byteOffset - range.byteOffset), length: part.byteCount)
    }

    // MARK: What home has

    /// Home has received points: their blocks may be named.
    func noteBlocksAtHome() {
        while let (digest, block) = points.nextBlockAtHome() {
            homeBlocks?.note(digest, at: BlockPlace(volume: identifier, block: block))
        }
    }

    /// Home has sent blocks, which it has.
    func noteBlocksOfHome(_ data: ByteBuffer, from block: UInt64) {
        guard let homeBlocks, linkVersion() >= LinkVersion.references else { return }
        for (index, digest) in homeBlocks.digests(of: data).enumerated() {
            if let digest { homeBlocks.note(digest, at: BlockPlace(volume: identifier, block: block + UInt64(index))) }
        }
    }

    // MARK: What it does not have

    /// Home asks for the bytes of blocks that were named.
    func receivePieceRequest(_ point: PointNumber, _ range: SectorRange) {
        homeBlocks?.noteWrong(UInt64(range.blocks.count))
        let session = points.session
        // A block that was named lies in one segment.
        let segments = log.contents(of: point, in: range)
        guard segments.reduce(0, { $0 + $1.range.count }) == range.count else {
            points.pieces.append(.pointWithdrawn(volume: identifier, point: point))
            return sendPieces()
        }
        for segment in segments {
            log.read(segment) { [self] result in
                guard session == points.session else { return }
                switch result {
                case .success(let data): addPieces(of: point, segment.range, data)
                case .failure(let error):
                    points.pieces.append(.pointWithdrawn(volume: identifier, point: point))
                    _ = deviceError(error)
                }
                sendPieces()
            }
        }
    }

    private func addPieces(of point: PointNumber, _ range: SectorRange, _ data: ByteBuffer) {
        var data = data
        var start = range.start
        while let bytes = data.readSlice(length: min(data.readableBytes, LinkLimits.pieceBytes)), bytes.readableBytes > 0 {
            points.pieces.append(.pointPiece(volume: identifier, point: point, start: start, data: bytes))
            start += UInt64(bytes.readableBytes / BlockGeometry.sectorBytes)
        }
    }

    /// Hands the bytes that home has asked for to the link, before reads: a point waits for them there.
    func sendPieces() {
        while let message = points.pieces.first {
            guard uplink(message, .demand, false) else { return }
            points.pieces.removeFirst()
        }
    }
}

/// Blocks that follow one another here and in the source.
private struct NamedRun {
    var start: UInt64 = 0
    var source: BlockPlace?
    var blocks: [(data: ByteBuffer, digest: BlockDigest)] = []

    func continues(with place: BlockPlace) -> Bool {
        guard let source, blocks.count < LinkLimits.references else { return false }
        return place == BlockPlace(volume: source.volume, block: source.block + UInt64(blocks.count))
    }
}
