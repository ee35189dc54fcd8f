import Blocks
import NIOCore
import SCSI

extension LogicalUnit {
    /// The most blocks that one write of a WRITE SAME carries: 256 KiB of the pattern are in memory.
    private static var patternBlocks: UInt64 { 512 }
    /// The most blocks that one GET LBA STATUS looks at.
    private static var statusWindowBlocks: UInt64 { 1024 }
    /// The most blocks that it asks the device for at a time.
    private static var statusPieceBlocks: UInt64 { 128 }
    /// The most descriptors that it answers with.
    private static var maximumStatusExtents: Int { 64 }

    /// UNMAP of SBC-3. LBPRZ promises that what is unmapped reads as zeroes, so it is a write of zeroes.
    func unmap(_ task: SCSITask, _ completion: @escaping (SCSIResponse) -> Void) {
        guard case .unmap(let stated) = task.command else { return completion(.checkCondition(.invalidOperationCode)) }
        let list = task.dataOut ?? ByteBuffer()
        if list.readableBytes < Int(stated) { return completion(formatted(.checkCondition(.parameterListLength))) }
        var ranges: [SectorRange] = []
        do throws(SenseData) {
            for extent in try UnmapParameterList.parse(list.truncated(to: Int(stated)), limits: limits) {
                guard let range = sectorRange(extent.logicalBlockAddress, UInt64(extent.blockCount)) else {
                    throw .outOfRange
                }
                if !range.isEmpty { ranges.append(range) }
            }
        } catch {
            return completion(formatted(.checkCondition(error)))
        }
        guard let first = ranges.first else { return completion(.good) }
        let hull = ranges.reduce(first) { SectorRange(from: min($0.start, $1.start), to: max($0.end, $1.end)) }
        runOnMedium(task, hull, .shared, completion: completion) { running in
            self.writeZeroes(running, ranges[...])
        }
    }

    private func writeZeroes(_ running: LogicalUnitRunningTask, _ ranges: ArraySlice<SectorRange>) {
        guard let range = ranges.first else { return finish(running, .good) }
        step(
            running, { self.device.writeZeroes(range, durability: self.durability(), completion: $0) },
            then: { self.writeZeroes(running, ranges.dropFirst()) })
    }

    /// WRITE SAME of SBC-3. Zeroes, whether sent or meant by NDOB, are unmapped if the device can; another pattern is
    /// written even when UNMAP is set, because unmapped blocks would not read as it.
    func writeSame(
        _ task: SCSITask, _ transfer: BlockTransfer, _ unmap: Bool, _ hasData: Bool,
        _ completion: @escaping (SCSIResponse) -> Void
    ) {
        guard let range = sectorRange(of: transfer), !range.isEmpty else {
            return completion(formatted(.checkCondition(.outOfRange)))
        }
        let block = task.dataOut ?? ByteBuffer()
        if hasData && block.readableBytes != Self.blockBytes {
            return completion(formatted(.checkCondition(transfer.invalidLength)))
        }
        let isZero = !hasData || block.isZero(at: 0, byteCount: Self.blockBytes)
        runOnMedium(task, range, .shared, completion: completion) { running in
            if isZero {
                self.writeZeroes(running, [range])
            } else {
                var pattern = ByteBuffer()
                let count = Int(min(range.count, Self.patternBlocks))
                pattern.reserveCapacity(count * Self.blockBytes)
                for _ in 0..<count { pattern.writeImmutableBuffer(block) }
                self.writePattern(running, pattern, range)
            }
        }
    }

    private func writePattern(_ running: LogicalUnitRunningTask, _ pattern: ByteBuffer, _ range: SectorRange) {
        if range.isEmpty { return finish(running, .good) }
        let piece = SectorRange(from: range.start, to: min(range.end, range.start + Self.patternBlocks))
        let data = pattern.truncated(to: piece.byteCount)
        step(
            running, { self.device.write(piece, data: data, durability: self.durability(), completion: $0) },
            then: { self.writePattern(running, pattern, SectorRange(from: piece.end, to: range.end)) })
    }

    /// GET LBA STATUS (SBC-3, 5.4). A device does not say what is allocated, but what is at hand and zero is as good as
    /// deallocated to an initiator, since LBPRZ is set: it reads as zeroes. Everything else is called mapped, so a copy
    /// program skips what it may and reads the rest. Only memory is looked at, and only a window of it.
    func blockStatus(from address: UInt64, allocationByteCount: Int) -> [BlockStatusExtent] {
        let limit = max(1, min(Self.maximumStatusExtents, (allocationByteCount - 8) / 16))
        let end = min(device.sectorCount, address &+ Self.statusWindowBlocks)
        var extents: [BlockStatusExtent] = []
        var position = address
        while position < end {
            let pieceEnd = min(end, (position / Self.statusPieceBlocks + 1) * Self.statusPieceBlocks)
            let piece = SectorRange(from: position, to: pieceEnd)
            var data = ByteBuffer()
            let isResident = device.readIfResident(piece, into: &data)
            while position < pieceEnd {
                // A unit ends where a block of the device ends.
                let unitEnd = min(pieceEnd, (position / BlockGeometry.sectorsPerBlock + 1) * BlockGeometry.sectorsPerBlock)
                let unit = SectorRange(from: position, to: isResident ? unitEnd : pieceEnd)
                let offset = SectorRange(from: piece.start, to: unit.start).byteCount
                let isZero = isResident && data.isZero(at: offset, byteCount: unit.byteCount)
                if !append(unit, isZero ? .deallocated : .mapped, to: &extents, limit: limit) { return extents }
                position = unit.end
            }
        }
        return extents
    }

    /// Appends a run, or makes the last one longer; false when there is no room for one more.
    private func append(
        _ range: SectorRange, _ provisioning: BlockStatusExtent.Provisioning, to extents: inout [BlockStatusExtent], limit: Int
    ) -> Bool {
        if let last = extents.indices.last, extents[last].provisioning == provisioning {
            extents[last].blockCount += UInt32(clamping: range.count)
            return true
        }
        if extents.count == limit { return false }
        extents.append(
            BlockStatusExtent(
                logicalBlockAddress: range.start, blockCount: UInt32(clamping: range.count), provisioning: provisioning))
        return true
    }
}
