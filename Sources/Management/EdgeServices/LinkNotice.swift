import NIOCore

/// Which changes of a link become events: each one, as long as they are few.
///
/// A line that resets connections makes a link come and go many times a second, and a list of events that holds the last ten thousand would
/// hold nothing else. Beyond a few in a row one is told each half minute, with how many changes it stands for; what a link is in the end is told,
/// half a minute later at most.
struct LinkNotice: Equatable, Sendable {
    /// So many are told one after the other,
    static let changesMax: Int64 = 10
    /// and then one more each time that so much has passed.
    static let interval: TimeAmount = .seconds(30)

    /// What is to be told.
    struct Change: Equatable, Sendable {
        let isConnected: Bool
        /// How many changes there have been since the last one that was told, this one among them.
        let count: Int

        /// What an event says of it after the name of the link.
        var words: String {
            "is \(isConnected ? "up" : "down")" + (count > 1 ? ": it has come and gone, \(count) changes since the last event" : "")
        }
    }

    private var isConnected = false
    private var untold = 0
    /// When all of the allowance will be there again.
    private var isFullAt: NIODeadline = .uptimeNanoseconds(0)

    /// Takes a change.
    /// - Returns: what to tell of it now, if it may be told.
    mutating func changed(isConnected: Bool, now: NIODeadline) -> Change? {
        self.isConnected = isConnected
        untold += 1
        return due(now: now)
    }

    /// What has not been told and may be now.
    mutating func due(now: NIODeadline) -> Change? {
        let debt = max(isFullAt, now) - now
        guard untold > 0, debt <= Self.interval * (Self.changesMax - 1) else { return nil }
        isFullAt = now + debt + Self.interval
        defer { untold = 0 }
        return Change(isConnected: isConnected, count: untold)
    }
}
