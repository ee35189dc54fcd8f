import Files

/// The name of a file that is being made: the file has another name until it is whole.
public struct OutputName: Sendable {
    private let path: String
    private let directory: OpenDirectory
    private let name: String

    /// Fails when the directory of `path` can't be opened.
    public init(_ path: String) throws(OfflineError) {
        self.path = path
        let end = path.lastIndex(of: "/")
        name = end.map { String(path[path.index(after: $0)...]) } ?? path
        let parent = end.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        guard !name.isEmpty else { throw OfflineError("\(path) names no file") }
        do throws(FileSystemError) { directory = try OpenDirectory(parent) } catch {
            throw OfflineError("\(path) can't be made: \(error)")
        }
    }

    private var temporaryName: String { ".\(name).new" }
    var temporaryPath: String { "\(directory.path)/\(temporaryName)" }

    /// The error when there is such a file, and nobody said that it may be replaced.
    public static func exists(_ path: String) -> OfflineError {
        OfflineError("\(path) exists", action: "Name another file, or give --force to replace it.")
    }

    /// True when there is a file of that name.
    public func exists() throws(OfflineError) -> Bool {
        do throws(FileSystemError) { return try directory.list().contains(name) } catch { throw OfflineError("\(error)") }
    }

    /// Makes the file, empty, under its temporary name; what an interrupted export left there goes.
    public func create() throws(FileSystemError) -> OpenFile {
        try directory.remove(temporaryName)
        return try directory.open(temporaryName, [.write, .create, .exclusive])
    }

    /// Gives the file its name, durably.
    public func give(replaces: Bool) throws(OfflineError) {
        if !replaces, try exists() { throw Self.exists(path) }
        do throws(FileSystemError) {
            try directory.rename(temporaryName, to: name)
            try directory.synchronize()
        } catch { throw OfflineError("\(path) can't be made: \(error)") }
    }

    /// Puts a small file there, whole and durable.
    func write(_ bytes: [UInt8]) throws(OfflineError) {
        do throws(FileSystemError) { try directory.replaceFile(name, with: bytes) } catch {
            throw OfflineError("\(path) can't be made: \(error)")
        }
    }

    /// Removes the file under its temporary name.
    public func discard() throws(FileSystemError) { try directory.remove(temporaryName) }
}
