import Blocks
import LinkProtocol
import NIOCore
import SecureCache
import Testing

@testable import Volumes

/// Blocks of zeroes take no room in the cache, whoever brings them, and the volume goes on knowing that they are there.
@Suite struct VolumeZeroesTests {
    private func read(_ block: UInt64, of bench: VolumeBench) -> ByteBuffer? {
        var answer: ByteBuffer?
        bench.volume.read(SectorRange(block: block)) { answer = try? $0.get() }
        bench.scheduler.runUntilIdle()
        return answer
    }

    private let zeroes = ByteBuffer(repeating: 0, count: BlockGeometry.blockBytes)

    @Test("a point of zeroes that were written as data takes no slot, and frees those of what was there")
    func points() throws {
        let bench = try VolumeBench()
        bench.connect()
        let cache = bench.volume.cache
        for block in 0..<8 as Range<UInt64> { bench.write(block: block, fill: 7) }
        bench.volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        bench.home(has: 1)
        #expect(cache.blocksHeld(of: bench.identifier) == 8)
        for block in 2..<6 as Range<UInt64> { bench.write(block: block, fill: 0) }
        #expect(read(3, of: bench) == zeroes)
        #expect(cache.blocksHeld(of: bench.identifier) == 8, "the log has them still")
        bench.volume.seal(until: .received) { _ in }
        bench.scheduler.runUntilIdle()
        #expect(bench.pointsBegun == [1, 2])
        bench.home(has: 2)
        #expect(cache.blocksHeld(of: bench.identifier) == 4)
        #expect(cache.statistics.zeroes == 4)
        #expect(bench.volume.unsent.points == 0)
        for block in 2..<6 as Range<UInt64> { #expect(read(block, of: bench) == zeroes) }
        #expect(read(6, of: bench) == ByteBuffer(repeating: 7, count: BlockGeometry.blockBytes))
    }

    @Test("a fetch that brings zeroes as data takes no slot", arguments: [true, false])
    func fetches(isData: Bool) throws {
        let bench = try VolumeBench()
        bench.connect()
        var answer: ByteBuffer?
        bench.volume.read(SectorRange(block: 5)) { answer = try? $0.get() }
        bench.scheduler.runUntilIdle()
        var asked: (UInt64, SectorRange)?
        for case .readRequest(let read, _, let range) in bench.sent { asked = (read, range) }
        let (number, range) = try #require(asked)
        if isData {
            bench.volume.receive(.readData(read: number, offset: 0, data: ByteBuffer(repeating: 0, count: range.byteCount)))
        } else {
            bench.volume.receive(.readZeroes(read: number, offset: 0, byteCount: UInt32(range.byteCount)))
        }
        bench.scheduler.runUntilIdle()
        #expect(answer == zeroes)
        let cache = bench.volume.cache
        #expect(cache.blocksHeld(of: bench.identifier) == 0)
        #expect(cache.allocation(bench.identifier, block: 5) == .deallocated)
        let sent = bench.sent.count
        #expect(read(5, of: bench) == zeroes)
        #expect(bench.sent.count == sent, "the cache has it")
    }
}
