import APIModels
import Blocks
import Checksums
import Ciphers
import Files
import NIOCore
import NIOPosix
import SCSI

// The file in which the persistent reservations of one volume survive a loss of power (APTPL), as
// docs/reference/reservation-file-format.md describes it. It lies beside the write log of the volume and is sealed under the
// volume's key, because it names the customer's initiators.
//
//     0    header, 64 bytes, plaintext: magic, version, length, volume, salt
//     64   sealed: length and bytes of the state, zeroes up to a multiple of 4096; tag
//     end  CRC-32C of all bytes before it, which tells a torn file from a wrong key
//
// The whole file is replaced with each change, under a new salt, so that no key seals two texts.

/// Why a reservation file can't be used.
enum ReservationFileError: Error, Equatable, CustomStringConvertible {
    case damaged
    case unknownVersion(UInt16)
    case otherVolume
    case wrongKey
    case inconsistent(String)

    var description: String {
        switch self {
        case .damaged: "it is damaged"
        case .unknownVersion(let version): "it has version \(version), which this program does not know"
        case .otherVolume: "it belongs to another volume"
        case .wrongKey: "it was not sealed under this volume's key"
        case .inconsistent(let what): "what it holds is not a state of reservations: \(what)"
        }
    }
}

/// The bytes of the file.
enum ReservationFileFormat {
    static let magic: UInt64 = 0x4341_5553_4552_5356  // "CAUSERSV"
    static let version: UInt16 = 1
    static let headerBytes = 64
    static let saltBytes = 32
    static let keyPurpose = "causeway reservations 1"
    /// The state is filled up, so that the size of the file does not tell how many initiators there are.
    static let paddingBytes = 4096
    /// More than the largest state takes: what a reader believes at most.
    static let fileBytesMax = 256 << 10
    private static let nonce = CipherNonce(sequence: 0, index: 0)

    /// The file that keeps `state`. `salt` is random and never used again.
    static func seal(_ state: ByteBuffer, volume: VolumeIdentifier, key: SecretKey, salt: [UInt8]) throws -> ByteBuffer {
        var plain = ByteBuffer()
        plain.writeInteger(UInt32(clamping: state.readableBytes))
        plain.writeImmutableBuffer(state)
        plain.writeRepeatingByte(0, count: (paddingBytes - plain.readableBytes % paddingBytes) % paddingBytes)
        let sealedBytes = plain.readableBytes + BlockCipher.tagByteCount
        var file = ByteBuffer()
        file.writeMultipleIntegers(magic, version, UInt16(0), UInt32(clamping: sealedBytes))
        file.writeMultipleIntegers(volume.high, volume.low)
        file.writeBytes(salt)
        let header = file
        let cipher = BlockCipher(key: try key.derive(salt: salt, purpose: keyPurpose))
        var isSealed = false
        file.writeWithUnsafeMutableBytes(minimumWritableBytes: sealedBytes) { destination in
            isSealed = plain.withUnsafeReadableBytes { plain in
                header.withUnsafeReadableBytes { header in
                    cipher.seal(
                        plain, nonce: nonce, authenticating: header,
                        into: UnsafeMutableRawBufferPointer(rebasing: destination[..<sealedBytes]))
                }
            }
            return isSealed ? sealedBytes : 0
        }
        guard isSealed else { throw CipherError.unavailable("AES-256-GCM") }
        file.writeInteger(CRC32C.checksum(of: file))
        return file
    }

    /// The state that a file keeps. The bytes come from a disk that others may have written.
    static func open(
        _ file: ByteBuffer, volume: VolumeIdentifier, keys: DataKeys
    ) throws -> (state: PersistentReservations, KeyGeneration) {
        let (state, generation) = try unseal(file, volume: volume, keys: keys)
        do throws(PersistentReservations.DecodingError) {
            return (try PersistentReservations(decoding: state), generation)
        } catch {
            throw ReservationFileError.inconsistent("\(error)")
        }
    }

