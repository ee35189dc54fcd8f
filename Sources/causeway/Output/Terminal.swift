import APIModels
import Foundation

/// Standard output for results, standard error for everything else.
enum Terminal {
    static func print(_ text: String) {
        write(text + "\n", to: .standardOutput)
    }

    static func error(_ text: String) {
        write(text + "\n", to: .standardError)
    }

    static func json(_ value: some Encodable) throws {
        print(String(decoding: try APICoding.encoder(pretty: true).encode(value), as: UTF8.self))
    }

    /// True when somebody looks at standard error.
    static var isInteractive: Bool { isatty(STDERR_FILENO) == 1 }

    /// The raw text of a progress line.
    static func errorRaw(_ text: String) { write(text, to: .standardError) }

    private static func write(_ text: String, to handle: FileHandle) {
        do {
            try handle.write(contentsOf: Data(text.utf8))
        } catch {
            // Nobody reads any more.
            if handle === FileHandle.standardOutput { exit(ExitStatus.failed.rawValue) }
        }
    }
}
