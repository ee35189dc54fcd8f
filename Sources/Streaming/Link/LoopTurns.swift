import NIOCore
import NIOPosix
import Synchronization

/// Counts the turns of an event loop: how often it has looked at its sockets.
///
/// A loop runs all tasks that are due before it looks at its sockets again, also those that its tasks make. So work that goes on in a task, or
/// after a short time, may go on in the same turn for as long as there is some, and nobody is served meanwhile. Whoever has much to do counts what
/// it does in a turn, and does the rest `later`.
public final class LoopTurns: NIOEventLoopMetricsDelegate {
    /// How long the rest waits at least: the loop would not look at its sockets before something that is due already.
    private static let pause: TimeAmount = .microseconds(20)

    private let count = Atomic<UInt64>(0)

    /// Counts for the loop of a group with one thread, which is made with this as its delegate for metrics.
    public init() {}

    /// The number of this turn.
    public var current: UInt64 { count.load(ordering: .relaxed) }

    public func processedTick(info: NIOEventLoopTickInfo) { count.wrappingAdd(1, ordering: .relaxed) }

    /// Runs `body` in a later turn of the loop, as soon as there is one. Called on the loop.
    public func later(on eventLoop: any EventLoop, _ body: @escaping () -> Void) {
        goOn(after: current, on: eventLoop, body)
    }

    private func goOn(after turn: UInt64, on eventLoop: any EventLoop, _ body: @escaping () -> Void) {
        eventLoop.assumeIsolated().scheduleTask(in: Self.pause) { [self] in
            // Other tasks have taken longer than the pause, and the turn is not over.
            if current == turn { goOn(after: turn, on: eventLoop, body) } else { body() }
        }
    }
}
