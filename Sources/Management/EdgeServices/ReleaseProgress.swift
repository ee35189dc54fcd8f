/// Whether bringing home what an edge has not sent is worth more waiting: as long as it becomes less.
struct ReleaseProgress {
    private var unsentBytes: UInt64?

    /// Looks again, after some time: false when nothing has come home since the last look, or it is not known.
    mutating func goesOn(unsentBytes now: UInt64?) -> Bool {
        defer { unsentBytes = now }
        guard let now else { return false }
        return unsentBytes.map { now < $0 } ?? true
    }
}
