import Blocks
import Ciphers
import NIOCore

/// Reads the batches of one file in order, a window at a time.
final class LogScanner {
    enum Event {
        /// The next batch of the row.
        case batch(LogBatch, at: UInt64)
        /// A batch behind the end of the row says that everything up to this one was durable.
        case claim(UInt64)
        /// The file could not be read, or holds what nobody with the key wrote there. The last event.
        case failed(WriteLogError, at: UInt64)
        /// The row ends at this offset. The last event.
        case end(UInt64)
    }

    /// How much is read at once, unless one batch is larger.
    static var windowBytes: Int { 1 << 20 }

    private let file: LogFile
    private let size: UInt64
    private let encoding: LogEncoding
    private let verifiesData: Bool
    /// The last batch that those of the row say was durable.
    private(set) var durableThrough: UInt64 = 0
    /// What stands at the end of the row is neither nothing nor zeroes: a batch that was torn, or that has decayed. In a file that held
    /// another epoch before, only a batch whose header is whole is known from what that has left.
    private(set) var endsTorn = false

    private var expected: UInt64 = 0
    private var offset = UInt64(LogFormat.headerBytes)
    /// Where the row ended; from there on only claims count.
    private var end: UInt64?

    /// With `verifiesData` a batch counts only when its data opens, too.
    init(file: LogFile, size: UInt64, encoding: LogEncoding, verifiesData: Bool = false) {
        self.file = file
        self.size = size
        self.encoding = encoding
        self.verifiesData = verifiesData
    }

    /// Reads on from the file's first batch, which has sequence `first`. The handler answers whether to go on.
    func scan(from first: UInt64, handler: @escaping (Event) -> Bool) {
        expected = first
        readWindow(byteCount: Self.windowBytes, handler)
    }

    private func readWindow(byteCount: Int, _ handler: @escaping (Event) -> Bool) {
        guard offset < size else { return finish(.end(end ?? offset), handler) }
        file.read(at: offset, byteCount: byteCount) { [self] result in
            switch result {
            case .failure(let error): finish(.failed(.file(error), at: offset), handler)
            case .success(let window): walk(window, asked: byteCount, handler)
            }
        }
    }

    private func finish(_ event: Event, _ handler: (Event) -> Bool) { _ = handler(event) }

    /// Takes every batch that is whole in the window, and reads on behind them.
    private func walk(_ read: ByteBuffer, asked: Int, _ handler: @escaping (Event) -> Bool) {
        var window = read
        while true {
            if window.readableBytes < LogFormat.batchHeaderBytes,
                window.readableBytes < read.readableBytes || read.readableBytes == 0
            {
                // The window is used up. Nothing at all where there should be bytes: the file has shrunk.
                if read.readableBytes == 0 { return finish(.end(end ?? offset), handler) }
                return readWindow(byteCount: Self.windowBytes, handler)
            }
            // A header that does not parse is the end of everything: where the next one would be is not known.
            guard let header = LogBatchHeader(parsing: window, binding: file.binding), header.epoch == file.epoch,
                end == nil ? header.sequence == expected : header.sequence > expected
            else {
                if end == nil, !file.isRecycled {
                    endsTorn = window.readableBytesView.prefix(LogFormat.batchHeaderBytes).contains { $0 != 0 }
                }
                return finish(.end(end ?? offset), handler)
            }
            if end == nil, window.readableBytes < header.byteCount {
                let needed = max(Self.windowBytes, header.byteCount)
                if offset + UInt64(header.byteCount) > size || (window.readableBytes == read.readableBytes && asked >= needed) {
                    endsTorn = true
                    return finish(.end(offset), handler)
                }
                return readWindow(byteCount: needed, handler)
            }
            guard end == nil ? take(header, from: window, handler) : handler(.claim(header.durableThrough)) else { return }
            offset += UInt64(header.byteCount)
            guard window.readableBytes > header.byteCount else { return readWindow(byteCount: Self.windowBytes, handler) }
            window.moveReaderIndex(forwardBy: header.byteCount)
        }
    }

    /// Hands out one batch, or notes that the row ends before it; false when the scan is over.
    private func take(_ header: LogBatchHeader, from window: ByteBuffer, _ handler: (Event) -> Bool) -> Bool {
        do throws(LogEncoding.BatchError) {
            let batch = try encoding.decode(header, from: window, cipher: file.cipher)
            batch.place(in: file, dataOffset: offset + UInt64(LogFormat.batchHeaderBytes + batch.descriptorBytes))
            if verifiesData, !encoding.opens(batch, in: window, cipher: file.cipher) { throw .forged }
            expected = header.sequence &+ 1
            durableThrough = max(durableThrough, header.durableThrough)
            return handler(.batch(batch, at: offset))
        } catch {
            switch error {
            case .torn:
                if isPlanted(.recoversBeyondHole) {
                    expected = header.sequence &+ 1
                    return true
                }
                end = offset
                endsTorn = true
                return true
            case .forged:
                return handler(
                    .failed(
                        .corrupt("batch \(header.sequence) in \(file.name) at \(offset) was not written under this key"), at: offset))
            }
        }
    }
}
