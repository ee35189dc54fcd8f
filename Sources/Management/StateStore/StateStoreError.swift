import GRDB

/// Why the state store did not do what it was asked.
public enum StateStoreError: Error, Equatable, Sendable, CustomStringConvertible {
    /// There is none of that name.
    case notFound(kind: String, name: String)
    /// There is one of that name already.
    case exists(kind: String, name: String)
    /// The state does not allow it; the text says what to do.
    case conflict(String)
    /// The state directory is full.
    case noSpace(String)
    /// The database can't be used.
    case failed(String)

    public var description: String {
        switch self {
        case .notFound(let kind, let name): "there is no \(kind) \"\(name)\""
        case .exists(let kind, let name): "there is one \(kind) \"\(name)\" already"
        case .conflict(let text): text
        case .noSpace(let text): "the state directory is full: \(text): free some space and try again"
        case .failed(let text): "the state database can't be used: \(text)"
        }
    }

    init(_ error: any Error) {
        switch error {
        case let error as StateStoreError: self = error
        case let error as DatabaseError where error.resultCode == .SQLITE_FULL: self = .noSpace("\(error)")
        case let error as DatabaseError where error.resultCode == .SQLITE_NOTADB || error.resultCode == .SQLITE_CORRUPT:
            self = .failed("it is damaged (\(error)): restore it from a backup of the state directory")
        default: self = .failed("\(error)")
        }
    }
}
