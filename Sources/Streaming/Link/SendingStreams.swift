import Blocks
import Compression
import LinkProtocol

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
