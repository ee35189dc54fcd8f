import Blocks
import NIOCore

/// A disk that is read through a `ReadCache`.
///
/// Reads that the cache can answer complete before the call returns. Everything else is the disk's.
public final class CachedDisk<Disk: DiskFile>: DiskFile {
    /// A read of the disk that is under way.
    private struct Reading {
        let range: SectorRange
        /// A write to a part of it was under way meanwhile: what comes may be older than what is there.
        var isStale: Bool
    }

    /// The disk behind the cache.
    public let disk: Disk
    private let cache: ReadCache?
    private let number: UInt32
    private var serial: UInt64 = 0
    private var reads: [UInt64: Reading] = [:]
    private var writes: [UInt64: SectorRange] = [:]

    /// - Parameter cache: nil to read the disk each time. Nobody else may write to the disk while this is in use.
    public init(_ disk: Disk, cache: ReadCache?) {
        self.disk = disk
        self.cache = cache
        number = cache?.addDisk() ?? 0
    }

    public func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        let sectorBytes = UInt64(BlockGeometry.sectorBytes)
        guard let cache, byteCount > 0, offset % sectorBytes == 0, UInt64(byteCount) % sectorBytes == 0 else {
            return disk.read(at: offset, byteCount: byteCount, completion: completion)
        }
        let range = Self.sectors(at: offset, byteCount: UInt64(byteCount))
        if let bytes = cache.read(number, range) { return completion(.success(bytes)) }
        let serial = nextSerial()
        reads[serial] = Reading(range: range, isStale: writes.values.contains { $0.overlaps(range) })
        disk.read(at: offset, byteCount: byteCount) { [self] result in
            let reading = reads.removeValue(forKey: serial)
            if case .success(let bytes) = result, reading?.isStale == false, bytes.readableBytes == byteCount {
                cache.note(number, range, bytes)
            }
            completion(result)
        }
    }

    public func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        let ended = beginWrite(at: offset, byteCount: UInt64(data.readableBytes))
        disk.write(data, at: offset) { result in
            ended()
            completion(result)
        }
    }

    public func writeZeroes(at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        let ended = beginWrite(at: offset, byteCount: byteCount)
        disk.writeZeroes(at: offset, byteCount: byteCount) { result in
            ended()
            completion(result)
        }
    }

    public func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>? {
        let ended = beginWrite(at: offset, byteCount: UInt64(data.readableBytes))
        defer { ended() }
        return disk.writeAtOnce(data, at: offset)
    }

    public func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        let ended = beginWrite(at: byteCount, byteCount: .max - byteCount)
        disk.truncate(to: byteCount) { result in
            ended()
            completion(result)
        }
    }

    /// Lets go of what will be overwritten.
    /// - Returns: what is to be called when the write has ended, however it did.
    private func beginWrite(at offset: UInt64, byteCount: UInt64) -> () -> Void {
        guard let cache, byteCount > 0 else { return {} }
        let range = Self.sectors(at: offset, byteCount: byteCount)
        if !isPlanted(.keepsOverwrittenInReadCache) { cache.remove(number, range) }
        for (serial, reading) in reads where reading.range.overlaps(range) { reads[serial]?.isStale = true }
        let serial = nextSerial()
        writes[serial] = range
        return { [self] in writes[serial] = nil }
    }

    /// The sectors that some bytes touch.
    private static func sectors(at offset: UInt64, byteCount: UInt64) -> SectorRange {
        let sectorBytes = UInt64(BlockGeometry.sectorBytes)
        let (end, isTooFar) = offset.addingReportingOverflow(byteCount)
        let last = isTooFar ? UInt64.max : end
        return SectorRange(from: offset / sectorBytes, to: last / sectorBytes + (last % sectorBytes == 0 ? 0 : 1))
    }

    private func nextSerial() -> UInt64 {
        serial &+= 1
        return serial
    }

    // MARK: What is the disk's

    public func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool {
        disk.readIfResident(at: offset, byteCount: byteCount, into: &buffer)
    }
    public func allocation(
        of range: SectorRange, extentsMax: Int, completion: @escaping (Result<[AllocationExtent], StorageFileError>) -> Void
    ) {
        disk.allocation(of: range, extentsMax: extentsMax, completion: completion)
    }
    public func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { disk.synchronize(completion: completion) }
    public func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) { disk.size(completion: completion) }
    public func nameCount(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) { disk.nameCount(completion: completion) }
    public func close() {
        cache?.removeDisk(number)
        disk.close()
    }
}
