import Blocks
import NIOCore
import NIOPosix

/// The event loop and the threads that offline work runs on.
public struct OfflineLoop: Sendable {
    let eventLoop: any EventLoop
    let threadPool: NIOThreadPool

    /// - Parameters:
    ///   - eventLoop: where the files' completions run.
    ///   - threadPool: for calls that wait for a device; it has been started.
    public init(eventLoop: any EventLoop, threadPool: NIOThreadPool) {
        self.eventLoop = eventLoop
        self.threadPool = threadPool
    }

    /// Those of the process.
    public static let shared = OfflineLoop(eventLoop: MultiThreadedEventLoopGroup.singleton.next(), threadPool: .singleton)
}

/// Makes a call that ends in a completion, and waits for it. On the actor whose loop the completion runs on.
func completed<Value, Failure: Error>(
    isolation: isolated (any Actor)? = #isolation, _ call: (@escaping (Result<Value, Failure>) -> Void) -> Void
) async throws(Failure) -> Value {
    var ended: Result<Value, Failure>?
    await withCheckedContinuation(isolation: isolation) { (continuation: CheckedContinuation<Void, Never>) in
        call { result in
            ended = result
            continuation.resume()
        }
    }
    guard let ended else { preconditionFailure("only the completion resumes") }
    return try ended.get()
}
