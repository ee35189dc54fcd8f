// GET /v1/events with “Accept: text/event-stream” (the WHATWG HTML standard, section 9.2):
//
//     retry: 2000                        how soon to come back, in milliseconds
//
//     id: 1764115200000001               the event's sequence: comes back as Last-Event-ID
//     data: {"sequence":1764115200000001,…}
//
//     event: gap                         only when events after Last-Event-ID are no longer kept
//     data: {"after":1764115200000001}
//
//     : keep-alive                       each 15 seconds, so that both sides notice a dead connection

import APIModels
import Foundation
import Hummingbird
import ServiceLifecycle

enum EventStream {
    /// How many streams an edge serves at a time; one more is told to come back.
    static let mostStreams = 32
    /// How many events are written at a time.
    static let batchLimit = 256
    static let keepAlive: Duration = .seconds(15)
    static let contentType = "text/event-stream"

    static func response(_ call: Call) throws -> Response {
        var after = call.controller.events.lastSequence
        if let resume = call.headers[.lastEventID] ?? call.query["after"] {
            guard let sequence = UInt64(resume) else { throw APIError.invalid("Last-Event-ID", "must be a sequence number") }
            // A sequence from the future, after the clock was set back, must not wait for it to come.
            after = min(sequence, after)
        }
        guard call.services.streams.enter() else {
            throw APIError.unavailable(
                "too_many_streams", "Too many event streams", detail: "\(mostStreams) event streams are open.",
                action: "Close one, or read the list instead.")
        }
        let lease = StreamLease(streams: call.services.streams)
        let (log, filter, start) = (call.controller.events, EventFilter(call.query), after)
        let body = ResponseBody { writer in
            // The lease ends with the body, also when the body is never written.
            defer { lease.end() }
            try await write(log, after: start, filter: filter, keepAlive: keepAlive) { try await writer.write($0) }
            try await writer.finish(nil)
        }
        return Response(status: .ok, headers: [.contentType: contentType], body: body)
    }

    /// Writes events until the task is cancelled, the server stops or a write fails.
    static func write(
        _ log: EventLog, after start: UInt64, filter: EventFilter, keepAlive: Duration, _ write: (ByteBuffer) async throws -> Void
    ) async throws {
        let (signals, wake) = log.signals()
        let ticks = Task {
            while !Task.isCancelled {
                try? await Task.sleep(for: keepAlive)
                wake.yield()
            }
        }
        defer {
            ticks.cancel()
            wake.finish()
        }
        try await write(ByteBuffer(string: "retry: 2000\n\n"))
        var after = try await writeAll(log, after: start, filter: filter, write)
        for await _ in signals.cancelOnGracefulShutdown() {
            let newest = try await writeAll(log, after: after, filter: filter, write)
            if newest == after { try await write(ByteBuffer(string: ": keep-alive\n\n")) }
            after = newest
        }
    }

    /// Writes what the log has after a sequence, and returns the sequence of the last event that was looked at.
    private static func writeAll(
        _ log: EventLog, after start: UInt64, filter: EventFilter, _ write: (ByteBuffer) async throws -> Void
    ) async throws -> UInt64 {
        var after = start
        while !Task.isCancelled {
            let (events, gap) = log.events(after: after, limit: batchLimit)
            guard let last = events.last else { return after }
            var text = gap ? "event: gap\ndata: {\"after\":\(after)}\n\n" : ""
            for event in events where filter.matches(event) { text += try block(event) }
            after = last.sequence
            if !text.isEmpty { try await write(ByteBuffer(string: text)) }
        }
        return after
    }

    /// One event as it goes out. JSON has no line breaks outside of strings, and escapes them there.
    static func block(_ event: Event) throws -> String {
        let data = try APICoding.encoder().encode(event)
        return "id: \(event.sequence)\ndata: \(String(decoding: data, as: UTF8.self))\n\n"
    }
}
