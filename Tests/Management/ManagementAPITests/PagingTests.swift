import APIModels
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import Testing

@testable import ManagementAPI

@Suite struct PagingTests {
    @Test func pagesHoldEverythingOnce() async throws {
        let api = TestAPI()
        api.controller.state.withLock { state in
            for index in 0..<25 {
                state.disks["d\(index)"] = Disk(name: "d\(index)", path: "/d", kind: .file, sizeBytes: 1, state: .available)
            }
        }
        var names: [String] = []
        var after: String?
        var pages = 0
        repeat {
            let uri = "/v1/disks?limit=10" + (after.map { "&after=\(pathSegment($0))" } ?? "")
            let page = try await api.send(.get, uri).decode(Page<Disk>.self)
            names += page.items.map(\.name)
            after = page.next
            pages += 1
        } while after != nil && pages < 10
        #expect(pages == 3)
        #expect(names.count == 26)
        #expect(names == names.sorted())
        #expect(try await api.send(.get, "/v1/disks?after=zzz").decode(Page<Disk>.self) == Page(items: []))
    }

    @Test func filters() async throws {
        let api = TestAPI()
        api.controller.state.withLock { state in
            state.volumes["other"] = Volume(name: "other", identifier: "1", edge: "88", state: .detached, sizeBytes: 1)
        }
        func names(_ query: String) async throws -> [String] {
            try await api.send(.get, "/v1/volumes\(query)").decode(Page<Volume>.self).items.map(\.name)
        }
        #expect(try await names("") == ["mail", "other"])
        #expect(try await names("?state=detached") == ["other"])
        #expect(try await names("?edge=77") == ["mail"])
        #expect(try await names("?edge=77&state=detached") == [])
        #expect(try await api.send(.get, "/v1/disks?state=missing").decode(Page<Disk>.self).items.isEmpty)
        #expect(try await api.send(.get, "/v1/links?state=down").decode(Page<Link>.self).items.isEmpty)
    }

    @Test func eventPages() async throws {
        let api = TestAPI()
        for index in 0..<30 {
            api.controller.events.append(
                kind: "k", subject: index % 2 == 0 ? "volume/a" : nil, message: "\(index)", severity: index == 29 ? .error : .info
            )
        }
        // The log keeps 20 events; sequences begin at 101.
        let first = try await api.send(.get, "/v1/events?limit=15").decode(Page<Event>.self)
        #expect(first.items.map(\.sequence) == Array(111...125))
        #expect(first.next == "125")
        let rest = try await api.send(.get, "/v1/events?limit=15&after=125").decode(Page<Event>.self)
        #expect(rest.items.map(\.sequence) == Array(126...130))
        #expect(rest.next == nil)
        #expect(try await api.send(.get, "/v1/events?severity=error").decode(Page<Event>.self).items.map(\.sequence) == [130])
        #expect(try await api.send(.get, "/v1/events?subject=volume/a").decode(Page<Event>.self).items.count == 10)
    }

    @Test func idempotentCreation() async throws {
        let api = TestAPI()
        let headers: HTTPFields = [.idempotencyKey: "key-1"]
        #expect(HTTPField.Name.idempotencyKey.rawName == "Idempotency-Key")
        let body = #"{"name":"beta","path":"/beta"}"#
        try await api.application().test(.router) { client in
            let first = try await TestAPI.send(client, .post, "/v1/disks", body, headers: headers)
            let second = try await TestAPI.send(client, .post, "/v1/disks", body, headers: headers)
            #expect(first.status == .created)
            #expect(second.status == .created)
            #expect(first.body == second.body)
            #expect(second.headers[.location] == "/v1/disks/beta")
            #expect(api.controller.state.withLock { $0.creations } == 1)
            let other = try await TestAPI.send(client, .post, "/v1/disks", #"{"name":"gamma","path":"/g"}"#, headers: headers)
            #expect(try other.problem(422).code == "idempotency_key_reused")
            // A request that failed may be repeated with its key.
            let retry: HTTPFields = [.idempotencyKey: "key-2"]
            #expect(try await TestAPI.send(client, .post, "/v1/disks", body, headers: retry).problem(409).code == "disk_exists")
            try await TestAPI.send(client, .delete, "/v1/disks/beta")
            #expect(try await TestAPI.send(client, .post, "/v1/disks", body, headers: retry).status == .created)
            let long: HTTPFields = [.idempotencyKey: String(repeating: "k", count: 256)]
            #expect(
                try await TestAPI.send(client, .post, "/v1/disks", body, headers: long).problem(400).errors?.map(\.field) == [
                    "Idempotency-Key"
                ])
        }
    }

    @Test func idempotencyTableIsBounded() {
        var table = IdempotencyTable<Int>(limit: 2, lifetime: .seconds(10))
        let start = NIODeadline.uptimeNanoseconds(0)
        func outcome(_ key: String, _ print: UInt8 = 0, at seconds: Int64 = 0) -> String {
            switch table.begin(key, fingerprint: [print], now: start + .seconds(seconds)) {
            case .proceed: "proceed"
            case .replay(let answer): "replay \(answer)"
            case .running: "running"
            case .mismatch: "mismatch"
            case .full: "full"
            }
        }
        #expect(outcome("a") == "proceed")
        #expect(outcome("a") == "running")
        #expect(outcome("a", 1) == "mismatch")
        #expect(outcome("b") == "proceed")
        #expect(outcome("c") == "full")
        table.finish("a", answer: 1, now: start)
        #expect(outcome("a") == "replay 1")
        table.abandon("a")
        #expect(outcome("a") == "replay 1")
        // The oldest answer makes room, and what runs stays.
        #expect(outcome("c") == "proceed")
        #expect(outcome("b") == "running")
        table.finish("b", answer: 2, now: start)
        #expect(outcome("b", at: 9) == "replay 2")
        #expect(outcome("b", at: 10) == "proceed")
        #expect(table.count == 2)
    }
}
