import APIModels
import Foundation
import Hummingbird
import HummingbirdTesting
import Testing

@testable import ManagementAPI

@Suite struct ProblemsTests {
    @Test(arguments: [nil, "Bearer wrong-token-of-some-length", "Basic abc", "Bearer", TestAPI.token] as [String?])
    func wrongTokens(header: String?) async throws {
        for uri in ["/v1/edge", "/v1/nowhere", "/metrics", "/", "/v1/volumes/mail/credentials"] {
            let response = try await TestAPI().send(.get, uri, headers: [.authorization: header ?? ""])
            let problem = try response.problem(401)
            #expect(["missing_token", "invalid_token"].contains(problem.code))
            #expect(response.headers[.wwwAuthenticate]?.hasPrefix("Bearer realm=\"causeway\"") == true)
            #expect(problem.action != nil)
        }
    }

    @Test func openPaths() async throws {
        for uri in ["/healthz", "/openapi.json"] {
            #expect(try await TestAPI().send(.get, uri, headers: [.authorization: ""]).status == .ok)
        }
        #expect(try await TestAPI(openMetrics: true).send(.get, "/metrics", headers: [.authorization: ""]).status == .ok)
    }

    @Test func tokensAreReplaced() {
        let tokens = BearerTokens(["first-token-first", "short"])
        #expect(tokens.accepts("first-token-first"))
        #expect(!tokens.accepts("short"))
        tokens.replace(["second-token-second", "third-token-third"])
        #expect(!tokens.accepts("first-token-first"))
        #expect(tokens.accepts("third-token-third"))
        #expect(!BearerTokens([]).accepts(""))
    }

    @Test func notFoundAndNotAllowed() async throws {
        let missing = try await TestAPI().send(.get, "/v1/nowhere").problem(404)
        #expect(missing.code == "path_not_found")
        #expect(missing.instance == "/v1/nowhere")
        let volume = try await TestAPI().send(.get, "/v1/volumes/none").problem(404)
        #expect(volume.code == "volume_not_found")
        #expect(volume.action == "See `causeway volume list`.")
        let response = try await TestAPI().send(.put, "/v1/disks")
        #expect(try response.problem(405).code == "method_not_allowed")
        #expect(response.headers[.allow] == "GET, HEAD, POST")
    }

    /// What tables and metrics call the part outside of all partitions is no partition's name. One that an earlier version let through can go.
    @Test func reservedPartition() async throws {
        let body = #"{"sizeBytes":4294967296}"#
        let problem = try await TestAPI().send(.put, "/v1/cache/partitions/shared", body).problem(400)
        #expect(problem.errors?.map(\.field) == ["name"] && problem.errors?.first?.message.contains("choose another one") == true)
        #expect(try await TestAPI().send(.put, "/v1/cache/partitions/shared-lab", body).status == .ok)
        #expect(try await TestAPI().send(.delete, "/v1/cache/partitions/shared").status == .ok)
    }

