import NIOCore

/// Notices that something is so, and that it is so no more once it has not been for a while: what comes and goes in between is one.
struct LastingNotice: Equatable, Sendable {
    /// How long it must not be so before it is over.
    static let restInterval: TimeAmount = .seconds(60)

    /// What has changed.
    enum Change: Equatable, Sendable {
        case begun, over
    }

    /// It has begun and is not over.
    private(set) var lasts = false
    /// Since when it has not been so.
    private var restsSince: NIODeadline?

    /// Takes a look.
    /// - Parameter rest: how long it must not have been so to be over.
    mutating func observe(_ isSo: Bool, now: NIODeadline, rest: TimeAmount = restInterval) -> Change? {
        if isSo {
            restsSince = nil
            if lasts { return nil }
            lasts = true
            return .begun
        }
        guard lasts else { return nil }
        let since = restsSince ?? now
        restsSince = since
        guard now - since >= rest else { return nil }
        (lasts, restsSince) = (false, nil)
        return .over
    }
}
