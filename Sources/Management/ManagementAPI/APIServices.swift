import Hummingbird
import NIOCore
import Synchronization

/// What requests share.
final class APIServices: Sendable {
    /// The OpenAPI document.
    let document: JSON
    let streams: StreamCount
    /// Past points that are being read.
    let contents = StreamCount(limit: PointContentStream.mostStreams)
    let idempotency = Mutex(IdempotencyTable<SavedAnswer>())

    init(document: JSON, mostStreams: Int = EventStream.mostStreams) {
        self.document = document
        streams = StreamCount(limit: mostStreams)
    }
}

/// An answer that a repetition of the request gets again.
struct SavedAnswer: Sendable {
    var status: HTTPResponse.Status
    var headers: HTTPFields
    var body: ByteBuffer
}

/// Counts the streams of one kind that are open.
final class StreamCount: Sendable {
    private let count = Mutex(0)
    private let limit: Int

    init(limit: Int) {
        self.limit = limit
    }

    /// Takes a place; false when there is none.
    func enter() -> Bool {
        count.withLock { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
    }

    func leave() {
        count.withLock { $0 -= 1 }
    }

    var open: Int { count.withLock { $0 } }
}

/// A place among the streams, given back once: when the stream ends, or when nobody holds its answer any more.
final class StreamLease: Sendable {
    private let streams: StreamCount
    private let ended = Mutex(false)

    init(streams: StreamCount) {
        self.streams = streams
    }

    func end() {
        let first = ended.withLock { ended in
            defer { ended = true }
            return !ended
        }
        if first { streams.leave() }
    }

    deinit {
        end()
    }
}
