import Blocks
import CloudOnlyDisk
import NIOCore
import WriteLog

// Write policy by region (W1, W2). What is cloud-only goes to a disk of its own, which lies over the log, the cache and home; a write
// that falls into several regions is split, and acknowledged once.

/// A write that goes to several places, and is answered when all have answered.
private final class SplitWrite {
    private var pending: Int
    private var failure: BlockDeviceError?
    private let completion: (Result<Void, BlockDeviceError>) -> Void

    init(pieces: Int, completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        pending = pieces
        self.completion = completion
    }

    func ended(_ result: Result<Void, BlockDeviceError>) {
        if case .failure(let error) = result { failure = failure ?? error }
        pending -= 1
        if pending == 0 { completion(failure.map { .failure($0) } ?? .success(())) }
    }
}

extension Volume {
    // MARK: The table

    /// The write policy in force.
    public var regions: RegionTable { cloudOnly?.table ?? RegionTable() }

    /// True when the volume has a cloud-only disk.
    public var hasCloudOnlyDisk: Bool { cloudOnly != nil }

    /// Which cloud-only disk the volume has, and how far that has come; nil while there is none.
    public var cloudOnlyMark: CloudOnlyMark? { cloudOnly?.disk.mark }

    /// True when some sector is held by the cloud-only disk: it would be lost with this edge, and home has not got it.
    public var hasCloudOnlyWrites: Bool { cloudOnlyBytes(in: SectorRange(from: 0, to: sectorCount)) > 0 }

    /// The bytes of a range that only this edge has.
    public func cloudOnlyBytes(in range: SectorRange) -> UInt64 {
        (cloudOnly?.disk.heldSectors(in: range) ?? 0) * UInt64(BlockGeometry.sectorBytes)
    }

    /// What the cloud-only disk has done and holds; nil while there is none.
    public var cloudOnlyStatistics: CloudOnlyStatistics? { cloudOnly?.disk.statistics }

    /// Gives the volume its cloud-only disk, with the policy that was kept. Before this, all is on-prem.
    public func attach(_ disk: CloudOnlyDisk<Directory>, table: RegionTable) {
        guard cloudOnly == nil else { return }
        let layer = CloudOnlyLayer(disk: disk, table: table)
        cloudOnly = layer
        gatherTurns(of: disk)
    }

    /// Puts another policy in force, which the owner has made durable. Writes that wait for room in the log and are cloud-only now
    /// go on at once.
    public func setRegions(_ table: RegionTable) {
        guard let layer = cloudOnly, refusal == nil else { return }
        if table.imaging.first != layer.table.imaging.first { layer.imaging.position = nil }
        layer.table = table
        for append in log.takeHeld(where: { table.isCloudOnly(overlapping: $0) }) {
            if append.range == layer.imaging.copying {
                // Imaging gives way: on the disk it would wait for the range that it holds itself, and writers wait for that too.
                append.completion(.failure(.noSpace("\(append.range) is cloud-only again")))
                continue
            }
            // Whoever wrote it may want more than its order, and asks the log for that: a flush here covers the other part.
            write(append.range, append.data, .durable, over: layer) { [self] result in
                append.completion(result.mapError { writeLogError($0) })
            }
        }
        stepImaging()
    }

    private func writeLogError(_ error: BlockDeviceError) -> WriteLogError {
        if case .noSpace(let text) = error { return .noSpace(text) }
        return .closed
    }

    // MARK: Writing

    /// Writes bytes, or zeroes when there are none, to where the policy has them.
    func write(
        _ range: SectorRange, _ data: ByteBuffer?, _ durability: WriteDurability, over layer: CloudOnlyLayer<Directory>,
        _ completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        let isKept = layer.keepsBack(
            range, now: clock(),
            resume: { [self] in
                if let refusal { return completion(.failure(refusal)) }
                write(range, data, durability, over: layer, completion)
            }, fail: { completion(.failure($0)) })
        if isKept { return }
        let pieces = layer.table.route(range) { part in layer.disk.segments(in: part).map(\.range) }
        let split = pieces.count == 1 ? nil : SplitWrite(pieces: pieces.count, completion: completion)
        for piece in pieces {
            let bytes = data.flatMap {
                $0.getSlice(
                    at: $0.readerIndex + Int(clamping: piece.range.byteOffset - range.byteOffset), length: piece.range.byteCount)
            }
            let ended = split.map { split in { split.ended($0) } } ?? completion
            switch piece.destination {
            case .onPrem: writeToLog(piece.range, bytes, durability, ended)
            case .cloudOnly: writeToDisk(piece.range, bytes, durability, layer, ended)
            }
        }
    }

