import Blocks
import Files
import Glibc
import NIOCore
import Synchronization

// How a request meets the alignment of direct I/O:
//
//      sectors of the request         [  head  |      body      |  tail  ]
//      units of `alignment` bytes   |      |      |      |      |      |
//
//  - Reads are enlarged to whole units, land in an aligned buffer, and the wanted bytes are copied out.
//  - Writes of whole units are copied into an aligned buffer and go straight to the device.
//  - A write of part of a unit reads the unit, changes it and writes it back. Two of these on one
//    unit must not cross, so they take turns; a write of the whole unit overlaps with the part, and
//    overlapping writes are never in flight together (the journal above sees to it).
//  - Zeroes for part of a unit go the same way, and when nothing but zeroes is left in it, the unit is freed.
//  - What lies behind the last whole unit of the file goes through the page cache and nothing else does,
//    so the two ways never see the same page.

/// A file or device that is read and written past the page cache. Blocking; used on the threads of a pool.
final class DirectFile: Sendable {
    /// The memory of one transfer. A thread uses one at a time, so their number is the number of threads.
    static let transferBytes = 1 << 20
    /// How many transfer buffers are kept for the next request.
    static let idleBuffersMax = 4

    private let direct: OpenFile
    let buffered: OpenFile
    private let alignment: UInt64
    /// The end of the part that is reached by direct I/O: whole units only.
    private let directEnd: UInt64
    private let partialWrites = Mutex(())
    private let buffers = Mutex(IdleBuffers())

    /// Buffers that nobody uses at the moment.
    private struct IdleBuffers: ~Copyable {
        // Each buffer is in this list or with exactly one thread, and the mutex orders the hand-over; that is what
        // lets a non-Sendable buffer travel between threads here.
        struct Box: @unchecked Sendable { let buffer: AlignedBuffer }
        var boxes: [Box] = []
    }

    init(direct: OpenFile, buffered: OpenFile, alignment: Int, size: UInt64) {
        self.direct = direct
        self.buffered = buffered
        self.alignment = UInt64(alignment)
        directEnd = size - size % UInt64(alignment)
    }

    private func withBuffer<Value>(_ body: (UnsafeMutableRawBufferPointer) throws(FileSystemError) -> Value)
        throws(FileSystemError) -> Value
    {
        let box = buffers.withLock { $0.boxes.popLast() } ?? IdleBuffers.Box(buffer: AlignedBuffer(byteCount: Self.transferBytes))
        defer { buffers.withLock { if $0.boxes.count < Self.idleBuffersMax { $0.boxes.append(box) } } }
        return try body(box.buffer.bytes)
    }

    private func unitStart(_ offset: UInt64) -> UInt64 { offset - offset % alignment }
    private func unitEnd(_ offset: UInt64) -> UInt64 { min(directEnd, unitStart(offset + alignment - 1)) }

