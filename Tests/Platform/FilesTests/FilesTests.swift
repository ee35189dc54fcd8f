import Glibc
import Testing

@testable import Files

@Suite struct OpenFileTests {
    private func write(_ bytes: [UInt8], to file: OpenFile, at offset: UInt64) throws {
        try bytes.withUnsafeBytes { try file.write($0, at: offset) }
    }

    private func read(_ file: OpenFile, at offset: UInt64, count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xee, count: count)
        let got = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: offset) }
        return Array(bytes.prefix(got))
    }

    @Test func bytesComeBack() throws {
        let directory = try TemporaryDirectory()
        let file = try OpenFile(directory("a"), [.write, .create, .exclusive])
        try write(Array("hello world".utf8), to: file, at: 5)
        #expect(try read(file, at: 5, count: 5) == Array("hello".utf8))
        #expect(try read(file, at: 11, count: 100) == Array("world".utf8))
        #expect(try read(file, at: 100, count: 4) == [])
        try file.synchronizeData()
        try file.truncate(to: 8)
        let information = try file.information()
        #expect(information.size == 8)
        #expect(information.kind == .regular)
        #expect(information.permissions == 0o600)
    }

    @Test func errorsSayWhatFailed() throws {
        let directory = try TemporaryDirectory()
        let missing = #expect(throws: FileSystemError.self) { try OpenFile(directory("none"), .write) }
        #expect(missing?.isNotFound == true)
        #expect(missing?.description == "open \(directory("none")): No such file or directory (errno 2)")
        _ = try OpenFile(directory("a"), [.write, .create])
        let exists = #expect(throws: FileSystemError.self) { try OpenFile(directory("a"), [.write, .create, .exclusive]) }
        #expect(exists?.errorNumber == EEXIST)
        let full = try OpenFile("/dev/full", .write)
        let noSpace = #expect(throws: FileSystemError.self) { try write([1], to: full, at: 0) }
        #expect(noSpace?.isNoSpace == true)
        #expect(try full.information().kind == .other)
        let readOnly = try OpenFile(directory("a"))
        #expect(throws: FileSystemError.self) { try write([1], to: readOnly, at: 0) }
        #expect(throws: FileSystemError.self) { try readOnly.truncate(to: .max) }
    }

    @Test func zeroesKeepTheRestAndGrowTheFile() throws {
        let directory = try TemporaryDirectory()
        let file = try OpenFile(directory("a"), [.write, .create])
        try write([UInt8](repeating: 7, count: 20_000), to: file, at: 0)
        try file.writeZeroes(at: 100, byteCount: 10_000)
        #expect(try read(file, at: 99, count: 3) == [7, 0, 0])
        #expect(try read(file, at: 10_099, count: 2) == [0, 7])
        #expect(try file.information().size == 20_000)
        try file.writeZeroes(at: 19_000, byteCount: 5_000)
        #expect(try file.information().size == 24_000)
        #expect(try read(file, at: 18_999, count: 9_000) == [7] + [UInt8](repeating: 0, count: 5_000))
        try write([UInt8](repeating: 9, count: 10), to: file, at: 0)
        try file.overwriteWithZeroes(at: 2, byteCount: 3)
        #expect(try read(file, at: 0, count: 7) == [9, 9, 0, 0, 0, 9, 9])
        #expect(throws: FileSystemError.self) { try file.writeZeroes(at: .max, byteCount: 2) }
    }

    @Test func residentReadsGiveAllOrLess() throws {
        let directory = try TemporaryDirectory()
        let file = try OpenFile(directory("a"), [.write, .create])
        try write([UInt8](repeating: 3, count: 4096), to: file, at: 0)
        var bytes = [UInt8](repeating: 0, count: 4096)
        let got = bytes.withUnsafeMutableBytes { file.readResident(into: $0, at: 0) }
        // The kernel may say "not resident" at any time; what it gives is right.
        #expect(got == 0 || bytes.prefix(got).allSatisfy { $0 == 3 })
        #expect(bytes.withUnsafeMutableBytes { file.readResident(into: $0, at: 9000) } == 0)
    }

    @Test func locksExcludeASecondOpen() throws {
        let directory = try TemporaryDirectory()
        var first: OpenFile? = try OpenFile(directory("a"), [.write, .create])
        try first?.lockExclusively()
        let second = try OpenFile(directory("a"), .write)
        let refused = #expect(throws: FileSystemError.self) { try second.lockExclusively() }
        #expect(refused?.isLocked == true)
        first = nil
        try second.lockExclusively()
    }
}