    private func writeToDisk(
        _ range: SectorRange, _ data: ByteBuffer?, _ durability: WriteDurability, _ layer: CloudOnlyLayer<Directory>,
        _ completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        let number = layer.began(range)
        let ordered: (Result<Void, WriteLogError>) -> Void = { [self] result in
            layer.ended(number)
            switch (result, durability) {
            case (.failure(let error), _): completion(.failure(cloudOnlyError(error)))
            case (.success, .ordered): completion(.success(()))
            case (.success, .durable):
                layer.disk.flushAcknowledged { [self] result in completion(result.mapError { cloudOnlyError($0) }) }
            }
        }
        if let data { layer.disk.write(range, data: data, completion: ordered) } else { layer.disk.writeZeroes(range, completion: ordered) }
    }

    /// A flush of a volume with two logs: both are durable.
    func flush(over layer: CloudOnlyLayer<Directory>, _ completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        let split = SplitWrite(pieces: 2, completion: completion)
        log.flush { [self] result in split.ended(result.mapError { deviceError($0) }) }
        layer.disk.flush { [self] result in split.ended(result.mapError { cloudOnlyError($0) }) }
    }

    /// What an error of the cloud-only disk is to a machine. What the disk can't get over stops the volume.
    func cloudOnlyError(_ error: WriteLogError) -> BlockDeviceError {
        switch error {
        case .noSpace(let reason): return .noSpace("the cloud-only disk of volume \(identifier) has no room: \(reason)")
        case .closed: return refusal ?? .stopped("the volume is closed")
        case .tooLarge: return .outOfRange
        default:
            return stopItself("the cloud-only disk of volume \(identifier) failed: \(error.text)")
        }
    }

    // MARK: Reading

    /// Appends what the layers hold of a range to `buffer`, if all of it is at hand.
    func readIfResident(
        _ range: SectorRange, into buffer: inout ByteBuffer, over layer: CloudOnlyLayer<Directory>
    ) -> Bool {
        let start = buffer.writerIndex
        var position = range.start
        for segment in layer.disk.segments(in: range) {
            let gap = SectorRange(from: position, to: segment.range.start)
            guard gap.isEmpty || readBelowIfResident(gap, into: &buffer), layer.disk.readIfResident(segment, into: &buffer) else {
                buffer.moveWriterIndex(to: start)
                return false
            }
            position = segment.range.end
        }
        let rest = SectorRange(from: position, to: range.end)
        if rest.isEmpty || readBelowIfResident(rest, into: &buffer) { return true }
        buffer.moveWriterIndex(to: start)
        return false
    }

    /// Starts to read what the cloud-only disk holds of a range, and what is below it where it holds nothing.
    func read(_ operation: ReadOperation, over layer: CloudOnlyLayer<Directory>) {
        let range = operation.range
        var position = range.start
        for segment in layer.disk.segments(in: range) {
            readBelow(SectorRange(from: position, to: segment.range.start), operation)
            statistics.hitBlocks &+= UInt64(segment.range.blocks.count)
            operation.expectPiece()
            layer.disk.read(segment) { [identifier] result in
                switch result {
                case .success(let data): operation.fill(segment.range, from: data, sourceOffset: 0)
                case .failure(let error):
                    operation.fail(
                        .medium("the cloud-only disk of volume \(identifier) could not give \(segment.range) back: \(error.text)"))
                }
            }
            position = segment.range.end
        }
        readBelow(SectorRange(from: position, to: range.end), operation)
    }

    // MARK: Time

    /// The cloud-only disk's share of what falls due with time.
    func tickCloudOnly(now: NIODeadline) {
        guard let layer = cloudOnly, refusal == nil else { return }
        if let failure = layer.disk.failure {
            _ = cloudOnlyError(failure)
            return
        }
        layer.disk.tick()
        layer.retryRemovalIfDue()
        let deadline = now - policy.writeTimeout
        layer.failKeptBack(
            since: deadline, .noSpace("writes of volume \(identifier) are being brought home, and there is no room for that"))
        if layer.disk.isWaitingForSpace {
            layer.disk.failHeld(appendedBefore: deadline, .noSpace("what is cloud-only can't be stored fast enough"))
        }
        stepImaging()
    }
}
