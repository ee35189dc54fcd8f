import Blocks
import NIOCore
import SimulatedStorage
import Testing

@testable import ReadCache

/// A disk whose operations end when the test says so.
private final class SlowDisk: DiskFile {
    var bytes: ByteBuffer
    var waiting: [() -> Void] = []
    private(set) var reads = 0

    init(blocks: Int) { bytes = ByteBuffer(repeating: 1, count: blocks * BlockGeometry.blockBytes) }

    func finish() {
        let ready = waiting
        waiting = []
        for operation in ready { operation() }
    }

    func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        reads += 1
        // It is read when it is asked for, and tells later.
        let data = bytes.getSlice(at: Int(offset), length: byteCount) ?? ByteBuffer()
        waiting.append { completion(.success(data)) }
    }
    func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        waiting.append { [self] in
            bytes.setBuffer(data, at: Int(offset))
            completion(.success(()))
        }
    }
    func writeZeroes(at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        write(ByteBuffer(repeating: 0, count: Int(byteCount)), at: offset, completion: completion)
    }
    func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool { false }
    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { completion(.success(())) }
    func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) { completion(.success(UInt64(bytes.readableBytes))) }
    func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        bytes = bytes.getSlice(at: 0, length: Int(byteCount)) ?? ByteBuffer()
        completion(.success(()))
    }
    func allocation(
        of range: SectorRange, extentsMax: Int, completion: @escaping (Result<[AllocationExtent], StorageFileError>) -> Void
    ) { completion(.success([])) }
    func close() {}
}

@Suite struct CachedDiskTests {
    private let slow = SlowDisk(blocks: 64)
    private let cache = ReadCache(byteCount: 1 << 20)

    /// Reads a block, and says what came; nil while it has not.
    private func read(_ disk: CachedDisk<SlowDisk>, _ block: UInt64, finish: Bool = true) -> ByteBuffer? {
        var result: ByteBuffer?
        disk.read(at: block * 4_096, byteCount: 4_096) { result = try? $0.get() }
        if finish { slow.finish() }
        return result
    }

    private func filled(_ byte: UInt8) -> ByteBuffer { ByteBuffer(repeating: byte, count: 4_096) }

    @Test func theThirdReadNeedsNoDisk() {
        let disk = CachedDisk(slow, cache: cache)
        for _ in 0..<5 { #expect(read(disk, 3) == filled(1)) }
        #expect(slow.reads == 2)
        let plain = CachedDisk(slow, cache: nil)
        for _ in 0..<3 { #expect(read(plain, 3) == filled(1)) }
        #expect(slow.reads == 5)
    }

    @Test func aWriteLetsGoOfWhatItOverwrites() {
        let disk = CachedDisk(slow, cache: cache)
        for block in 0..<8 as Range<UInt64> { for _ in 0..<3 { #expect(read(disk, block) == filled(1)) } }
        disk.write(filled(2), at: 3 * 4_096 + 512) { _ in }
        // It is under way: the disk says what a read gives, and that is not kept.
        let before = slow.reads
        #expect(read(disk, 3, finish: false) == nil && read(disk, 4, finish: false) == nil)
        slow.finish()
        #expect(slow.reads == before + 2)
        for _ in 0..<3 {
            #expect(read(disk, 3)?.getInteger(at: 512, as: UInt8.self) == 2)
            #expect(read(disk, 4)?.getInteger(at: 0, as: UInt8.self) == 2)
        }
        #expect(slow.reads == before + 2 + 2 * 2 - 2, "they had been read before: the next read is kept")
        disk.writeZeroes(at: 0, byteCount: 4 * 4_096) { _ in }
        slow.finish()
        #expect(read(disk, 3) == filled(0) && read(disk, 5) == filled(1))
        #expect(disk.writeAtOnce(filled(9), at: 5 * 4_096) == nil)
        #expect(read(disk, 5, finish: false) == nil)
        slow.finish()
    }

    /// A read that began before a write, and ends behind it, has old bytes: they are its own answer, and nobody else's.
    @Test func whatIsOlderThanAWriteIsNotKept() {
        let disk = CachedDisk(slow, cache: cache)
        for _ in 0..<2 { #expect(read(disk, 7) == filled(1)) }
        disk.write(filled(5), at: 7 * 4_096) { _ in }
        slow.finish()
        var old: ByteBuffer?
        disk.read(at: 7 * 4_096, byteCount: 4_096) { old = try? $0.get() }
        disk.write(filled(6), at: 7 * 4_096) { _ in }
        slow.finish()
        #expect(old == filled(5))
        #expect(read(disk, 7) == filled(6))
    }
}