    /// Reads up to `byteCount` bytes into a fresh buffer.
    func read(at offset: UInt64, byteCount: Int) throws(FileSystemError) -> ByteBuffer {
        var result = ByteBufferAllocator().buffer(capacity: byteCount)
        let end = offset + UInt64(byteCount)
        var position = offset
        while position < min(end, directEnd) {
            let start = unitStart(position)
            let stop = min(unitEnd(min(end, directEnd)), start + UInt64(Self.transferBytes))
            let wanted = Int(min(end, stop) - position)
            let skip = Int(position - start)
            let isWhole = try withBuffer { buffer throws(FileSystemError) in
                let count = try direct.read(
                    into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(stop - start)]), at: start)
                let available = min(max(0, count - skip), wanted)
                result.writeBytes(UnsafeRawBufferPointer(rebasing: buffer[skip..<skip + available]))
                return available == wanted
            }
            // The file is shorter than it was when it was opened.
            if !isWhole { return result }
            position += UInt64(wanted)
        }
        if position < end {
            var rest = try buffered.readBuffer(at: position, byteCount: Int(end - position))
            result.writeBuffer(&rest)
        }
        return result
    }

    /// Writes the readable bytes.
    func write(_ data: ByteBuffer, at offset: UInt64) throws(FileSystemError) {
        var failure: FileSystemError?
        data.withUnsafeReadableBytes { bytes in
            do throws(FileSystemError) { try write(bytes, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    private func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, freesZeroUnits: Bool = false) throws(FileSystemError) {
        let end = offset + UInt64(bytes.count)
        var position = offset
        while position < end {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[Int(position - offset)...])
            if position >= directEnd {
                return try buffered.write(rest, at: position)
            }
            let start = unitStart(position)
            if position > start || end < start + alignment {
                let count = Int(min(end, start + alignment) - position)
                try writePart(UnsafeRawBufferPointer(rebasing: rest[..<count]), at: position, freesZeroUnit: freesZeroUnits)
                position += UInt64(count)
            } else {
                let wholeEnd = min(unitStart(end), directEnd, start + UInt64(Self.transferBytes))
                let count = Int(wholeEnd - position)
                try withBuffer { buffer throws(FileSystemError) in
                    buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<count]))
                    try direct.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: position)
                }
                position = wholeEnd
            }
        }
    }

    /// Writes part of one unit: reads it, changes it, writes it back, with no other partial write in between.
    private func writePart(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, freesZeroUnit: Bool) throws(FileSystemError) {
        let start = unitStart(offset)
        let failure: FileSystemError? = partialWrites.withLock { _ in
            do throws(FileSystemError) {
                try withBuffer { buffer throws(FileSystemError) in
                    let unit = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(alignment)])
                    let count = try direct.read(into: unit, at: start)
                    guard count == unit.count else {
                        throw FileSystemError(call: "pread (the file has become shorter)", path: direct.path, errorNumber: EIO)
                    }
                    let skip = Int(offset - start)
                    UnsafeMutableRawBufferPointer(rebasing: unit[skip..<skip + bytes.count]).copyMemory(from: bytes)
                    if freesZeroUnit, unit.allSatisfy({ $0 == 0 }) {
                        try direct.writeZeroes(at: start, byteCount: alignment)
                    } else {
                        try direct.write(UnsafeRawBufferPointer(unit), at: start)
                    }
                }
                return nil
            } catch { return error }
        }
        if let failure { throw failure }
    }

    /// Makes a range read as zeroes: whole units by the file system or the device, the edges by writing.
    func writeZeroes(at offset: UInt64, byteCount: UInt64) throws(FileSystemError) {
        let end = offset + byteCount
        let wholeStart = min(unitStart(offset + alignment - 1), end)
        let wholeEnd = max(wholeStart, min(unitStart(end), directEnd))
        if wholeStart >= directEnd || wholeStart == wholeEnd { return try writeZeroBytes(from: offset, to: end) }
        try writeZeroBytes(from: offset, to: wholeStart)
        try direct.writeZeroes(at: wholeStart, byteCount: wholeEnd - wholeStart)
        try writeZeroBytes(from: wholeEnd, to: end)
    }

    private func writeZeroBytes(from start: UInt64, to end: UInt64) throws(FileSystemError) {
        guard end > start else { return }
        // At most two units: what is between them is made zero as a whole.
        let zeroes = [UInt8](repeating: 0, count: Int(end - start))
        var failure: FileSystemError?
        zeroes.withUnsafeBytes { bytes in
            do throws(FileSystemError) { try write(bytes, at: start, freesZeroUnits: true) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// The data and the holes; see `OpenFile.allocation`.
    func allocation(of range: SectorRange, extentsMax: Int) throws(FileSystemError) -> [AllocationExtent] {
        try buffered.allocation(of: range, extentsMax: extentsMax)
    }

    /// fdatasync of both ways.
    func synchronizeData() throws(FileSystemError) { try buffered.synchronizeData() }
}
