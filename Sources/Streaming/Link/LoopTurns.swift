import NIOCore
import NIOPosix
import Synchronization

/// Counts the turns of an event loop: how often it has looked at its sockets.
///
/// A loop runs all tasks that are due before it looks at its sockets again, also those that its tasks make. So work that goes on in a task, or
/// after a short time, may go on in the same turn for as long as there is some, and nobody is served meanwhile. Whoever has much to do counts what
/// it does in a turn, and does the rest `later`.
public final class LoopTurns: NIOEventLoopMetricsDelegate {
    /// How long the rest waits at least: the loop would not look at its sockets before something that is due already. In a turn that takes long the
    /// pause becomes longer, so that the question whether it is over does not itself keep it from ending.
    private static let pauses = (first: TimeAmount.microseconds(20), longest: TimeAmount.milliseconds(1))

    private struct Rest {
        /// The turn in which it was put off.
        let turn: UInt64
        let body: NIOLoopBound<() -> Void>
    }

    private struct Waiting {
        var rests: [Rest] = []
        /// One question for all of them is on its way.
        var isAsking = false
    }

    private let count = Atomic<UInt64>(0)
    private let waiting = Mutex(Waiting())

    /// Counts for the loop of a group with one thread, which is made with this as its delegate for metrics.
    public init() {}

    /// The number of this turn.
    public var current: UInt64 { count.load(ordering: .relaxed) }

    public func processedTick(info: NIOEventLoopTickInfo) { count.wrappingAdd(1, ordering: .relaxed) }

    /// Runs `body` in a later turn of the loop, as soon as there is one. Called on the loop.
    public func later(on eventLoop: any EventLoop, _ body: @escaping () -> Void) {
        let rest = Rest(turn: current, body: NIOLoopBound(body, eventLoop: eventLoop))
        let isFirst = waiting.withLock { waiting in
            waiting.rests.append(rest)
            defer { waiting.isAsking = true }
            return !waiting.isAsking
        }
        if isFirst { ask(after: Self.pauses.first, on: eventLoop) }
    }

    private func ask(after pause: TimeAmount, on eventLoop: any EventLoop) {
        eventLoop.scheduleTask(in: pause) { [self] in
            let turn = current
            let due = waiting.withLock { waiting in
                let due = waiting.rests.filter { $0.turn != turn }
                waiting.rests.removeAll { $0.turn != turn }
                return due
            }
            for rest in due { rest.body.value() }
            let goesOn = waiting.withLock { waiting in
                waiting.isAsking = !waiting.rests.isEmpty
                return waiting.isAsking
            }
            if goesOn { ask(after: due.isEmpty ? min(pause * 2, Self.pauses.longest) : Self.pauses.first, on: eventLoop) }
        }
    }
}
