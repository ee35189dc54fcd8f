import NIOCore

// The cores of the cache, the write log, the journal and the disks own no file. They are generic
// over these two protocols: the daemon gives them real files (`Files`), the simulator gives them
// files that tear, lose and delay what was not synchronised.
//
// The rules, which the simulator enforces cruelly:
//  - Every call is made on, and every completion runs on, the owner's event loop, never before
//    the call returns, but for reads of a disk: what is in memory comes at once (`ReadCache`).
//  - Operations in flight together may take effect in any order.
//  - After a crash, each write that was not covered by a completed `synchronize` (called after
//    the write completed) may be there whole, torn at 512-byte boundaries, or not at all. The
//    same holds for the creation and removal of names and for sizes.

/// Why a file operation failed.
public enum StorageFileError: Error, Equatable, Sendable {
    /// The file system is full (ENOSPC, EDQUOT).
    case noSpace(String)
    /// There is no file of that name.
    case notFound(String)
    /// The rights are missing, or the file system is mounted read-only (EACCES, EPERM, EROFS).
    case denied(String)
    /// Someone else holds the lock.
    case locked(String)
    /// The device failed, or anything else; the text names the call, the file and the errno.
    case failed(String)
}

/// One of several reads of a file, and who takes its bytes.
public struct FileRead: Sendable {
    /// Where it begins, and how much is wanted.
    public let offset: UInt64
    public let byteCount: Int
    /// Gets the bytes piece by piece, with the offset of each in the whole, and returns how many of them it took; fewer than
    /// there were end the read.
    public let consume: @Sendable (_ offset: Int, _ piece: UnsafeRawBufferPointer) -> Int

    public init(
        offset: UInt64, byteCount: Int, consume: @escaping @Sendable (_ offset: Int, _ piece: UnsafeRawBufferPointer) -> Int
    ) {
        self.offset = offset
        self.byteCount = byteCount
        self.consume = consume
    }

    /// Gives bytes that are all there to `consume`, and returns how many it took.
    func consume(_ bytes: UnsafeRawBufferPointer, pieceByteCount: Int) -> Int {
        var taken = 0
        while taken < bytes.count {
            let piece = UnsafeRawBufferPointer(rebasing: bytes[taken..<min(taken + pieceByteCount, bytes.count)])
            let count = consume(taken, piece)
            taken += count
            if count < piece.count { break }
        }
        return taken
    }
}

/// One open file or block device.
public protocol StorageFile: AnyObject {
    /// Appends exactly `byteCount` bytes at `offset` to `buffer` if that needs no waiting for a device
    /// (RWF_NOWAIT); returns false, with `buffer` unchanged, when it would, and on any error.
    func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool

    /// Reads up to `byteCount` bytes; fewer arrive only at the end of the file.
    func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void)

    /// Carries out several reads one after the other, and gives each its bytes in order, in pieces of `pieceByteCount` (the last
    /// one may be shorter). That may be on another thread, the same for all, so that what is done with the bytes costs the loop
    /// nothing.
    ///
    /// The completion gets for each read how many bytes were taken: fewer than it wanted at the end of the file, too.
    func read(
        _ reads: [FileRead], pieceByteCount: Int, completion: @escaping ([Result<Int, StorageFileError>]) -> Void)

    /// Writes all readable bytes of `data` at `offset`, growing the file as needed.
    func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void)

    /// Writes, as `write` does, the bytes that `produce` makes. That may run on another thread, so that what it takes to make
    /// them costs the loop nothing. Nil writes nothing.
    ///
    /// The completion gets the bytes too, so that the same ones can be written again.
    func write(
        at offset: UInt64, produce: @escaping @Sendable () -> ByteBuffer?,
        completion: @escaping (_ bytes: ByteBuffer?, Result<Void, StorageFileError>) -> Void)

    /// Writes all readable bytes of `data` at `offset` before it returns, if the file expects that to need no waiting for a
    /// device (the page cache takes them); nil, with nothing written, when it does not. Counts as a write that has completed.
    func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>?

    /// Makes a range read as zeroes and frees its space where the file system can.
    func writeZeroes(at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void)

    /// Completes when every write that completed before the call survives a crash (fdatasync).
    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void)

    /// Synchronizes, and has later reads tell what is on the medium and not what memory has of it.
    ///
    /// After a sync that failed, of this process or of one before, the two may differ: the kernel keeps what it could not write as if it had been
    /// written, and tells of it once. So whoever finds a file and goes by what it holds calls this before reading it.
    func synchronizeAndForget(completion: @escaping (Result<Void, StorageFileError>) -> Void)

    /// The size in bytes.
    func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void)

    /// How many names the file has: more than one when somebody linked it, or a file system lost half of a rename in a crash.
    func nameCount(completion: @escaping (Result<UInt64, StorageFileError>) -> Void)

    /// Sets the size in bytes (regular files only).
    func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void)

    /// Closes once the operations in flight are done. No call may follow.
    func close()
}

