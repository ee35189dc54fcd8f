import CLZ4
import CZstd
import NIOCore

/// A compression algorithm.
public enum CompressionAlgorithm: UInt8, Sendable, CaseIterable {
    case lz4 = 1
    case zstandard = 2
}

/// Why bytes could not be decompressed.
public enum DecompressionError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The expected length is not one that this call takes.
    case unreasonableLength
    /// The bytes are damaged, or give another length.
    case damaged
    /// A piece of a stream is not the one that follows.
    case outOfOrder
    /// There is no memory for the library's state.
    case noMemory

    public var description: String {
        switch self {
        case .unreasonableLength: "its length is out of bounds"
        case .damaged: "it is damaged"
        case .outOfOrder: "one before it is missing"
        case .noMemory: "there is no memory for it"
        }
    }
}

/// Compresses and decompresses pieces of data, each on its own. Confined to one thread at a time.
public final class Compressor {
    /// The longest piece, before compression.
    public static let maximumBytes = 4 * 1024 * 1024
    /// Compression that saves less than one part in this many does not pay.
    static let leastSaving = 16

    /// True when so many bytes in place of others are worth their decompression.
    public static func pays(_ compressedBytes: Int, for plainBytes: Int) -> Bool { compressedBytes <= longest(plainBytes) }

    private static func longest(_ plainBytes: Int) -> Int { plainBytes - plainBytes / leastSaving }

    // The libraries' contexts. They are made when first used, and freed with this object.
    private var lz4State: UnsafeMutableRawPointer?
    private var compressionContext: OpaquePointer?
    private var decompressionContext: OpaquePointer?

    public init() {}

    deinit {
        lz4State?.deallocate()
        ZSTD_freeCCtx(compressionContext)
        ZSTD_freeDCtx(decompressionContext)
    }

    /// Compresses the readable bytes.
    /// - Parameter headroom: so many zero bytes come before the compressed ones, for the caller to overwrite.
    /// - Returns: nil when that does not save at least a sixteenth, or when the input is too long.
    public func compress(_ bytes: ByteBuffer, using method: CompressionMethod, headroom: Int = 0) -> ByteBuffer? {
        let count = bytes.readableBytes
        guard count > Self.leastSaving, count <= Self.maximumBytes else { return nil }
        // No more room than pays: the library gives up by itself when it does not suffice.
        let room = Self.longest(count)
        var output = ByteBuffer()
        output.reserveCapacity(headroom + room)
        output.writeRepeatingByte(0, count: headroom)
        let written = bytes.withUnsafeReadableBytes { source in
            output.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { target in
                compress(source, into: UnsafeMutableRawBufferPointer(rebasing: target.prefix(room)), using: method)
            }
        }
        return written > 0 ? output : nil
    }

    private func compress(
        _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, using method: CompressionMethod
    ) -> Int {
        switch method.algorithm {
        case .lz4:
            if lz4State == nil { lz4State = .allocate(byteCount: Int(LZ4_sizeofState()), alignment: 16) }
            let written = LZ4_compress_fast_extState(
                lz4State, source.baseAddress?.assumingMemoryBound(to: CChar.self),
                target.baseAddress?.assumingMemoryBound(to: CChar.self), Int32(source.count), Int32(target.count), 1)
            return max(0, Int(written))
        case .zstandard:
            if compressionContext == nil { compressionContext = ZSTD_createCCtx() }
            guard let context = compressionContext else { return 0 }
            let written = ZSTD_compressCCtx(
                context, target.baseAddress, target.count, source.baseAddress, source.count, method.zstandardLevel)
            return ZSTD_isError(written) != 0 ? 0 : written
        }
    }

    /// Decompresses the readable bytes, which must give exactly `byteCount` bytes.
    public func decompress(
        _ bytes: ByteBuffer, using algorithm: CompressionAlgorithm, expecting byteCount: Int
    ) throws(DecompressionError) -> ByteBuffer {
        guard byteCount > 0, byteCount <= Self.maximumBytes, bytes.readableBytes <= Self.maximumBytes else {
            throw .unreasonableLength
        }
        if algorithm == .zstandard, decompressionContext == nil {
            decompressionContext = ZSTD_createDCtx()
            if decompressionContext == nil { throw .noMemory }
        }
        var output = ByteBuffer()
        output.reserveCapacity(byteCount)
        let written = bytes.withUnsafeReadableBytes { source in
            output.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { target in
                decompress(source, into: UnsafeMutableRawBufferPointer(rebasing: target.prefix(byteCount)), using: algorithm)
            }
        }
        guard written == byteCount else { throw .damaged }
        return output
    }

    private func decompress(
        _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, using algorithm: CompressionAlgorithm
    ) -> Int {
        guard source.count > 0 else { return 0 }
        switch algorithm {
        case .lz4:
            return max(
                0,
                Int(
                    LZ4_decompress_safe(
                        source.baseAddress?.assumingMemoryBound(to: CChar.self),
                        target.baseAddress?.assumingMemoryBound(to: CChar.self), Int32(source.count), Int32(target.count))))
        case .zstandard:
            let written = ZSTD_decompressDCtx(
                decompressionContext, target.baseAddress, target.count, source.baseAddress, source.count)
            return ZSTD_isError(written) != 0 ? 0 : written
        }
    }
}
