import Blocks
import Disks
import LinkProtocol
import NIOCore

// Blocks of points that come by name (X4): the cloud edge takes them for equal to blocks that home has, and sends the digests in place of the
// bytes. What is read here under the name counts when it has the digest; the rest is asked for, and the point goes on when it has come. The
// journal gets bytes in each case, so that nothing behind it knows of names.

/// Blocks that a point names, and what of them is known.
struct NamedBlocks {
    let point: PointNumber
    /// The first sector, in the point's volume.
    let start: UInt64
    let source: VolumeIdentifier
    /// The first block, in the source.
    let block: UInt64
    let digests: [BlockDigest]
    /// The bytes, once they have been read; of those that are missing they are of no use.
    var data = ByteBuffer()
    var missing = Set<Int>()

    var byteCount: Int { digests.count * BlockGeometry.blockBytes }

    /// The blocks of the source, as sectors; nil when there can be none.
    var sourceRange: SectorRange? {
        let (start, isTooLarge) = block.multipliedReportingOverflow(by: BlockGeometry.sectorsPerBlock)
        return isTooLarge ? nil : SectorRange(start: start, count: UInt64(digests.count) * BlockGeometry.sectorsPerBlock)
    }

    /// The sectors of some of the blocks, in the point's volume.
    func range(of indices: Range<Int>) -> SectorRange {
        let first = start + UInt64(indices.lowerBound) * BlockGeometry.sectorsPerBlock
        return SectorRange(from: first, to: first + UInt64(indices.count) * BlockGeometry.sectorsPerBlock)
    }

    /// The bytes of some of the blocks.
    func bytes(of indices: Range<Int>) -> ByteBuffer? {
        data.getSlice(
            at: data.readerIndex + indices.lowerBound * BlockGeometry.blockBytes, length: indices.count * BlockGeometry.blockBytes)
    }

    /// The missing ones, in runs.
    var missingRuns: [Range<Int>] {
        var runs: [Range<Int>] = []
        for index in missing.sorted() {
            if let last = runs.last, last.upperBound == index {
                runs[runs.count - 1] = last.lowerBound..<index + 1
            } else {
                runs.append(index..<index + 1)
            }
        }
        return runs
    }
}

extension HomeVolume {
    /// Reads what a point names, and holds up what follows until it is whole.
    func take(_ named: NamedBlocks) {
        isTaking = true
        let session = session
        let taken = { [self] (data: ByteBuffer?) in
            guard session == self.session else { return }
            compare(named, with: data)
        }
        guard let range = named.sourceRange else { return taken(nil) }
        readSource(named.source, range, taken)
    }

    private func compare(_ named: NamedBlocks, with data: ByteBuffer?) {
        var named = named
        if let data, data.readableBytes == named.byteCount {
            named.data = data
            named.missing = Set(named.digests.indices.filter { !isEqual(named, $0) })
        } else {
            named.data.writeRepeatingByte(0, count: named.byteCount)
            named.missing = Set(named.digests.indices)
        }
        statistics.referredBlocks &+= UInt64(named.digests.count - named.missing.count)
        if named.missing.isEmpty { return add(named) }
        namedBlocks = named
        for run in named.missingRuns
        where !announce(.pointPieceRequest(volume: identifier, point: named.point, range: named.range(of: run))) {
            return withdraw(named.point)
        }
    }

    private func isEqual(_ named: NamedBlocks, _ index: Int) -> Bool {
        guard let words = named.bytes(of: index..<index + 1)?.withUnsafeReadableBytes({ blockHasher?.hash($0) }) else { return false }
        return BlockDigest(words) == named.digests[index]
    }

    /// Bytes that were asked for. What nobody has asked for is dropped.
    func take(_ point: PointNumber, _ start: UInt64, _ data: ByteBuffer) {
        guard var named = namedBlocks, named.point == point, start >= named.start, start % BlockGeometry.sectorsPerBlock == 0 else {
            return
        }
        // Nobody else holds the bytes: they are put in their place without a copy of all.
        namedBlocks = nil
        var data = data
        var index = Int(clamping: (start - named.start) / BlockGeometry.sectorsPerBlock)
        while named.missing.contains(index), let block = data.readSlice(length: BlockGeometry.blockBytes) {
            named.data.setBuffer(block, at: named.data.readerIndex + index * BlockGeometry.blockBytes)
            guard isEqual(named, index) else {
                namedBlocks = named
                return withdraw(point)
            }
            named.missing.remove(index)
            index += 1
        }
        namedBlocks = named
        if named.missing.isEmpty { add(named) }
    }

    /// What was asked for will not come.
    func withdraw(_ point: PointNumber) {
        guard let named = namedBlocks, named.point == point else { return }
        namedBlocks = nil
        isTaking = false
        drop(point)
        takeMessages()
    }

    /// The blocks are whole: four make a piece, as their sender counts them.
    private func add(_ named: NamedBlocks) {
        namedBlocks = nil
        isTaking = false
        statistics.pointBytes &+= UInt64(named.byteCount)
        add(to: named.point) { () throws(PointJournalError) in
            for first in stride(from: 0, to: named.digests.count, by: LinkLimits.blocksPerNamedPiece) {
                let blocks = first..<min(named.digests.count, first + LinkLimits.blocksPerNamedPiece)
                guard let bytes = named.bytes(of: blocks) else { continue }
                try journal.addData(named.range(of: blocks), data: bytes)
            }
        }
        takeMessages()
    }
}

extension HomeVolume {
    /// Reads blocks of this disk for a point of another one, or of this one, that names them. Nil, at once, when a point has to be applied first: nobody
    /// must wait for another disk's points.
    public func sourceBlocks(_ range: SectorRange, completion: @escaping (ByteBuffer?) -> Void) {
        guard journal.isReadable(range) else { return completion(nil) }
        journal.read(range) { completion(try? $0.get()) }
    }
}
