import Blocks
import NIOCore
import Testing

@Suite struct ReadDestinationTests {
    @Test func partsComeTogether() {
        let destination = ReadDestination(byteCount: 10)
        #expect(destination.copy(ByteBuffer(string: "6789"), to: 6))
        #expect(destination.clear(at: 4, byteCount: 2))
        #expect(destination.fill(at: 0, byteCount: 4) { $0.copyBytes(from: "0123".utf8) } != nil)
        #expect(destination.take() == ByteBuffer(string: "0123\0\06789"))
    }

    @Test(arguments: [(-1, 1), (0, -1), (0, 11), (10, 1), (11, 0), (Int.max, Int.max)])
    func nothingIsFilledOutside(offset: Int, count: Int) {
        let destination = ReadDestination(byteCount: 10)
        #expect(destination.fill(at: offset, byteCount: count) { _ in Issue.record("outside") } == nil)
        #expect(!destination.clear(at: offset, byteCount: count))
    }

    @Test func anEmptyReadIsEmpty() {
        let destination = ReadDestination(byteCount: 0)
        #expect(destination.copy(ByteBuffer(), to: 0))
        #expect(destination.take() == ByteBuffer())
    }
}
