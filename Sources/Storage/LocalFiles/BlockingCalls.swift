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

    /// Reads through one piece of memory, which stays in the processor's cache, and returns how much `consume` took.
    func readPieces(
        at offset: UInt64, byteCount: Int, pieceByteCount: Int, consume: (Int, UnsafeRawBufferPointer) -> Int
    ) throws(FileSystemError) -> Int {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, min(pieceByteCount, byteCount)), alignment: 64)
        defer { memory.deallocate() }
        var taken = 0
        while taken < byteCount {
            let wanted = UnsafeMutableRawBufferPointer(rebasing: memory[..<min(memory.count, byteCount - taken)])
            let arrived = try read(into: wanted, at: offset + UInt64(taken))
            let count = consume(taken, UnsafeRawBufferPointer(rebasing: wanted[..<arrived]))
            taken += count
            if count < wanted.count { break }
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
