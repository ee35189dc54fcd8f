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
                end(&run, &start, range, data)
                continue
            }
            // One that is named too: its place is newer than the one that it is named after.
            points.noteBlock(of: transmission.point, digest, block)
            guard let source = homeBlocks.source(of: digest, isUrgent: true) else {
                end(&run, &start, range, data)
                continue
            }
            if !run.continues(with: source) {
                end(&run, &start, range, data)
                run = NamedRun(start: first, source: source)
            }
            run.blocks.append((bytes, digest))
        }
        end(&run, &start, range, data)
        addBytes(SectorRange(from: start, to: range.end), slice(of: data, range, SectorRange(from: start, to: range.end)))
    }

    /// Fewer blocks in a row, of one write, are not named: they are sent sooner than home's disk finds them.
    static var namedBlocksMin: Int { 4 }

    /// Puts a run of named blocks in the outbox, if it is worth it, and what is before it as bytes.
    private func end(_ run: inout NamedRun, _ start: inout UInt64, _ range: SectorRange, _ data: ByteBuffer) {
        defer { run = NamedRun() }
        guard let source = run.source, run.blocks.count >= Self.namedBlocksMin else { return }
        let before = SectorRange(from: start, to: run.start)
        addBytes(before, slice(of: data, range, before))
        if let message = points.transmission?.message(for: run.blocks, from: run.start, source: source, volume: identifier) {
            points.outbox.append(message)
        }
        homeBlocks?.noteReferred(UInt64(run.blocks.count))
        start = run.start + UInt64(run.blocks.count) * BlockGeometry.sectorsPerBlock
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

    /// Home has applied points: their blocks may be named.
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

    /// Home has asked so often for bytes of a point: then it is sent anew, without names.
    static var pieceRequestsMax: Int { 8 }

    /// Home asks for the bytes of blocks that were named, and goes on with the point when it has them.
    func receivePieceRequest(_ point: PointNumber, _ range: SectorRange) {
        if refusal != nil { return withdraw(point) }
        homeBlocks?.noteWrong(UInt64(range.blocks.count))
        if points.pieceRequests.point != point { points.pieceRequests = (point, 0) }
        points.pieceRequests.count += 1
        if points.pieceRequests.count > Self.pieceRequestsMax, point != points.plainPoint { return sendPlainly(point) }
        let session = points.session
        // A block that was named lies in one segment.
        let segments = log.contents(of: point, in: range)
        let isWhole = segments.allSatisfy { $0.range.wholeBlocks.count * BlockGeometry.blockBytes == $0.range.byteCount }
        guard isWhole, segments.reduce(0, { $0 + $1.range.count }) == range.count, points.pieces.count < LinkLimits.references else {
            return withdraw(point)
        }
        for segment in segments {
            log.read(segment) { [self] result in
                guard session == points.session else { return }
                switch result {
                case .success(let data): addPieces(of: point, segment.range, data)
                case .failure(let error):
                    withdraw(point)
                    _ = deviceError(error)
                }
                sendPieces()
            }
        }
    }

    /// Too much of what was named is not at home, and each time the point waits for a round trip: home forgets what it has of it, and the point
    /// begins anew.
    private func sendPlainly(_ point: PointNumber) {
        points.plainPoint = point
        points.sessionLost()
        askForOpen()
    }

    /// Home will not get what it has asked for. It must hear that: its point waits, and others may wait behind that.
    private func withdraw(_ point: PointNumber) {
        let message = LinkMessage.pointWithdrawn(volume: identifier, point: point)
        if !points.pieces.contains(message) { points.pieces.append(message) }
        sendPieces()
    }

    private func addPieces(of point: PointNumber, _ range: SectorRange, _ data: ByteBuffer) {
        var data = data
        var start = range.start
        while let bytes = data.readSlice(length: min(data.readableBytes, LinkLimits.pieceBytes)), bytes.readableBytes > 0 {
            points.pieces.append(.pointPiece(volume: identifier, point: point, start: start, data: bytes))
            start += UInt64(bytes.readableBytes / BlockGeometry.sectorBytes)
        }
    }

    /// Hands the bytes that home has asked for to the link: behind what machines wait for, and before other points.
    func sendPieces() {
        while let message = points.pieces.first {
            guard uplink(message, .demand, true) else { return }
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
