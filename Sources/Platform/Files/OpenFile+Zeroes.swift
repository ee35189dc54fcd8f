import CPlatform
import Glibc

extension OpenFile {
    /// How many zeroes are written at a time where the kernel has no better way.
    private static let zeroChunkBytes = 1 << 20

    /// Makes a range read as zeroes and frees its space where the file system can. A regular file grows when the range
    /// reaches beyond its end, as it does with a write.
    public func writeZeroes(at offset: UInt64, byteCount: UInt64) throws(FileSystemError) {
        guard byteCount > 0 else { return }
        let information = try information()
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        guard !overflow, end <= UInt64(Int64.max) else {
            throw FileSystemError(call: "fallocate", path: path, errorNumber: EFBIG)
        }
        let isDevice = information.kind == .blockDevice
        // A hole gives space back also on a device that can: zeroing it, which all can, allocates what was never there.
        var result = causeway_punch_hole(descriptor, offset, byteCount)
        if isDevice, result != 0 { result = causeway_zero_device(descriptor, offset, byteCount) }
        switch result {
        case 0:
            // Growing by a byte at the end and not by ftruncate: that would cut off what another write adds meanwhile.
            if !isDevice, end > information.size { try overwriteWithZeroes(at: end - 1, byteCount: 1) }
        case -EOPNOTSUPP, -ENOSYS, -EINVAL, -ENOTTY, -ENODEV: try overwriteWithZeroes(at: offset, byteCount: byteCount)
        default: try check(result, isDevice ? "ioctl(BLKZEROOUT)" : "fallocate", path)
        }
    }

    /// The way that works everywhere. The buffer is page-aligned, so that it serves direct I/O too when the range is aligned.
    func overwriteWithZeroes(at offset: UInt64, byteCount: UInt64) throws(FileSystemError) {
        let chunk = Int(min(UInt64(Self.zeroChunkBytes), byteCount))
        let zeroes = AlignedBuffer(byteCount: chunk)
        zeroes.bytes.initializeMemory(as: UInt8.self, repeating: 0)
        var done: UInt64 = 0
        while done < byteCount {
            let count = Int(min(UInt64(chunk), byteCount - done))
            try write(UnsafeRawBufferPointer(rebasing: zeroes.bytes[..<count]), at: offset + done)
            done += UInt64(count)
        }
    }
}

/// Memory that begins on a page, as direct I/O wants it. One owner at a time uses it.
public final class AlignedBuffer {
    /// The alignment of the first byte.
    public static let alignment = 4096
    /// The memory; as long as the buffer lives.
    public let bytes: UnsafeMutableRawBufferPointer

    /// Allocates memory that holds no particular bytes.
    public init(byteCount: Int) {
        bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: Self.alignment)
    }

    deinit { bytes.deallocate() }
}
