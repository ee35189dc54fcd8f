import Blocks
import Files
import Glibc
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import LocalFiles

/// A loop and a pool of threads for one test.
final class Machinery: Sendable {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let pool = NIOThreadPool(numberOfThreads: 4)
    var loop: any EventLoop { group.next() }

    init() { pool.start() }

    func stop() async throws {
        try await pool.shutdownGracefully()
        try await group.shutdownGracefully()
    }

    /// Makes a call on the loop and waits for its completion.
    func call<Value: Sendable, Failure: Error>(
        _ body: @escaping @Sendable (any EventLoop, @escaping (Result<Value, Failure>) -> Void) -> Void
    ) async throws -> Value {
        let loop = self.loop
        return try await loop.flatSubmit {
            let promise = loop.makePromise(of: Value.self)
            var hasReturned = false
            body(loop) { result in
                loop.assertInEventLoop()
                #expect(hasReturned, "a completion ran before the call returned")
                promise.completeWith(result.mapError { $0 as any Error })
            }
            hasReturned = true
            return promise.futureResult
        }.get()
    }
}

@Suite struct LocalFilesTests {
    @Test func filesReadWhatWasWritten() async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        let path = temporary.path
        let pool = machinery.pool
        let loop = machinery.loop
        let directory = try await loop.submit {
            NIOLoopBound(try LocalDirectory(path: path, eventLoop: loop, threadPool: pool), eventLoop: loop)
        }.get()
        let file: NIOLoopBound<LocalFile> = try await machinery.call { loop, done in
            directory.value.open("a", create: true) { done($0.map { NIOLoopBound($0, eventLoop: loop) }) }
        }
        try await machinery.call { _, done in file.value.write(ByteBuffer(string: "0123456789"), at: 3, completion: done) }
        try await machinery.call { _, done in file.value.synchronize(completion: done) }
        let bytes: ByteBuffer = try await machinery.call { _, done in file.value.read(at: 3, byteCount: 100, completion: done) }
        #expect(String(buffer: bytes) == "0123456789")
        // In pieces of four bytes, of which the third one is taken in part.
        let seen = Mutex<[String]>([])
        let consume: @Sendable (Int, UnsafeRawBufferPointer) -> Int = { offset, piece in
            seen.withLock { $0.append("\(offset) " + String(decoding: piece, as: UTF8.self)) }
            return offset == 8 ? 1 : piece.count
        }
        let reads = [FileRead(offset: 3, byteCount: 100, consume: consume), FileRead(offset: 12, byteCount: 1, consume: consume)]
        let taken: [Int] = try await machinery.call { _, done in
            file.value.read(reads, pieceByteCount: 4) { results in
                done(Result<[Int], StorageFileError>.success(results.map { (try? $0.get()) ?? -1 }))
            }
        }
        #expect(taken == [9, 1])
        #expect(seen.withLock { $0 } == ["0 0123", "4 4567", "8 89", "0 9"])
        let written: ByteBuffer? = try await machinery.call { _, done in
            file.value.write(at: 3, produce: { ByteBuffer(string: "0123") }) { bytes, result in done(result.map { bytes }) }
        }
        #expect(written == ByteBuffer(string: "0123"))
        try await machinery.call { _, done in file.value.writeZeroes(at: 4, byteCount: 2, completion: done) }
        try await machinery.call { _, done in file.value.truncate(to: 8, completion: done) }
        let size: UInt64 = try await machinery.call { _, done in file.value.size(completion: done) }
        #expect(size == 8)
        try await loop.submit {
            var buffer = ByteBuffer(string: "x")
            let isResident = file.value.readIfResident(at: 3, byteCount: 5, into: &buffer)
            #expect(buffer == (isResident ? ByteBuffer(bytes: Array("x0\0\u{0}34".utf8)) : ByteBuffer(string: "x")))
            // Beyond the end: nothing, whole or not at all.
            #expect(!file.value.readIfResident(at: 3, byteCount: 6, into: &buffer))
        }.get()
        try await machinery.call { _, done in directory.value.rename("a", to: "b", completion: done) }
        try await machinery.call { _, done in directory.value.synchronize(completion: done) }
        let names: [String] = try await machinery.call { _, done in directory.value.list(completion: done) }
        #expect(names == ["b"])
        await #expect(throws: StorageFileError.self) {
            let _: NIOLoopBound<LocalFile> = try await machinery.call { loop, done in
                directory.value.open("a", create: false) { done($0.map { NIOLoopBound($0, eventLoop: loop) }) }
            }
        }
        // A close lets the operation before it end; one after it fails.
        async let last: ByteBuffer = machinery.call { _, done in
            file.value.read(at: 3, byteCount: 1, completion: done)
            file.value.close()
        }
        #expect(try await last == ByteBuffer(string: "0"))
        await #expect(throws: StorageFileError.self) {
            try await machinery.call { _, done in file.value.synchronize(completion: done) }
        }
        try await machinery.call { _, done in directory.value.remove("b", completion: done) }
        try await machinery.stop()
    }

    @Test func aStoppedPoolIsAnError() async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        let (path, loop, pool) = (temporary.path, machinery.loop, machinery.pool)
        try await pool.shutdownGracefully()
        await #expect(throws: StorageFileError.self) {
            let _: [String] = try await machinery.call { _, done in
                do {
                    try LocalDirectory(path: path, eventLoop: loop, threadPool: pool).list(completion: done)
                } catch { Issue.record(error) }
            }
        }
        try await machinery.group.shutdownGracefully()
    }
}

