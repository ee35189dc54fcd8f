import Foundation
import Yams

extension Configuration {
    /// The largest file that is read, in bytes.
    public static let largestFileBytes = 1 << 20

    /// Reads, checks and completes a configuration file.
    public static func load(_ path: String) throws(ConfigurationErrors) -> Configuration {
        let contents: Data
        do {
            let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
            defer { try? handle.close() }
            contents = try handle.read(upToCount: largestFileBytes + 1) ?? Data()
        } catch {
            let reason = FileManager.default.fileExists(atPath: path) ? "cannot be read" : "there is no such file"
            throw ConfigurationErrors([
                ConfigurationError(file: path, message: reason, hint: "check the path given with --config, and its permissions")
            ])
        }
        guard contents.count <= largestFileBytes else {
            throw ConfigurationErrors([
                ConfigurationError(file: path, message: "the file is larger than \(ByteSize.text(UInt64(largestFileBytes)))")
            ])
        }
        guard let text = String(data: contents, encoding: .utf8) else {
            throw ConfigurationErrors([ConfigurationError(file: path, message: "the file is not UTF-8 text")])
        }
        return try parse(text, file: path)
    }

    /// Checks and completes the text of a configuration file. Relative paths are taken from the directory of `file`.
    public static func parse(_ text: String, file: String) throws(ConfigurationErrors) -> Configuration {
        let reader = ConfigurationReader(file: file)
        let root: Node
        do {
            guard let node = try Yams.compose(yaml: text), !reader.isNull(node) else {
                throw ConfigurationErrors([
                    ConfigurationError(file: file, message: "the file is empty", hint: "role, name and state are required")
                ])
            }
            root = node
        } catch let errors as ConfigurationErrors {
            throw errors
        } catch {
            throw ConfigurationErrors([describe(error, file: file)])
        }
        let builder = ConfigurationBuilder(reader: reader, directory: directory(of: file))
        let configuration = builder.build(root)
        guard reader.errors.isEmpty, let configuration else {
            let sorted = reader.errors.sorted { ($0.line ?? 0, $0.column ?? 0) < ($1.line ?? 0, $1.column ?? 0) }
            throw ConfigurationErrors(
                sorted.isEmpty ? [ConfigurationError(file: file, message: "the file cannot be used")] : sorted)
        }
        return configuration
    }

    private static func directory(of file: String) -> String {
        URL(fileURLWithPath: file).deletingLastPathComponent().path
    }

    private static func describe(_ error: any Error, file: String) -> ConfigurationError {
        func at(_ mark: Mark, _ message: String, hint: String? = nil) -> ConfigurationError {
            ConfigurationError(file: file, line: mark.line, column: mark.column, message: message, hint: hint)
        }
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _)?, .parser(_, let problem, let mark, _)?,
            .composer(_, let problem, let mark, _)?:
            return at(
                mark, "this is not YAML: \(problem)", hint: "check indentation (spaces, not tabs), colons and quotes near here")
        case .duplicatedKeysInMapping(let duplicates, let context)?:
            let keys = duplicates.map { "“\($0)”" }.joined(separator: ", ")
            return at(context.mark, "\(keys) is there twice", hint: "keep one of them")
        case .reader(let problem, _, _, _)?:
            return ConfigurationError(file: file, message: "this is not YAML text: \(problem)")
        default:
            return ConfigurationError(file: file, message: "this is not YAML: \(error)")
        }
    }
}
