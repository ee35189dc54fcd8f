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

    @Test func hostileNumbersDoNotTrap() {
        let log = LogShares.Log(sizeBytes: .max, takenBytes: .max - 5)
        #expect(LogShares(logs: [log, log], freeBytes: .max).bounds.count == 2)
        #expect(LogShares(logs: [], freeBytes: 0).bounds.isEmpty)
    }
}
