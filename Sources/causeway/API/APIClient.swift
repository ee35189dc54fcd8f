import APIModels
import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

/// The HTTP API of one edge.
struct APIClient: Sendable {
    /// Scheme, host and port, without a slash behind.
    let base: String
    let token: String?

    /// The largest answer that is taken, in bytes.
    static let answerBytesMaximum = 64 << 20

    init(base: String, token: String?) throws {
        var text = base.contains("://") ? base : "http://" + base
        while text.hasSuffix("/") { text.removeLast() }
        guard let url = URL(string: text), let scheme = url.scheme, ["http", "https"].contains(scheme), url.host != nil else {
            throw CommandFailure(
                "“\(base)” is not the address of an API", action: "Write it like http://127.0.0.1:7480.", status: .usage)
        }
        self.base = text
        self.token = token
    }

    // MARK: Calls

    func get<Answer: Decodable>(_ path: String, query: [String: String] = [:], as type: Answer.Type = Answer.self) async throws
        -> Answer
    {
        try decode(try await send(.GET, path, query: query))
    }

    /// Every item of a list, page by page.
    func list<Item: Codable & Sendable>(_ path: String, query: [String: String] = [:], of type: Item.Type = Item.self)
        async throws -> [Item]
    {
        var items: [Item] = []
        var query = query
        while true {
            let page = try await get(path, query: query, as: Page<Item>.self)
            items += page.items
            guard let next = page.next, !page.items.isEmpty else { return items }
            query["after"] = next
        }
    }

    func post<Body: Encodable, Answer: Decodable>(
        _ path: String, _ body: Body?, query: [String: String] = [:], timeout: TimeAmount = .seconds(60),
        as type: Answer.Type = Answer.self
    ) async throws -> Answer {
        let data = try body.map { try APICoding.encoder().encode($0) }
        return try decode(try await send(.POST, path, query: query, body: data, timeout: timeout))
    }

    func patch<Answer: Decodable>(_ path: String, _ body: some Encodable, as type: Answer.Type = Answer.self) async throws -> Answer {
        try decode(try await send(.PATCH, path, body: try APICoding.encoder().encode(body)))
    }

    func put<Answer: Decodable>(_ path: String, _ body: some Encodable, as type: Answer.Type = Answer.self) async throws -> Answer {
        try decode(try await send(.PUT, path, body: try APICoding.encoder().encode(body)))
    }

    func delete(_ path: String) async throws {
        _ = try await send(.DELETE, path)
    }

    func delete<Answer: Decodable>(_ path: String, as type: Answer.Type = Answer.self) async throws -> Answer {
        try decode(try await send(.DELETE, path))
    }

    func text(_ path: String) async throws -> String {
        String(decoding: try await send(.GET, path), as: UTF8.self)
    }

