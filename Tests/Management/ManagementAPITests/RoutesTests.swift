import APIModels
import Foundation
import Hummingbird
import HummingbirdTesting
import Testing

@testable import ManagementAPI

@Suite struct RoutesTests {
    /// A request for each operation, and the status that it must have.
    static let requests: [(identifier: String, uri: String, body: String?, status: Int)] = [
        ("getHealth", "/healthz", nil, 200), ("getMetrics", "/metrics", nil, 200), ("getDocument", "/openapi.json", nil, 200),
        ("getEdge", "/v1/edge", nil, 200), ("listEdges", "/v1/edges", nil, 200), ("revokeEdge", "/v1/edges/77", nil, 204),
        ("changeEdge", "/v1/edges/77", #"{"address":"w:1"}"#, 200),
        ("listTunnels", "/v1/tunnels", nil, 200), ("getTunnel", "/v1/tunnels/ldap", nil, 200),
        ("createTunnel", "/v1/tunnels", #"{"name":"ldap","edge":"77","listen":"a:1","connect":"b:2"}"#, 201),
        ("deleteTunnel", "/v1/tunnels/ldap", nil, 204),
        ("listLinks", "/v1/links?state=up", nil, 200),
        ("changeLink", "/v1/links/77", #"{"rates":{"totalBytesPerSecond":1000000}}"#, 200),
        ("changeLink", "/v1/links/77", #"{"remove":[{"from":"08:00","until":"18:00"}],"append":[]}"#, 200),
        ("changeLink", "/v1/links/77", #"{"schedule":[{"days":["monday"],"from":"08:00","until":"18:00","rates":{}}]}"#, 200),
        ("getLinkHistory", "/v1/links/77/history", nil, 200), ("getLinkHistory", "/v1/links/77/history?lastSeconds=60&samples=6", nil, 200),
        ("listDisks", "/v1/disks", nil, 200),
        ("createDisk", "/v1/disks", #"{"name":"beta","path":"/beta"}"#, 201), ("getDisk", "/v1/disks/alpha", nil, 200),
        ("changeDisk", "/v1/disks/alpha", #"{"sizeBytes":2147483648}"#, 200), ("rescanDisk", "/v1/disks/alpha/rescan", nil, 200),
        ("changeVolume", "/v1/volumes/mail", #"{"limits":{"operationsPerSecond":500,"burstOperations":2000},"readOnly":true}"#, 200),
        ("changeVolume", "/v1/volumes/mail", #"{"policy":{"recoveryPointObjectiveSeconds":2,"sealBytes":1048576}}"#, 200),
        ("getRegions", "/v1/volumes/mail/regions", nil, 200),
        ("changeRegions", "/v1/volumes/mail/regions", #"{"startBytes":4096,"sizeBytes":8192,"policy":"cloud-only"}"#, 200),
        ("deleteDisk", "/v1/disks/alpha", nil, 204), ("listVolumes", "/v1/volumes?edge=77", nil, 200),
        ("createVolume", "/v1/volumes", #"{"name":"web","disk":"alpha","attach":false,"edge":null}"#, 201),
        ("getVolume", "/v1/volumes/mail", nil, 200), ("deleteVolume", "/v1/volumes/mail", nil, 204),
        ("attachVolume", "/v1/volumes/mail/attach", nil, 200),
        ("attachVolume", "/v1/volumes/mail/attach", #"{"edge":"slow"}"#, 202),
        ("detachVolume", "/v1/volumes/mail/detach", nil, 200),
        ("detachVolume", "/v1/volumes/mail/detach", #"{"force":true}"#, 200),
        ("sealVolume", "/v1/volumes/mail/seal", nil, 200),
        ("sealVolume", "/v1/volumes/mail/seal?wait=applied&timeoutSeconds=5", nil, 200),
        ("getCache", "/v1/cache", nil, 200), ("changeCache", "/v1/cache", #"{"sizeBytes":4294967296}"#, 200),
        ("setCachePartition", "/v1/cache/partitions/lab", #"{"sizeBytes":4294967296}"#, 200),
        ("deleteCachePartition", "/v1/cache/partitions/lab", nil, 200),
        ("getCacheShare", "/v1/volumes/mail/cache", nil, 200),
        ("changeCacheShare", "/v1/volumes/mail/cache", #"{"mostBytes":4294967296,"pin":[{"startBytes":0,"sizeBytes":4096}]}"#, 200),
        ("listGroups", "/v1/groups", nil, 200), ("createGroup", "/v1/groups", #"{"name":"web","volumes":["mail"]}"#, 201),
        ("getGroup", "/v1/groups/mail", nil, 200), ("changeGroup", "/v1/groups/mail", #"{"volumes":["mail"]}"#, 200),
        ("deleteGroup", "/v1/groups/mail", nil, 204), ("detachGroup", "/v1/groups/mail/detach", #"{"force":true}"#, 200),
        ("sealGroup", "/v1/groups/mail/seal?wait=received", nil, 200),
        ("beginVolumeBracket", "/v1/volumes/mail/bracket", #"{"label":"l","timeoutSeconds":5}"#, 200),
        ("getVolumeBracket", "/v1/volumes/mail/bracket", nil, 200), ("sealVolumeBracket", "/v1/volumes/mail/bracket/seal", nil, 200),
        ("endVolumeBracket", "/v1/volumes/mail/bracket", nil, 200), ("beginGroupBracket", "/v1/groups/mail/bracket", nil, 200),
        ("getGroupBracket", "/v1/groups/mail/bracket", nil, 200), ("sealGroupBracket", "/v1/groups/mail/bracket/seal", nil, 200),
        ("endGroupBracket", "/v1/groups/mail/bracket", nil, 200),
        ("exportRecoveryKey", "/v1/volumes/mail/recovery-key", nil, 200), ("exportRecoveryKeys", "/v1/recovery-keys", nil, 200),
        ("getPoints", "/v1/volumes/mail/points", nil, 200), ("getPointContent", "/v1/volumes/mail/points/7/content", nil, 200),
        ("listKeys", "/v1/keys?volume=mail&state=active", nil, 200), ("getMasterKey", "/v1/keys/master", nil, 200),
        ("rotateMasterKey", "/v1/keys/master/rotate", nil, 200), ("shredVolume", "/v1/volumes/mail/shred", #"{"force":true}"#, 200),
        ("rotateKey", "/v1/volumes/mail/rotate-key", nil, 200),
        ("getCredentials", "/v1/volumes/mail/credentials", nil, 200), ("createPairingToken", "/v1/pairing/tokens", nil, 201),
        ("createPairingToken", "/v1/pairing/tokens", #"{"validSeconds":600}"#, 201),
        ("join", "/v1/pairing/join", #"{"token":"t"}"#, 200),
        ("listEvents", "/v1/events?limit=5", nil, 200),
    ]

    @Test func everyOperationHasARequestHere() {
        let routes = RouteTable.all(openMetrics: false).map(\.identifier)
        #expect(Set(routes) == Set(Self.requests.map(\.identifier)))
        #expect(Set(routes).count == routes.count)
    }

    @Test(arguments: requests.indices)
    func answersAsDescribed(index: Int) async throws {
        let (identifier, uri, body, status) = Self.requests[index]
        let route = try #require(RouteTable.all(openMetrics: false).first { $0.identifier == identifier })
        let response = try await TestAPI().send(route.method, uri, body)
        #expect(response.status.code == status)
        let answer = try #require(route.answers.first { $0.status == status })
        #expect(response.headers[.cacheControl] == "no-store")
        for case .json(let schema) in answer.content {
            #expect(response.headers[.contentType] == "application/json")
            let value = try response.decode(JSON.self)
            #expect(Schema.reference(schema).problems(with: value) == [])
        }
        if case .none = answer.content[0] { #expect(response.body.readableBytes == 0) }
        if status == 201, identifier != "createPairingToken" {
            let location = try #require(response.headers[.location])
            #expect(location.hasPrefix(uri + "/"))
        }
    }

    @Test func detachForwardsForce() async throws {
        let forced = try await TestAPI().send(.post, "/v1/volumes/mail/detach", #"{"force":true}"#).decode(DetachResult.self)
        #expect(forced == DetachResult(volume: "mail", unsentBytes: 512, forced: true))
        let gentle = try await TestAPI().send(.post, "/v1/volumes/mail/detach", "{}").decode(DetachResult.self)
        #expect(gentle == DetachResult(volume: "mail", unsentBytes: 0, forced: false))
    }

    @Test func detachForwardsThePointThatTheDiskGoesBackTo() async throws {
        let back = try await TestAPI().send(.post, "/v1/volumes/mail/detach", #"{"toPoint":6}"#).decode(DetachResult.self)
        #expect(back == DetachResult(volume: "mail", unsentBytes: 0, forced: false, point: 6))
        #expect(try await TestAPI().send(.post, "/v1/groups/mail/detach", #"{"toPoint":6}"#).status == .badRequest)
    }

    @Test func aPastPointIsSentWhole() async throws {
        let response = try await TestAPI().send(.get, "/v1/volumes/mail/points/7/content")
        #expect(response.headers[.contentLength] == "\(3 << 20)")
        let pieces = (0..<3).map { UInt8($0 + 1) }
        let isWhole = response.body == pieces.reduce(into: ByteBuffer()) { $0.writeRepeatingByte($1, count: 1 << 20) }
        #expect(isWhole)
        #expect(try await TestAPI().send(.get, "/v1/volumes/mail/points/seven/content").status == .badRequest)
        let head = try await TestAPI().send(.head, "/v1/volumes/mail/points/7/content")
        #expect(head.status == .ok && head.body.readableBytes == 0)
    }

    @Test func sealThatDidNotComeFarEnoughIsAccepted() async throws {
        let api = TestAPI()
        api.controller.state.withLock { $0.sealed = .received }
        let response = try await api.send(.post, "/v1/volumes/mail/seal?wait=applied&timeoutSeconds=1")
        #expect(response.status == .accepted)
        #expect(try response.decode(SealResult.self) == SealResult(volume: "mail", point: 7, state: .received))
        #expect(try await api.send(.post, "/v1/volumes/mail/seal?wait=received").status == .ok)
    }

    @Test func revokes() async throws {
        let api = TestAPI()
        #expect(try await api.send(.delete, "/v1/edges/77").status == .noContent)
        #expect(api.controller.state.withLock { $0.revoked } == ["77"])
    }

    @Test func unhealthyIs503() async throws {
        let api = TestAPI()
        api.controller.state.withLock { $0.healthy = false }
        let response = try await api.send(.get, "/healthz")
        #expect(response.status == .serviceUnavailable)
        #expect(
            try response.decode(Health.self) == Health(healthy: false, state: .degraded, problems: ["The state disk is full."]))
    }

    @Test func secretsAreNotInVolumes() async throws {
        let api = TestAPI()
        for uri in ["/v1/volumes", "/v1/volumes/mail"] {
            #expect(!String(buffer: try await api.send(.get, uri).body).contains(Samples.credentials.secret))
        }
        #expect(try await api.send(.get, "/v1/volumes/mail/credentials").decode(VolumeCredentials.self) == Samples.credentials)
    }

    @Test func headHasNoBody() async throws {
        let response = try await TestAPI().send(.head, "/v1/edge")
        #expect(response.status == .ok)
        #expect(response.body.readableBytes == 0)
        #expect(response.headers[.contentLength].flatMap { Int($0) } ?? 0 > 0)
    }

    @Test func pathsAreDecodedAndASlashAtTheEndDoesNotCount() async throws {
        #expect(try await TestAPI().send(.get, "/v1/disks/al%70ha/").decode(Disk.self).name == "alpha")
        #expect(try await TestAPI().send(.get, "/v1/disks/..%2Falpha").problem(404).code == "disk_not_found")
        #expect(try await TestAPI().send(.get, "/v1/disks/%FF").problem(404).code == "path_not_found")
    }

    @Test func metricsText() {
        let samples = [
            MetricSample("b_total", help: "Line\nbreak \\", kind: .counter, labels: [("peer", "a\"b\\c\nd")], value: 3),
            MetricSample("a", help: "A.", kind: .gauge, value: 0.5),
            MetricSample("b_total", help: "ignored", kind: .counter, labels: [("peer", "x")], value: .infinity),
            MetricSample("bad name", help: "", kind: .gauge, value: 1),
        ]
        let expected = """
            # HELP b_total Line\\nbreak \\\\
            # TYPE b_total counter
            b_total{peer="a\\"b\\\\c\\nd"} 3
            b_total{peer="x"} +Inf
            # HELP a A.
            # TYPE a gauge
            a 0.5

            """
        #expect(MetricsText.render(samples) == expected)
    }
}
