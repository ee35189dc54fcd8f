// A request with an `Idempotency-Key` is done once: a repetition gets the first answer.
//
//     begin ──▶ running ──finish(answer)──▶ done ──24 h or the limit──▶ forgotten
//                  └────────abandon────────▶ forgotten        (it failed: the key may be used again)
//
// A repetition while the first one runs is told to come back; one with another body is an error of the caller.

import NIOCore

/// What came of requests with keys. Pure: time comes in.
struct IdempotencyTable<Answer: Sendable>: Sendable {
    /// At the limit the oldest answer is forgotten; when all still run, the request is refused.
    static var defaultLimit: Int { 1_000 }
    static var defaultLifetime: TimeAmount { .hours(24) }
    static var longestKey: Int { 255 }

    enum Decision {
        /// Do it, then call `finish` or `abandon`.
        case proceed
        /// It was done: this is the answer.
        case replay(Answer)
        /// It is being done.
        case running
        /// The key belongs to another request.
        case mismatch
        /// Too many keys are in use.
        case full
    }

    private struct Entry {
        var fingerprint: [UInt8]
        var answer: Answer?
        var deadline: NIODeadline
        var order: UInt64
    }

    private var entries: [String: Entry] = [:]
    private var nextOrder: UInt64 = 0
    private let limit: Int
    private let lifetime: TimeAmount

    init(limit: Int = Self.defaultLimit, lifetime: TimeAmount = Self.defaultLifetime) {
        self.limit = limit
        self.lifetime = lifetime
    }

    var count: Int { entries.count }

    mutating func begin(_ key: String, fingerprint: [UInt8], now: NIODeadline) -> Decision {
        if let entry = entries[key], entry.answer == nil || entry.deadline > now {
            guard entry.fingerprint == fingerprint else { return .mismatch }
            return entry.answer.map { .replay($0) } ?? .running
        }
        entries[key] = nil
        if entries.count >= limit { makeRoom(now: now) }
        guard entries.count < limit else { return .full }
        nextOrder += 1
        entries[key] = Entry(fingerprint: fingerprint, answer: nil, deadline: now + lifetime, order: nextOrder)
        return .proceed
    }

    mutating func finish(_ key: String, answer: Answer, now: NIODeadline) {
        entries[key]?.answer = answer
        entries[key]?.deadline = now + lifetime
    }

    mutating func abandon(_ key: String) {
        if let entry = entries[key], entry.answer == nil { entries[key] = nil }
    }

    private mutating func makeRoom(now: NIODeadline) {
        entries = entries.filter { $0.value.answer == nil || $0.value.deadline > now }
        guard entries.count >= limit else { return }
        if let oldest = entries.filter({ $0.value.answer != nil }).min(by: { $0.value.order < $1.value.order }) {
            entries[oldest.key] = nil
        }
    }
}
