import LoadGenerator
import Testing

@Suite struct QuantitiesTests {
    @Test(
        arguments: [("4096", 4096), ("4KiB", 4096), ("4k", 4096), ("1GiB", 1 << 30), ("10MB", 10_000_000), ("0", 0)]
            as [(String, UInt64)])
    func sizes(_ text: String, _ expected: UInt64) {
        #expect(Quantities.bytes(text) == expected)
    }

    @Test(arguments: ["", "KiB", "4 KiB", "-1", "4XB", "99999999999999TiB", "1.5k"])
    func badSizes(_ text: String) {
        #expect(Quantities.bytes(text) == nil)
    }

    @Test func durations() {
        #expect(Quantities.nanoseconds("10s") == 10_000_000_000)
        #expect(Quantities.nanoseconds("0.5s") == 500_000_000)
        #expect(Quantities.nanoseconds("250ms") == 250_000_000)
        #expect(Quantities.nanoseconds("2m") == 120_000_000_000)
        #expect(Quantities.nanoseconds("3") == 3_000_000_000)
        #expect(Quantities.nanoseconds("s") == nil)
        #expect(Quantities.nanoseconds("1e300s") == nil)
        #expect(Quantities.nanoseconds("9999999999999999h") == nil)
    }

    @Test func ranges() {
        #expect(Quantities.byteRange("0-1GiB") == 0..<(1 << 30))
        #expect(Quantities.byteRange("4KiB-8KiB") == 4096..<8192)
        #expect(Quantities.byteRange("8KiB-4KiB") == nil)
        #expect(Quantities.byteRange("1GiB") == nil)
    }
}
