import Blocks

extension PointJournal {
    /// Runs of one received point that are looked at for one answer; the answer ends where there are more.
    private static var coveredRunsMax: Int { AllocationExtents.answerMax }

    /// Says what of `range` has storage after every point that has been received before the call: extents from its start
    /// on, at most `AllocationExtents.answerMax`.
    ///
    /// Nothing waits for the points that are not applied yet: what they write lies over what the disk says, whether it is on
    /// the disk already or not. Elsewhere the disk changes only by points that are received later.
    public func allocation(
        of range: SectorRange, completion: @escaping (Result<[AllocationExtent], PointJournalError>) -> Void
    ) {
        if let refusal { return completion(.failure(refusal)) }
        guard !range.isEmpty, range.end <= sectorCount else { return completion(.failure(.outOfRange(range))) }
        guard allocationsInFlight < limits.allocationsInFlightMax else {
            return completion(.failure(.busy("\(limits.allocationsInFlightMax) questions for the allocation wait")))
        }
        var overlay = AllocationOverlay()
        var asked = range
        for point in queue {
            let runs = point.index.covered(in: asked, limit: Self.coveredRunsMax)
            for run in runs { overlay.insert(run.range, run.allocation) }
            if runs.count == Self.coveredRunsMax, let last = runs.last { asked = SectorRange(from: asked.start, to: last.range.end) }
        }
        allocationsInFlight += 1
        disk.allocation(of: asked, extentsMax: AllocationExtents.answerMax) { [self] result in
            allocationsInFlight -= 1
            switch result {
            case .success(let extents): completion(.success(overlay.merged(over: extents)))
            case .failure(let error): completion(.failure(PointJournalError(disk: error)))
            }
            finishCloseIfIdle()
        }
    }
}
