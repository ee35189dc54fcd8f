import CZstd
import NIOCore

/// Compresses the pieces of a stream by Zstandard, each with what came before it in mind. Their order is part of what `DecompressionStream` needs.
///
/// A piece of 16 KiB of a system's files takes a tenth less than on its own, one of 4 KiB an eighth. Confined to one thread at a time.
public final class CompressionStream {
    /// How far back a piece may refer, as the logarithm of bytes: 1 MiB. With the tables of the levels a stream takes 2 to 5 MiB.
    public static let windowLogarithm: Int32 = 20
    /// The longest piece, before compression.
    public static let maximumBytes = 1 << 17

    /// What the pieces since the last start are compressed by.
    public private(set) var method = CompressionMethod.zstandard1
    private var context: OpaquePointer?

    /// A stream that was not started yet, and has no memory of the library's.
    public init() {}

    deinit { ZSTD_freeCCtx(context) }

    /// Begins anew: the next piece refers to nothing.
    /// - Parameter method: one of Zstandard's.
    /// - Returns: false when there is no memory, or the method is another's.
    public func start(_ method: CompressionMethod) -> Bool {
        guard method.algorithm == .zstandard else { return false }
        if context == nil { context = ZSTD_createCCtx() }
        guard let context else { return false }
        let results = [
            ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters),
            ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, method.zstandardLevel),
            ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, Self.windowLogarithm),
        ]
        self.method = method
        return results.allSatisfy { ZSTD_isError($0) == 0 }
    }

    /// Compresses the readable bytes.
    /// - Parameters:
    ///   - headroom: so many zero bytes come before the compressed ones, for the caller to overwrite.
    ///   - overheadMax: so many bytes longer may a piece become that does not shrink. Zstandard needs some twenty.
    /// - Returns: nil when that failed; the stream has to be started then.
    public func compress(_ bytes: ByteBuffer, headroom: Int = 0, overheadMax: Int) -> ByteBuffer? {
        guard let context, bytes.readableBytes > 0, bytes.readableBytes <= Self.maximumBytes else { return nil }
        let room = bytes.readableBytes + overheadMax
        var output = ByteBuffer()
        output.reserveCapacity(headroom + room)
        output.writeRepeatingByte(0, count: headroom)
        let written = bytes.withUnsafeReadableBytes { source in
            output.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { target in
                var input = ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
                var result = ZSTD_outBuffer(dst: target.baseAddress, size: room, pos: 0)
                // Zero: nothing is left in the library's hands.
                let rest = ZSTD_compressStream2(context, &result, &input, ZSTD_e_flush)
                return rest == 0 && input.pos == input.size ? result.pos : 0
            }
        }
        return written > 0 ? output : nil
    }
}

/// Decompresses the pieces of a stream in the order in which they were compressed: a piece that is missing is not noticed, and spoils those behind it.
/// Confined to one thread at a time.
public final class DecompressionStream {
    /// What a stream begins with: libzstd opens older formats as well, whose decoders heed no limit of the window.
    private static let magic: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD]

    private var context: OpaquePointer?
    private var isStarted = false
    private var isFirst = false

    /// A stream that was not started yet, and has no memory of the library's.
    public init() {}

    deinit { ZSTD_freeDCtx(context) }

    /// Begins anew, as the compressing side did.
    public func start() throws(DecompressionError) {
        if context == nil { context = ZSTD_createDCtx() }
        guard let context else { throw .noMemory }
        let results = [
            ZSTD_DCtx_reset(context, ZSTD_reset_session_only),
            ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, CompressionStream.windowLogarithm),
        ]
        guard results.allSatisfy({ ZSTD_isError($0) == 0 }) else { throw .noMemory }
        isStarted = true
        isFirst = true
    }

    /// Decompresses the readable bytes, which must give exactly `byteCount` bytes. After an error the stream has to be started.
    public func decompress(_ bytes: ByteBuffer, expecting byteCount: Int) throws(DecompressionError) -> ByteBuffer {
        guard byteCount > 0, byteCount <= CompressionStream.maximumBytes, bytes.readableBytes > 0 else { throw .unreasonableLength }
        guard let context, isStarted, !isFirst || bytes.readableBytesView.starts(with: Self.magic) else { throw .damaged }
        isFirst = false
        var output = ByteBuffer()
        // With room for one byte more, a piece that gives too much is found out.
        let room = byteCount + 1
        output.reserveCapacity(room)
        let isWhole = bytes.withUnsafeReadableBytes { source in
            var input = ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
            output.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { target in
                var result = ZSTD_outBuffer(dst: target.baseAddress, size: room, pos: 0)
                // A call may end at the end of a block.
                while input.pos < input.size {
                    let (read, written) = (input.pos, result.pos)
                    let hint = ZSTD_decompressStream(context, &result, &input)
                    // Zero: the stream has ended, which only a start may bring about.
                    guard hint != 0, ZSTD_isError(hint) == 0, input.pos > read || result.pos > written else { return 0 }
                }
                return result.pos
            }
            return output.readableBytes == byteCount && input.pos == input.size
        }
        guard isWhole else {
            isStarted = false
            throw .damaged
        }
        return output
    }
}
