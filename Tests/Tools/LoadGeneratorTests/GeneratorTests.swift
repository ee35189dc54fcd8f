import Glibc
import LoadGenerator
import Testing

@Suite struct GeneratorTests {
    @Test func sameSeedSamePositions() throws {
        var first = try #require(PositionGenerator(pattern: .zipf(theta: 0.9), count: 1000, seed: 7))
        var second = try #require(PositionGenerator(pattern: .zipf(theta: 0.9), count: 1000, seed: 7))
        let (one, two) = ((0..<500).map { _ in first.next() }, (0..<500).map { _ in second.next() })
        #expect(one == two)
        #expect(one.allSatisfy { $0 < 1000 })
        #expect(Set(one).count > 50)
    }

    @Test func sequentialWraps() throws {
        var generator = try #require(PositionGenerator(pattern: .sequential, count: 3, seed: 0))
        #expect((0..<7).map { _ in generator.next() } == [0, 1, 2, 0, 1, 2, 0])
    }

    @Test func randomCoversEvenly() throws {
        var generator = try #require(PositionGenerator(pattern: .random, count: 10, seed: 3))
        var counts = [Int](repeating: 0, count: 10)
        for _ in 0..<20_000 { counts[Int(generator.next())] += 1 }
        #expect(counts.allSatisfy { (1_700...2_300).contains($0) })
    }

    @Test(arguments: [0.5, 0.99, 1.0, 1.3])
    func zipfHasTheRightFrequencies(_ theta: Double) throws {
        let count = 100
        let generator = try #require(ZipfGenerator(count: UInt64(count), theta: theta))
        var random = SeededGenerator(seed: 11)
        let draws = 200_000
        var counts = [Int](repeating: 0, count: count + 1)
        for _ in 0..<draws {
            let rank = generator.next(&random)
            try #require(rank >= 1 && rank <= UInt64(count))
            counts[Int(rank)] += 1
        }
        let weights = (1...count).map { pow(Double($0), -theta) }
        let total = weights.reduce(0, +)
        for rank in [1, 2, 3, 5, 10, 50] {
            let expected = weights[rank - 1] / total * Double(draws)
            #expect(abs(Double(counts[rank]) - expected) < 6 * expected.squareRoot() + 1, "rank \(rank)")
        }
    }

    @Test func zipfOfOneAndOfHuge() throws {
        var random = SeededGenerator(seed: 1)
        let one = try #require(ZipfGenerator(count: 1, theta: 0.99))
        #expect((0..<100).allSatisfy { _ in one.next(&random) == 1 })
        let huge = try #require(ZipfGenerator(count: 1 << 40, theta: 0.99))
        #expect((0..<1000).allSatisfy { _ in (1...(1 << 40)).contains(huge.next(&random)) })
        #expect(ZipfGenerator(count: 0, theta: 1) == nil)
        #expect(ZipfGenerator(count: 5, theta: .nan) == nil)
    }

    @Test func zipfSpreadsItsHotBlocks() throws {
        var generator = try #require(PositionGenerator(pattern: .zipf(theta: 0.99), count: 1000, seed: 5))
        var counts = [UInt64: Int]()
        for _ in 0..<50_000 { counts[generator.next(), default: 0] += 1 }
        let hottest = counts.sorted { $0.value > $1.value }.prefix(10).map(\.key).sorted()
        let gaps = zip(hottest, hottest.dropFirst()).map { $1 - $0 }
        #expect(gaps.allSatisfy { $0 > 5 })
    }

    @Test func patternsByName() {
        #expect(AccessPattern("random") == .random)
        #expect(AccessPattern("zipf") == .zipf(theta: 0.99))
        #expect(AccessPattern("zipf:1.2") == .zipf(theta: 1.2))
        #expect(AccessPattern("zipf:0") == nil)
        #expect(AccessPattern("zipf:x") == nil)
        #expect(AccessPattern("other") == nil)
    }
}

@Suite struct RateLimiterTests {
    @Test func letsThroughTheRate() {
        var limiter = RateLimiter(ratePerSecond: 1000, now: 0)
        var now: UInt64 = 0
        var count = 0
        while now < 2_000_000_000 {
            let wait = limiter.wait(now: now)
            if wait == 0 {
                limiter.take(1, now: now)
                count += 1
            } else {
                now += wait
            }
        }
        #expect((1990...2020).contains(count))
    }

    @Test func largeTakesGoIntoDebt() {
        var limiter = RateLimiter(ratePerSecond: 1_000_000, now: 0)
        #expect(limiter.wait(now: 0) == 0)
        limiter.take(1_010_000, now: 0)
        let wait = limiter.wait(now: 0)
        #expect((999_000_000...1_001_000_000).contains(wait))
        #expect(limiter.wait(now: wait) == 0)
    }

    @Test func idleTimeSavesLittle() {
        var limiter = RateLimiter(ratePerSecond: 1000, now: 0)
        var count = 0
        while limiter.wait(now: 60_000_000_000) == 0 {
            limiter.take(1, now: 60_000_000_000)
            count += 1
        }
        #expect(count == 10)
    }

    @Test func timeThatGoesBackGivesNothing() {
        var limiter = RateLimiter(ratePerSecond: 1, now: 5_000_000_000)
        limiter.take(1, now: 5_000_000_000)
        #expect(limiter.wait(now: 1) > 0)
    }
}

@Suite struct SectorStampTests {
    private let stamp = SectorStamp(job: 42, seed: 1)

    private func sectors(_ count: Int, first: UInt64, generation: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count * 512)
        bytes.withUnsafeMutableBytes { stamp.write($0, sector: first, generation: generation) }
        return bytes
    }

    private func read(_ bytes: [UInt8], _ index: Int, sector: UInt64, by reader: SectorStamp? = nil) -> SectorContent {
        bytes.withUnsafeBytes { (reader ?? stamp).read(.init(rebasing: $0[index * 512..<index * 512 + 512]), sector: sector) }
    }

    @Test func whatWasWrittenIsRead() {
        let bytes = sectors(8, first: 100, generation: 9)
        for index in 0..<8 { #expect(read(bytes, index, sector: 100 + UInt64(index)) == .stamped(generation: 9)) }
        #expect(read(bytes, 1, sector: 100) == .misplaced(sector: 101, generation: 9))
        #expect(read(bytes, 0, sector: 100, by: SectorStamp(job: 43, seed: 1)) == .unstamped)
        #expect(read([UInt8](repeating: 0, count: 512), 0, sector: 0) == .unstamped)
    }

    @Test func everySeamIsSeen() {
        let (old, new) = (sectors(1, first: 5, generation: 1), sectors(1, first: 5, generation: 2))
        for seam in stride(from: 32, through: 504, by: 8) {
            let mixed = Array(new[..<seam] + old[seam...])
            #expect(read(mixed, 0, sector: 5) == .damaged, "seam at \(seam)")
        }
    }

    @Test func everyFlippedBitIsSeen() {
        let bytes = sectors(1, first: 5, generation: 1)
        for bit in stride(from: 0, to: 512 * 8, by: 7) {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << (bit % 8)
            #expect(read(damaged, 0, sector: 5) != .stamped(generation: 1))
        }
    }
}
