import Blocks
import Files

/// Copies of disk images.
enum ImageCopy {
    private static let pieceBytes = 1 << 20

    /// Copies what has storage in `source` to the same places in `destination`, a new file, and makes that at least `byteCountMin`
    /// bytes long. What is zero stays a hole. Blocks.
    static func copy(_ source: OpenFile, to destination: OpenFile, byteCountMin: UInt64) throws(FileSystemError) {
        let information = try source.information()
        try destination.truncate(to: max(information.size, byteCountMin))
        let buffer = AlignedBuffer(byteCount: pieceBytes)
        guard information.kind == .regular else {
            return try copy(source, to: destination, from: 0, through: information.size, buffer)
        }
        var position: UInt64 = 0
        while position < information.size, let start = try source.nextData(from: position) {
            let end = min(try source.nextHole(from: start), information.size)
            try copy(source, to: destination, from: start, through: end, buffer)
            position = max(end, start + 1)
        }
    }

    private static func copy(
        _ source: OpenFile, to destination: OpenFile, from start: UInt64, through end: UInt64, _ buffer: AlignedBuffer
    ) throws(FileSystemError) {
        var position = start
        while position < end {
            let wanted = Int(min(UInt64(pieceBytes), end - position))
            let count = try source.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<wanted]), at: position)
            // The image has become shorter meanwhile: somebody else is at work on it.
            if count == 0 { throw FileSystemError(call: "pread", path: source.path, errorNumber: 5) }
            let piece = UnsafeRawBufferPointer(rebasing: buffer.bytes[..<count])
            if piece.contains(where: { $0 != 0 }) { try destination.write(piece, at: position) }
            position += UInt64(count)
        }
    }
}
