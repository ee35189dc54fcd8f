import Dispatch
import Foundation

/// Waits for signals that would end the process otherwise. After the first one they do again, so that a second Ctrl-C always helps.
final class SignalStream: @unchecked Sendable {
    // Every access to the two variables holds the lock; the sources are only touched in `init` and, once, in `received`.
    private let lock = NSLock()
    private var hasCome = false
    private var waiting: [AsyncStream<Void>.Continuation] = []
    private var sources: [any DispatchSourceSignal] = []
    private let signals: [Int32]

    init(_ signals: [Int32]) {
        self.signals = signals
        sources = signals.map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { [weak self] in self?.received() }
            source.activate()
            return source
        }
    }

    /// Returns when one of the signals has come, or the task is cancelled.
    func next() async {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
        lock.withLock {
            if hasCome { continuation.finish() } else { waiting.append(continuation) }
        }
        for await _ in stream {}
    }

    private func received() {
        let continuations = lock.withLock {
            defer { waiting = [] }
            hasCome = true
            return waiting
        }
        for source in sources { source.cancel() }
        for number in signals { signal(number, SIG_DFL) }
        for continuation in continuations { continuation.finish() }
    }
}
