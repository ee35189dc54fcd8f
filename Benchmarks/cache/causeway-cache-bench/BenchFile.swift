import Blocks
import LocalFiles
import NIOCore

/// A file that counts what is written to it. The bytes of a weightless one are thrown away: a cache of a tebibyte can be filled
/// where there is no tebibyte.
final class BenchFile: StorageFile {
    private let file: LocalFile
    private let eventLoop: any EventLoop
    private let isWeightless: Bool
    private(set) var bytesWritten: UInt64 = 0

    init(_ file: LocalFile, eventLoop: any EventLoop, isWeightless: Bool = false) {
        self.file = file
        self.eventLoop = eventLoop
        self.isWeightless = isWeightless
    }

    func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool {
        file.readIfResident(at: offset, byteCount: byteCount, into: &buffer)
    }

    func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        file.read(at: offset, byteCount: byteCount, completion: completion)
    }

    func read(_ reads: [FileRead], pieceByteCount: Int, completion: @escaping ([Result<Int, StorageFileError>]) -> Void) {
        file.read(reads, pieceByteCount: pieceByteCount, completion: completion)
    }

    func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        bytesWritten += UInt64(data.readableBytes)
        // The header is kept in any case: it says whose the file is.
        if !isWeightless || offset == 0 { return file.write(data, at: offset, completion: completion) }
        let completion = NIOLoopBound(completion, eventLoop: eventLoop)
        eventLoop.execute { completion.value(.success(())) }
    }

    func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>? {
        if isWeightless { return nil }
        let result = file.writeAtOnce(data, at: offset)
        if case .success? = result { bytesWritten += UInt64(data.readableBytes) }
        return result
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        file.writeZeroes(at: offset, byteCount: byteCount, completion: completion)
    }

    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { file.synchronize(completion: completion) }
    func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) { file.size(completion: completion) }

    func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        file.truncate(to: byteCount, completion: completion)
    }

    func close() { file.close() }
}

/// A directory of counting files.
final class BenchDirectory: StorageDirectory {
    private let directory: LocalDirectory
    private let eventLoop: any EventLoop
    private var files: [BenchFile] = []
    /// What was written to all files that were opened here.
    var bytesWritten: UInt64 { files.reduce(0) { $0 + $1.bytesWritten } }

    init(_ directory: LocalDirectory, eventLoop: any EventLoop) {
        self.directory = directory
        self.eventLoop = eventLoop
    }

    func list(completion: @escaping (Result<[String], StorageFileError>) -> Void) { directory.list(completion: completion) }

    func open(_ name: String, create: Bool, completion: @escaping (Result<BenchFile, StorageFileError>) -> Void) {
        directory.open(name, create: create) { [self] result in
            completion(
                result.map {
                    let file = BenchFile($0, eventLoop: eventLoop)
                    files.append(file)
                    return file
                })
        }
    }

    func remove(_ name: String, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        directory.remove(name, completion: completion)
    }

    func rename(_ name: String, to newName: String, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        directory.rename(name, to: newName, completion: completion)
    }

    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { directory.synchronize(completion: completion) }
}
