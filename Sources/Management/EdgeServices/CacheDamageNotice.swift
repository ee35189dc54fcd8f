import NIOCore

/// Damage that reads of the cache find, put together: a disk that rots as a whole is told as one that has a bad sector, only with larger numbers.
struct CacheDamageNotice: Equatable {
    /// Between two events lies so much time, however much is found; what is found meanwhile is in the later one.
    static let interval: TimeAmount = .minutes(10)

    /// What was found since it was told last.
    struct Found: Equatable {
        /// Blocks that were not what had been written, and reads that the device failed.
        var corrupt: UInt64
        var readErrors: UInt64

        /// What is so, what became of it, and what to do.
        var text: String {
            let kinds = [
                corrupt == 0 ? nil : "blocks that were not what had been written: \(corrupt)",
                readErrors == 0 ? nil : "reads that its device failed: \(readErrors)",
            ]
            return
                "the cache is damaged; found since this was told last: \(kinds.compactMap { $0 }.joined(separator: ", ")). Nothing is lost: what it "
                + "can't give is fetched from home, and stored elsewhere. When it comes again, look at the device (its SMART values, the kernel's "
                + "log), and give the cache another one (`cache.path`); `causeway verify cache` finds all damage of an edge that is stopped"
        }
    }

    /// What the cache had counted when it was told last.
    private var told = Found(corrupt: 0, readErrors: 0)
    private var toldAt: NIODeadline?

    /// Takes a look at what the cache has counted.
    /// - Returns: what is to be told now; nil when there is nothing new, or when it is too early.
    mutating func observe(corrupt: UInt64, readErrors: UInt64, now: NIODeadline) -> Found? {
        if corrupt == told.corrupt, readErrors == told.readErrors { return nil }
        if let toldAt, now - toldAt < Self.interval { return nil }
        let found = Found(corrupt: corrupt - min(told.corrupt, corrupt), readErrors: readErrors - min(told.readErrors, readErrors))
        (told, toldAt) = (Found(corrupt: corrupt, readErrors: readErrors), now)
        return found
    }

    /// Another cache, or the same opened again, counts from zero. It is told no sooner for that.
    mutating func beginAnew() { told = Found(corrupt: 0, readErrors: 0) }
}
