import NIOCore
import NIOEmbedded
import Testing

@testable import StorageTarget

@Suite struct FastPathTests {
    @Test func aBufferIsUsedAgainOnlyWhenTheChannelHasLetGoOfIt() throws {
        let channel = EmbeddedChannel()
        var buffer = channel.allocator.buffer(capacity: 4096)
        buffer.writeString("first")
        channel.writeAndFlush(buffer, promise: nil)
        let wasSentAtOnce = buffer.clearIfSent()
        #expect(!wasSentAtOnce, "the embedded channel still has it")
        buffer.writeString("second")
        #expect(try channel.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "first"))
        channel.writeAndFlush(buffer, promise: nil)
        #expect(try channel.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "second"))
        let wasSent = buffer.clearIfSent()
        #expect(wasSent)
        #expect(buffer.readableBytes == 0)
        _ = try channel.finish()
    }

    @Test func buffersAreKeptUpToTheirLimits() {
        var buffers = BatchBuffers()
        let allocator = ByteBufferAllocator()
        buffers.give(allocator.buffer(capacity: 2 * BatchBuffers.keptByteCountMax))
        let fresh = buffers.take(from: allocator)
        #expect(fresh.capacity == BatchBuffers.initialByteCount)
        for _ in 0..<2 * BatchBuffers.countMax { buffers.give(allocator.buffer(capacity: 65_536)) }
        let capacities = (0...BatchBuffers.countMax).map { _ in buffers.take(from: allocator).capacity }
        #expect(capacities == Array(repeating: 65_536, count: BatchBuffers.countMax) + [BatchBuffers.initialByteCount])
    }
}

@Suite struct BusyPollTests {
    /// A poll, in microseconds.
    private struct Timeline {
        var poll = BusyPoll(duration: .microseconds(50))
        mutating func traffic(_ microseconds: UInt64) -> Bool { poll.sawTraffic(now: .uptimeNanoseconds(microseconds * 1000)) }
        mutating func turn(_ microseconds: UInt64) -> Bool { poll.goesOn(now: .uptimeNanoseconds(microseconds * 1000)) }
    }

    @Test func aLoopStaysAwakeWhileTrafficComes() {
        var line = Timeline()
        var begins = [line.traffic(0)]
        var turns: [Bool] = []
        for time in stride(from: 40, through: 40_000, by: 40) as StrideThrough<UInt64> {
            turns.append(line.turn(time))
            begins.append(line.traffic(time))
        }
        #expect(turns.allSatisfy { $0 })
        #expect(begins.filter { $0 }.count == 1, "there is one poll at a time")
        let ended = !line.turn(40_050)
        #expect(ended)
        // It paid, so the next one begins with the next command.
        let beginsAgain = line.traffic(50_000)
        #expect(beginsAgain)
    }

    @Test func aPollThatDoesNotPayIsLeftOutForAWhile() {
        var line = Timeline()
        let begins = [line.traffic(0), line.turn(50)]
        #expect(begins == [true, false])
        let paused = (0..<BusyPoll.pauseTurns).map { line.traffic(100 + UInt64($0)) }
        #expect(paused.allSatisfy { !$0 })
        let beginsAgain = line.traffic(1000)
        #expect(beginsAgain)
    }

    @Test func whatPaidIsSpentByWhatDidNot() {
        var line = Timeline()
        for time in 0...10 * UInt64(BusyPoll.creditMax) { _ = line.traffic(time) }
        var now: UInt64 = 100_000
        var polls = 0
        while line.poll.isPolling || line.traffic(now) {
            now += 100
            polls += line.turn(now) ? 0 : 1
        }
        #expect(polls == BusyPoll.creditMax / BusyPoll.price + 1)
    }

    @Test func zeroTurnsItOff() {
        var poll = BusyPoll(duration: .zero)
        let begins = poll.sawTraffic(now: .uptimeNanoseconds(0))
        #expect(!begins && !poll.isPolling)
    }
}
