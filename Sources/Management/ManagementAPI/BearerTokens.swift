import Crypto
import Foundation
import Synchronization

/// The tokens that may use the API, as digests. They can be replaced while the server runs.
public final class BearerTokens: Sendable {
    /// How many tokens an edge takes.
    public static let mostTokens = 100
    /// The shortest token, in bytes.
    public static let shortestToken = 16

    private let digests: Mutex<[SHA256.Digest]>

    public init(_ tokens: [String]) {
        digests = Mutex(Self.digests(of: tokens))
    }

    /// Takes these tokens instead, from the next request on.
    public func replace(_ tokens: [String]) {
        let new = Self.digests(of: tokens)
        digests.withLock { $0 = new }
    }

    /// Whether the token is one of them. The time that it takes tells nothing about where two tokens differ.
    public func accepts(_ token: String) -> Bool {
        let given = SHA256.hash(data: Data(token.utf8))
        let known = digests.withLock { $0 }
        var found = false
        // `==` of two digests compares every byte. Every token is compared, so that its place in the list does not show either.
        for digest in known where digest == given { found = true }
        return found
    }

    private static func digests(of tokens: [String]) -> [SHA256.Digest] {
        tokens.prefix(mostTokens).filter { $0.utf8.count >= shortestToken }.map { SHA256.hash(data: Data($0.utf8)) }
    }
}

/// The file that holds the bearer tokens: one on each line; empty lines and lines that begin with `#` do not count.
public enum TokenFile {
    /// Why the file gives no tokens.
    public struct Failure: Error, Sendable, Equatable, CustomStringConvertible {
        public var description: String
    }

    /// What was found or made.
    public struct Contents: Sendable, Equatable {
        public var tokens: [String]
        /// True when the file was missing and now holds one new token.
        public var created: Bool
        /// What the operator should know, one sentence each.
        public var warnings: [String]
    }

    /// Reads the tokens, and first makes the file with one random token and mode 0600 when it is missing.
    public static func loadOrCreate(_ path: String) throws(Failure) -> Contents {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        if descriptor >= 0 {
            defer { close(descriptor) }
            let token = newToken()
            let line = Array("\(token)\n".utf8)
            guard fchmod(descriptor, 0o600) == 0, write(descriptor, line, line.count) == line.count, fsync(descriptor) == 0 else {
                let reason = reason()
                unlink(path)
                throw Failure(description: "the token file \(path) cannot be written: \(reason)")
            }
            return Contents(tokens: [token], created: true, warnings: [])
        }
        guard errno == EEXIST else {
            throw Failure(
                description: "the token file \(path) cannot be made: \(reason()); check api.tokenFile and its directory")
        }
        return try load(path)
    }

    private static func load(_ path: String) throws(Failure) -> Contents {
        var status = stat()
        guard stat(path, &status) == 0, let data = FileManager.default.contents(atPath: path) else {
            throw Failure(description: "the token file \(path) cannot be read: \(reason()); check its owner and mode")
        }
        let lines = String(decoding: data.prefix(1 << 20), as: UTF8.self).split(whereSeparator: \.isNewline)
        let tokens = lines.map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty && !$0.hasPrefix("#") }
        if let short = tokens.firstIndex(where: { $0.utf8.count < BearerTokens.shortestToken }) {
            throw Failure(
                description:
                    "token \(short + 1) in \(path) is shorter than \(BearerTokens.shortestToken) characters; make a longer one")
        }
        guard !tokens.isEmpty else {
            throw Failure(description: "the token file \(path) has no token; remove it to have one made, or write one into it")
        }
        guard tokens.count <= BearerTokens.mostTokens else {
            throw Failure(description: "the token file \(path) has more than \(BearerTokens.mostTokens) tokens; remove some")
        }
        let open = status.st_mode & 0o077 != 0
        return Contents(
            tokens: tokens, created: false,
            warnings: open ? ["Others on this machine may read the token file \(path); give it mode 0600."] : [])
    }

    /// 32 random bytes in the alphabet of base64url. Its first character is no hyphen: on a command line that would be an option.
    static func newToken() -> String {
        while true {
            let token = randomText()
            if !token.hasPrefix("-") { return token }
        }
    }

    private static func randomText() -> String {
        let bytes = SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) }
        return bytes.base64EncodedString().replacingOccurrences(of: "+", with: "-").replacingOccurrences(of: "/", with: "_")
            .replacingOccurrences(of: "=", with: "")
    }

    private static func reason() -> String {
        String(cString: strerror(errno))
    }
}