    @Test func wrongRole() async throws {
        let bare = BareController()
        let onprem = ["/v1/disks", "/v1/disks/a", "/v1/volumes/a/credentials", "/v1/keys", "/v1/keys/master"]
        for uri in ["/v1/edges", "/v1/links", "/v1/volumes", "/v1/volumes/a"] + onprem {
            #expect(try await TestAPI().send(.get, uri, to: bare).problem(409).code == "wrong_role")
        }
        for (uri, body) in [
            ("/v1/pairing/tokens", nil), ("/v1/pairing/join", #"{"token":"t"}"#), ("/v1/volumes/a/seal", nil),
            ("/v1/volumes/a/attach", nil),
            ("/v1/volumes/a/detach", nil), ("/v1/volumes/a/recovery-key", nil), ("/v1/recovery-keys", nil),
            ("/v1/volumes/a/shred", nil), ("/v1/volumes/a/rotate-key", nil), ("/v1/keys/master/rotate", nil),
            ("/v1/disks", #"{"name":"a","path":"/a"}"#),
            ("/v1/volumes", #"{"name":"a","disk":"a"}"#),
        ] {
            #expect(try await TestAPI().send(.post, uri, body, to: bare).problem(409).code == "wrong_role")
        }
        for uri in ["/v1/edges/a", "/v1/disks/a", "/v1/volumes/a"] {
            #expect(try await TestAPI().send(.delete, uri, to: bare).problem(409).code == "wrong_role")
        }
    }

    @Test func bodies() async throws {
        let api = TestAPI()
        #expect(
            try await api.send(.post, "/v1/disks", "{}", headers: [.contentType: "text/plain"]).problem(415).code
                == "unsupported_media_type")
        #expect(
            try await api.send(.post, "/v1/disks", "{}", headers: [.contentType: ""]).problem(415).code
                == "unsupported_media_type")
        let good = #"{"name":"beta","path":"/b"}"#
        #expect(
            try await api.send(.post, "/v1/disks", good, headers: [.contentType: "Application/JSON; charset=utf-8"]).status
                == .created)
        let large = #"{"name":"\#(String(repeating: "x", count: 1 << 20))"}"#
        #expect(try await api.send(.post, "/v1/disks", large).problem(413).code == "body_too_large")
        for text in ["{", "nonsense", "{\"name\":}", "\u{1}"] {
            #expect(try await api.send(.post, "/v1/disks", text).problem(400).detail == "the body is not JSON")
        }
        #expect(try await api.send(.post, "/v1/disks").problem(400).detail == "the body is missing; send a JSON object")
        #expect(
            try await api.send(.post, "/v1/disks", "[]").problem(400).errors == [
                .init(field: "", message: "expected an object, found a list")
            ])
        #expect(try await api.send(.get, "/v1/edge", "{}").problem(400).detail == "this request takes no body")
    }

    @Test func everyWrongFieldIsNamed() async throws {
        let body = """
            {"disk": 7, "chap": {"user": "", "secret": "short", "extra": 1}, "allowedInitiators": ["ok", 5],
             "policy": {"recoveryPointObjectiveSeconds": 0, "sealBytes": 1.5}, "atach": true}
            """
        let errors = try #require(try await TestAPI().send(.post, "/v1/volumes", body).problem(400).errors)
        #expect(
            errors.map(\.field) == [
                "name", "disk", "chap.user", "chap.secret", "chap.extra", "allowedInitiators[1]",
                "policy.recoveryPointObjectiveSeconds",
                "policy.sealBytes", "atach",
            ])
        #expect(errors[0].message == "is missing")
        #expect(errors[1].message == "expected a string, found a number")
        for name in ["", "-a", "a b", "ä", String(repeating: "x", count: 64)] {
            let problem = try await TestAPI().send(.post, "/v1/volumes", #"{"name":"\#(name)","disk":"d"}"#).problem(400)
            #expect(problem.errors?.map(\.field) == ["name"])
        }
        #expect(
            try await TestAPI().send(.post, "/v1/disks", #"{"name":"a","path":"rel"}"#).problem(400).errors?.map(\.field) == [
                "path"
            ])
    }

    @Test func mutualChapNeedsBothAndTwoSecrets() async throws {
        let half = #"{"name":"v","disk":"d","chap":{"user":"u","secret":"twelve-bytes","mutualUser":"m"}}"#
        #expect(try await TestAPI().send(.post, "/v1/volumes", half).problem(400).errors?.map(\.field) == ["chap.mutualSecret"])
        let same =
            #"{"name":"v","disk":"d","chap":{"user":"u","secret":"twelve-bytes","mutualUser":"m","mutualSecret":"twelve-bytes"}}"#
        #expect(try await TestAPI().send(.post, "/v1/volumes", same).problem(400).errors?.map(\.field) == ["chap.mutualSecret"])
    }

    @Test(arguments: [
        ("/v1/volumes?state=sering", "state"), ("/v1/volumes?limit=0", "limit"), ("/v1/volumes?limit=x", "limit"),
        ("/v1/volumes?lmit=1", "lmit"),
        ("/v1/volumes?limit=1&limit=2", "limit"), ("/v1/edge?x=1", "x"), ("/v1/events?after=x", "after"),
        ("/v1/volumes?edge=%FF", "edge=%FF"),
        ("/v1/volumes?limit=1001", "limit"),
    ])
    func wrongQueries(uri: String, field: String) async throws {
        #expect(try await TestAPI().send(.get, uri).problem(400).errors?.map(\.field) == [field])
    }

    @Test func unknownErrorsTellNothing() async throws {
        struct Secretive: Error { let secret = "hunter2" }
        let api = TestAPI()
        api.controller.state.withLock { $0.failure = Secretive() }
        let response = try await api.send(.get, "/v1/edge")
        #expect(try response.problem(500).code == "internal_error")
        #expect(!String(buffer: response.body).contains("hunter2"))
        api.controller.state.withLock { $0.failure = APIError.linkDown(peer: "77") }
        let down = try await api.send(.get, "/v1/edge")
        #expect(try down.problem(503).code == "link_down")
        #expect(down.headers[.retryAfter] == "5")
        api.controller.state.withLock { $0.failure = Samples.problem }
        #expect(try await api.send(.get, "/v1/edge").problem(404) == Samples.problem)
        // What the edge itself can put into words.
        api.controller.state.withLock { $0.failure = FakeController.DiskFull() }
        #expect(try await api.send(.get, "/v1/edge").problem(507).code == "no_space")
    }

    /// Damaged request bodies: each answer is a document, none is a 500, and nothing traps.
    @Test func damagedBodies() async throws {
        let original = Array(try APICoding.encoder().encode(Samples.whole.first { $0.0 == "VolumeCreate" }?.1 as? VolumeCreate))
        try await TestAPI().application().test(.router) { client in
            var seed: UInt64 = 42
            func random(_ below: Int) -> Int {
                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int((seed >> 33) % UInt64(below))
            }
            for _ in 0..<2_000 {
                var bytes = original
                for _ in 0...random(4) {
                    switch random(3) {
                    case 0: bytes[random(bytes.count)] = UInt8(random(256))
                    case 1: bytes.remove(at: random(bytes.count))
                    default:
                        bytes.insert(
                            contentsOf: Array("{}[]\",:0-e.".utf8).dropFirst(random(9)).prefix(3), at: random(bytes.count))
                    }
                }
                let response = try await client.execute(
                    uri: "/v1/volumes", method: .post,
                    headers: [.authorization: "Bearer \(TestAPI.token)", .contentType: "application/json"],
                    body: ByteBuffer(bytes: bytes))
                #expect([201, 400].contains(response.status.code))
            }
        }
    }
}
