import Blocks
import Files
import Glibc
import NIOCore
import NIOPosix
import Testing

@testable import LocalFiles

/// Holes of real files: what is freed, and what is told of it.
@Suite struct DiskAllocationTests {
    private func open(_ machinery: Machinery, _ path: String, direct: Bool) async throws -> NIOLoopBound<LocalDisk> {
        let pool = machinery.pool
        return try await machinery.call { loop, done in
            LocalDisk.open(path: path, eventLoop: loop, threadPool: pool, options: LocalDiskOptions(usesDirectIO: direct)) {
                done($0.map { NIOLoopBound($0, eventLoop: loop) })
            }
        }
    }

    private func usedBytes(_ path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_blocks) * 512 : -1
    }

    private func ask(
        _ machinery: Machinery, _ disk: NIOLoopBound<LocalDisk>, _ start: UInt64, _ end: UInt64, _ limit: Int = 512
    ) async throws -> [AllocationExtent] {
        try await machinery.call { _, done in
            disk.value.allocation(of: SectorRange(from: start, to: end), extentsMax: limit, completion: done)
        }
    }

    private func extent(_ start: UInt64, _ end: UInt64, _ allocation: Allocation) -> AllocationExtent {
        AllocationExtent(range: SectorRange(from: start, to: end), allocation: allocation)
    }

    @Test(arguments: [true, false]) func holesAreTold(direct: Bool) async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        try OpenFile(temporary("disk"), [.write, .create]).truncate(to: 1 << 20)
        let disk = try await open(machinery, temporary("disk"), direct: direct)
        #expect(try await ask(machinery, disk, 0, 2_048) == [extent(0, 2_048, .deallocated)])
        let data = ByteBuffer(repeating: 7, count: 64 << 10)
        try await machinery.call { _, done in disk.value.write(data, at: 256 << 10, completion: done) }
        try await machinery.call { _, done in disk.value.write(data, at: 512 << 10, completion: done) }
        let whole = [
            extent(0, 512, .deallocated), extent(512, 640, .mapped), extent(640, 1_024, .deallocated), extent(1_024, 1_152, .mapped),
            extent(1_152, 2_048, .deallocated),
        ]
        #expect(try await ask(machinery, disk, 0, 2_048) == whole)
        #expect(try await ask(machinery, disk, 0, 2_048, 3) == Array(whole.prefix(3)))
        #expect(try await ask(machinery, disk, 600, 700) == [extent(600, 640, .mapped), extent(640, 700, .deallocated)])
        #expect(try await ask(machinery, disk, 5, 5).isEmpty)
        // A hole in the middle of the data.
        try await machinery.call { _, done in disk.value.writeZeroes(at: 272 << 10, byteCount: 16 << 10, completion: done) }
        #expect(
            try await ask(machinery, disk, 512, 640) == [
                extent(512, 544, .mapped), extent(544, 576, .deallocated), extent(576, 640, .mapped),
            ])
        await #expect(throws: StorageFileError.self) { _ = try await ask(machinery, disk, 2_000, 2_049) }
        try await machinery.stop()
    }

    @Test("zeroes free the room of a file, also when the last sectors of a unit become zeroes one by one")
    func roomIsFreed() async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        let path = temporary("disk")
        try OpenFile(path, [.write, .create]).truncate(to: 1 << 20)
        let disk = try await open(machinery, path, direct: true)
        guard try await machinery.loop.submit({ disk.value.usesDirectIO }).get() else { return try await machinery.stop() }
        try await machinery.call { _, done in disk.value.write(ByteBuffer(repeating: 7, count: 64 << 10), at: 0, completion: done) }
        #expect(usedBytes(path) == 64 << 10)
        // All but the first and the last sector, then these two.
        try await machinery.call { _, done in disk.value.writeZeroes(at: 512, byteCount: (64 << 10) - 1_024, completion: done) }
        #expect(usedBytes(path) == 8 << 10)
        try await machinery.call { _, done in disk.value.writeZeroes(at: 0, byteCount: 512, completion: done) }
        try await machinery.call { _, done in disk.value.writeZeroes(at: (64 << 10) - 512, byteCount: 512, completion: done) }
        #expect(usedBytes(path) == 0)
        #expect(try await ask(machinery, disk, 0, 2_048) == [extent(0, 2_048, .deallocated)])
        try await machinery.stop()
    }
}
