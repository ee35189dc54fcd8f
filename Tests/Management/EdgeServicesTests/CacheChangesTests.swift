import APIModels
import Blocks
import Ciphers
import Files
import Foundation
import LocalFiles
import Logging
import ManagementAPI
import NIOCore
import NIOPosix
import SecureCache
import StorageTarget
import Testing

@testable import EdgeServices

/// Changes of the cache of a cloud edge: what is in force, what is kept, and in which order.
@Suite struct CacheChangesTests {
    private static let mebibyte: UInt64 = 1 << 20
    private let volume = VolumeIdentifier(high: 1, low: 2)

    /// A data plane in a directory of its own, with nothing but a cache.
    private struct Edge: Sendable {
        let path: String
        let directory: OpenDirectory
        let plane: LoopConfined<CloudPlane>
        let key: SecretKey

        init() async throws {
            path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-cache-changes-\(UUID().uuidString)").path
            let directory = try OpenDirectory(path, create: true)
            self.directory = directory
            key = try SecretKey([UInt8](repeating: 7, count: 32))
            let loop = MultiThreadedEventLoopGroup.singleton.any()
            let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            plane = try await LoopConfined.make(on: loop) {
                let plane = CloudPlane(
                    eventLoop: loop, threadPool: .singleton, target: StorageTargetServer(eventLoop: loop, logger: logger),
                    recorder: EventRecorder(log: EventLog(), logger: logger))
                plane.stateSpace.directory = directory
                return plane
            }
        }

        /// Opens the cache, or with a reason what stands in for it.
        @discardableResult
        func open(failing reason: String? = nil) async throws -> Bool {
            let file = try reason == nil ? OpenFile("\(path)/cache", [.write, .create]) : nil
            let records = try OpenDirectory("\(path)/cache-index", create: true)
            let (path, key) = (path, key)
            return try await plane.call { plane, completion in
                plane.openCache(
                    CacheOpening(
                        file: file.map { LocalFile($0, eventLoop: plane.eventLoop, threadPool: plane.threadPool) }, failure: reason ?? "",
                        path: "\(path)/cache", directory: records, byteCount: 32 * mebibyte, fileBesideLogs: nil,
                        keys: CacheKeys(cache: key) { _, _ in nil }, limits: CacheLimits()),
                    completion: completion)
            }
        }

        var told: [String] { get async throws { try await plane.run { $0.recorder.log.events(after: 0, limit: 100).events.map(\.kind) } } }

        func divide(_ change: @escaping @Sendable (inout CacheDivision) throws -> Void) async throws -> Bool {
            try await plane.call { $0.divideCache(change, completion: $1) }
        }

        var inForce: CacheDivision? { get async throws { try await plane.run { $0.cache?.division } } }
        var kept: CacheDivision { get throws { try KeptDivision.read(in: directory, key: key) } }
        var wantedBytes: UInt64? { get async throws { try await plane.run { $0.cache?.statistics.byteCountWanted } } }

        func stop() async throws {
            let _: Bool = try await plane.call { plane, completion in plane.stop { completion(.success(true)) } }
        }
    }

    private func withEdge(_ body: (Edge) async throws -> Void) async throws {
        let edge = try await Edge()
        defer { try? FileManager.default.removeItem(atPath: edge.path) }
        try await body(edge)
    }

    private struct Refused: Error {}