    /// Lines of a server-sent stream, as they come.
    func stream(_ path: String, lastEvent: UInt64?) async throws -> AsyncThrowingStream<String, any Error> {
        var request = try request(.GET, path, query: [:], body: nil)
        request.headers.replaceOrAdd(name: "Accept", value: "text/event-stream")
        if let lastEvent { request.headers.add(name: "Last-Event-ID", value: String(lastEvent)) }
        // The stream lasts as long as the reader does; a silent one ends by TCP's own means.
        let response = try await execute(request, timeout: .hours(24 * 365))
        guard response.status == .ok else { throw await failure(response) }
        let body = response.body
        return AsyncThrowingStream { continuation in
            let task = Task {
                do {
                    var pending = ByteBuffer()
                    for try await chunk in body {
                        var chunk = chunk
                        pending.writeBuffer(&chunk)
                        while let end = pending.readableBytesView.firstIndex(of: UInt8(ascii: "\n")) {
                            let line = pending.readString(length: end - pending.readerIndex) ?? ""
                            pending.moveReaderIndex(forwardBy: 1)
                            continuation.yield(line.hasSuffix("\r") ? String(line.dropLast()) : line)
                        }
                        pending.discardReadBytes()
                        if pending.readableBytes > 1 << 20 { throw CommandFailure("the stream has a line that never ends") }
                    }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    /// The bytes of a large answer as they come, piece by piece; fails when fewer come than were announced.
    /// - Parameter body: gets the length of the whole, where a piece lies in it, and the piece.
    func download(_ path: String, _ body: (_ byteCount: UInt64, _ offset: UInt64, _ piece: ByteBuffer) throws -> Void) async throws {
        let response = try await execute(try request(.GET, path, query: [:], body: nil), timeout: .hours(24 * 365))
        guard response.status == .ok else { throw await failure(response) }
        guard let byteCount = response.headers.first(name: "Content-Length").flatMap({ UInt64($0) }) else {
            throw CommandFailure("\(base) does not say how long its answer is")
        }
        var offset: UInt64 = 0
        do {
            for try await piece in response.body {
                try body(byteCount, offset, piece)
                offset += UInt64(piece.readableBytes)
            }
        } catch let error as CommandFailure {
            throw error
        } catch {
            throw CommandFailure("the answer of \(base) broke off: \(Self.reason(error))", action: "Try again.", status: .unreachable)
        }
        guard offset == byteCount else {
            throw CommandFailure(
                "the answer of \(base) broke off after \(offset) of \(byteCount) bytes", action: "Try again.", status: .unreachable)
        }
    }

    /// A name as one part of a path.
    static func part(_ name: String) -> String {
        var allowed = CharacterSet.alphanumerics
        allowed.insert(charactersIn: "-._~")
        return name.addingPercentEncoding(withAllowedCharacters: allowed) ?? name
    }

    // MARK: The wire

    private func send(
        _ method: HTTPMethod, _ path: String, query: [String: String] = [:], body: Data? = nil, timeout: TimeAmount = .seconds(30)
    ) async throws -> Data {
        let response = try await execute(try request(method, path, query: query, body: body), timeout: timeout)
        guard (200..<300).contains(response.status.code) else { throw await failure(response) }
        do {
            return Data(try await response.body.collect(upTo: Self.answerBytesMaximum).readableBytesView)
        } catch {
            throw CommandFailure(
                "the answer of \(base) broke off: \(Self.reason(error))", action: "Try again.", status: .unreachable)
        }
    }

    private func request(_ method: HTTPMethod, _ path: String, query: [String: String], body: Data?) throws -> HTTPClientRequest {
        var url = base + path
        if !query.isEmpty {
            url += "?" + query.sorted { $0.key < $1.key }.map { "\($0.key)=\(Self.part($0.value))" }.joined(separator: "&")
        }
        var request = HTTPClientRequest(url: url)
        request.method = method
        request.headers.add(name: "Accept", value: "application/json")
        request.headers.add(name: "User-Agent", value: "causeway")
        if let token { request.headers.add(name: "Authorization", value: "Bearer \(token)") }
        if let body {
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: body))
        }
        return request
    }

    /// A refused connection is told at once: the shared client would try again for ten seconds. It lives as long as the process.
    private static let http: HTTPClient = {
        var configuration = HTTPClient.Configuration()
        configuration.connectionPool.retryConnectionEstablishment = false
        return HTTPClient(eventLoopGroup: MultiThreadedEventLoopGroup.singleton, configuration: configuration)
    }()

    private func execute(_ request: HTTPClientRequest, timeout: TimeAmount) async throws -> HTTPClientResponse {
        do {
            return try await Self.http.execute(request, timeout: timeout)
        } catch is CancellationError {
            throw CancellationError()
        } catch let error as HTTPClientError where error == .deadlineExceeded || error == .readTimeout {
            throw CommandFailure(
                "\(base) did not answer within \(timeout.nanoseconds / 1_000_000_000) s",
                action: "See whether the edge is busy or stopped: its log says more.", status: .notInTime)
        } catch {
            throw CommandFailure(
                "no edge answers at \(base): \(Self.reason(error))",
                action: "Start causewayd there, or name another address with --api or CAUSEWAY_API.", status: .unreachable)
        }
    }

    private func failure(_ response: HTTPClientResponse) async -> CommandFailure {
        let data = (try? await response.body.collect(upTo: 1 << 20)).map { Data($0.readableBytesView) } ?? Data()
        if let problem = try? APICoding.decoder().decode(Problem.self, from: data) { return CommandFailure(problem) }
        return CommandFailure(
            "\(base) answered \(response.status.code) \(response.status.reasonPhrase)",
            action: response.status == .unauthorized ? "Give its token with --token-file or CAUSEWAY_TOKEN." : nil)
    }

    private func decode<Answer: Decodable>(_ data: Data) throws -> Answer {
        do {
            return try APICoding.decoder().decode(Answer.self, from: data)
        } catch {
            throw CommandFailure(
                "the answer of \(base) is not what this version of causeway expects: \(error)",
                action: "Use the causeway that came with the edge's causewayd.")
        }
    }

    /// The words behind an error of the network.
    private static func reason(_ error: any Error) -> String {
        if let error = error as? NIOConnectionError {
            if let first = error.connectionErrors.first { return reason(first.error) }
            return "the host name is not known"
        }
        if let error = error as? IOError { return String(cString: strerror(error.errnoCode)).lowercased() }
        if let error = error as? HTTPClientError, error == .connectTimeout { return "connection timed out" }
        return "\(error)"
    }
}
