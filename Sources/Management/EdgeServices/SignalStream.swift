@preconcurrency import Dispatch
import Foundation

/// Signals of the process, as a stream.
final class SignalStream: Sendable {
    let stream: AsyncStream<Int32>
    private let sources: [any DispatchSourceSignal]

    init(_ signals: [Int32]) {
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
        self.stream = stream
        sources = signals.map { number in
            // The default action would end the process before the source hears of it.
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { continuation.yield(number) }
            source.resume()
            return source
        }
        // A peer that hangs up while it is written to is an error of that write, not of the process.
        signal(SIGPIPE, SIG_IGN)
    }
}
