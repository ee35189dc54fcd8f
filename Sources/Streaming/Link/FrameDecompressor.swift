import Compression
import LinkProtocol
import NIOCore

/// Opens the frames that one connection receives. Confined to the link's event loop.
final class FrameDecompressor {
    private let compressor: Compressor
    /// By their numbers, when they were first used, and how many frames went through each.
    private var streams = [(stream: DecompressionStream, frames: Int)?](repeating: nil, count: LinkLimits.compressionStreams)

    /// - Parameter compressor: for frames that are in no stream; the link's connections have it in common.
    init(_ compressor: Compressor) { self.compressor = compressor }

    /// The payload of a data frame.
    func open(_ frame: Frame) throws(DecompressionError) -> ByteBuffer {
        switch frame.header.compression {
        case .none: return frame.payload
        case .lz4: return try compressor.decompress(frame.payload, using: .lz4, expecting: frame.header.plainBytes)
        case .zstandard: return try compressor.decompress(frame.payload, using: .zstandard, expecting: frame.header.plainBytes)
        case .zstandardStream:
            let header = frame.header.stream
            var (stream, frames) = streams[header.number] ?? (DecompressionStream(), 0)
            if header.isNew {
                try stream.start()
                frames = 0
            }
            guard header.count == frames % FrameStream.countModulus else { throw .outOfOrder }
            streams[header.number] = (stream, frames + 1)
            return try stream.decompress(frame.payload, expecting: frame.header.plainBytes)
        }
    }
}
