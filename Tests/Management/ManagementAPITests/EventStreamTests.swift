import APIModels
import Foundation
import Hummingbird
import NIOCore
import Synchronization
import Testing

@testable import ManagementAPI

@Suite struct EventStreamTests {
    /// Collects what a stream writes, and lets a test wait for it.
    final class Sink: Sendable {
        let text = Mutex("")
        let (arrivals, arrived) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))

        func write(_ buffer: ByteBuffer) {
            text.withLock { $0 += String(buffer: buffer) }
            arrived.yield()
        }

        /// The text once it holds all of the pieces.
        func wait(for pieces: String...) async -> String {
            func now() -> String { text.withLock { $0 } }
            if pieces.allSatisfy(now().contains) { return now() }
            for await _ in arrivals where pieces.allSatisfy(now().contains) { break }
            return now()
        }
    }

    private func log(_ count: Int, limit: Int = 20) -> EventLog {
        let log = EventLog(startingAfter: 100, limit: limit)
        for index in 0..<count { log.append(kind: "k", subject: "volume/a", message: "\(index)", time: Samples.time) }
        return log
    }

    private func stream(_ log: EventLog, after: UInt64, query: [String: String] = [:], keepAlive: Duration = .seconds(60)) -> (
        Sink, Task<Void, any Error>
    ) {
        let sink = Sink()
        let task = Task {
            try await EventStream.write(log, after: after, filter: EventFilter(query), keepAlive: keepAlive) { sink.write($0) }
        }
        return (sink, task)
    }

    @Test func resumesAndGoesOn() async throws {
        let log = log(5)
        let (sink, task) = stream(log, after: 103)
        let before = await sink.wait(for: "id: 105\n")
        #expect(before.hasPrefix("retry: 2000\n\nid: 104\ndata: {\"kind\":\"k\""))
        #expect(!before.contains("id: 103"))
        #expect(!before.contains("gap"))
        log.append(kind: "later", message: "one\ntwo")
        let after = await sink.wait(for: "id: 106\n")
        #expect(after.contains(#""message":"one\ntwo""#))
        #expect(after.components(separatedBy: "id: 105\n").count == 2)
        task.cancel()
        try await task.value
    }

    @Test func tellsOfAGap() async throws {
        let (sink, task) = stream(log(30), after: 105)
        let text = await sink.wait(for: "id: 130\n")
        #expect(text.contains("event: gap\ndata: {\"after\":105}\n\nid: 111\n"))
        #expect(text.components(separatedBy: "event: gap").count == 2)
        task.cancel()
        try await task.value
    }

    @Test func filtersAndKeepsAlive() async throws {
        let log = log(3)
        log.append(kind: "wanted", subject: "volume/b", message: "m")
        let (sink, task) = stream(log, after: 100, query: ["subject": "volume/b"], keepAlive: .milliseconds(5))
        let text = await sink.wait(for: "id: 104\n", ": keep-alive\n\n")
        #expect(!text.contains("id: 101"))
        task.cancel()
        try await task.value
    }

    @Test func aFailedWriteEndsTheStream() async throws {
        struct Gone: Error {}
        await #expect(throws: Gone.self) {
            try await EventStream.write(log(3), after: 100, filter: EventFilter([:]), keepAlive: .seconds(60)) { _ in throw Gone()
            }
        }
    }

    @Test func logIsARing() {
        let log = log(50, limit: 7)
        #expect(log.events(after: 0, limit: 100).events.map(\.sequence) == Array(144...150))
        #expect(log.events(after: 0, limit: 2).events.map(\.sequence) == [144, 145])
        #expect(log.events(after: 0, limit: 2).gap)
        #expect(log.events(after: 143, limit: 9).gap == false)
        #expect(log.events(after: 148, limit: 9).events.map(\.sequence) == [149, 150])
        #expect(log.events(after: 150, limit: 9).events.isEmpty)
        #expect(log.lastSequence == 150)
    }

    @Test func placesAreGivenBackOnce() {
        let streams = StreamCount(limit: 2)
        #expect(streams.enter())
        #expect(streams.enter())
        #expect(!streams.enter())
        var lease: StreamLease? = StreamLease(streams: streams)
        lease?.end()
        lease?.end()
        #expect(streams.open == 1)
        lease = nil
        #expect(streams.open == 1)
        lease = StreamLease(streams: streams)
        lease = nil
        #expect(streams.open == 0)
    }
}
