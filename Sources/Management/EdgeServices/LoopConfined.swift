import ManagementAPI
import NIOCore

/// A value that lives on one event loop, held by the control plane, which lives elsewhere.
///
/// The value is only ever touched on its loop; `NIOLoopBound` checks that.
struct LoopConfined<Value>: Sendable {
    let eventLoop: any EventLoop
    fileprivate let bound: NIOLoopBound<Value>

    /// Makes the value on its loop.
    static func make(on eventLoop: any EventLoop, _ body: @escaping @Sendable () throws -> Value) async throws -> LoopConfined {
        try await eventLoop.submit {
            LoopConfined(eventLoop: eventLoop, bound: NIOLoopBound(try body(), eventLoop: eventLoop))
        }.get()
    }

    private init(eventLoop: any EventLoop, bound: NIOLoopBound<Value>) {
        self.eventLoop = eventLoop
        self.bound = bound
    }

    /// Runs `body` on the loop and gives back what it returns.
    func run<Answer: Sendable>(_ body: @escaping @Sendable (Value) throws -> Answer) async throws -> Answer {
        try await eventLoop.submit { [bound] in try body(bound.value) }.get()
    }

    /// Runs `body` on the loop and waits until it calls its completion, which it must do exactly once.
    func call<Answer: Sendable>(
        _ body: @escaping @Sendable (Value, @escaping (Result<Answer, any Error>) -> Void) -> Void
    ) async throws -> Answer {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Answer, any Error>) in
            eventLoop.execute { [bound] in
                body(bound.value) { continuation.resume(with: $0) }
            }
        }
    }

    /// Runs `body` on the loop at some time; for what needs no answer.
    func send(_ body: @escaping @Sendable (Value) -> Void) {
        eventLoop.execute { [bound] in body(bound.value) }
    }
}

extension LoopConfined {
    /// For use on the loop: runs `body`, and gives its future or its error.
    func future<Answer: Sendable>(_ body: (Value) throws -> EventLoopFuture<Answer>) -> EventLoopFuture<Answer> {
        do {
            return try body(bound.value)
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
    }
}

extension LoopConfined {
    /// For use on the loop only: runs `body` at once.
    func onLoop<Answer>(_ body: (Value) throws -> Answer) rethrows -> Answer { try body(bound.value) }
}

extension APIError {
    /// A part of the edge that does not exist yet.
    static var starting: APIError {
        .unavailable("starting", "The edge is starting", detail: "its data plane is not up yet", action: "Try again in a second.")
    }
}
