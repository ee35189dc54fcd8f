import Blocks
import LinkProtocol
import NIOCore
import WriteLog

// What has storage: the unsent writes say it of themselves, home of the rest.
//
// The unsent writes are looked up when the question comes, and not again: a write that the log lets go of meanwhile is at
// home by then, and one that comes meanwhile need not show. What home answers is never older than what the log had let go
// of before. The cache is asked first; what it knows of the start of the range spares the line. While home can't be asked, what only
// home knows counts as mapped, which is always a right answer.
//
// A client asks extent by extent (QEMU does, before it reads), and home's answer has many. The last one is kept: nobody else
// writes to the disk, so it is true until the log lets go of writes, which are only then no longer told by the log.

extension Volume {
    /// The unsent runs that are looked at for one answer; it ends where there are more.
    private static var unsentRunsMax: Int { 1_024 }
    /// The blocks for which the cache is asked: 4 MiB.
    private static var cachedBlocksMax: UInt64 { 1_024 }

    public func allocation(
        of range: SectorRange, completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void
    ) {
        if let error = check(range) { return completion(.failure(error)) }
        if range.isEmpty { return completion(.success([])) }
        let unsent = Array(writtenHere(in: range).prefix(Self.unsentRunsMax))
        var asked = range
        if unsent.count == Self.unsentRunsMax, let last = unsent.last { asked = SectorRange(from: range.start, to: last.range.end) }
        let known = knownHere(of: asked, unsent)
        if known.last?.range.end == asked.end || isAnswerEnough(known) { return completion(.success(known)) }
        var overlay = AllocationOverlay()
        for extent in known + unsent { overlay.insert(extent.range, extent.allocation) }
        let remembered = remembered(of: asked)
        if !remembered.isEmpty { return completion(.success(overlay.merged(over: remembered))) }
        if !isConnected || !isOpenAtHome || allocationQueries.isFull {
            return completion(.success(overlay.overMapped(asked)))
        }
        allocationQueries.add(asked, overlay, epoch: allocationEpoch, now: clock(), completion: completion)
        sendAllocationQueries()
    }

    /// What the cloud-only disk and the log hold of a range, from its start on: `unsentRunsMax` runs when there are more.
    private func writtenHere(in range: SectorRange) -> [AllocationExtent] {
        func unsent(_ range: SectorRange) -> [AllocationExtent] {
            log.segments(in: range, limit: Self.unsentRunsMax).map {
                if case .zeroes = $0.content {
                    AllocationExtent(range: $0.range, allocation: .deallocated)
                } else {
                    AllocationExtent(range: $0.range, allocation: .mapped)
                }
            }
        }
        guard let cloudOnly else { return unsent(range) }
        var extents: [AllocationExtent] = []
        var position = range.start
        for segment in cloudOnly.disk.segments(in: range, limit: Self.unsentRunsMax) {
            extents += unsent(SectorRange(from: position, to: segment.range.start))
            if case .zeroes = segment.content {
                extents.append(AllocationExtent(range: segment.range, allocation: .deallocated))
            } else {
                extents.append(AllocationExtent(range: segment.range, allocation: .mapped))
            }
            position = segment.range.end
            if extents.count >= Self.unsentRunsMax { return extents }
        }
        return extents + unsent(SectorRange(from: position, to: range.end))
    }

    /// What home's last answer says of a range, from its start on; nothing when it does not say.
    private func remembered(of range: SectorRange) -> [AllocationExtent] {
        guard let first = rememberedAllocation.first, let last = rememberedAllocation.last,
            first.range.start <= range.start, range.start < last.range.end
        else { return [] }
        return rememberedAllocation.compactMap { extent in
            let part = extent.range.intersection(range)
            return part.isEmpty ? nil : AllocationExtent(range: part, allocation: extent.allocation)
        }
    }

    /// Home's last answer, and any that is on its way, is not to be kept: the log lets go of writes, or home starts anew.
    func forgetAllocation() {
        rememberedAllocation = []
        allocationEpoch &+= 1
    }

    /// Home can't be asked: what only home knows may hold data. A machine that reads what the cache holds must not wait for that.
    func answerAllocationQueriesWithoutHome(startedBefore deadline: NIODeadline = .distantFuture) {
        for query in allocationQueries.removeAll(startedBefore: deadline) {
            query.completion(.success(query.overlay.overMapped(query.asked)))
        }
    }

    /// An answer of this many sectors that begins with data is given without home: 1 MiB. The client reads them and asks again behind
    /// them; one that finds a hole wants to know how far it goes.
    private static var sectorsAnsweredHere: UInt64 { 2_048 }

    private func isAnswerEnough(_ known: [AllocationExtent]) -> Bool {
        guard let first = known.first, let last = known.last, first.allocation == .mapped else { return false }
        return last.range.end - first.range.start >= Self.sectorsAnsweredHere
    }

    /// What the log and the cache know of a range without a gap, from its start on.
    private func knownHere(of range: SectorRange, _ unsent: [AllocationExtent]) -> [AllocationExtent] {
        var known = AllocationExtents()
        var position = range.start
        let cacheEnd = (range.start / BlockGeometry.sectorsPerBlock + Self.cachedBlocksMax) * BlockGeometry.sectorsPerBlock
        for extent in unsent {
            appendCached(from: &position, to: min(extent.range.start, cacheEnd), to: &known)
            if position < extent.range.start { return known.extents }
            known.append(extent.range, extent.allocation)
            position = extent.range.end
        }
        appendCached(from: &position, to: min(range.end, cacheEnd), to: &known)
        return known.extents
    }

    /// Adds the blocks that the cache has; stops at the first that it has not.
    private func appendCached(from position: inout UInt64, to end: UInt64, to known: inout AllocationExtents) {
        while position < end {
            let block = position / BlockGeometry.sectorsPerBlock
            guard let allocation = cache.allocation(identifier, block: block) else { return }
            let next = min(end, SectorRange(block: block).end)
            known.append(SectorRange(from: position, to: next), allocation)
            position = next
        }
    }

    func sendAllocationQueries() {
        guard isOpenAtHome else { return }
        while let query = allocationQueries.nextToSend {
            if linkVersion() < LinkVersion.allocation {
                // Home can't say: everything may hold data.
                allocationQueries.markSent(query)
                _ = allocationQueries.remove(identifier: query.identifier)
                query.completion(.success(query.overlay.overMapped(query.asked)))
                continue
            }
            let request = LinkMessage.allocationRequest(read: query.identifier, volume: identifier, range: query.asked)
            guard uplink(request, .demand, false) else { return }
            allocationQueries.markSent(query)
        }
    }

    /// Home has answered.
    func receiveAllocation(_ identifier: UInt64, _ runs: [AllocationRun]) {
        guard let query = allocationQueries.remove(identifier: identifier) else { return }
        defer { sendAllocationQueries() }
        var lower: [AllocationExtent] = []
        var position = query.asked.start
        for run in runs {
            guard let range = SectorRange(start: position, count: run.sectorCount), query.asked.contains(range), !range.isEmpty else {
                return query.completion(.failure(.medium("home's answer about \(query.asked) makes no sense")))
            }
            lower.append(AllocationExtent(range: range, allocation: run.allocation))
            position = range.end
        }
        let answer = query.overlay.merged(over: lower)
        if query.epoch == allocationEpoch { rememberedAllocation = answer }
        query.completion(.success(answer))
    }
}
