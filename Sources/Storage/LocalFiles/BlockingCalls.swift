import Blocks
import Files
import NIOCore
import NIOPosix

/// Runs blocking calls on the thread pool and brings their results back to the loop.
struct BlockingCalls {
    let eventLoop: any EventLoop
    let threadPool: NIOThreadPool

    /// Runs `body` on the pool and `completion` on the loop, always after this call has returned.
    func run<Value: Sendable>(
        _ completion: @escaping (Result<Value, StorageFileError>) -> Void,
        _ body: @escaping @Sendable () throws(FileSystemError) -> Value
    ) {
        let bound = NIOLoopBound(completion, eventLoop: eventLoop)
        let eventLoop = self.eventLoop
        threadPool.submit { state in
            let result: Result<Value, StorageFileError>
            switch state {
            case .active:
                do throws(FileSystemError) { result = .success(try body()) } catch { result = .failure(StorageFileError(error)) }
            case .cancelled: result = .failure(.failed("the thread pool for files has been stopped"))
            }
            eventLoop.execute { bound.value(result) }
        }
    }

    /// Brings an error that is known already back on the loop.
    func fail<Value>(_ completion: @escaping (Result<Value, StorageFileError>) -> Void, _ error: StorageFileError) {
        let bound = NIOLoopBound(completion, eventLoop: eventLoop)
        eventLoop.execute { bound.value(.failure(error)) }
    }
}

extension StorageFileError {
    /// The kind of error that the cores tell apart, with the system's text.
    public init(_ error: FileSystemError) {
        if error.isNoSpace {
            self = .noSpace(error.description)
        } else if error.isNotFound {
            self = .notFound(error.description)
        } else if error.isDenied {
            self = .denied(error.description)
        } else if error.isLocked {
            self = .locked(error.description)
        } else {
            self = .failed(error.description)
        }
    }
}

extension OpenFile {
    /// Reads into a fresh buffer; fewer bytes arrive only at the end of the file.
    func readBuffer(at offset: UInt64, byteCount: Int) throws(FileSystemError) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: byteCount)
        var failure: FileSystemError?
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { space in
            do throws(FileSystemError) {
                return try read(into: UnsafeMutableRawBufferPointer(rebasing: space[..<byteCount]), at: offset)
            } catch {
                failure = error
                return 0
            }
        }
        if let failure { throw failure }
        return buffer
    }

    /// Carries out reads through one piece of memory, which stays in the processor's cache, and returns how much each took.
    func read(_ reads: [FileRead], pieceByteCount: Int) -> [Result<Int, StorageFileError>] {
        let longest = reads.reduce(1) { max($0, $1.byteCount) }
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, min(pieceByteCount, longest)), alignment: 64)
        defer { memory.deallocate() }
        return reads.map { wanted in
            do throws(FileSystemError) { return .success(try read(wanted, through: memory)) } catch {
                return .failure(StorageFileError(error))
            }
        }
    }

    private func read(_ wanted: FileRead, through memory: UnsafeMutableRawBufferPointer) throws(FileSystemError) -> Int {
        var taken = 0
        while taken < wanted.byteCount {
            let piece = UnsafeMutableRawBufferPointer(rebasing: memory[..<min(memory.count, wanted.byteCount - taken)])
            let arrived = try read(into: piece, at: wanted.offset + UInt64(taken))
            let count = wanted.consume(taken, UnsafeRawBufferPointer(rebasing: piece[..<arrived]))
            taken += count
            if count < piece.count { break }
        }
        return taken
    }

    /// Writes the readable bytes.
    func writeBuffer(_ data: ByteBuffer, at offset: UInt64) throws(FileSystemError) {
        var failure: FileSystemError?
        data.withUnsafeReadableBytes { bytes in
            do throws(FileSystemError) { try write(bytes, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Appends exactly `byteCount` resident bytes, or leaves the buffer as it was.
    func appendResident(at offset: UInt64, byteCount: Int, to buffer: inout ByteBuffer) -> Bool {
        guard byteCount > 0 else { return byteCount == 0 }
        let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { space in
            let count = readResident(into: UnsafeMutableRawBufferPointer(rebasing: space[..<byteCount]), at: offset)
            return count == byteCount ? count : 0
        }
        return count == byteCount
    }
}
