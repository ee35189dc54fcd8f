import APIModels
import Foundation
import Hummingbird

/// One operation of the API: where it is, what the document says of it, and what does it.
struct Route: Sendable {
    /// One segment of a path.
    enum Segment: Sendable, Equatable {
        case literal(String)
        case parameter(String)
    }

    /// What an answer's body is.
    enum Content: Sendable {
        case none
        /// A named schema, as JSON.
        case json(String)
        /// Some other type.
        case other(String, String)
    }

    /// One good answer. Errors are the same everywhere and are not listed one by one.
    struct Answer: Sendable {
        var status: Int
        var content: [Content]
        var summary: String
    }

    /// A parameter in the query.
    struct Parameter: Sendable {
        var name: String
        var schema: Schema
    }

    /// A request body.
    struct Body: Sendable {
        /// The named schema.
        var schema: String
        /// False when the body may be left out.
        var required = true
    }

    var method: HTTPRequest.Method
    /// The path with `{name}` for parameters.
    var path: String
    /// The operation's identifier in the document.
    var identifier: String
    var tag: String
    var summary: String
    /// True when no token is needed.
    var open = false
    var query: [Parameter] = []
    var body: Body?
    /// True when it takes an `Idempotency-Key`.
    var idempotent = false
    var answers: [Answer]
    /// Statuses of errors that this operation has besides 400, 401, 404 for its path, and 500.
    var errors: [Int] = []
    var handle: @Sendable (Call) async throws -> Response

    var segments: [Segment] {
        path.split(separator: "/").map {
            $0.hasPrefix("{") ? .parameter(String($0.dropFirst().dropLast())) : .literal(String($0))
        }
    }

    /// The path's parameters when a path matches, else nil.
    static func match(_ segments: [Segment], _ path: [String]) -> [String: String]? {
        guard segments.count == path.count else { return nil }
        var parameters: [String: String] = [:]
        for (segment, text) in zip(segments, path) {
            switch segment {
            case .literal(let literal): guard literal == text else { return nil }
            case .parameter(let name): parameters[name] = text
            }
        }
        return parameters
    }
}

/// A request on its way through a route, already checked against the route's description.
struct Call: Sendable {
    let controller: any EdgeController
    /// The path's parameters, decoded.
    let parameters: [String: String]
    /// The query, decoded.
    let query: [String: String]
    let headers: HTTPFields
    /// The body; nil when there is none.
    let body: ByteBuffer?
    let services: APIServices

    func parameter(_ name: String) -> String { parameters[name] ?? "" }

    /// The body as a value. It was checked before, so that this fails only when a description is wrong.
    func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        do {
            return try APICoding.decoder().decode(type, from: Data((body ?? ByteBuffer(string: "{}")).readableBytesView))
        } catch let error as DecodingError {
            throw APIError.invalid(Self.field(error), "cannot be used: \(Self.message(error))")
        }
    }

    static func field(_ error: DecodingError) -> String {
        let path: [any CodingKey] =
            switch error {
            case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context): context.codingPath
            case .keyNotFound(let key, let context): context.codingPath + [key]
            @unknown default: []
            }
        return path.reduce(into: "") { text, key in
            if let index = key.intValue {
                text += "[\(index)]"
            } else {
                text += text.isEmpty ? key.stringValue : ".\(key.stringValue)"
            }
        }
    }

    static func message(_ error: DecodingError) -> String {
        switch error {
        case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context),
            .keyNotFound(_, let context):
            context.debugDescription
        @unknown default: "\(error)"
        }
    }
}

extension Response {
    /// A JSON answer.
    static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok, type: String = "application/json") throws
        -> Response
    {
        let bytes = try APICoding.encoder().encode(value)
        return Response(status: status, headers: [.contentType: type], body: .init(byteBuffer: ByteBuffer(bytes: bytes)))
    }

    /// 201 with the place of what was made.
    static func created(_ value: some Encodable, at path: String) throws -> Response {
        var response = try json(value, status: .created)
        response.headers[.location] = path
        return response
    }

    static func text(_ text: String, type: String) -> Response {
        Response(status: .ok, headers: [.contentType: type], body: .init(byteBuffer: ByteBuffer(string: text)))
    }
}

/// A name as one segment of a path.
func pathSegment(_ name: String) -> String {
    name.addingPercentEncoding(
        withAllowedCharacters: .alphanumerics.intersection(.init(charactersIn: Unicode.Scalar(0)...Unicode.Scalar(127))).union(
            .init(charactersIn: "-._~"))) ?? name
}