    /// The state as it was sealed.
    static func unseal(_ file: ByteBuffer, volume: VolumeIdentifier, key: SecretKey) throws -> ByteBuffer {
        let boundBytes = file.readableBytes - 4
        guard boundBytes >= headerBytes, let bound = file.getSlice(at: file.readerIndex, length: boundBytes),
            let checksum: UInt32 = file.getInteger(at: file.readerIndex + boundBytes), CRC32C.checksum(of: bound) == checksum
        else { throw ReservationFileError.damaged }
        var buffer = bound
        guard let header = buffer.getSlice(at: buffer.readerIndex, length: headerBytes), buffer.readInteger() == magic,
            let version: UInt16 = buffer.readInteger(), buffer.readInteger(as: UInt16.self) != nil,
            let sealedBytes: UInt32 = buffer.readInteger(), let high: UInt64 = buffer.readInteger(), let low: UInt64 = buffer.readInteger(),
            let salt = buffer.readBytes(length: saltBytes)
        else { throw ReservationFileError.damaged }
        guard version == Self.version else { throw ReservationFileError.unknownVersion(version) }
        guard VolumeIdentifier(high: high, low: low) == volume else { throw ReservationFileError.otherVolume }
        guard Int(sealedBytes) == buffer.readableBytes, buffer.readableBytes >= BlockCipher.tagByteCount else {
            throw ReservationFileError.damaged
        }
        let cipher = BlockCipher(key: try key.derive(salt: salt, purpose: keyPurpose))
        var plain = ByteBuffer()
        var isOpened = false
        plain.writeWithUnsafeMutableBytes(minimumWritableBytes: buffer.readableBytes) { destination in
            isOpened = buffer.withUnsafeReadableBytes { sealed in
                header.withUnsafeReadableBytes { header in
                    cipher.open(sealed, nonce: nonce, authenticating: header, into: destination)
                }
            }
            return isOpened ? buffer.readableBytes - BlockCipher.tagByteCount : 0
        }
        guard isOpened else { throw ReservationFileError.wrongKey }
        guard let stateBytes: UInt32 = plain.readInteger(), let state = plain.readSlice(length: Int(stateBytes)) else {
            throw ReservationFileError.inconsistent("its length")
        }
        return state
    }

    /// The state under whichever of a volume's keys it was sealed, and that key's generation.
    static func unseal(_ file: ByteBuffer, volume: VolumeIdentifier, keys: DataKeys) throws -> (state: ByteBuffer, KeyGeneration) {
        for generation in keys.generations {
            guard let key = keys[generation] else { continue }
            do {
                return (try unseal(file, volume: volume, key: key), generation)
            } catch ReservationFileError.wrongKey {}
        }
        throw ReservationFileError.wrongKey
    }
}

/// The file of one volume. It lives on the event loop of the volume; what blocks runs on the thread pool.
final class ReservationFile {
    static let name = "reservations"

    private let directory: OpenDirectory
    private let volume: VolumeIdentifier
    private var keys: DataKeys
    /// The generations of the key that the file may be sealed under; none when there is no file. A change that failed may have come
    /// as far as the file all the same.
    private var mayBeSealedUnder: Set<KeyGeneration> = []
    /// Those of the changes that are on their way, in their order.
    private var changing: [KeyGeneration] = []
    /// It is being sealed anew, under a newer key.
    private var isRenewing = false
    /// What touches the file comes one after the other: the last of it.
    private var last: EventLoopFuture<Void>
    private let eventLoop: any EventLoop
    private let threadPool: NIOThreadPool
    /// Called with the reason when a change could not be made durable.
    var onFailure: (String) -> Void = { _ in }

    /// The generations of the key without which the file might not open.
    var keyGenerations: Set<KeyGeneration> { mayBeSealedUnder.union(changing) }

    var path: String { "\(directory.path)/\(Self.name)" }

    init(
        directory: OpenDirectory, volume: VolumeIdentifier, keys: DataKeys, eventLoop: any EventLoop, threadPool: NIOThreadPool
    ) {
        self.directory = directory
        self.volume = volume
        self.keys = keys
        last = eventLoop.makeSucceededVoidFuture()
        self.eventLoop = eventLoop
        self.threadPool = threadPool
    }

