/// Whether bringing home what an edge has not sent is worth more waiting: as long as it becomes less, or more of it is on the disk.
struct ReleaseProgress {
    private var unsentBytes: UInt64?
    private var applied: UInt64 = 0

    /// Looks again, after some time: false when nothing has come home since the last look. The first one is what the next is held against.
    mutating func goesOn(unsentBytes now: UInt64?, applied point: UInt64) -> Bool {
        defer { (unsentBytes, applied) = (now, point) }
        if point > applied { return true }
        guard let now else { return false }
        return unsentBytes.map { now < $0 } ?? true
    }
}
