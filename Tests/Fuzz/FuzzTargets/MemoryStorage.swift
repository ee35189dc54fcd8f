import Blocks
import NIOCore

// Files in memory, for the recovery of hostile files. Completions come in order, and only when the queue is run:
// never before a call returns, as the protocol has it.

/// What waits to complete.
final class MemoryQueue {
    private var work: [() -> Void] = []
    private var next = 0

    func add(_ action: @escaping () -> Void) { work.append(action) }

    /// Runs everything; throws when it never ends.
    func run() throws {
        while next < work.count {
            let action = work[next]
            next += 1
            action()
            if next > 200_000 { throw FuzzFinding("a recovery asks its files without end") }
        }
        work = []
        next = 0
    }
}

final class MemoryFile: DiskFile {
    /// No file of a test grows beyond it; a disk without room is an error, no crash.
    static let bytesMax = 4 << 20
    var bytes: [UInt8]
    private let queue: MemoryQueue

    init(_ bytes: [UInt8], queue: MemoryQueue) {
        self.bytes = bytes
        self.queue = queue
    }

    func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool { false }

    func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        queue.add { [self] in
            let start = min(Int(clamping: offset), bytes.count)
            let end = min(bytes.count, start + min(max(0, byteCount), bytes.count))
            completion(.success(ByteBuffer(bytes: bytes[start..<end])))
        }
    }

    func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        queue.add { [self] in
            let end = Int(clamping: offset).addingReportingOverflow(data.readableBytes)
            guard !end.overflow, end.partialValue <= Self.bytesMax else { return completion(.failure(.noSpace("full"))) }
            if bytes.count < end.partialValue { bytes += [UInt8](repeating: 0, count: end.partialValue - bytes.count) }
            bytes.replaceSubrange(Int(offset)..<end.partialValue, with: data.readableBytesView)
            completion(.success(()))
        }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        guard byteCount <= UInt64(Self.bytesMax) else { return queue.add { completion(.failure(.noSpace("full"))) } }
        write(ByteBuffer(repeating: 0, count: Int(byteCount)), at: offset, completion: completion)
    }

    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { queue.add { completion(.success(())) } }

    func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) {
        queue.add { [self] in completion(.success(UInt64(bytes.count))) }
    }

    func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        queue.add { [self] in
            guard byteCount <= UInt64(Self.bytesMax) else { return completion(.failure(.noSpace("full"))) }
            let count = Int(byteCount)
            if bytes.count > count {
                bytes.removeLast(bytes.count - count)
            } else {
                bytes += [UInt8](repeating: 0, count: count - bytes.count)
            }
            completion(.success(()))
        }
    }

    func allocation(
        of range: SectorRange, extentsMax: Int, completion: @escaping (Result<[AllocationExtent], StorageFileError>) -> Void
    ) {
        queue.add { completion(.success([AllocationExtent(range: range, allocation: .mapped)])) }
    }

    func close() {}
}

final class MemoryDirectory: StorageDirectory {
    private(set) var files: [String: MemoryFile] = [:]
    private let queue: MemoryQueue

    init(queue: MemoryQueue) { self.queue = queue }

    func add(_ name: String, _ bytes: [UInt8]) { files[name] = MemoryFile(bytes, queue: queue) }

    func list(completion: @escaping (Result<[String], StorageFileError>) -> Void) {
        queue.add { [self] in completion(.success(files.keys.sorted())) }
    }

    func open(_ name: String, create: Bool, completion: @escaping (Result<MemoryFile, StorageFileError>) -> Void) {
        queue.add { [self] in
            if let file = files[name] { return completion(.success(file)) }
            guard create else { return completion(.failure(.notFound(name))) }
            let file = MemoryFile([], queue: queue)
            files[name] = file
            completion(.success(file))
        }
    }

    func remove(_ name: String, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        queue.add { [self] in
            files[name] = nil
            completion(.success(()))
        }
    }

    func rename(_ name: String, to newName: String, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        queue.add { [self] in
            guard let file = files.removeValue(forKey: name) else { return completion(.failure(.notFound(name))) }
            files[newName] = file
            completion(.success(()))
        }
    }

    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { queue.add { completion(.success(())) } }
}

/// Files as an input: for each a name (1 byte of length), its size (4) and its bytes.
enum FileInput {
    static func encode(_ files: [(name: String, bytes: [UInt8])]) -> [UInt8] {
        files.flatMap { file -> [UInt8] in
            let size = file.bytes.count
            let length: [UInt8] = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: size >> $0) }
            return [UInt8(truncatingIfNeeded: file.name.utf8.count)] + Array(file.name.utf8) + length + file.bytes
        }
    }

    static func decode(_ input: [UInt8]) -> [(name: String, bytes: [UInt8])] {
        var reader = ByteReader(input)
        var files: [(name: String, bytes: [UInt8])] = []
        while !reader.isAtEnd, files.count < 16 {
            let name = String(decoding: reader.bytes(Int(reader.byte())), as: UTF8.self)
            let size = reader.number() << 16 | reader.number()
            files.append((name, reader.bytes(size)))
        }
        return files
    }
}
