import Blocks
import CloudOnlyDisk
import NIOCore
import WriteLog

// What becomes of cloud-only writes when the instance returns, or the operator says (W9):
//
//     imaged      moved into the log, some at a time, and so home with ordinary points
//     discarded   removed: what home has shows again
//     kept        nothing is done: they stay, and writes to these sectors too, whatever the policy
//
// Imaging one batch; a crash anywhere shows the same bytes, because the copy in the log is hidden by the one on the disk until that is
// durably gone, and nobody writes meanwhile:
//
//     find some held sectors ──► hold them ──► flush the disk ──► read ──► append to the log ──► flush it
//         ──► remove from the disk ──► flush it ──► let go
//
// The first flush is for home: what has gone there must not be lost here, or the disk there would go back.

/// How far imaging has come.
struct ImagingState {
    /// How many sectors are moved at once, and in how many runs: writers of them wait for it.
    static let batchSectorsMax: UInt64 = 2_048
    static let batchRunsMax = 64
    /// How much of a disk is looked through at once for what it holds: 4 GiB.
    static let searchSectorsMax: UInt64 = 1 << 23
    /// How long imaging waits after an attempt that came to nothing.
    static let retryDelay: TimeAmount = .seconds(1)

    /// A batch is under way.
    var isMoving = false
    /// What of it is on its way into the log. No write of a machine to these sectors is: the disk holds them.
    var copying: SectorRange?
    /// Everything before it in the range that is imaged first is done.
    var position: UInt64?
    var pausedUntil: NIODeadline?
    /// Bytes that were brought into the log since the volume was opened here.
    var movedBytes: UInt64 = 0
}

extension Volume {
    /// Bytes of cloud-only writes that were brought into the log since the volume was opened here.
    public var imagedBytes: UInt64 { cloudOnly?.imaging.movedBytes ?? 0 }

    /// Forgets the cloud-only writes to a range. Completes when no crash brings them back.
    public func discardCloudOnly(_ range: SectorRange, completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        if let refusal { return completion(.failure(refusal)) }
        guard let layer = cloudOnly else { return completion(.success(())) }
        if layer.waitingHolds.count >= CloudOnlyLayer<Directory>.waitingHoldsMax {
            return completion(.failure(.busy("too many ranges of volume \(identifier) are being discarded; try again later")))
        }
        let start = { [self] in
            layer.hold(range) { [self] in
                remove(range, from: layer) { [self] result in
                    // A disk that failed stops the volume before anybody may write to the log what a crash would hide again.
                    let ended = result.mapError { cloudOnlyError($0) }
                    layer.letGo()
                    completion(ended)
                }
            }
        }
        if layer.held == nil { start() } else { layer.waitingHolds.append(start) }
    }

    /// Takes a range, which is held, out of the disk, and completes when that is durable. It is not given up for want of room: the
    /// removal may be ordered by then, and until it is durable nobody may write to the log what a crash would hide again.
    private func remove(
        _ range: SectorRange, from layer: CloudOnlyLayer<Directory>, completion: @escaping (Result<Void, WriteLogError>) -> Void
    ) {
        let finish: (Result<Void, WriteLogError>) -> Void = { [self] result in
            guard case .failure(.noSpace) = result, refusal == nil else { return completion(result) }
            layer.retryRemoval = { [self] in remove(range, from: layer, completion: completion) }
        }
        layer.disk.remove(range) { result in
            guard case .success = result, !isPlanted(.letsGoBeforeRemovalIsDurable) else { return finish(result) }
            layer.disk.flush(completion: finish)
        }
    }

    // MARK: Imaging

    /// Brings the next cloud-only writes into the log, if some are to go home and the log has room for them.
    func stepImaging() {
        guard let layer = cloudOnly, !layer.imaging.isMoving, layer.held == nil, refusal == nil,
            let range = layer.table.imaging.first, layer.imaging.pausedUntil.map({ clock() >= $0 }) ?? true,
            // What waits for room in the log would keep its writers waiting too.
            log.usedBytes < log.limits.logBytesMax / 2, !log.isWaitingForSpace
        else { return }
        let position = max(range.start, layer.imaging.position ?? range.start)
        let end = min(range.end, position + ImagingState.searchSectorsMax)
        let segments = layer.disk.segments(in: SectorRange(from: position, to: end), limit: ImagingState.batchRunsMax)
        guard let first = segments.first else {
            if end < range.end { layer.imaging.position = end } else { endImaging(range, layer) }
            return
        }
        layer.imaging.position = first.range.start
        let batchEnd = min(segments[segments.count - 1].range.end, first.range.start + ImagingState.batchSectorsMax)
        let batch = SectorRange(from: first.range.start, to: batchEnd)
        layer.imaging.isMoving = true
        layer.hold(batch) { [self] in
            layer.disk.flush { [self] result in
                guard case .success = result else { return ended(result.mapError { cloudOnlyError($0) }, layer) }
                move(batch, layer)
            }
        }
    }

    private func endImaging(_ range: SectorRange, _ layer: CloudOnlyLayer<Directory>) {
        layer.imaging.position = nil
        // A write that was under way may have come behind the search, or may still be; policy alone decides of those in cloud-only regions.
        var isLeft = false
        layer.table.forEachPiece(of: range) { part, policy in
            if policy == .onPrem, layer.isWriting(part) || layer.disk.heldSectors(in: part) > 0 { isLeft = true }
        }
        if isLeft { return }
        layer.table.endImaging(range)
        onEvent(.imaged(range))
    }

    private func move(_ batch: SectorRange, _ layer: CloudOnlyLayer<Directory>) {
        copy(layer.disk.segments(in: batch)[...], layer) { [self] result in
            guard case .success = result else { return ended(result, layer) }
            log.flush { [self] result in
                guard case .success = result else { return ended(result.mapError { deviceError($0) }, layer) }
                remove(batch, from: layer) { [self] result in
                    // Writers in a cloud-only region would hold it at one place for ever.
                    if case .success = result, layer.imaging.position == batch.start { layer.imaging.position = batch.end }
                    ended(result.mapError { cloudOnlyError($0) }, layer)
                }
            }
        }
    }

    private func ended(_ result: Result<Void, BlockDeviceError>, _ layer: CloudOnlyLayer<Directory>) {
        layer.imaging.isMoving = false
        if case .failure = result { layer.imaging.pausedUntil = clock() + ImagingState.retryDelay }
        layer.letGo()
        if case .success = result { stepImaging() }
    }

    /// Copies segments into the log, one after the other.
    private func copy(
        _ segments: ArraySlice<CloudOnlySegment>, _ layer: CloudOnlyLayer<Directory>,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        guard let segment = segments.first else { return completion(.success(())) }
        let goOn: (Result<Void, WriteLogError>) -> Void = { [self] result in
            layer.imaging.copying = nil
            guard case .success = result else { return completion(result.mapError { deviceError($0) }) }
            layer.imaging.movedBytes += UInt64(segment.range.byteCount)
            copy(segments.dropFirst(), layer, completion: completion)
        }
        if case .zeroes = segment.content {
            layer.imaging.copying = segment.range
            return log.appendZeroes(segment.range, now: clock(), completion: goOn)
        }
        layer.disk.read(segment) { [self] result in
            switch result {
            case .success(let data):
                layer.imaging.copying = segment.range
                log.append(segment.range, data: data, now: clock(), completion: goOn)
            case .failure(let error):
                // It stays where it is, and so does the error of whoever reads it.
                completion(.failure(.medium("\(segment.range) of the cloud-only disk can't be read: \(error.text)")))
            }
        }
    }
}
