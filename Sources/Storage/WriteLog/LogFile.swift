import Blocks
import Ciphers
import NIOCore

/// One file of the log. It is closed when the last batch, segment or read that needs it is gone.
///
/// What it stands for is a `StoredLogFile`. Batches, epochs and maps know it as this class, which has no type parameter, so
/// that they have none either: generic collections cost a write more than sealing it does.
class LogFile {
    let name: String
    let epoch: PointNumber
    let cipher: BlockCipher
    /// Where the next batch goes.
    var writeOffset = UInt64(LogFormat.headerBytes)
    /// Something was written that no sync has covered.
    var isDirty = false
    /// For the threads that seal batches.
    private(set) lazy var sharedCipher = cipher.shared()
    /// The header survives a crash; and its name does too.
    var isHeaderDurable = false
    var isEstablished = false

    init(name: String, epoch: PointNumber, cipher: BlockCipher) {
        self.name = name
        self.epoch = epoch
        self.cipher = cipher
    }

    private var missing: StorageFileError { .failed("\(name) is not stored anywhere") }

    func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool { false }

    func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        completion(.failure(missing))
    }

    func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        completion(.failure(missing))
    }

    func write(
        at offset: UInt64, produce: @escaping @Sendable () -> ByteBuffer?,
        completion: @escaping (_ bytes: ByteBuffer?, Result<Void, StorageFileError>) -> Void
    ) {
        completion(nil, .failure(missing))
    }

    func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>? { .failure(missing) }

    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { completion(.failure(missing)) }

    func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        completion(.failure(missing))
    }
}

/// A log file in a directory.
final class StoredLogFile<File: StorageFile>: LogFile {
    private let file: File

    init(file: File, name: String, epoch: PointNumber, cipher: BlockCipher) {
        self.file = file
        super.init(name: name, epoch: epoch, cipher: cipher)
    }

    deinit { file.close() }

    override func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool {
        file.readIfResident(at: offset, byteCount: byteCount, into: &buffer)
    }

    override func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        file.read(at: offset, byteCount: byteCount) { [self] result in
            withExtendedLifetime(self) { completion(result) }
        }
    }

    override func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        file.write(data, at: offset, completion: completion)
    }

    override func write(
        at offset: UInt64, produce: @escaping @Sendable () -> ByteBuffer?,
        completion: @escaping (_ bytes: ByteBuffer?, Result<Void, StorageFileError>) -> Void
    ) {
        file.write(at: offset, produce: produce, completion: completion)
    }

    override func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>? {
        file.writeAtOnce(data, at: offset)
    }

    override func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        file.synchronize(completion: completion)
    }

    override func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        file.truncate(to: byteCount, completion: completion)
    }
}
