// From request to response:
//
//     match the path ─▶ authenticate ─▶ method ─▶ query ─▶ body: size, type, form ─▶ Idempotency-Key ─▶ the route's handler
//          └──────────────┴───────────────┴─────────┴─────────────┴────────────────────┴──────────────────────┴──▶ problem document

import APIModels
import Crypto
import Foundation
import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// Answers requests from the route table.
struct APIResponder: HTTPResponder {
    typealias Context = BasicRequestContext

    /// The largest request body, in bytes.
    static let largestBody = 1 << 20
    /// The longest path with its query, in bytes.
    static let longestTarget = 8_192

    let controller: any EdgeController
    let tokens: BearerTokens
    let services: APIServices
    private let routes: [(segments: [Route.Segment], route: Route)]

    init(controller: any EdgeController, tokens: BearerTokens, routes: [Route], version: String) {
        self.controller = controller
        self.tokens = tokens
        self.routes = routes.map { ($0.segments, $0) }
        services = APIServices(document: OpenAPI.document(routes: routes, version: version))
    }

    func respond(to request: Request, context: Context) async throws -> Response {
        var response: Response
        do {
            response = try await answer(request)
        } catch let error as APIError {
            response = Self.response(error, request, context.logger)
        } catch let problem as Problem {
            response = Self.response(APIError(problem), request, context.logger)
        } catch is CancellationError {
            response = Self.response(.stopping, request, context.logger)
        } catch {
            if let problem = controller.problem(of: error) { return Self.response(APIError(problem), request, context.logger) }
            context.logger.error("request failed", metadata: ["path": "\(Self.place(request))", "error": "\(Self.kind(of: error))"])
            response = Self.response(.unexpected, request, context.logger)
        }
        response.headers[.cacheControl] = "no-store"
        response.headers[.xContentTypeOptions] = "nosniff"
        return request.method == .head ? response.createHeadResponse() : response
    }

    private func answer(_ request: Request) async throws -> Response {
        guard (request.head.path ?? "").utf8.count <= Self.longestTarget else {
            throw APIError(
                Problem(
                    status: 414, code: "target_too_long", title: "The path is too long",
                    detail: "A path may have at most \(Self.longestTarget) bytes.",
                    action: "Shorten it."))
        }
        let path = Self.segments(of: request.uri.path)
        // A HEAD is answered as the GET would be, without the body.
        let method = request.method == .head ? .get : request.method
        let matches = path.map { path in routes.filter { Route.match($0.segments, path) != nil }.map(\.route) } ?? []
        let route = matches.first { $0.method == method }
        if route?.open != true { try authenticate(request) }
        guard let path, !matches.isEmpty else { throw APIError.notRouted(request.uri.path) }
        guard let route else {
            let allow = matches.flatMap { $0.method == .get ? ["GET", "HEAD"] : [$0.method.rawValue] }
            throw APIError.methodNotAllowed(request.method.rawValue, allow: allow.sorted())
        }
        let query = try Self.query(of: request, route)
        let body = try await Self.body(of: request, route)
        let call = Call(
            controller: controller, parameters: Route.match(route.segments, path) ?? [:], query: query, headers: request.headers,
            body: body,
            services: services)
        guard route.idempotent, let key = request.headers[.idempotencyKey] else { return try await route.handle(call) }
        return try await once(key, call, route)
    }

    private func authenticate(_ request: Request) throws {
        guard let header = request.headers[.authorization] else { throw APIError.unauthorized(given: false) }
        let parts = header.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { throw APIError.unauthorized(given: false) }
        guard tokens.accepts(parts[1].trimmingCharacters(in: .whitespaces)) else { throw APIError.unauthorized(given: true) }
    }

    // MARK: The parts of a request

    /// The decoded segments of a path; nil when it cannot be decoded. A slash at the end does not count.
    static func segments(of path: String) -> [String]? {
        var raw = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        if raw.last?.isEmpty == true { raw = raw.dropLast() }
        var segments: [String] = []
        for segment in raw {
            guard let decoded = segment.removingPercentEncoding, !decoded.utf8.contains(0) else { return nil }
            segments.append(decoded)
        }
        return segments
    }

    /// The query, with every parameter known to the route and of the right form.
    static func query(of request: Request, _ route: Route) throws -> [String: String] {
        var query: [String: String] = [:]
        var errors: [Problem.InvalidField] = []
        for pair in (request.uri.query ?? "").split(separator: "&").prefix(100) {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = parts[0].removingPercentEncoding,
                let value = (parts.count > 1 ? parts[1] : "").removingPercentEncoding
            else {
                errors.append(.init(field: String(pair.prefix(100)), message: "is not percent-encoded text"))
                continue
            }
            guard let parameter = route.query.first(where: { $0.name == name }) else {
                let known = route.query.map(\.name)
                errors.append(
                    .init(
                        field: String(name.prefix(100)),
                        message: known.isEmpty
                            ? "is not known: this path takes no query"
                            : "is not known here; known are \(known.joined(separator: ", "))"))
                continue
            }
            if query.updateValue(value, forKey: name) != nil { errors.append(.init(field: name, message: "is there twice")) }
            errors += Self.json(value, for: parameter.schema).map { .init(field: name, message: $0.message) }
        }
        guard errors.isEmpty else { throw APIError.invalid(Array(errors.prefix(Schema.mostErrors))) }
        return query
    }

    /// What is wrong with the text of a parameter.
    private static func json(_ text: String, for schema: Schema) -> [Problem.InvalidField] {
        switch schema.form {
        case .integer: schema.problems(with: Int64(text).map { .integer($0) } ?? .string(text))
        default: schema.problems(with: .string(text))
        }
    }