extension StorageFile {
    /// For files that have no thread to do it on: the whole of each is read first, and consumed on the loop.
    public func read(
        _ reads: [FileRead], pieceByteCount: Int, completion: @escaping ([Result<Int, StorageFileError>]) -> Void
    ) {
        read(reads[...], pieceByteCount: pieceByteCount, done: [], completion: completion)
    }

    private func read(
        _ reads: ArraySlice<FileRead>, pieceByteCount: Int, done: [Result<Int, StorageFileError>],
        completion: @escaping ([Result<Int, StorageFileError>]) -> Void
    ) {
        guard let first = reads.first else { return completion(done) }
        read(at: first.offset, byteCount: first.byteCount) { [self] result in
            let taken = result.map { data in data.withUnsafeReadableBytes { first.consume($0, pieceByteCount: pieceByteCount) } }
            read(reads.dropFirst(), pieceByteCount: pieceByteCount, done: done + [taken], completion: completion)
        }
    }
}

extension StorageFile {
    /// For files of which nothing is kept in memory.
    public func synchronizeAndForget(completion: @escaping (Result<Void, StorageFileError>) -> Void) { synchronize(completion: completion) }
}

extension StorageFile {
    /// For files whose directories know no links.
    public func nameCount(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) { completion(.success(1)) }
}

extension StorageFile {
    /// For files that have no thread to do it on: the bytes are made on the loop.
    public func write(
        at offset: UInt64, produce: @escaping @Sendable () -> ByteBuffer?,
        completion: @escaping (_ bytes: ByteBuffer?, Result<Void, StorageFileError>) -> Void
    ) {
        let bytes = produce()
        write(bytes ?? ByteBuffer(), at: offset) { completion(bytes, $0) }
    }
}

extension StorageFile {
    /// For files whose writes always wait for a device.
    public func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>? { nil }
}

/// A file or block device that is a whole disk, and knows which of its ranges have no storage.
public protocol DiskFile: StorageFile {
    /// Says of `range`, from its start on and at least of its first sector, what has storage and what is a hole, which reads
    /// as zeroes. At most `extentsMax` extents arrive. Where it is not known, sectors are mapped.
    func allocation(
        of range: SectorRange, extentsMax: Int, completion: @escaping (Result<[AllocationExtent], StorageFileError>) -> Void)
}

/// A directory that one component has for itself.
public protocol StorageDirectory: AnyObject {
    associatedtype File: StorageFile

    /// The names in the directory, in no order.
    func list(completion: @escaping (Result<[String], StorageFileError>) -> Void)
    /// Opens a file for reading and writing. With `create`, makes it when it is missing; the name is
    /// durable only after `synchronize`.
    func open(_ name: String, create: Bool, completion: @escaping (Result<File, StorageFileError>) -> Void)
    /// Removes a name; a name that is not there is no error. Durable only after `synchronize`.
    func remove(_ name: String, completion: @escaping (Result<Void, StorageFileError>) -> Void)
    /// Renames over whatever has the new name, atomically. Durable only after `synchronize`.
    func rename(_ name: String, to newName: String, completion: @escaping (Result<Void, StorageFileError>) -> Void)
    /// Makes the creation, removal and renaming of names durable (fsync of the directory).
    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void)
}
