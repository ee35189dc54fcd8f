import Blocks
import NIOCore

// Another size, while the cache serves:
//
//     larger      segments are added behind the last: they are free at once
//     smaller     nothing is put behind the new end any more ─► what is there leaves as room is made elsewhere: blocks that were asked
//                 for are written again before the end ─► it is durable that nothing behind the end counts ─► the tables end there
//                 ─► the file is cut
//
// When nothing is free before the new end, one free segment behind it, the bridge, takes what stays of the first segment that is freed before.
//
// No record says how large the cache is. Whatever a crash comes into, the cache may be opened with either size: what is behind the end
// then is gone, and the records say so before the file is cut (CacheRecovery, `cutDue`).

extension SecureCache {
    /// Gives the cache another size in bytes; its segments stay as long as they are. A larger one is in force at once. A smaller one is
    /// when what lies behind its end has left, which `onResized` and the statistics tell; meanwhile it may be asked for another size.
    ///
    /// - Throws: `tooSmall`, `tooLarge` when the device ends before, `closed`. Then the size stays.
    public func resize(to byteCount: UInt64) throws(CacheError) {
        let wanted = try segmentCount(forSize: byteCount)
        if wanted == segmentCountWanted { return }
        segmentCountWanted = wanted
        isResizing = true
        // What is written behind an end at which the file is being cut would be cut off.
        if isCutting { return }
        approachSize()
        makeRoom()
        pump()
    }

    /// Throws what `resize` would.
    public func checkSize(_ byteCount: UInt64) throws(CacheError) { _ = try segmentCount(forSize: byteCount) }

    /// The segments of a size that the cache can have.
    private func segmentCount(forSize byteCount: UInt64) throws(CacheError) -> Int {
        if isClosed { throw .closed }
        if let device = limits.deviceBytes, byteCount > device { throw .tooLarge(bytesMax: device) }
        let wanted = CacheGeometry(byteCount: byteCount, segmentBytes: geometry.segmentBytes)
        guard wanted.segmentCount >= CacheFormat.segmentsMin else {
            throw .tooSmall(bytesNeeded: wanted.offset(ofSegment: CacheFormat.segmentsMin))
        }
        if wanted.segmentCount < segmentCountWanted { try checkDivision(segmentCount: wanted.segmentCount) }
        return wanted.segmentCount
    }

    /// Moves the end to where it is wanted, as far as that goes at once.
    private func approachSize() {
        grow()
        setEnd(segmentCountWanted)
        if segmentCountWanted < segments.count { return endIfEmptied() }
        if !isResizing { return }
        isResizing = false
        onResized(geometry.byteCount)
    }

    private func grow() {
        let added = segmentCountWanted - segments.count
        guard added > 0 else { return }
        segments.append(contentsOf: repeatElement(CacheSegment(), count: added))
        tablesDidChange()
    }

    /// From now on blocks are put before this segment only.
    private func setEnd(_ newEnd: Int) {
        let oldEnd = end
        if newEnd > oldEnd { endBridge() }
        end = newEnd
        queues.setEnd(newEnd)
        if newEnd > oldEnd {
            freeSegments.append(contentsOf: (oldEnd..<newEnd).filter { segments[$0].state == .free })
            keepToFile()
        } else {
            // When nothing is free before the end, one segment behind it takes what stays of the first that is freed there.
            let isBridged = leavingBeforeEnd == 0 && !freeSegments.contains { $0 < newEnd }
            let bridge = isBridged ? freeSegments.first : nil
            freeSegments.removeAll { $0 >= newEnd && $0 != bridge }
            for number in withoutRoom where number >= newEnd { segments[number].state = .free }
            withoutRoom.removeAll { $0 >= newEnd }
        }
        countBehindEnd = segments[newEnd...].count { [.open, .closed, .leaving].contains($0.state) }
        for segment in filling where segment.segment >= newEnd { segment.isFull = true }
        didDivide()
    }

    /// There is a free segment before the end: none behind it takes blocks any more.
    func endBridge() {
        freeSegments.removeAll { $0 >= end }
        for segment in filling where segment.segment >= end { segment.isFull = true }
    }

    /// Ends the tables and the file where the cache is to end, once nothing behind counts for any crash.
    func endIfEmptied() {
        guard end < segments.count, countBehindEnd == 0 else { return }
        endBridge()
        fileSegments -= segments[end...].count { $0.isInFile }
        segments.removeLast(segments.count - end)
        tablesDidChange()
        planForRoom()
        cutFile()
    }

    private func tablesDidChange() {
        geometry.segmentCount = segments.count
        let slots = geometry.segmentCount * geometry.slotCount
        uses.resize(slotCount: slots)
        ghosts.resize(entries: CacheGhosts.entries(slotCount: slots))
        index.slotWidth = geometry.slotWidth
        fitSignatures()
    }

    /// Gives the room behind the end back to the file system. A failure costs that room, until the cache is opened again.
    func cutFile() {
        if isClosed { return }
        if isCutting {
            mustCutAgain = true
            return
        }
        isCutting = true
        if unusable != nil || limits.deviceBytes != nil { return fileWasCut(.success(())) }
        file.size { [self] result in
            guard case .success(let byteCount) = result, byteCount > geometry.byteCount, !isClosed else {
                return fileWasCut(result.map { _ in () })
            }
            file.truncate(to: geometry.byteCount) { [self] in fileWasCut($0) }
        }
    }

    private func fileWasCut(_ result: Result<Void, StorageFileError>) {
        isCutting = false
        if case .failure = result { counters.writeErrors += 1 }
        if isClosed { return }
        if mustCutAgain {
            // Before the cache becomes larger again.
            mustCutAgain = false
            return cutFile()
        }
        approachSize()
        makeRoom()
        pump()
    }
}
