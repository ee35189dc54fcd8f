import Blocks
import Ciphers
import NIOCore

/// One file of the log. It is closed when the last batch, segment or read that needs it is gone.
final class LogFile {
    let name: String
    let epoch: PointNumber
    /// Its number among the files of its epoch.
    let part: UInt32
    /// The generation of the data key that `cipher` is derived from.
    let keyGeneration: KeyGeneration
    let cipher: BlockCipher
    /// Known by its protocol, so that batches, epochs and maps have no type parameter: generic collections cost a write more
    /// than sealing it does, and a file is called once a batch.
    private let file: any StorageFile
    /// Where the next batch goes.
    var writeOffset = UInt64(LogFormat.headerBytes)
    /// The end of the zeroes that were written ahead of the batches, if they reach beyond `writeOffset`; see `bytesAhead`.
    var zeroedThrough: UInt64 = 0
    /// There was no room for zeroes, so none are written ahead any more.
    var takesNoZeroes = false
    /// Where the batches ended when the file was synchronized last; nil when it never was.
    var flushedThrough: UInt64?
    /// What the file takes.
    var byteCount: UInt64 { max(writeOffset, zeroedThrough) }
    /// Something was written that no sync has covered.
    var isDirty = false
    /// For the threads that seal batches.
    private(set) lazy var sharedCipher = cipher.shared()
    /// The header survives a crash; and its name does too.
    var isHeaderDurable = false
    var isEstablished = false

    init(file: any StorageFile, name: String, header: LogFileHeader, cipher: BlockCipher) {
        self.file = file
        self.name = name
        epoch = header.epoch
        part = header.part
        keyGeneration = header.keyGeneration
        self.cipher = cipher
    }

    /// True when no batch was written to it.
    var isEmpty: Bool { writeOffset == UInt64(LogFormat.headerBytes) }

    deinit { file.close() }

    func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool {
        file.readIfResident(at: offset, byteCount: byteCount, into: &buffer)
    }

    func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        file.read(at: offset, byteCount: byteCount) { [self] result in
            withExtendedLifetime(self) { completion(result) }
        }
    }

    func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        file.write(data, at: offset, completion: completion)
    }

    func write(
        at offset: UInt64, produce: @escaping @Sendable () -> ByteBuffer?,
        completion: @escaping (_ bytes: ByteBuffer?, Result<Void, StorageFileError>) -> Void
    ) {
        file.write(at: offset, produce: produce, completion: completion)
    }

    func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>? {
        file.writeAtOnce(data, at: offset)
    }

    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { file.synchronize(completion: completion) }

    func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        file.truncate(to: byteCount, completion: completion)
    }
}
