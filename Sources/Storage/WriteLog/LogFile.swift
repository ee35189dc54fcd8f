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
    /// What ties the batches to this file.
    let binding: LogBinding
    /// It held another epoch before; see LogSpare.swift.
    let isRecycled: Bool
    /// Known by its protocol, so that batches, epochs and maps have no type parameter: generic collections cost a write more
    /// than sealing it does, and a file is called once a batch.
    private let file: any StorageFile
    /// Where the next batch goes.
    var writeOffset = UInt64(LogFormat.headerBytes)
    /// The end of what the file has behind its batches, if that is beyond `writeOffset`: zeroes that were written ahead of them, see
    /// `bytesAhead`, or what an epoch has left that had the file before.
    var roomThrough: UInt64 = 0
    /// There was no room for zeroes, so none are written ahead any more.
    var takesNoZeroes = false
    /// A spare has the open file from now on, and closes it.
    var isKept = false
    /// Where the batches ended when the file was synchronized last; nil when it never was.
    var flushedThrough: UInt64?
    /// What the file takes.
    var byteCount: UInt64 { max(writeOffset, roomThrough) }
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
        binding = LogBinding(header)
        isRecycled = header.isRecycled
    }

    /// True when no batch was written to it.
    var isEmpty: Bool { writeOffset == UInt64(LogFormat.headerBytes) }

    deinit {
        // On whichever thread lets go last; nobody else has it any more.
        if !isKept { file.close() }
    }

    /// The file without its epoch, under another name. It may be read through this object as long as somebody has that.
    func becomeSpare(named name: String) -> LogSpare {
        isKept = true
        return LogSpare(file: file, name: name, byteCount: byteCount, reader: self)
    }

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

    /// Nothing else becomes of the file until that is done.
    func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        file.truncate(to: byteCount) { [self] result in
            withExtendedLifetime(self) { completion(result) }
        }
    }
}
