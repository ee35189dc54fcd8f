import Blocks
import NIOCore
import SCSI

// EXTENDED COPY(LID1): the logical unit that gets the command is its copy manager (SPC-4, 5.17).
//
//   list --parse--> segment 1 --resolve--> source, destination --> piece: read | write --> ... --> segment 2 ... --> answer
//                                 |                                     |
//                                 +-- not there, not allowed            +-- device error, reservation, abortion: COPY ABORTED
//
// A piece is read under a lock of its source range, then written under a lock of its destination range. The locks are never
// held together, so copies in opposite directions cannot wait for each other. The command itself holds no range.
//
// Another unit is touched in the name of the session that the same initiator has there: its reservations and its write
// protection count, and whatever ends that session's tasks there ends the copy.

/// A logical unit that a copy may reach, and the nexus that it counts as there.
public struct LogicalUnitCopyPeer {
    public let unit: LogicalUnit
    public let nexus: NexusIdentifier

    public init(unit: LogicalUnit, nexus: NexusIdentifier) {
        self.unit = unit
        self.nexus = nexus
    }
}

extension LogicalUnit {
    /// The blocks that a copy holds in memory: 1 MiB.
    static var copyPieceBlocks: UInt64 { 2048 }
    /// The bytes that a copy holds in memory, beside its parameter list.
    static var copyPieceByteCount: Int { Int(copyPieceBlocks) * blockBytes }

    func extendedCopy(_ task: SCSITask, _ completion: @escaping (SCSIResponse) -> Void) {
        guard case .extendedCopy(let stated) = task.command, let nexus = nexuses[task.nexus] else {
            return completion(formatted(.checkCondition(.invalidOperationCode)))
        }
        // No parameter list means nothing to copy, which is no error (SPC-4, 6.4.1).
        if stated == 0 { return completion(.good) }
        let buffer = task.dataOut ?? ByteBuffer()
        guard runningCopies < CopyLimits.maximumConcurrentCopies else { return completion(SCSIResponse(status: .busy)) }
        let list: ExtendedCopyParameterList
        do throws(SenseData) {
            guard buffer.readableBytes >= Int(stated) else { throw .parameterListLength }
            list = try ExtendedCopyParameterList.parse(buffer.truncated(to: Int(stated)))
            if list.usage != .none { try nexus.copyResults.begin(list.listIdentifier) }
        } catch {
            return completion(formatted(.checkCondition(error)))
        }
        runningCopies += 1
        let ended: (SCSIResponse) -> Void = { response in
            self.runningCopies -= 1
            completion(response)
        }
        runOnMedium(task, SectorRange(from: 0, to: 0), .shared, isLimited: false, completion: ended) { running in
            LogicalUnitCopy(manager: self, running: running, list: list).copySegment()
        }
    }

    /// Why a nexus may not read, or write, for a copy now; nil when it may.
    fileprivate func copyRefusal(_ identifier: NexusIdentifier, writes: Bool) -> AdditionalSenseCode? {
        guard let nexus = nexuses[identifier] else { return .copyTargetDeviceNotReachable }
        let isReserved =
            (legacyHolder ?? identifier) != identifier || reservations.conflicts(writes ? .write : .read, by: nexus.registrant)
        if isReserved || backgroundOperation != nil || !isMediumLoaded { return .thirdPartyDeviceFailure }
        if writes && (device.isWriteProtected || parameters.isSoftwareWriteProtected) { return .thirdPartyDeviceFailure }
        return nil
    }

    /// Counts what ended the tasks of a nexus here without being seen by a copy that was at work elsewhere.
    fileprivate func abortCount(_ identifier: NexusIdentifier) -> UInt64? {
        nexuses[identifier].map { $0.abortCount &+ clearCount }
    }
}

/// One EXTENDED COPY at work.
private final class LogicalUnitCopy {
    private typealias Peer = LogicalUnitCopyPeer

    /// A side of a segment: where, and what had ended tasks there when the segment began.
    private struct Side {
        let peer: Peer
        var range: SectorRange
        let abortCount: UInt64?
    }

    private let manager: LogicalUnit
    private let running: LogicalUnitRunningTask
    private let list: ExtendedCopyParameterList
    private var result = CopyResult()
    private var nextPiece: (source: Side, destination: Side)?
    private var isCopying = false

    init(manager: LogicalUnit, running: LogicalUnitRunningTask, list: ExtendedCopyParameterList) {
        self.manager = manager
        self.running = running
        self.list = list
    }

    // MARK: Segments

    /// Copies the next segment, or ends.
    func copySegment() {
        let index = Int(result.segmentCount)
        guard index < list.segments.count else { return end(.good) }
        let segment = list.segments[index]
        let source: Side
        let destination: Side
        do throws(SenseData) {
            source = try side(
                segment.source, segment.sourceAddress, segment.blockCount, CopySegmentDescriptor.sourceIndexOffset,
                CopySegmentDescriptor.sourceAddressOffset)
            destination = try side(
                segment.destination, segment.destinationAddress, segment.blockCount, CopySegmentDescriptor.destinationIndexOffset,
                CopySegmentDescriptor.destinationAddressOffset)
        } catch {
            return end(.checkCondition(error))
        }
        copyPiece(from: source, to: destination)
    }