    @Test func whatIsKeptAndThenRefusedIsTakenBack() async throws {
        try await withEdge { edge in
            try await edge.open()
            #expect(try await edge.divide { $0.partitions["first"] = 4 * Self.mebibyte })
            await #expect(throws: Refused.self) {
                let _: Bool = try await edge.plane.call { plane, completion in
                    var asked = 0
                    plane.divideCache(
                        { division in
                            // What was possible when it was looked at is not when it has been kept.
                            asked += 1
                            if asked == 2 { throw Refused() }
                            division.partitions["second"] = 4 * Self.mebibyte
                        }, completion: completion)
                }
            }
            #expect(try edge.kept.partitions == ["first": 4 * Self.mebibyte])
            #expect(try await edge.inForce == edge.kept)
            // Nothing is said twice.
            #expect(try await !edge.divide { $0.partitions["first"] = 4 * Self.mebibyte })
            try await edge.stop()
        }
    }

    /// A volume leaves with its share, and nobody had the time to keep that.
    @Test func whatIsInForceIsKeptAtAStop() async throws {
        try await withEdge { edge in
            try await edge.open()
            let volume = volume
            #expect(try await edge.divide { $0.shares[volume] = .init(guaranteedBytes: 4 * Self.mebibyte) })
            #expect(try edge.kept.shares.count == 1)
            try await edge.plane.run { $0.forgetInCache(volume) }
            try await edge.stop()
            #expect(try edge.kept == CacheDivision())
            await #expect(throws: APIError.self) { try await edge.divide { $0.partitions["late"] = 4 * Self.mebibyte } }
            #expect(try edge.kept == CacheDivision())
        }
    }

    @Test func changesAtTheSameTimeAreAllMade() async throws {
        try await withEdge { edge in
            try await edge.open()
            let failures = try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<5 {
                    group.addTask { try await !edge.divide { $0.partitions["part-\(number)"] = 4 * Self.mebibyte } }
                }
                return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
            }
            #expect(failures == 0)
            #expect(try edge.kept.partitions.count == 5)
            #expect(try await edge.inForce == edge.kept)
            // More than may wait are refused, and no change is half made.
            let refused: Int = try await edge.plane.call { plane, completion in
                var (refused, left) = (0, 100)
                for number in 0..<100 {
                    plane.divideCache({ $0.partitions["part-0"] = UInt64(5 - number % 2) * Self.mebibyte }) { result in
                        if case .failure = result { refused += 1 }
                        left -= 1
                        if left == 0 { completion(.success(refused)) }
                    }
                }
            }
            #expect(refused == 100 - 1 - CacheChanges.waitingMax)
            #expect(try await edge.inForce == edge.kept)
            try await edge.stop()
        }
    }

    /// A size that is set and one that is configured, in either order: what was set stays, and is what is kept.
    @Test(arguments: [true, false]) func aSizeThatIsSetOutdoesAConfiguredOne(setFirst: Bool) async throws {
        try await withEdge { edge in
            try await edge.open()
            let path = "\(edge.path)/cache"
            let set = CacheSizeChange(own: 48 * Self.mebibyte, configured: 32 * Self.mebibyte, path: path)
            let configured = CacheSizeChange(own: nil, configured: 24 * Self.mebibyte, path: path)
            let _: Bool = try await edge.plane.call { plane, completion in
                var left = 2
                let done = { (result: Result<Void, any Error>) in
                    if case .failure(let error) = result { Issue.record(error) }
                    left -= 1
                    if left == 0 { completion(.success(true)) }
                }
                if setFirst { plane.resizeCache(set, completion: done) }
                plane.configuredCacheSizeChanged(configured, completion: done)
                if !setFirst { plane.resizeCache(set, completion: done) }
            }
            let wanted = try #require(try await edge.wantedBytes)
            #expect(wanted > 47 * Self.mebibyte && wanted <= 48 * Self.mebibyte)
            #expect(try CloudPlane.keptCacheSize.read(in: edge.directory) == 48 * Self.mebibyte)
            let back = CacheSizeChange(own: nil, configured: 24 * Self.mebibyte, path: path)
            let _: Void = try await edge.plane.call { $0.resizeCache(back, completion: $1) }
            #expect(try await edge.wantedBytes ?? .max <= 24 * Self.mebibyte)
            #expect(try CloudPlane.keptCacheSize.read(in: edge.directory) == nil)
            try await edge.stop()
        }
    }

    /// What can't be kept is never in force, also not for a moment.
    @Test func aSizeThatCannotBeKeptIsNotInForce() async throws {
        try await withEdge { edge in
            try await edge.open()
            let before = try await edge.wantedBytes
            // A directory of that name can be neither read nor replaced.
            let inTheWay = "\(edge.path)/\(CloudPlane.keptCacheSize.fileName)"
            try FileManager.default.createDirectory(atPath: inTheWay, withIntermediateDirectories: false)
            let set = CacheSizeChange(own: 48 * Self.mebibyte, configured: 32 * Self.mebibyte, path: "\(edge.path)/cache")
            let error = await #expect(throws: Problem.self) {
                let _: Void = try await edge.plane.call { $0.resizeCache(set, completion: $1) }
            }
            #expect(error?.status == 507 && error?.action?.contains("has the size that it had") == true)
            #expect(try await edge.wantedBytes == before)
            #expect(try await !edge.told.contains("cache.resizing"))
            try FileManager.default.removeItem(atPath: inTheWay)
            let _: Void = try await edge.plane.call { $0.resizeCache(set, completion: $1) }
            #expect(try await edge.told.contains("cache.resizing"))
            try await edge.stop()
        }
    }

    /// A size that was kept when the edge began to stop is refused, and the next run does not have it.
    @Test func aSizeThatIsRefusedAfterAllIsNotKept() async throws {
        try await withEdge { edge in
            try await edge.open()
            let first = CacheSizeChange(own: 24 * Self.mebibyte, configured: 32 * Self.mebibyte, path: "\(edge.path)/cache")
            let _: Void = try await edge.plane.call { $0.resizeCache(first, completion: $1) }
            let second = CacheSizeChange(own: 48 * Self.mebibyte, configured: 32 * Self.mebibyte, path: "\(edge.path)/cache")
            let answers: [String] = try await edge.plane.call { plane, completion in
                var answers: [String] = []
                let done = { (answer: String) in
                    answers.append(answer)
                    if answers.count == 2 { completion(.success(answers)) }
                }
                plane.resizeCache(second) { result in
                    if case .failure(let error as APIError) = result { done(error.problem.code) } else { done("\(result)") }
                }
                plane.stop { done("stopped") }
            }
            #expect(answers == ["stopping", "stopped"])
            #expect(try CloudPlane.keptCacheSize.read(in: edge.directory) == 24 * Self.mebibyte)
        }
    }

    /// Also while it has not come to its bound, because nothing is read: what is so, why, and what to do.
    @Test func aCacheThatIsBoundedSaysSo() async throws {
        try await withEdge { edge in
            try await edge.open()
            let lack = { @Sendable (plane: CloudPlane) in plane.cache.flatMap { plane.lackOfRoom($0.statistics) } }
            #expect(try await edge.plane.run(lack) == nil)
            let share = LogShares.Log(sizeBytes: 3 << 30, takenBytes: 1 << 30)
            try await edge.plane.run { $0.noticeBound(share, bytesMax: 2 << 30) }
            let text = try #require(try await edge.plane.run(lack))
            for part in ["no room for 1.0 GiB", "write logs", "goes on with 2.0 GiB", "Free some there"] {
                #expect(text.contains(part), "\(text)")
            }
            #expect(try await edge.plane.run { $0.recorder.log.events(after: 0, limit: 100).events.map(\.message) } == [text])
            try await edge.plane.run { $0.noticeBound(share, bytesMax: nil) }
            #expect(try await edge.plane.run(lack) == nil)
            try await edge.stop()
        }
    }

    /// Partitions in the metrics, the part outside of all of them among these.
    @Test func partitionsAreInTheMetrics() async throws {
        try await withEdge { edge in
            try await edge.open()
            #expect(try await edge.divide { $0.partitions["lab"] = 4 * Self.mebibyte })
            let samples = try #require(try await edge.plane.run { $0.cacheMetrics() }).samples
            func values(_ name: String) -> [String: Double] {
                Dictionary(uniqueKeysWithValues: samples.filter { $0.name == name }.map { ($0.labels.first?.value ?? "", $0.value) })
            }
            #expect(values("causeway_cache_partition_size_bytes") == ["lab": Double(4 * Self.mebibyte)])
            for name in ["held_bytes", "hit_blocks_total", "missed_blocks_total"] {
                #expect(values("causeway_cache_partition_\(name)") == ["lab": 0, "shared": 0], "\(name)")
            }
            #expect(values("causeway_cache_loosened") == ["": 0] && values("causeway_cache_missed_blocks_total") == ["": 0])
            try await edge.stop()
        }
    }

    /// A cache that is too small for what was kept says so, and so it does when it keeps all again.
    @Test func whatIsNotKeptOfADivisionIsTold() async throws {
        try await withEdge { edge in
            var division = CacheDivision()
            division.shares = [volume: .init(guaranteedBytes: 64 * Self.mebibyte)]
            try KeptDivision.keep(division, in: edge.directory, key: edge.key)
            let read = division
            try await edge.plane.run { try $0.divisionWasRead(read) }
            try await edge.open()
            #expect(try await edge.told.contains("cache.loosened"))
            #expect(try await edge.plane.run { $0.cache?.loosening?.guarantees } == 1)
            let volume = volume
            #expect(try await edge.divide { $0.shares[volume] = .init(guaranteedBytes: 40 * Self.mebibyte) })
            #expect(try await !edge.told.contains("cache.division_fits"))
            #expect(try await edge.divide { $0.shares[volume] = .init(guaranteedBytes: 8 * Self.mebibyte) })
            #expect(try await edge.told.filter { $0.hasPrefix("cache.") } == ["cache.loosened", "cache.division_fits"])
            try await edge.stop()
        }
    }

    /// What stands in for the cache while the file could not be read knew of no shares: those that are read later are not lost.
    @Test func aDivisionThatIsReadLateIsInForce() async throws {
        try await withEdge { edge in
            var division = CacheDivision()
            division.partitions = ["lab": 4 * Self.mebibyte]
            division.shares = [volume: .init(guaranteedBytes: Self.mebibyte), VolumeIdentifier(high: 5, low: 5): .init(partition: "lab")]
            try KeptDivision.keep(division, in: edge.directory, key: edge.key)
            #expect(try await !edge.open(failing: "the state directory can't be read"))
            let (volume, read) = (volume, division)
            try await edge.plane.run { plane in
                // Nothing takes the place of what was kept.
                plane.keepStaleDivision()
                plane.granted = [volume]
                try plane.divisionWasRead(read)
            }
            #expect(try await edge.open())
            // One of them has left meanwhile.
            division.shares = [volume: .init(guaranteedBytes: Self.mebibyte)]
            #expect(try await edge.inForce == division)
            try await edge.stop()
            #expect(try edge.kept == division)
        }
    }
}

extension CacheDivision.Share {
    fileprivate init(partition: String? = nil, guaranteedBytes: UInt64 = 0) {
        self.init()
        self.partition = partition
        self.guaranteedBytes = guaranteedBytes
    }
}