@Suite struct LocalDiskTests {
    private func open(_ machinery: Machinery, _ path: String, direct: Bool = true) async throws -> NIOLoopBound<LocalDisk> {
        let pool = machinery.pool
        return try await machinery.call { loop, done in
            LocalDisk.open(path: path, eventLoop: loop, threadPool: pool, options: LocalDiskOptions(usesDirectIO: direct)) {
                done($0.map { NIOLoopBound($0, eventLoop: loop) })
            }
        }
    }

    private func make(_ path: String, byteCount: UInt64) throws {
        try OpenFile(path, [.write, .create]).truncate(to: byteCount)
    }

    /// Random reads, writes and zeroes of sectors, aligned and not, against a model; with a tail that direct I/O can't reach.
    @Test(arguments: [true, false]) func sectorsComeBack(direct: Bool) async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        let sectors = 4099
        try make(temporary("disk"), byteCount: UInt64(sectors * 512))
        let disk = try await open(machinery, temporary("disk"), direct: direct)
        var model = [UInt8](repeating: 0, count: sectors * 512)
        var random = SystemRandomNumberGenerator()
        for step in 0..<300 {
            let first = Int.random(in: 0..<sectors, using: &random)
            let count = min(sectors - first, step % 10 == 0 ? 2600 : Int.random(in: 1...40, using: &random))
            let bytes = first * 512..<(first + count) * 512
            switch step % 3 {
            case 0:
                let data = [UInt8](repeating: UInt8.random(in: 1...255, using: &random), count: count * 512)
                model.replaceSubrange(bytes, with: data)
                try await machinery.call { _, done in
                    disk.value.write(ByteBuffer(bytes: data), at: UInt64(first * 512), completion: done)
                }
            case 1 where step % 2 == 0:
                model.replaceSubrange(bytes, with: [UInt8](repeating: 0, count: count * 512))
                try await machinery.call { _, done in
                    disk.value.writeZeroes(at: UInt64(first * 512), byteCount: UInt64(count * 512), completion: done)
                }
            default:
                let got: ByteBuffer = try await machinery.call { _, done in
                    disk.value.read(at: UInt64(first * 512), byteCount: count * 512, completion: done)
                }
                #expect(Array(got.readableBytesView) == Array(model[bytes]), "\(first) + \(count)")
            }
        }
        try await machinery.call { _, done in disk.value.synchronize(completion: done) }
        let whole = try OpenDirectory(temporary.path).readFile("disk", byteCountMax: .max)
        #expect(whole == model)
        await #expect(throws: StorageFileError.self) {
            try await machinery.call { _, done in
                disk.value.write(ByteBuffer(repeating: 1, count: 1024), at: UInt64(sectors * 512 - 512), completion: done)
            }
        }
        try await machinery.loop.submit {
            #expect(disk.value.sectorCount == UInt64(sectors))
            #expect(disk.value.kind == .rawFile)
            if !direct { #expect(!disk.value.usesDirectIO) }
            disk.value.close()
        }.get()
        try await machinery.stop()
    }

    /// A disk that grows again and again, by ends that direct I/O can and can't reach, under writes; against a model.
    @Test(arguments: [true, false]) func sizesGrowUnderWrites(direct: Bool) async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        var sectors = 1001
        try make(temporary("disk"), byteCount: UInt64(sectors * 512))
        let disk = try await open(machinery, temporary("disk"), direct: direct)
        var model = [UInt8](repeating: 0, count: sectors * 512)
        for step in 1...40 {
            // Some by our own call, some by somebody else and a rescan; while writes of single sectors are in flight at the end.
            let grown = sectors + [1, 7, 8, 3, 64][step % 5]
            if step % 2 == 0 { try OpenFile(temporary("disk"), .write).truncate(to: UInt64(grown * 512)) }
            let (old, isOwn, stamp) = (sectors, step % 2 == 1, UInt8(step))
            try await machinery.call { (loop: any EventLoop, done: @escaping (Result<Void, StorageFileError>) -> Void) in
                var left = 2 * 16 + 1
                let ended = { (result: Result<Void, StorageFileError>) in
                    if case .failure(let error) = result { Issue.record(error) }
                    left -= 1
                    if left == 0 { done(.success(())) }
                }
                func writeLast(from first: Int) {
                    for sector in first..<first + 16 {
                        disk.value.write(ByteBuffer(repeating: stamp, count: 512), at: UInt64(sector * 512), completion: ended)
                    }
                }
                writeLast(from: old - 16)
                let hasGrown = { (result: Result<Bool, LocalDiskError>) in
                    #expect(result == .success(true))
                    ended(.success(()))
                }
                if isOwn {
                    disk.value.grow(to: UInt64(grown * 512), completion: hasGrown)
                } else {
                    disk.value.rescan(completion: hasGrown)
                }
                writeLast(from: old - 40)
            }
            for sector in Array(old - 16..<old) + Array(old - 40..<old - 24) {
                model.replaceSubrange(sector * 512..<sector * 512 + 512, with: [UInt8](repeating: stamp, count: 512))
            }
            model += [UInt8](repeating: 0, count: (grown - sectors) * 512)
            sectors = grown
            let last = grown - 1
            try await machinery.call { _, done in
                disk.value.write(ByteBuffer(repeating: 0xee, count: 512), at: UInt64(last * 512), completion: done)
            }
            model.replaceSubrange(last * 512..<grown * 512, with: [UInt8](repeating: 0xee, count: 512))
            let got: ByteBuffer = try await machinery.call { _, done in
                disk.value.read(at: 0, byteCount: grown * 512, completion: done)
            }
            #expect(Array(got.readableBytesView) == model, "\(step)")
        }
        #expect(try OpenDirectory(temporary.path).readFile("disk", byteCountMax: .max) == model)
        try await machinery.stop()
    }

    @Test func sizesDoNotShrink() async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        let path = temporary("disk")
        try make(path, byteCount: 64 << 10)
        let disk = try await open(machinery, path)
        func change(_ byteCount: UInt64?) async throws -> Result<Bool, LocalDiskError> {
            try await machinery.call {
                (loop: any EventLoop, done: @escaping (Result<Result<Bool, LocalDiskError>, StorageFileError>) -> Void) in
                if let byteCount {
                    disk.value.grow(to: byteCount) { done(.success($0)) }
                } else {
                    disk.value.rescan { done(.success($0)) }
                }
            }
        }
        #expect(try await change(nil) == .success(false))
        #expect(try await change(64 << 10) == .success(false))
        #expect(try await change(32 << 10) == .failure(.shrunk(path: path, from: 64 << 10, to: 32 << 10)))
        #expect(try await change((64 << 10) + 100) == .failure(.partialSector(path: path, byteCount: (64 << 10) + 100)))
        // Less than a sector more, as of a file that somebody is appending to, is not there yet.
        try OpenFile(path, .write).truncate(to: (64 << 10) + 100)
        #expect(try await change(nil) == .success(false))
        try OpenFile(path, .write).truncate(to: 16 << 10)
        #expect(try await change(nil) == .failure(.shrunk(path: path, from: 64 << 10, to: 16 << 10)))
        // A hole beyond what any file system takes.
        guard case .failure(.growing(path, _)) = try await change(1 << 62) else {
            Issue.record("a file of 4 EiB was made")
            return
        }
        try await machinery.loop.submit {
            #expect(disk.value.sectorCount == 128)
            disk.value.close()
        }.get()
        try await machinery.stop()
    }

    /// Writes in flight together to different sectors of the same units do not undo each other.
    @Test func neighboursInOneUnitKeepTheirBytes() async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        try make(temporary("disk"), byteCount: 1 << 20)
        let disk = try await open(machinery, temporary("disk"))
        try await machinery.call { (loop: any EventLoop, done: @escaping (Result<Void, StorageFileError>) -> Void) in
            var left = 2048
            for sector in 0..<2048 {
                disk.value.write(ByteBuffer(repeating: UInt8(sector % 251 + 1), count: 512), at: UInt64(sector * 512)) { result in
                    if case .failure(let error) = result { Issue.record(error) }
                    left -= 1
                    if left == 0 { done(.success(())) }
                }
            }
        }
        let whole = try OpenDirectory(temporary.path).readFile("disk", byteCountMax: .max)
        for sector in 0..<2048 {
            let bytes = whole[sector * 512..<sector * 512 + 512]
            let stamp = UInt8(sector % 251 + 1)
            #expect(bytes.allSatisfy { $0 == stamp }, "sector \(sector)")
        }
        try await machinery.stop()
    }

    /// Names a block device (of at least 1 MiB) that the tests may overwrite, such as a loop device.
    private static let device = getenv("CAUSEWAY_TEST_DEVICE").map { String(cString: $0) }

    @Test(.enabled(if: device != nil)) func blockDevicesAreOpenedOnce() async throws {
        let path = try #require(Self.device)
        let machinery = Machinery()
        let disk = try await open(machinery, path)
        let locked = await #expect(throws: LocalDiskError.self) { _ = try await open(machinery, path) }
        #expect(locked == .locked(path: path))
        let data = ByteBuffer(repeating: 0x5a, count: 12 * 512)
        try await machinery.call { _, done in disk.value.write(data, at: 3 * 512, completion: done) }
        try await machinery.call { _, done in disk.value.writeZeroes(at: 4 * 512, byteCount: 9 * 512, completion: done) }
        try await machinery.call { _, done in disk.value.synchronize(completion: done) }
        let got: ByteBuffer = try await machinery.call { _, done in
            disk.value.read(at: 3 * 512, byteCount: 12 * 512, completion: done)
        }
        var expected = [UInt8](repeating: 0x5a, count: 12 * 512)
        expected.replaceSubrange(512..<10 * 512, with: [UInt8](repeating: 0, count: 9 * 512))
        #expect(Array(got.readableBytesView) == expected)
        try await machinery.loop.submit {
            #expect(disk.value.kind == .blockDevice)
            #expect(disk.value.usesDirectIO)
            disk.value.close()
        }.get()
        try await machinery.stop()
    }

    @Test func errorsSayWhatToDo() async throws {
        let temporary = try TemporaryDirectory()
        let machinery = Machinery()
        try make(temporary("odd"), byteCount: 1000)
        try make(temporary("empty"), byteCount: 0)
        try make(temporary("good"), byteCount: 8192)
        for (name, expected) in [
            ("none", LocalDiskError.missing(path: temporary("none"))),
            ("odd", .partialSector(path: temporary("odd"), byteCount: 1000)),
            ("empty", .empty(path: temporary("empty"))), ("", .notADisk(path: temporary(""))),
        ] {
            let error = await #expect(throws: LocalDiskError.self) { _ = try await open(machinery, temporary(name)) }
            #expect(error == expected)
        }
        let null = await #expect(throws: LocalDiskError.self) { _ = try await open(machinery, "/dev/null") }
        #expect(null == .notADisk(path: "/dev/null"))
        let first = try await open(machinery, temporary("good"))
        let locked = await #expect(throws: LocalDiskError.self) { _ = try await open(machinery, temporary("good")) }
        #expect(locked == .locked(path: temporary("good")))
        try await machinery.loop.submit { first.value.close() }.get()
        _ = try await open(machinery, temporary("good"))
        try await machinery.stop()
    }
}
