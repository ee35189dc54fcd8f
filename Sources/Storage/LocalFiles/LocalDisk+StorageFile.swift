import Blocks
import Files
import NIOCore

extension LocalDisk {
    func run<Value: Sendable>(
        _ offset: UInt64, _ byteCount: UInt64, _ completion: @escaping (Result<Value, StorageFileError>) -> Void,
        _ body: @escaping @Sendable (Access) throws(FileSystemError) -> Value
    ) {
        if heldOperations != nil {
            heldOperations?.append { self.run(offset, byteCount, completion, body) }
            return
        }
        guard let access else { return calls.fail(completion, .failed("the disk \(path) has been closed")) }
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        guard !overflow, end <= self.byteCount else {
            return calls.fail(completion, .failed("bytes \(offset) + \(byteCount) lie outside of the disk \(path)"))
        }
        operationsInFlight += 1
        let ended = { [self] (result: Result<Value, StorageFileError>) in
            operationsInFlight -= 1
            completion(result)
            operationEnded()
        }
        calls.run(ended) { () throws(FileSystemError) in try body(access) }
    }

    /// Of a disk with direct I/O nothing is resident: it is past the page cache.
    public func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool {
        guard case .buffered(let file)? = access else { return false }
        return file.appendResident(at: offset, byteCount: byteCount, to: &buffer)
    }

    public func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        // Reads may reach beyond the end, as the protocol has it; what is there arrives.
        let count = Int(clamping: min(UInt64(max(0, byteCount)), self.byteCount - min(offset, self.byteCount)))
        run(min(offset, self.byteCount), UInt64(count), completion) { access throws(FileSystemError) in
            switch access {
            case .buffered(let file): try file.readBuffer(at: offset, byteCount: count)
            case .direct(let file): try file.read(at: offset, byteCount: count)
            }
        }
    }

    public func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        run(offset, UInt64(data.readableBytes), completion) { access throws(FileSystemError) in
            switch access {
            case .buffered(let file): try file.writeBuffer(data, at: offset)
            case .direct(let file): try file.write(data, at: offset)
            }
        }
    }

    /// How much is zeroed by one operation: where a device has to write the zeroes, a machine that unmaps all of it must not hold a thread of
    /// all disks until that is done.
    private static var zeroedBytesMax: UInt64 { 256 << 20 }

    public func writeZeroes(
        at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void
    ) {
        guard byteCount > Self.zeroedBytesMax else { return writeZeroesAtOnce(at: offset, byteCount: byteCount, completion: completion) }
        writeZeroesAtOnce(at: offset, byteCount: Self.zeroedBytesMax) { [self] result in
            if case .failure = result { return completion(result) }
            writeZeroes(at: offset + Self.zeroedBytesMax, byteCount: byteCount - Self.zeroedBytesMax, completion: completion)
        }
    }

    private func writeZeroesAtOnce(
        at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void
    ) {
        run(offset, byteCount, completion) { access throws(FileSystemError) in
            switch access {
            case .buffered(let file): try file.writeZeroes(at: offset, byteCount: byteCount)
            case .direct(let file): try file.writeZeroes(at: offset, byteCount: byteCount)
            }
        }
    }

    public func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        run(0, 0, completion) { access throws(FileSystemError) in
            switch access {
            case .buffered(let file): try file.synchronizeData()
            case .direct(let file): try file.synchronizeData()
            }
        }
    }

    public func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) {
        let byteCount = self.byteCount
        run(0, 0, completion) { _ throws(FileSystemError) in byteCount }
    }

    /// A disk keeps its size.
    public func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        calls.fail(completion, .failed("the disk \(path) keeps its size"))
    }

    /// Lets go of the disk; its lock ends with the last operation in flight.
    public func close() { access = nil }
}
