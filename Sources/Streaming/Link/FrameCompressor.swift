import Blocks
import Compression
import LinkProtocol
import NIOCore

// How frames leave one end of a link; `FrameDecompressor` opens them at the other.
//
// A frame of bulk that carries a volume's data goes through a stream of compression of its connection, where those before it are remembered: it
// takes a tenth less. A stream knows one volume: what the line shows of a frame's length says nothing of another volume's bytes. There are few
// streams, for they take memory; a volume that finds all in use by others has its frames compressed each on its own, as all other frames are.

/// Compresses the frames of one end of a link, when that pays. Confined to the link's event loop.
final class FrameCompressor {
    private let compressor = Compressor()
    /// By class: of frames for each of which somebody waits, and of bulk.
    private var choosers = FrameCompressor.unlearnt(.latency)
    private var bulkChoosers = FrameCompressor.unlearnt(.throughput)
    private var bulkWork = BulkWork()
    /// What compressing the frame at hand has taken so far, comparisons included.
    private var compressingNanoseconds: Int64 = 0

    /// Forgets what was learnt: another session may have other data.
    func reset() {
        choosers = Self.unlearnt(.latency)
        bulkChoosers = Self.unlearnt(.throughput)
        bulkWork = BulkWork()
    }

    private static func unlearnt(_ goal: CompressionChooser.Goal) -> [CompressionChooser] {
        TrafficClass.allCases.map { _ in CompressionChooser(goal) }
    }

    /// The frame as it goes on the line.
    /// - Parameters:
    ///   - streams: those of its connection; nil when the other edge knows none.
    ///   - bytesPerSecond: what the line carries of its class; 0 while unknown.
    func encode(_ transmission: LinkTransmission, streams: SendingStreams?, bytesPerSecond: Double) -> ByteBuffer {
        let index = Int(transmission.header.trafficClass.rawValue)
        guard transmission.isBulk else { return encode(transmission, streams, bytesPerSecond, &choosers[index]) }
        compressingNanoseconds = 0
        let frame = encode(transmission, streams, bytesPerSecond, &bulkChoosers[index])
        bulkWork.count(
            byteCount: transmission.payload.readableBytes, compressingNanoseconds: compressingNanoseconds,
            now: Int64(clamping: NIODeadline.now().uptimeNanoseconds), processor: BulkWork.threadNanoseconds)
        return frame
    }

    private func encode(
        _ transmission: LinkTransmission, _ streams: SendingStreams?, _ bytesPerSecond: Double, _ chooser: inout CompressionChooser
    ) -> ByteBuffer {
        let payload = transmission.payload
        let volume = transmission.isBulk && streams != nil ? transmission.volume : nil
        var looksRandom = false
        let choice = chooser.choose(
            byteCount: payload.readableBytes, lineBytesPerSecond: bytesPerSecond, load: bulkWork.load,
            inStream: volume != nil
        ) {
            looksRandom = RandomnessProbe.looksRandom(payload)
            return looksRandom
        }
        guard let choice else { return transmission.bytes }
        if let volume, let streams, let place = streams.place(of: volume, method: choice.method) {
            if let frame = encode(transmission, payload, through: place, choice, looksRandom, &chooser) { return frame }
            streams.failed(place)
        }
        let result = compress(payload, choice.method)
        if let other = choice.comparison { compare(payload, other, with: choice.method, result, &chooser) }
        chooser.record(
            choice.method, inputBytes: payload.readableBytes, outputBytes: result.byteCount, nanoseconds: result.nanoseconds,
            looksRandom: looksRandom)
        guard let frame = result.frame else { return transmission.bytes }
        return seal(frame, FrameCompression(choice.method.algorithm), FrameStream(), of: transmission)
    }

    /// Through a stream: nil when that failed. What does not shrink has gone through it as well, and leaves so.
    private func encode(
        _ transmission: LinkTransmission, _ payload: ByteBuffer, through place: SendingStreams.Place, _ choice: CompressionChooser.Choice,
        _ looksRandom: Bool, _ chooser: inout CompressionChooser
    ) -> ByteBuffer? {
        let start = NIODeadline.now()
        let frame = place.stream.compress(
            payload, headroom: FrameHeader.byteCount, overheadMax: LinkLimits.compressionOverheadBytes)
        guard let frame else { return nil }
        let nanoseconds = (NIODeadline.now() - start).nanoseconds
        compressingNanoseconds += nanoseconds
        let (method, byteCount) = (place.stream.method, frame.readableBytes - FrameHeader.byteCount)
        let pays = Compressor.pays(byteCount, for: payload.readableBytes)
        if let other = choice.comparison {
            let alone = compress(payload, method)
            // The first frame finds neither memory that was touched nor a history.
            if pays, !place.header.isNew, let aloneBytes = alone.byteCount {
                chooser.recordStream(
                    method, inputBytes: payload.readableBytes, bytes: byteCount, nanoseconds: nanoseconds, aloneBytes: aloneBytes,
                    aloneNanoseconds: alone.nanoseconds)
            }
            if other != method { compare(payload, other, with: method, alone, &chooser) }
        }
        chooser.record(
            method, inputBytes: payload.readableBytes, outputBytes: pays ? byteCount : nil, nanoseconds: nanoseconds, inStream: true,
            looksRandom: looksRandom)
        return seal(frame, .zstandardStream, place.header, of: transmission)
    }

    private typealias Result = (frame: ByteBuffer?, byteCount: Int?, nanoseconds: Int64)

    /// A compressed payload behind the room for a header, nil when that does not pay, and how long it took.
    private func compress(_ payload: ByteBuffer, _ method: CompressionMethod) -> Result {
        let start = NIODeadline.now()
        let frame = compressor.compress(payload, using: method, headroom: FrameHeader.byteCount)
        let nanoseconds = (NIODeadline.now() - start).nanoseconds
        compressingNanoseconds += nanoseconds
        return (frame, frame.map { $0.readableBytes - FrameHeader.byteCount }, nanoseconds)
    }

    private func compare(
        _ payload: ByteBuffer, _ other: CompressionMethod, with chosen: CompressionMethod, _ result: Result,
        _ chooser: inout CompressionChooser
    ) {
        let comparison = compress(payload, other)
        chooser.recordComparison(
            other, inputBytes: payload.readableBytes, outputBytes: comparison.byteCount, nanoseconds: comparison.nanoseconds,
            chosen: chosen, chosenBytes: result.byteCount)
    }

    /// Writes the header into the room before the compressed payload.
    private func seal(
        _ compressed: ByteBuffer, _ compression: FrameCompression, _ stream: FrameStream, of transmission: LinkTransmission
    ) -> ByteBuffer {
        var frame = compressed
        var header = transmission.header
        header.compression = compression
        header.stream = stream
        header.payloadBytes = frame.readableBytes - FrameHeader.byteCount
        let end = frame.writerIndex
        frame.moveWriterIndex(to: frame.readerIndex)
        header.encode(into: &frame)
        frame.moveWriterIndex(to: end)
        return frame
    }
}

extension FrameCompression {
    init(_ algorithm: CompressionAlgorithm) {
        switch algorithm {
        case .lz4: self = .lz4
        case .zstandard: self = .zstandard
        }
    }
}
