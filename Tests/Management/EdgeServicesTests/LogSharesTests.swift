import Blocks
import Files
import Foundation
import NIOCore
import Testing

@testable import EdgeServices

@Suite struct LogSharesTests {
    private static let mebibyte: UInt64 = 1 << 20

    private func shares(_ logs: (size: UInt64, taken: UInt64)..., free: UInt64) -> LogShares {
        LogShares(
            logs: logs.map { .init(sizeBytes: $0.size * Self.mebibyte, takenBytes: $0.taken * Self.mebibyte) },
            freeBytes: free * Self.mebibyte)
    }

    @Test func logsHaveTheirSizesWhereThereIsRoom() {
        let found = shares((256, 0), (1_024, 512), free: 1_024)
        #expect(found.bounds == [256 * Self.mebibyte, 1_024 * Self.mebibyte] && found.pointBytesMax == nil)
    }

    @Test func anEighthIsLeftWhereThereIsNone() {
        let one = shares((1_024, 0), free: 80)
        #expect(one.bounds == [70 * Self.mebibyte])
        #expect(one.pointBytesMax == 10 * Self.mebibyte / 8)
        // As it fills the bound stays where it is.
        #expect(shares((1_024, 60), free: 20).bounds == [70 * Self.mebibyte])
        // Two share by what they lack.
        #expect(shares((300, 0), (600, 0), free: 480).bounds == [140 * Self.mebibyte, 280 * Self.mebibyte])
    }

    @Test func aFullFileSystemLeavesALogWhatItHas() {
        let found = shares((1_024, 100), free: 0)
        #expect(found.bounds == [100 * Self.mebibyte])
        // No less than what takes a write of any size, and no more than its size.
        #expect(shares((1_024, 2), free: 1).bounds == [LogSize.range.lowerBound])
        #expect(shares((64, 80), (512, 0), free: 0).bounds == [64 * Self.mebibyte, LogSize.range.lowerBound])
    }

    /// What the cache may take that it has not, in MiB; nil for as much as it is to have.
    private func growth(cache: (size: UInt64, taken: UInt64), logs: (size: UInt64, taken: UInt64)..., free: UInt64) -> Double? {
        let share = { (log: (size: UInt64, taken: UInt64)) in
            LogShares.Log(sizeBytes: log.size * Self.mebibyte, takenBytes: log.taken * Self.mebibyte)
        }
        let shares = LogShares(logs: logs.map(share), cache: share(cache), freeBytes: free * Self.mebibyte)
        return shares.cacheBytesMax.map { Double($0) / Double(Self.mebibyte) - Double(cache.taken) }
    }

    @Test func theCacheHasWhatLogsLeave() {
        #expect(growth(cache: (500, 0), logs: (100, 0), free: 800) == nil)
        #expect(growth(cache: (700, 0), logs: (100, 0), free: 800) == 600)
        // As it grows, and as the log does.
        #expect(growth(cache: (700, 500), logs: (100, 0), free: 300) == 162.5)
        #expect(growth(cache: (700, 500), logs: (100, 80), free: 220) == 162.5)
        #expect(growth(cache: (700, 700), logs: (100, 0), free: 0) == nil)
        // Without logs all but the reserve is left.
        #expect(growth(cache: (900, 0), free: 800) == 700)
    }

    @Test func anEighthIsTheCachesWhereLogsTakeAll() {
        #expect(growth(cache: (700, 0), logs: (4_096, 0), (4_096, 0), free: 800) == 100)
        #expect(growth(cache: (700, 40), logs: (4_096, 0), (4_096, 0), free: 760) == 60)
        #expect(growth(cache: (700, 200), logs: (4_096, 0), (4_096, 0), free: 600) == -100)
        #expect(growth(cache: (16, 0), logs: (4_096, 0), (4_096, 0), free: 800) == 16)
        #expect(growth(cache: (700, 0), logs: (4_096, 0), free: 0) == 0)
        // What it may still take, logs may not.
        let cache = LogShares.Log(sizeBytes: 700 * Self.mebibyte, takenBytes: 0)
        let log = LogShares.Log(sizeBytes: 4_096 * Self.mebibyte, takenBytes: 0)
        #expect(
            LogShares(logs: [log, log], cache: cache, freeBytes: 800 * Self.mebibyte).bounds == [300 * Self.mebibyte, 300 * Self.mebibyte])
    }

    @Test func hostileNumbersDoNotTrap() {
        let log = LogShares.Log(sizeBytes: .max, takenBytes: .max - 5)
        _ = LogShares(logs: [log, log], cache: log, freeBytes: .max)
        #expect(LogShares(logs: [log, log], freeBytes: .max).bounds.count == 2)
        #expect(LogShares(logs: [], freeBytes: 0).bounds.isEmpty)
    }

    /// A log that can't be opened for now has its room all the same.
    @Test func logsThatAreNotOpenCount() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-log-shares-\(UUID().uuidString)").path
        let state = try OpenDirectory(path, create: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        let volume = VolumeIdentifier(high: 1, low: 2)
        #expect(LogSize.share(ofUnopened: volume, in: state, edgeBytes: 100) == LogShares.Log(sizeBytes: 100, takenBytes: 0))
        let directory = try OpenDirectory("\(path)/volumes/\(volume)", create: true)
        _ = try OpenDirectory("\(directory.path)/cloud-only", create: true)
        try directory.replaceFile("log-1", with: [UInt8](repeating: 1, count: 1 << 20))
        #expect(LogSize.share(ofUnopened: volume, in: state, edgeBytes: 100) == LogShares.Log(sizeBytes: 100, takenBytes: 1 << 20))
        try LogSize.keep(64 * Self.mebibyte, in: directory)
        let share = LogSize.share(ofUnopened: volume, in: state, edgeBytes: 100)
        #expect(share.sizeBytes == 64 * Self.mebibyte && share.takenBytes >= 1 << 20)
    }

    @Test func whatComesAndGoesIsToldOnce() {
        var notice = LastingNotice()
        let start = NIODeadline.now()
        #expect(notice.observe(false, now: start) == nil)
        #expect(notice.observe(true, now: start) == .begun)
        #expect(notice.observe(true, now: start + .seconds(100)) == nil)
        #expect(notice.observe(false, now: start + .seconds(101)) == nil)
        #expect(notice.observe(false, now: start + .seconds(160)) == nil)
        #expect(notice.observe(true, now: start + .seconds(161)) == nil)
        #expect(notice.observe(false, now: start + .seconds(162)) == nil)
        #expect(notice.observe(false, now: start + .seconds(222)) == .over)
        #expect(notice.observe(false, now: start + .seconds(400)) == nil)
        #expect(notice.observe(true, now: start + .seconds(401)) == .begun)
    }
}