    /// The body, of the right size, type and form; nil when there is none and none is needed.
    static func body(of request: Request, _ route: Route) async throws -> ByteBuffer? {
        if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > largestBody {
            throw APIError.bodyTooLarge(limit: largestBody)
        }
        var body = ByteBuffer()
        for try await part in request.body {
            guard part.readableBytes <= largestBody - body.readableBytes else { throw APIError.bodyTooLarge(limit: largestBody) }
            body.writeImmutableBuffer(part)
        }
        guard let description = route.body else {
            guard body.readableBytes == 0 else { throw APIError.invalid("", "this request takes no body") }
            return nil
        }
        if body.readableBytes == 0, !description.required { return nil }
        let type = request.headers[.contentType]
        let essence = type?.split(separator: ";").first?.trimmingCharacters(in: .whitespaces).lowercased()
        guard body.readableBytes > 0 else { throw APIError.invalid("", "the body is missing; send a JSON object") }
        guard essence == "application/json" else { throw APIError.unsupportedMediaType(type) }
        let value: JSON
        do {
            value = try APICoding.decoder().decode(JSON.self, from: Data(body.readableBytesView))
        } catch {
            throw APIError.invalid("", "the body is not JSON")
        }
        let problems = Schema.reference(description.schema).problems(with: value)
        guard problems.isEmpty else { throw APIError.invalid(problems) }
        return body
    }

    // MARK: Idempotency

    private func once(_ key: String, _ call: Call, _ route: Route) async throws -> Response {
        guard (1...IdempotencyTable<Int>.longestKey).contains(key.utf8.count) else {
            throw APIError.invalid("Idempotency-Key", "must have 1 to \(IdempotencyTable<Int>.longestKey) characters")
        }
        var hash = SHA256()
        hash.update(data: Data(route.identifier.utf8))
        hash.update(data: Data((call.body ?? ByteBuffer()).readableBytesView))
        let fingerprint = Array(hash.finalize())
        switch services.idempotency.withLock({ $0.begin(key, fingerprint: fingerprint, now: .now()) }) {
        case .replay(let saved):
            return Response(status: saved.status, headers: saved.headers, body: .init(byteBuffer: saved.body))
        case .running:
            var error = APIError.conflict(
                "request_in_progress", "The first request still runs",
                detail: "A request with this Idempotency-Key is being done.",
                action: "Repeat it after a moment.")
            error.retryAfterSeconds = 1
            throw error
        case .mismatch:
            throw APIError(
                Problem(
                    status: 422, code: "idempotency_key_reused", title: "The key belongs to another request",
                    detail: "This Idempotency-Key was used for a request with another body.",
                    action: "Use a new key for each new request."))
        case .full:
            throw APIError.unavailable(
                "too_many_requests_in_progress", "Too many requests are being done",
                detail: "Every place for an Idempotency-Key is in use.",
                action: "Try again in a moment.")
        case .proceed:
            break
        }
        do {
            let response = try await route.handle(call)
            var saved = SavedAnswer(status: response.status, headers: response.headers, body: ByteBuffer())
            try await response.body.write(BufferWriter { saved.body.writeImmutableBuffer($0) })
            services.idempotency.withLock { [saved] in $0.finish(key, answer: saved, now: .now()) }
            return Response(status: saved.status, headers: saved.headers, body: .init(byteBuffer: saved.body))
        } catch {
            services.idempotency.withLock { $0.abandon(key) }
            throw error
        }
    }

    // MARK: Errors

    /// What the log says of a request's path: behind its first two words stand names that users gave, which a cloud edge's log must not have.
    private static func place(_ request: Request) -> String {
        let words = request.uri.path.split(separator: "/")
        return "/" + words.prefix(2).joined(separator: "/") + (words.count > 2 ? "/…" : "")
    }

    /// What the log says of an error of ours: what it is, and nothing of what it carries.
    private static func kind(of error: any Error) -> String {
        let type = String(reflecting: type(of: error))
        let mirror = Mirror(reflecting: error)
        // A case without values has no children, and its text may be anything.
        guard mirror.displayStyle == .enum, let name = mirror.children.first?.label else { return type }
        return "\(type).\(name)"
    }

    /// The answer to an error. Its detail goes to whoever asked and not into the log: it may have names that users gave.
    static func response(_ error: APIError, _ request: Request, _ logger: Logger) -> Response {
        var problem = error.problem
        problem.instance = problem.instance ?? request.uri.path
        let status = HTTPResponse.Status(code: (400...599).contains(problem.status) ? problem.status : 500)
        if problem.status >= 500 {
            logger.warning(
                "request failed",
                metadata: ["path": "\(Self.place(request))", "status": "\(problem.status)", "code": "\(problem.code)"])
        }
        var response = (try? Response.json(problem, status: status, type: "application/problem+json")) ?? Response(status: status)
        if !error.allow.isEmpty { response.headers[.allow] = error.allow.joined(separator: ", ") }
        if let challenge = error.challenge { response.headers[.wwwAuthenticate] = challenge }
        if let seconds = error.retryAfterSeconds { response.headers[.retryAfter] = String(seconds) }
        return response
    }
}

/// Collects a body in memory.
private struct BufferWriter: ResponseBodyWriter {
    let take: (ByteBuffer) -> Void

    mutating func write(_ buffer: ByteBuffer) async throws {
        take(buffer)
    }

    consuming func finish(_ trailingHeaders: HTTPFields?) async throws {}
}

extension HTTPField.Name {
    /// Names that HTTPTypes does not have. Their spelling is checked by a test that sends them.
    static let idempotencyKey = HTTPField.Name("Idempotency-Key") ?? .eTag
    static let lastEventID = HTTPField.Name("Last-Event-ID") ?? .eTag
}
