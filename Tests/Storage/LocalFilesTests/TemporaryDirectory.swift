import Files
import Glibc

/// A directory that goes away with the test.
final class TemporaryDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/causeway-test-XXXXXX".utf8CString)
        let made = template.withUnsafeMutableBufferPointer { $0.baseAddress.flatMap { mkdtemp($0) } != nil }
        guard made else { throw FileSystemError(call: "mkdtemp", path: "/tmp", errorNumber: errno) }
        path = template.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "" }
    }

    deinit {
        if let directory = try? OpenDirectory(path) {
            for name in (try? directory.list()) ?? [] {
                if (try? directory.remove(name)) == nil { rmdir("\(path)/\(name)") }
            }
        }
        rmdir(path)
    }

    func callAsFunction(_ name: String) -> String { "\(path)/\(name)" }
}