@Suite struct OpenDirectoryTests {
    @Test func namesAreListedRenamedAndRemoved() throws {
        let temporary = try TemporaryDirectory()
        let directory = try OpenDirectory(temporary.path)
        for name in ["a", "b"] { _ = try directory.open(name, [.write, .create]) }
        #expect(try directory.list().sorted() == ["a", "b"])
        try directory.rename("a", to: "b")
        try directory.synchronize()
        #expect(try directory.list() == ["b"])
        #expect(throws: FileSystemError.self) { try directory.rename("a", to: "c") }
        try directory.remove("b")
        try directory.remove("b")
        #expect(try directory.list() == [])
        let space = try directory.space()
        #expect(space.freeBytes > 0 && space.freeBytes <= space.totalBytes)
        #expect(throws: FileSystemError.self) { try OpenDirectory(temporary("none")) }
        _ = try directory.open("file", [.write, .create])
        #expect(throws: FileSystemError.self) { try OpenDirectory(temporary("file")) }
    }

    @Test func directoriesAreMadeForTheirOwnerOnly() throws {
        let temporary = try TemporaryDirectory()
        let directory = try OpenDirectory(temporary("x/y"), create: true)
        #expect(try OpenFile(temporary("x/y")).information().permissions == 0o700)
        _ = try OpenDirectory(temporary("x/y"), create: true)
        #expect(try directory.list() == [])
        rmdir(temporary("x/y"))
    }

    @Test func aFileIsReplacedWhole() throws {
        let temporary = try TemporaryDirectory()
        let directory = try OpenDirectory(temporary.path)
        try directory.replaceFile("f", with: Array("one".utf8))
        try directory.replaceFile("f", with: Array("two!".utf8), permissions: 0o640)
        #expect(try directory.readFile("f", byteCountMax: 100) == Array("two!".utf8))
        #expect(try directory.readFile("f", byteCountMax: 2) == Array("tw".utf8))
        #expect(try directory.open("f").information().permissions == 0o640)
        #expect(try directory.list() == ["f"])
    }

    @Test func aStateDirectoryIsUsedByOneProcess() throws {
        let temporary = try TemporaryDirectory()
        let directory = try OpenDirectory(temporary.path)
        var lock: StateDirectoryLock? = try StateDirectoryLock(directory: directory)
        #expect(lock != nil)
        let refused = #expect(throws: StateDirectoryError.self) { try StateDirectoryLock(directory: directory) }
        #expect(refused == .inUse(path: temporary.path, processIdentifier: Int(getpid())))
        #expect(refused?.description.contains("in use by process \(getpid())") == true)
        lock = nil
        _ = try StateDirectoryLock(directory: directory)
    }

    /// Whoever only reads writes nothing, so the lock's file still names the last one who wrote: that one is not who is in the way.
    @Test func theProcessOfAnEarlierHolderIsNotNamed() throws {
        let temporary = try TemporaryDirectory()
        let directory = try OpenDirectory(temporary.path)
        // One that there is not, and one that does something else.
        for last in [1 << 30, 1] {
            try directory.replaceFile(StateDirectoryLock.fileName, with: Array("\(last)\n".utf8))
            let reader = try StateDirectoryGuard(directory: directory)
            let refused = #expect(throws: StateDirectoryError.self) { try StateDirectoryLock(directory: directory) }
            #expect(refused == .inUse(path: temporary.path, processIdentifier: nil))
            withExtendedLifetime(reader) {}
        }
    }
}
