import Blocks
import Files
import NIOCore
import NIOPosix

/// A regular file through the page cache.
///
/// The operations in flight keep the file open; `close` lets go of it, and the descriptor is closed by
/// whoever ends last.
public final class LocalFile: StorageFile {
    private var file: OpenFile?
    private let path: String
    /// Why there is no file, when it could not be opened.
    private var absence: StorageFileError?
    private let calls: BlockingCalls
    private let pace: AtOncePace

    /// A file that is open already. Must be made and used on `eventLoop`.
    public convenience init(_ file: OpenFile, eventLoop: any EventLoop, threadPool: NIOThreadPool) {
        self.init(file, eventLoop: eventLoop, threadPool: threadPool, pace: AtOncePace())
    }

    /// A file that could not be opened: each call fails for the same reason.
    public init(unavailable path: String, because reason: StorageFileError, eventLoop: any EventLoop, threadPool: NIOThreadPool) {
        self.path = path
        absence = reason
        pace = AtOncePace()
        calls = BlockingCalls(eventLoop: eventLoop, threadPool: threadPool)
    }

    init(_ file: OpenFile, eventLoop: any EventLoop, threadPool: NIOThreadPool, pace: AtOncePace) {
        self.file = file
        self.pace = pace
        path = file.path
        calls = BlockingCalls(eventLoop: eventLoop, threadPool: threadPool)
    }

    private func run<Value: Sendable>(
        _ completion: @escaping (Result<Value, StorageFileError>) -> Void,
        _ body: @escaping @Sendable (OpenFile) throws(FileSystemError) -> Value
    ) {
        guard let file else { return calls.fail(completion, absence ?? .failed("\(path) has been closed")) }
        calls.run(completion) { () throws(FileSystemError) in try body(file) }
    }

    public func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool {
        file?.appendResident(at: offset, byteCount: byteCount, to: &buffer) ?? false
    }

    public func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        run(completion) { file throws(FileSystemError) in try file.readBuffer(at: offset, byteCount: byteCount) }
    }

    public func read(
        _ reads: [FileRead], pieceByteCount: Int, completion: @escaping ([Result<Int, StorageFileError>]) -> Void
    ) {
        let done = { (result: Result<[Result<Int, StorageFileError>], StorageFileError>) in
            switch result {
            case .success(let taken): completion(taken)
            case .failure(let error): completion(reads.map { _ in .failure(error) })
            }
        }
        run(done) { file throws(FileSystemError) in file.read(reads, pieceByteCount: pieceByteCount) }
    }

    public func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        run(completion) { file throws(FileSystemError) in try file.writeBuffer(data, at: offset) }
    }

    public func write(
        at offset: UInt64, produce: @escaping @Sendable () -> ByteBuffer?,
        completion: @escaping (_ bytes: ByteBuffer?, Result<Void, StorageFileError>) -> Void
    ) {
        let done = { (result: Result<ProducedWrite, StorageFileError>) in
            switch result {
            case .success(let write): completion(write.bytes, write.failure.map { .failure(StorageFileError($0)) } ?? .success(()))
            case .failure(let error): completion(nil, .failure(error))
            }
        }
        run(done) { file throws(FileSystemError) in
            var write = ProducedWrite(bytes: produce())
            do throws(FileSystemError) {
                if let bytes = write.bytes { try file.writeBuffer(bytes, at: offset) }
            } catch {
                write.failure = error
            }
            return write
        }
    }

    /// What was made and written on the pool, and how the write ended.
    private struct ProducedWrite: Sendable {
        let bytes: ByteBuffer?
        var failure: FileSystemError?
    }

    public func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>? {
        guard let file else { return .failure(absence ?? .failed("\(path) has been closed")) }
        let start = NIODeadline.now()
        guard pace.allows(at: start) else { return nil }
        defer { pace.ended(from: start, to: .now()) }
        do throws(FileSystemError) {
            try file.writeBuffer(data, at: offset)
            return .success(())
        } catch {
            return .failure(StorageFileError(error))
        }
    }

    public func writeZeroes(
        at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void
    ) {
        run(completion) { file throws(FileSystemError) in try file.writeZeroes(at: offset, byteCount: byteCount) }
    }

    public func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        run(completion) { file throws(FileSystemError) in try file.synchronizeData() }
    }

    public func synchronizeAndForget(completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        run(completion) { file throws(FileSystemError) in
            try file.synchronizeData()
            file.forgetResident()
        }
    }

    public func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) {
        run(completion) { file throws(FileSystemError) in try file.information().size }
    }

    public func nameCount(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) {
        run(completion) { file throws(FileSystemError) in try file.information().nameCount }
    }

    public func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        run(completion) { file throws(FileSystemError) in try file.truncate(to: byteCount) }
    }

    public func close() { file = nil }
}

/// A real directory.
public final class LocalDirectory: StorageDirectory {
    private let directory: OpenDirectory
    private let isReadOnly: Bool
    private let calls: BlockingCalls
    private let pace = AtOncePace()

    /// A directory that is open already. Must be made and used on `eventLoop`.
    ///
    /// With `isReadOnly` files are opened for reading only, and every call that would change the directory fails.
    public init(_ directory: OpenDirectory, eventLoop: any EventLoop, threadPool: NIOThreadPool, isReadOnly: Bool = false) {
        self.directory = directory
        self.isReadOnly = isReadOnly
        calls = BlockingCalls(eventLoop: eventLoop, threadPool: threadPool)
    }

    /// Opens a directory, made when it is missing. For the time of starting: it blocks.
    public convenience init(path: String, eventLoop: any EventLoop, threadPool: NIOThreadPool) throws(StorageFileError) {
        let directory: OpenDirectory
        do throws(FileSystemError) { directory = try OpenDirectory(path, create: true) } catch { throw StorageFileError(error) }
        self.init(directory, eventLoop: eventLoop, threadPool: threadPool)
    }

    public func list(completion: @escaping (Result<[String], StorageFileError>) -> Void) {
        calls.run(completion) { [directory] () throws(FileSystemError) in try directory.list() }
    }

    public func open(_ name: String, create: Bool, completion: @escaping (Result<LocalFile, StorageFileError>) -> Void) {
        if create, isReadOnly { return refuse(completion) }
        let (calls, pace, options) = (self.calls, self.pace, isReadOnly ? [] : create ? [.write, .create] : OpenOptions.write)
        let opened = { (result: Result<OpenFile, StorageFileError>) in
            completion(result.map { LocalFile($0, eventLoop: calls.eventLoop, threadPool: calls.threadPool, pace: pace) })
        }
        calls.run(opened) { [directory] () throws(FileSystemError) in
            try directory.open(name, options)
        }
    }

    public func remove(_ name: String, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        if isReadOnly { return refuse(completion) }
        calls.run(completion) { [directory] () throws(FileSystemError) in try directory.remove(name) }
    }

    public func rename(
        _ name: String, to newName: String, completion: @escaping (Result<Void, StorageFileError>) -> Void
    ) {
        if isReadOnly { return refuse(completion) }
        calls.run(completion) { [directory] () throws(FileSystemError) in try directory.rename(name, to: newName) }
    }

    private func refuse<Value>(_ completion: @escaping (Result<Value, StorageFileError>) -> Void) {
        calls.fail(completion, .denied("\(directory.path) was opened for reading only"))
    }

    public func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        calls.run(completion) { [directory] () throws(FileSystemError) in try directory.synchronize() }
    }
}
