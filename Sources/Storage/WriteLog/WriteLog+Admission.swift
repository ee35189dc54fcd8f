import Blocks
import NIOCore

// The bound of the log, and how appends wait near it; see AdmissionPace.swift.
extension WriteLog {
    /// Changes how many bytes the log may take, from now on.
    ///
    /// A larger bound is felt at once, also by appends that wait. A smaller one takes effect as the log drains: nothing that is
    /// in it is touched, and appends wait until there is room below the new bound.
    public func resize(logBytesMax: UInt64) {
        limits.logBytesMax = logBytesMax
        guard refusal == nil else { return }
        tendSpares()
        admitHeld()
    }

    /// Tells the log the time, which it measures its rate of release by. The owner calls it often, some twenty times a second.
    public func observe(now: NIODeadline) {
        timeSeen = max(timeSeen, now)
        pace.observe(released: releasedBytes, isReleasing: epochs.count > 1 || !releases.isEmpty, now: now)
        releasedBytes = 0
        tendSpares()
        admitDue(now: now)
    }

    /// Lets appends go on that were put off until now; see `onAdmissionDue`.
    public func admitDue(now: NIODeadline) {
        timeSeen = max(timeSeen, now)
        if let asked = admissionAskedAt, asked <= timeSeen { admissionAskedAt = nil }
        guard refusal == nil, !held.isEmpty else { return }
        admitHeld()
    }

    /// True while the log is so full that it slows its writers.
    public var isSlowing: Bool { pace.isSlowing(used: usedBytes, bound: limits.logBytesMax) }

    /// When an append for which there is room may go on; nil for now.
    func dueTime(of append: PendingAppend) -> NIODeadline? {
        pace.due(arrival: append.now, used: usedBytes, bound: limits.logBytesMax, now: timeSeen)
    }

    /// Asks the owner once to come back when the next append is due.
    func askForAdmission() {
        guard let onAdmissionDue, let first = held.first, hasRoom(for: first), let due = dueTime(of: first) else { return }
        if let asked = admissionAskedAt, asked <= due { return }
        admissionAskedAt = due
        onAdmissionDue(due)
    }
}
