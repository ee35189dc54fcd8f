import Foundation
import Testing

@testable import ManagementAPI

@Suite struct TokenFileTests {
    private func withDirectory(_ body: (String) throws -> Void) throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "token-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        try body(directory.path)
    }

    @Test func isMadeOnceWithMode0600() throws {
        try withDirectory { directory in
            let path = directory + "/token"
            let first = try TokenFile.loadOrCreate(path)
            #expect(first.created)
            #expect(first.tokens.count == 1)
            #expect(first.tokens.first?.utf8.count == 43)
            let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
            #expect(mode == 0o600)
            let second = try TokenFile.loadOrCreate(path)
            #expect(second == .init(tokens: first.tokens, created: false, warnings: []))
            try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path)
            #expect(try TokenFile.loadOrCreate(path).warnings.count == 1)
        }
        #expect(TokenFile.newToken() != TokenFile.newToken())
        // On a command line it would be taken for an option.
        #expect((0..<1_000).allSatisfy { _ in !TokenFile.newToken().hasPrefix("-") })
    }

    @Test func severalTokensAndComments() throws {
        try withDirectory { directory in
            let path = directory + "/token"
            try "# for the console\n\n  first-token-of-size \r\nsecond-token-of-size".write(
                toFile: path, atomically: true, encoding: .utf8)
            #expect(try TokenFile.loadOrCreate(path).tokens == ["first-token-of-size", "second-token-of-size"])
        }
    }

    @Test(arguments: ["", "# nothing\n", "short\n", String(repeating: "a-token-of-enough-size\n", count: 101)])
    func uselessFilesAreRefused(text: String) throws {
        try withDirectory { directory in
            let path = directory + "/token"
            try text.write(toFile: path, atomically: true, encoding: .utf8)
            #expect(throws: TokenFile.Failure.self) { try TokenFile.loadOrCreate(path) }
        }
    }

    @Test func aMissingDirectoryIsNamed() throws {
        let path = "/nonexistent-\(UUID().uuidString)/token"
        #expect {
            try TokenFile.loadOrCreate(path)
        } throws: { "\($0)".contains(path) && "\($0)".contains("No such file or directory") }
    }
}
