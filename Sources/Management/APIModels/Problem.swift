/// An error of the API: `application/problem+json` (RFC 9457), with a code for programs and an action for people.
public struct Problem: Codable, Sendable, Equatable, Error {
    /// One wrong part of a request.
    public struct InvalidField: Codable, Sendable, Equatable {
        /// The field's path, for example `chap.secret`, or the name of a query parameter.
        public var field: String
        /// What is wrong with it.
        public var message: String

        public init(field: String, message: String) {
            self.field = field
            self.message = message
        }
    }

    /// `about:blank`, or a URI that names the kind of problem.
    public var type: String
    /// The kind of problem in a few words; the same for each problem of one code.
    public var title: String
    /// The HTTP status.
    public var status: Int
    /// What went wrong this time.
    public var detail: String?
    /// The path of the request.
    public var instance: String?
    /// A stable word for programs, for example `volume_not_found`.
    public var code: String
    /// What to do about it.
    public var action: String?
    /// The wrong parts of the request; nil when it was not the request's form.
    public var errors: [InvalidField]?

    public init(
        status: Int, code: String, title: String, detail: String? = nil, action: String? = nil, instance: String? = nil,
        errors: [InvalidField]? = nil, type: String = "about:blank"
    ) {
        self.type = type
        self.title = title
        self.status = status
        self.detail = detail
        self.instance = instance
        self.code = code
        self.action = action
        self.errors = errors
    }
}