    /// Reads the state; nil when none is kept. A file that can't be used is an error: who knew nothing of the reservations
    /// would let those write whom a cluster has shut out.
    func load(completion: @escaping (Result<PersistentReservations?, any Error>) -> Void) {
        let (directory, volume, keys, path) = (directory, volume, keys, path)
        let bound = NIOLoopBound((self, completion), eventLoop: eventLoop)
        threadPool.runIfActive(eventLoop: eventLoop) { () -> (state: PersistentReservations, KeyGeneration)? in
            do {
                let bytes = try directory.readFile(Self.name, byteCountMax: ReservationFileFormat.fileBytesMax)
                return try ReservationFileFormat.open(ByteBuffer(bytes: bytes), volume: volume, keys: keys)
            } catch let error as FileSystemError where error.isNotFound {
                return nil
            } catch {
                throw Problem(
                    status: 500, code: "reservations", title: "The persistent reservations can't be read",
                    detail: "\(path): \(error); the volume is not served, because initiators that are shut out could write",
                    action: "put the file back, or remove it and have the cluster register anew")
            }
        }.whenComplete { result in
            let (file, completion) = bound.value
            if case .success(let found) = result { file.mayBeSealedUnder = Set(found.map { [$0.1] } ?? []) }
            completion(result.map { $0?.state })
        }
    }

    /// Keeps a state, or with nil removes what was kept; `completion` says whether that is durable.
    func store(_ state: ByteBuffer?, completion: @escaping (Bool) -> Void) {
        let bound = NIOLoopBound((self, completion), eventLoop: eventLoop)
        change { _ in state }.whenComplete { result in
            let (file, completion) = bound.value
            if case .failure(let error) = result { file.onFailure("\(error)") }
            completion((try? result.get()) != nil)
        }
    }

    /// Takes over the volume's keys as they are now, and seals the file anew if it is under an older one. Should that fail, the
    /// older key is needed on, and the next call tries again.
    func use(_ keys: DataKeys) {
        self.keys = keys
        guard keyGenerations.contains(where: { $0 != keys.newest }), !isRenewing else { return }
        isRenewing = true
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        change { kept in try kept() }.whenComplete { _ in bound.value.isRenewing = false }
    }

    /// Puts a state in the place of the one that is kept, which `state` may ask for, sealed under the newest key.
    private func change(_ state: @escaping @Sendable (_ kept: () throws -> ByteBuffer?) throws -> ByteBuffer?) -> EventLoopFuture<Void> {
        let (directory, volume, keys, threadPool, eventLoop) = (directory, volume, keys, threadPool, eventLoop)
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        changing.append(keys.newest)
        let changed = last.flatMap {
            threadPool.runIfActive(eventLoop: eventLoop) { () -> Bool in
                guard let state = try state({ try Self.kept(in: directory, volume: volume, keys: keys) }) else {
                    try directory.remove(Self.name)
                    try directory.synchronize()
                    return false
                }
                var random = RandomSource.system
                let salt = random.bytes(ReservationFileFormat.saltBytes)
                let file = try ReservationFileFormat.seal(state, volume: volume, key: keys.newestKey, salt: salt)
                try directory.replaceFile(Self.name, with: file.readableBytesView)
                return true
            }
        }.map { isKept in
            bound.value.changing.removeFirst()
            bound.value.mayBeSealedUnder = isKept ? [keys.newest] : []
        }.flatMapErrorThrowing { error in
            bound.value.changing.removeFirst()
            bound.value.mayBeSealedUnder.insert(keys.newest)
            throw error
        }
        last = changed.flatMapErrorThrowing { _ in }
        return changed
    }

    private static func kept(in directory: OpenDirectory, volume: VolumeIdentifier, keys: DataKeys) throws -> ByteBuffer? {
        do {
            let bytes = try directory.readFile(name, byteCountMax: ReservationFileFormat.fileBytesMax)
            return try ReservationFileFormat.unseal(ByteBuffer(bytes: bytes), volume: volume, keys: keys).state
        } catch let error as FileSystemError where error.isNotFound {
            return nil
        }
    }
}
