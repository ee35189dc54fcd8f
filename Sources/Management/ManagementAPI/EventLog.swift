import APIModels
import Foundation
import Synchronization

/// The newest events of an edge, in memory, for the list and for any number of streams.
///
/// A stream reads at its own speed from the log: a slow reader costs nothing, and one that falls behind the log's limit is told.
public final class EventLog: Sendable {
    /// How many events are kept; the oldest go first.
    public static let defaultLimit = 10_000

    private struct State {
        var events: [Event] = []
        /// The index in `events` of the oldest one: the array is a ring once it is full.
        var oldest = 0
        var lastSequence: UInt64
        /// The newest sequence that was dropped.
        var droppedSequence: UInt64
        var listeners: [UInt64: AsyncStream<Void>.Continuation] = [:]
        var nextListener: UInt64 = 0
    }

    private let limit: Int
    private let state: Mutex<State>

    /// - Parameter startingAfter: the sequence before the first event. The default is the time in microseconds, so that sequences
    ///   grow over restarts without a file.
    public init(startingAfter: UInt64? = nil, limit: Int = EventLog.defaultLimit) {
        let start = startingAfter ?? UInt64(max(0, Date().timeIntervalSince1970 * 1_000_000))
        self.limit = max(1, limit)
        state = Mutex(State(lastSequence: start, droppedSequence: start))
    }

    /// Adds an event and wakes the streams.
    @discardableResult
    public func append(
        kind: String, subject: String? = nil, message: String, severity: Event.Severity = .info, time: Date = Date()
    ) -> Event {
        state.withLock { state in
            state.lastSequence &+= 1
            let event = Event(
                sequence: state.lastSequence, time: time, kind: kind, subject: subject, message: message, severity: severity)
            if state.events.count < limit {
                state.events.append(event)
            } else {
                state.droppedSequence = state.events[state.oldest].sequence
                state.events[state.oldest] = event
                state.oldest = (state.oldest + 1) % limit
            }
            for listener in state.listeners.values { listener.yield() }
            return event
        }
    }

    /// The sequence of the newest event.
    public var lastSequence: UInt64 { state.withLock { $0.lastSequence } }

    /// Events after a sequence, oldest first, and whether some that came after it are gone.
    public func events(after sequence: UInt64, limit: Int) -> (events: [Event], gap: Bool) {
        state.withLock { state in
            let count = state.events.count
            func event(_ index: Int) -> Event { state.events[(state.oldest + index) % count] }
            // Sequences grow in the ring, so the first one wanted is found by halving.
            var low = 0
            var high = count
            while low < high {
                let middle = low + (high - low) / 2
                if event(middle).sequence > sequence { high = middle } else { low = middle + 1 }
            }
            return ((low..<count).prefix(max(0, limit)).map(event), sequence < state.droppedSequence)
        }
    }

    /// A stream that yields when there are new events. Several of them may come as one.
    func signals() -> (stream: AsyncStream<Void>, wake: AsyncStream<Void>.Continuation) {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let identifier = state.withLock { state in
            state.nextListener += 1
            state.listeners[state.nextListener] = continuation
            return state.nextListener
        }
        continuation.onTermination = { [weak self] _ in
            self?.state.withLock { _ = $0.listeners.removeValue(forKey: identifier) }
        }
        return (stream, continuation)
    }
}
