import Blocks
import NIOCore

// A bracket round a seal (W6): somebody brings to rest what writes, has the point sealed, and lets it go on.
//
//            seal in time                    sealed
//   open ──────────────────> sealing ──────────────────> sealed(application)
//     │  the time is over                    sealed
//     ├───────────────────────> sealing ───────────────> sealed(crash)
//     │  end
//     └────────> ended
//
// What comes to rest must not rest for ever, so a bracket ends by itself. Whoever brought the writers to rest may have let them go by
// then: the point is sealed all the same, and says that it is no more than crash-consistent. That is decided when the epoch is
// closed, not when it is asked for: a seal may wait for another one.

/// What a point is sealed with.
public struct PointSeal: Equatable, Sendable {
    public var label: String
    /// Until then the writers are at rest; nil when nobody said so.
    public var isAtRestUntil: NIODeadline?

    public init(label: String = "", isAtRestUntil: NIODeadline? = nil) {
        self.label = label
        self.isAtRestUntil = isAtRestUntil
    }

    /// What the point carries that is closed now.
    func attributes(at now: NIODeadline) -> PointAttributes {
        PointAttributes(consistency: isAtRestUntil.map { now < $0 } ?? false ? .application : .crash, label: label)
    }
}

/// A bracket round the seal of one volume or group.
public struct PointBracket: Equatable, Sendable {
    public enum State: Equatable, Sendable {
        /// The writers are coming to rest, or are at rest.
        case open
        case sealing
        case sealed(PointNumber, PointConsistency)
        /// There is no point.
        case ended(String)
    }

    public let label: String
    /// When it ends by itself.
    public let deadline: NIODeadline
    public private(set) var state = State.open

    public init(label: String, deadline: NIODeadline) {
        self.label = label
        self.deadline = deadline
    }

    /// The writers are at rest. What to seal with; nil when the bracket is not open any more.
    public mutating func seal(now: NIODeadline) -> PointSeal? {
        guard state == .open, now < deadline else { return nil }
        state = .sealing
        return PointSeal(label: label, isAtRestUntil: deadline)
    }

    /// The time is over: what to seal with, if nobody has come back.
    public mutating func expire(now: NIODeadline) -> PointSeal? {
        guard state == .open, now >= deadline else { return nil }
        state = .sealing
        return PointSeal(label: label)
    }

    /// Whoever began it wants no point. False when it is too late.
    public mutating func end() -> Bool {
        guard state == .open else { return false }
        state = .ended("it was ended without a point")
        return true
    }

    /// How the seal came out.
    public mutating func finished(_ result: Result<(point: PointNumber, consistency: PointConsistency), BlockDeviceError>) {
        guard state == .sealing else { return }
        switch result {
        case .success(let sealed): state = .sealed(sealed.point, sealed.consistency)
        case .failure(let error): state = .ended("it could not be sealed: \(error)")
        }
    }
}