    /// One side of the current segment, or the sense data that says why it can't be had.
    private func side(_ index: Int, _ address: UInt64, _ blockCount: UInt16, _ indexField: UInt16, _ addressField: UInt16)
        throws(SenseData) -> Side
    {
        guard list.targets.indices.contains(index) else { throw aborted(.unreachableCopyTarget, indexField) }
        let target = list.targets[index]
        guard let peer = peer(target) else { throw aborted(.copyTargetDeviceNotReachable, indexField) }
        if target.peripheralDeviceType != 0 { throw aborted(.incorrectCopyTargetDeviceType, indexField) }
        if target.blockByteCount != UInt32(LogicalUnit.blockBytes) { throw aborted(.copyTargetDeviceNotReachable, indexField) }
        guard let range = peer.unit.sectorRange(address, UInt64(blockCount)) else {
            throw aborted(.noAdditionalSenseInformation, addressField)
        }
        return Side(peer: peer, range: range, abortCount: peer.unit.abortCount(peer.nexus))
    }

    private func peer(_ target: CopyTargetDescriptor) -> Peer? {
        guard let designator = target.designator else { return nil }
        if manager.identity.isDesignated(by: designator) { return Peer(unit: manager, nexus: running.nexus) }
        return manager.copyPeers(running.nexus).first { $0.unit.identity.isDesignated(by: designator) }
    }

    // MARK: Pieces

    /// Copies what is left of a segment, and then goes on to the next. A device that answers at once makes a loop of this and
    /// no recursion.
    private func copyPiece(from source: Side, to destination: Side) {
        nextPiece = (source, destination)
        if isCopying { return }
        isCopying = true
        while let (source, destination) = nextPiece {
            nextPiece = nil
            startPiece(from: source, to: destination)
        }
        isCopying = false
    }

    private func startPiece(from source: Side, to destination: Side) {
        if source.range.isEmpty {
            result.segmentCount += 1
            note()
            return copySegment()
        }
        let count = min(source.range.count, LogicalUnit.copyPieceBlocks)
        let from = SectorRange(from: source.range.start, to: source.range.start + count)
        let to = SectorRange(from: destination.range.start, to: destination.range.start + count)
        perform(source, from, writes: false, { $0.device.read(from, completion: $1) }) { data in
            self.perform(destination, to, writes: true, { Self.write(data, to, $0, $1) }) { _ in
                self.result.byteCount += UInt64(to.byteCount)
                self.note()
                var (source, destination) = (source, destination)
                source.range = SectorRange(from: from.end, to: source.range.end)
                destination.range = SectorRange(from: to.end, to: destination.range.end)
                self.copyPiece(from: source, to: destination)
            }
        }
    }

    /// Zeroes are copied as such, so that what is thin at the source stays thin.
    private static func write(
        _ data: ByteBuffer, _ range: SectorRange, _ unit: LogicalUnit,
        _ completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void
    ) {
        let written: (Result<Void, BlockDeviceError>) -> Void = { completion($0.map { ByteBuffer() }) }
        if data.isZero(at: 0, byteCount: data.readableBytes) {
            unit.device.writeZeroes(range, durability: unit.durability(), completion: written)
        } else {
            unit.device.write(range, data: data, durability: unit.durability(), completion: written)
        }
    }

    /// Does something with a range of a unit, under its lock and if it is allowed now; else the copy ends.
    private func perform(
        _ side: Side, _ range: SectorRange, writes: Bool,
        _ action: @escaping (LogicalUnit, @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) -> Void,
        then next: @escaping (ByteBuffer) -> Void
    ) {
        let unit = side.peer.unit
        let begin: (@escaping (SCSIResponse) -> Void) -> Void = { finish in
            if self.running.isAborted || side.abortCount != unit.abortCount(side.peer.nexus) {
                return finish(SCSIResponse(status: .taskAborted))
            }
            if let refusal = unit.copyRefusal(side.peer.nexus, writes: writes) {
                return finish(.checkCondition(SenseData(.copyAborted, refusal)))
            }
            action(unit) { result in
                switch result {
                case .success(let data): finish(.good(data))
                case .failure(let error): finish(unit.response(to: error, isWrite: writes))
                }
            }
        }
        let ended: (SCSIResponse) -> Void = { response in
            if self.running.isAborted { return self.end(SCSIResponse(status: .taskAborted)) }
            guard response.status == .good, let data = response.dataIn else { return self.end(self.failure(response)) }
            next(data)
        }
        // In its own unit, what aborts the command aborts the piece; elsewhere no initiator task tag means it.
        let tag = unit === manager ? running.tag : .max
        let task = SCSITask(nexus: side.peer.nexus, command: .testUnitReady, tag: tag)
        unit.runOnMedium(task, range, .shared, isLimited: false, completion: ended) { piece in
            begin { unit.finish(piece, $0) }
        }
    }

    // MARK: The end

    private func aborted(_ code: AdditionalSenseCode, _ field: UInt16? = nil) -> SenseData {
        var sense = SenseData(.copyAborted, code)
        sense.copySegment = CopySegmentPointer(segment: result.segmentCount, byte: field)
        return sense
    }

    /// How the command ends when a piece ended so. What may pass is told by its status, as for other commands: a copy that is
    /// begun anew does no harm.
    private func failure(_ response: SCSIResponse) -> SCSIResponse {
        switch response.status {
        case .busy, .taskSetFull: SCSIResponse(status: .busy)
        case .checkCondition where response.sense?.key == .copyAborted:
            .checkCondition(aborted(response.sense?.code ?? .thirdPartyDeviceFailure))
        default: .checkCondition(aborted(.thirdPartyDeviceFailure))
        }
    }

    private func note() {
        if list.usage != .none { manager.nexuses[running.nexus]?.copyResults.update(list.listIdentifier, result) }
    }

    private func end(_ response: SCSIResponse) {
        result.status = response.status == .good ? .completed : .failed
        if response.status != .good { result.failure = (response.status, response.sense) }
        note()
        manager.finish(running, response)
    }
}
