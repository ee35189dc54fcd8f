import Blocks
import NIOCore
import SCSI

extension LogicalUnit {
    /// The most blocks that one write of a WRITE SAME carries: 256 KiB of the pattern are in memory.
    static var patternBlocks: UInt64 { 512 }
    /// The most descriptors that one GET LBA STATUS answers with.
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
            self.writeZeroes(running, ranges)
        }
    }

    /// Zeroes all ranges together, so that the device may take them as one write.
    private func writeZeroes(_ running: LogicalUnitRunningTask, _ ranges: [SectorRange]) {
        var failure: BlockDeviceError?
        let countdown = Countdown(ranges.count) { [self] in
            finish(running, failure.map { response(to: $0, isWrite: true) } ?? .good)
        }
        for range in ranges {
            device.writeZeroes(range, durability: durability()) { result in
                if case .failure(let error) = result { failure = failure ?? error }
                countdown.arrive()
            }
        }
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

    /// GET LBA STATUS (SBC-3, 5.4): what the device says of its allocation, from `address` on. The answer describes at least
    /// that block; the initiator asks again behind the last descriptor.
    func getLBAStatus(
        _ task: SCSITask, from address: UInt64, allocationByteCount: Int, _ completion: @escaping (SCSIResponse) -> Void
    ) {
        let limit = max(1, min(Self.maximumStatusExtents, (allocationByteCount - 8) / 16))
        // It changes nothing and need not wait for those that do.
        runOnMedium(task, SectorRange(from: 0, to: 0), .shared, completion: completion) { running in
            self.device.allocation(of: SectorRange(from: address, to: self.device.sectorCount)) { result in
                switch result {
                case .failure(let error): self.finish(running, self.response(to: error, isWrite: false))
                case .success(let extents):
                    let report = BlockStatusExtent.report(Self.blockStatus(extents, limit: limit))
                    self.finish(running, .good(report.truncated(to: allocationByteCount)))
                }
            }
        }
    }

    private static func blockStatus(_ extents: [AllocationExtent], limit: Int) -> [BlockStatusExtent] {
        var status: [BlockStatusExtent] = []
        for extent in extents.prefix(limit) {
            status.append(
                BlockStatusExtent(
                    logicalBlockAddress: extent.range.start, blockCount: UInt32(clamping: extent.range.count),
                    provisioning: extent.allocation == .mapped ? .mapped : .deallocated))
            // A descriptor can't count more; what follows would leave a gap.
            if extent.range.count > UInt64(UInt32.max) { break }
        }
        return status
    }
}
