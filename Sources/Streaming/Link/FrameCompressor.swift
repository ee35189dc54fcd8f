import Blocks
import Compression
import LinkProtocol
import NIOCore

// How frames leave one end of a link, and how they are opened at the other.
//
// A frame of bulk that carries a volume's data goes through a stream of compression of its connection, where those before it are remembered: it
// takes a tenth less. A stream knows one volume: what the line shows of a frame's length says nothing of another volume's bytes. There are few
// streams, for they take memory; a volume that finds all in use by others has its frames compressed each on its own, as all other frames are.

/// Compresses the frames of one end of a link, when that pays. Confined to the link's event loop.
final class FrameCompressor {
    private let compressor = Compressor()
    /// By class; and those of demand's bulk.
    private var choosers: [CompressionChooser] = []
    private var bulkDemand = CompressionChooser(.throughput)

    init() { reset() }

    /// Forgets what was learnt: another session may have other data.
    func reset() {
        choosers = TrafficClass.allCases.map { CompressionChooser($0 == .demand || $0 == .control ? .latency : .throughput) }
        bulkDemand = CompressionChooser(.throughput)
    }

    /// The frame as it goes on the line.
    /// - Parameters:
    ///   - streams: those of its connection; nil when the other edge knows none.
    ///   - bytesPerSecond: what the line carries of its class; 0 while unknown.
    func encode(_ transmission: LinkTransmission, streams: SendingStreams?, bytesPerSecond: Double) -> ByteBuffer {
        if transmission.isBulk, transmission.header.trafficClass == .demand {
            return encode(transmission, streams, bytesPerSecond, &bulkDemand)
        }
        return encode(transmission, streams, bytesPerSecond, &choosers[Int(transmission.header.trafficClass.rawValue)])
    }

    private func encode(
        _ transmission: LinkTransmission, _ streams: SendingStreams?, _ bytesPerSecond: Double, _ chooser: inout CompressionChooser
    ) -> ByteBuffer {
        let payload = transmission.payload
        let volume = transmission.isBulk && streams != nil ? transmission.volume : nil
        var looksRandom = false
        let choice = chooser.choose(byteCount: payload.readableBytes, lineBytesPerSecond: bytesPerSecond, inStream: volume != nil) {
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
        guard let frame = place.stream.compress(payload, headroom: FrameHeader.byteCount) else { return nil }
        let nanoseconds = (NIODeadline.now() - start).nanoseconds
        let (method, byteCount) = (place.stream.method, frame.readableBytes - FrameHeader.byteCount)
        let pays = Compressor.pays(byteCount, for: payload.readableBytes)
        if let other = choice.comparison {
            let alone = compress(payload, method)
            // The first frame finds neither memory that was touched nor a history.
            if pays, !place.header.isNew, let aloneBytes = alone.byteCount {
                chooser.recordStream(
                    method, bytes: byteCount, nanoseconds: nanoseconds, aloneBytes: aloneBytes, aloneNanoseconds: alone.nanoseconds)
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
        return (frame, frame.map { $0.readableBytes - FrameHeader.byteCount }, (NIODeadline.now() - start).nanoseconds)
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

/// How many more streams of compression the connections of a link may have for what they send: each takes 2 to 5 MiB. Confined to the link's event
/// loop.
final class StreamBudget {
    fileprivate(set) var left = LinkLimits.compressionStreamsOfLink
}

/// The streams of compression of what one connection sends. Confined to the link's event loop.
final class SendingStreams {
    /// A stream for one frame.
    struct Place {
        let header: FrameStream
        let stream: CompressionStream
    }

    private struct Entry {
        var volume: VolumeIdentifier
        let stream: CompressionStream
        /// What `frames` was when it was used last.
        var usedAt: UInt64
        /// How many frames went through it since it was started; 0 when it has to be.
        var framesSinceStart = 0
    }

    /// A stream that was not used for so many frames of the connection's streams is another volume's to take. Starting one costs what it knew.
    static let idleFrames: UInt64 = 256
    /// So many frames go through a stream before another method is taken.
    static let leastFrames = 256

    private let budget: StreamBudget
    private var entries: [Entry] = []
    private var frames: UInt64 = 0

    init(_ budget: StreamBudget) { self.budget = budget }

    deinit { budget.left += entries.count }

    /// The volume's stream, which is started if need be; nil when the method knows none, there is no memory, or others use all of them.
    func place(of volume: VolumeIdentifier, method: CompressionMethod) -> Place? {
        guard method.algorithm == .zstandard else { return nil }
        frames += 1
        guard let number = number(of: volume) else { return nil }
        entries[number].usedAt = frames
        let entry = entries[number]
        let isNew = entry.framesSinceStart == 0 || (entry.stream.method != method && entry.framesSinceStart >= Self.leastFrames)
        if isNew {
            entries[number].framesSinceStart = 0
            guard entry.stream.start(method) else { return nil }
        }
        let header = FrameStream(number: number, count: entries[number].framesSinceStart % FrameStream.countModulus, isNew: isNew)
        entries[number].framesSinceStart += 1
        return Place(header: header, stream: entry.stream)
    }

    /// The stream could not take the frame: it is started for the next one.
    func failed(_ place: Place) { entries[place.header.number].framesSinceStart = 0 }

    private func number(of volume: VolumeIdentifier) -> Int? {
        if let number = entries.firstIndex(where: { $0.volume == volume }) { return number }
        if entries.count < LinkLimits.compressionStreams, budget.left > 0 {
            budget.left -= 1
            entries.append(Entry(volume: volume, stream: CompressionStream(), usedAt: frames))
            return entries.count - 1
        }
        guard let oldest = entries.indices.min(by: { entries[$0].usedAt < entries[$1].usedAt }),
            frames - entries[oldest].usedAt >= Self.idleFrames
        else { return nil }
        entries[oldest].volume = volume
        entries[oldest].framesSinceStart = 0
        return oldest
    }
}

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
            guard header.count == frames % FrameStream.countModulus else { throw .damaged }
            streams[header.number] = (stream, frames + 1)
            return try stream.decompress(frame.payload, expecting: frame.header.plainBytes)
        }
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
