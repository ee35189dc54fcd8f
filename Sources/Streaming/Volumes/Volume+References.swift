import Blocks
import LinkProtocol
import NIOCore
import SecureCache

// Answers that name blocks of this edge's cache instead of bringing their bytes (X4). Home guesses what is here (`SentBlocks`); what it says counts
// only when the block that is found has the digest that came with the name. All others are asked for again, as bytes.

extension Volume {
    /// Blocks of the cache that home takes for equal to those that a fetch waits for.
    func receiveReferences(_ read: UInt64, offset: UInt32, source: VolumeIdentifier, block: UInt64, digests: [BlockDigest]) {
        guard fetches.beginReferences(of: read, offset: offset, blockCount: digests.count) else { return }
        let references = References(read: read, offset: offset, source: source, block: block, digests: digests)
        var position = block
        for run in cache.residentRuns(source, blocks: block..<block + UInt64(digests.count)) {
            askPlainly(for: references, position..<run.lowerBound)
            resolve(references, run)
            position = run.upperBound
        }
        askPlainly(for: references, position..<block + UInt64(digests.count))
        sendFetches()
    }

    private func resolve(_ references: References, _ blocks: Range<UInt64>) {
        let destination = ReadDestination(byteCount: blocks.count * BlockGeometry.blockBytes)
        cache.read(references.source, blocks: blocks, into: destination, at: 0) { [self] result in
            if refusal != nil { return }
            guard case .success = result else {
                askPlainly(for: references, blocks)
                return sendFetches()
            }
            let data = destination.take()
            // Those that are right go in as one piece, and so do questions for those that are not.
            var start = blocks.lowerBound
            while start < blocks.upperBound {
                let isRight = isEqual(data, references, start, from: blocks.lowerBound)
                var end = start + 1
                while end < blocks.upperBound, isEqual(data, references, end, from: blocks.lowerBound) == isRight { end += 1 }
                if isRight {
                    take(data, references, start..<end, from: blocks.lowerBound)
                } else {
                    askPlainly(for: references, start..<end)
                }
                start = end
            }
            sendFetches()
        }
    }

    private func isEqual(_ data: ByteBuffer, _ references: References, _ block: UInt64, from first: UInt64) -> Bool {
        if isPlanted(.trustsReferences) { return true }
        let offset = Int(block - first) * BlockGeometry.blockBytes
        guard let bytes = data.getSlice(at: data.readerIndex + offset, length: BlockGeometry.blockBytes),
            let words = bytes.withUnsafeReadableBytes({ blockHasher?.hash($0) })
        else { return false }
        return BlockDigest(words) == references.digests[Int(block - references.block)]
    }

    private func take(_ data: ByteBuffer, _ references: References, _ blocks: Range<UInt64>, from first: UInt64) {
        let byteCount = blocks.count * BlockGeometry.blockBytes
        let offset = Int(blocks.lowerBound - first) * BlockGeometry.blockBytes
        guard let bytes = data.getSlice(at: data.readerIndex + offset, length: byteCount) else { return }
        statistics.referredBlocks &+= UInt64(blocks.count)
        receiveRead(references.read, offset: references.offset(of: blocks.lowerBound), data: bytes, byteCount: byteCount)
    }

    private func askPlainly(for references: References, _ blocks: Range<UInt64>) {
        if blocks.isEmpty { return }
        fetches.askPlainly(of: references.read, offset: references.offset(of: blocks.lowerBound), blockCount: blocks.count)
    }
}

/// What one message refers to.
private struct References {
    let read: UInt64
    let offset: UInt32
    let source: VolumeIdentifier
    let block: UInt64
    let digests: [BlockDigest]

    /// Where the bytes of a block of the source belong in the answer; the table has checked that all of them fit in.
    func offset(of block: UInt64) -> UInt32 { offset + UInt32(truncatingIfNeeded: Int(block - self.block) * BlockGeometry.blockBytes) }
}
