import Blocks
import Checksums
import Ciphers
import NIOCore

// A small file of state that is replaced as a whole, and says nothing to whoever has no key:
//
//     0    header, 64 bytes, plaintext: magic, version, length, owner, salt
//     64   sealed: length and bytes of the state, zeroes up to a multiple of 4096; tag
//     end  CRC-32C of all bytes before it, which tells a torn file from a wrong key
//
// Each time it has a new salt, so that no key seals two texts.

/// Why a sealed file can't be used.
enum SealedFileError: Error, Equatable, CustomStringConvertible {
    case damaged
    case unknownVersion(UInt16)
    case otherOwner
    case wrongKey
    case inconsistent(String)

    var description: String {
        switch self {
        case .damaged: "it is damaged"
        case .unknownVersion(let version): "it has version \(version), which this program does not know"
        case .otherOwner: "it belongs to another volume"
        case .wrongKey: "it was sealed under another key"
        case .inconsistent(let what): "what it holds makes no sense: \(what)"
        }
    }
}

/// A kind of sealed files.
struct SealedFile: Sendable {
    let magic: UInt64
    let version: UInt16
    /// What keys are derived for.
    let purpose: String

    static let headerBytes = 64
    static let saltBytes = 32
    /// The state is filled up, so that the size of the file does not tell how much there is of it.
    static let paddingBytes = 4096
    private static let nonce = CipherNonce(sequence: 0, index: 0)

    /// The file that keeps `state`. `salt` is random and never used again.
    func seal(_ state: ByteBuffer, owner: VolumeIdentifier, key: SecretKey, salt: [UInt8]) throws -> ByteBuffer {
        var plain = ByteBuffer()
        plain.writeInteger(UInt32(clamping: state.readableBytes))
        plain.writeImmutableBuffer(state)
        plain.writeRepeatingByte(0, count: (Self.paddingBytes - plain.readableBytes % Self.paddingBytes) % Self.paddingBytes)
        let sealedBytes = plain.readableBytes + BlockCipher.tagByteCount
        var file = ByteBuffer()
        file.writeMultipleIntegers(magic, version, UInt16(0), UInt32(clamping: sealedBytes))
        file.writeMultipleIntegers(owner.high, owner.low)
        file.writeBytes(salt)
        let header = file
        let cipher = BlockCipher(key: try key.derive(salt: salt, purpose: purpose))
        var isSealed = false
        file.writeWithUnsafeMutableBytes(minimumWritableBytes: sealedBytes) { destination in
            isSealed = plain.withUnsafeReadableBytes { plain in
                header.withUnsafeReadableBytes { header in
                    cipher.seal(
                        plain, nonce: Self.nonce, authenticating: header,
                        into: UnsafeMutableRawBufferPointer(rebasing: destination[..<sealedBytes]))
                }
            }
            return isSealed ? sealedBytes : 0
        }
        guard isSealed else { throw CipherError.unavailable("AES-256-GCM") }
        file.writeInteger(CRC32C.checksum(of: file))
        return file
    }

    /// The state as it was sealed. The bytes come from a disk that others may have written.
    func unseal(_ file: ByteBuffer, owner: VolumeIdentifier, key: SecretKey) throws -> ByteBuffer {
        let boundBytes = file.readableBytes - 4
        guard boundBytes >= Self.headerBytes, let bound = file.getSlice(at: file.readerIndex, length: boundBytes),
            let checksum: UInt32 = file.getInteger(at: file.readerIndex + boundBytes), CRC32C.checksum(of: bound) == checksum
        else { throw SealedFileError.damaged }
        var buffer = bound
        guard let header = buffer.getSlice(at: buffer.readerIndex, length: Self.headerBytes), buffer.readInteger() == magic,
            let version: UInt16 = buffer.readInteger(), buffer.readInteger(as: UInt16.self) != nil,
            let sealedBytes: UInt32 = buffer.readInteger(), let high: UInt64 = buffer.readInteger(), let low: UInt64 = buffer.readInteger(),
            let salt = buffer.readBytes(length: Self.saltBytes)
        else { throw SealedFileError.damaged }
        guard version == self.version else { throw SealedFileError.unknownVersion(version) }
        guard VolumeIdentifier(high: high, low: low) == owner else { throw SealedFileError.otherOwner }
        guard Int(sealedBytes) == buffer.readableBytes, buffer.readableBytes >= BlockCipher.tagByteCount else {
            throw SealedFileError.damaged
        }
        let cipher = BlockCipher(key: try key.derive(salt: salt, purpose: purpose))
        var plain = ByteBuffer()
        var isOpened = false
        plain.writeWithUnsafeMutableBytes(minimumWritableBytes: buffer.readableBytes) { destination in
            isOpened = buffer.withUnsafeReadableBytes { sealed in
                header.withUnsafeReadableBytes { header in
                    cipher.open(sealed, nonce: Self.nonce, authenticating: header, into: destination)
                }
            }
            return isOpened ? buffer.readableBytes - BlockCipher.tagByteCount : 0
        }
        guard isOpened else { throw SealedFileError.wrongKey }
        guard let stateBytes: UInt32 = plain.readInteger(), let state = plain.readSlice(length: Int(stateBytes)) else {
            throw SealedFileError.inconsistent("its length")
        }
        return state
    }
}
