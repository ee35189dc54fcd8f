import APIModels

/// An error that the caller of the API is told: a problem document, and what its headers add.
public struct APIError: Error, Sendable, Equatable, CustomStringConvertible {
    public var problem: Problem
    /// Seconds for `Retry-After`.
    public var retryAfterSeconds: Int?
    /// Methods for `Allow`.
    var allow: [String] = []
    /// The challenge for `WWW-Authenticate`.
    var challenge: String?

    public init(_ problem: Problem, retryAfterSeconds: Int? = nil) {
        self.problem = problem
        self.retryAfterSeconds = retryAfterSeconds
    }

    public var description: String {
        "\(problem.status) \(problem.code): \(problem.detail ?? problem.title)"
    }

    /// 404: nothing has this name. `kind` is a word such as `volume`; the code is `volume_not_found`.
    public static func notFound(_ kind: String, _ name: String) -> APIError {
        APIError(
            Problem(
                status: 404, code: "\(kind)_not_found", title: "There is no such \(kind)",
                detail: "There is no \(kind) “\(name)”.",
                action: "See `causeway \(kind == "target" ? "volume" : kind) list`."))
    }

    /// 409: it would break something that is there.
    public static func conflict(_ code: String, _ title: String, detail: String, action: String) -> APIError {
        APIError(Problem(status: 409, code: code, title: title, detail: detail, action: action))
    }

    /// 409: something of that name is there.
    public static func exists(_ kind: String, _ name: String) -> APIError {
        conflict(
            "\(kind)_exists", "The \(kind) is there already", detail: "There is a \(kind) “\(name)”.",
            action: "Choose another name, or delete that \(kind) first.")
    }

    /// 409: edges of this role do not do that.
    public static func wrongRole(_ needed: EdgeRole? = nil) -> APIError {
        let detail =
            needed.map { "Only \($0 == .onprem ? "an on-prem" : "a cloud") edge does this." }
            ?? "An edge of this role does not do this."
        return conflict(
            "wrong_role", "Not an edge of that role", detail: detail,
            action:
                "Ask the other edge: `causeway` takes its address and token as --api and --token, or as CAUSEWAY_API and CAUSEWAY_TOKEN.")
    }

    /// 400: a field or parameter has a wrong value.
    public static func invalid(_ field: String, _ message: String) -> APIError {
        invalid([.init(field: field, message: message)])
    }

    /// 400: fields or parameters have wrong values.
    public static func invalid(_ errors: [Problem.InvalidField]) -> APIError {
        let detail = errors.map { $0.field.isEmpty ? $0.message : "\($0.field): \($0.message)" }.joined(separator: "; ")
        return APIError(
            Problem(
                status: 400, code: "invalid_request", title: "The request has wrong values", detail: detail,
                action: "Correct what “errors” lists; /openapi.json describes every request.", errors: errors))
    }

    /// 503: not now.
    public static func unavailable(_ code: String, _ title: String, detail: String, action: String, retryAfterSeconds: Int = 5)
        -> APIError
    {
        APIError(
            Problem(status: 503, code: code, title: title, detail: detail, action: action), retryAfterSeconds: retryAfterSeconds)
    }

    /// 503: the other edge cannot be asked because the link is down.
    public static func linkDown(peer: String) -> APIError {
        unavailable(
            "link_down", "The link is down", detail: "The link to edge “\(peer)” is down.",
            action: "See `causeway link list` for the reason, and try again when the link is up.")
    }

    static func notRouted(_ path: String) -> APIError {
        APIError(
            Problem(
                status: 404, code: "path_not_found", title: "There is no such path", detail: "Nothing is served at \(path).",
                action: "See /openapi.json for the paths."))
    }

    static func methodNotAllowed(_ method: String, allow: [String]) -> APIError {
        var error = APIError(
            Problem(
                status: 405, code: "method_not_allowed", title: "The path has no such method",
                detail: "\(method) is not served here.",
                action: "Use \(allow.joined(separator: ", "))."))
        error.allow = allow
        return error
    }

    static func unauthorized(given: Bool) -> APIError {
        var error = APIError(
            Problem(
                status: 401, code: given ? "invalid_token" : "missing_token", title: "A bearer token is needed",
                detail: given
                    ? "The bearer token is not one of this edge." : "The request has no “Authorization: Bearer” header.",
                action: "Use the token from the edge's token file (api.tokenFile in its configuration)."))
        error.challenge = given ? "Bearer realm=\"causeway\", error=\"invalid_token\"" : "Bearer realm=\"causeway\""
        return error
    }

    static func bodyTooLarge(limit: Int) -> APIError {
        APIError(
            Problem(
                status: 413, code: "body_too_large", title: "The body is too large",
                detail: "A body may have at most \(limit) bytes.",
                action: "Send a smaller body."))
    }

    static func unsupportedMediaType(_ type: String?) -> APIError {
        APIError(
            Problem(
                status: 415, code: "unsupported_media_type", title: "The body is not JSON",
                detail: type.map { "The body's type is “\($0)”." } ?? "The body has no type.",
                action: "Send “Content-Type: application/json”."))
    }

    static let stopping = unavailable(
        "stopping", "The edge is stopping", detail: "The edge stopped before the answer was known.",
        action: "Try again when it runs.")

    static let unexpected = APIError(
        Problem(
            status: 500, code: "internal_error", title: "The edge made a mistake",
            detail: "The request failed for a reason that is ours.",
            action: "See the edge's log, and report it."))
}
