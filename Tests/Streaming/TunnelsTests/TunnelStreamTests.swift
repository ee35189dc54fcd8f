import LinkProtocol
import NIOCore
import Testing

@testable import Tunnels

@Suite struct TunnelStreamTests {
    private let budget = WindowBudget(byteCountMax: 16 << 20)

    private func data(_ message: LinkMessage?) -> Int? {
        if case .tunnelData(_, _, let data)? = message { data.readableBytes } else { nil }
    }

    @Test func nothingLeavesBeforeTheOtherEndIsConnected() {
        var stream = TunnelStream()
        stream.read(ByteBuffer(repeating: 1, count: 100))
        stream.readEnd()
        #expect(stream.nextMessage(1) == nil)
        let early = (stream.received(1), stream.receivedEnd(), stream.credited(1))
        #expect(early == (false, false, false))
        let opened = (stream.opened(window: 60), stream.opened(window: 60))
        #expect(opened == (true, false))
        let first = stream.nextMessage(1)
        #expect(first == .tunnelData(stream: 1, isShort: true, data: ByteBuffer(repeating: 1, count: 60)))
        if let first { stream.sent(first) }
        #expect(stream.nextMessage(1) == nil, "no credit, and the end comes behind the bytes")
        #expect(stream.credited(100) == true)
        let second = stream.nextMessage(1)
        #expect(second == .tunnelData(stream: 1, isShort: false, data: ByteBuffer(repeating: 1, count: 40)))
        if let second { stream.sent(second) }
        #expect(stream.nextMessage(1) == .tunnelFinish(stream: 1))
        stream.sent(.tunnelFinish(stream: 1))
        #expect(stream.nextMessage(1) == nil && !stream.isDone)
        let ended = stream.receivedEnd()
        #expect(ended && stream.isDone)
    }

    @Test func piecesAndWhatIsKeptAreBounded() {
        var stream = TunnelStream(sendCredit: 1 << 20)
        #expect(stream.wantsToRead)
        stream.read(ByteBuffer(repeating: 1, count: TunnelStream.pendingBytesMax))
        #expect(!stream.wantsToRead)
        #expect(data(stream.nextMessage(3)) == LinkLimits.pieceBytes)
        var bytes = 0
        while let message = stream.nextMessage(3) {
            bytes += data(message) ?? 0
            stream.sent(message)
        }
        #expect(bytes == TunnelStream.pendingBytesMax && stream.wantsToRead)
        let credits = (stream.credited(.max - (1 << 20)), stream.credited(.max), stream.credited(1 << 17))
        #expect(credits == (true, false, false), "a credit of more than 2^32 bytes makes no sense")
    }

    @Test func theWindowIsNotPassed() {
        var stream = TunnelStream(sendCredit: 0)
        #expect(stream.received(TunnelStream.firstWindowBytes, isShort: true) == true)
        #expect(stream.received(1) == false)
        let grant = stream.wrote(TunnelStream.firstWindowBytes, budget)
        #expect(grant == UInt32(2 * TunnelStream.firstWindowBytes), "the sender was short of credit, and the reader keeps up")
        #expect(stream.received(2 * TunnelStream.firstWindowBytes) == true)
        #expect(stream.received(1) == false)
        #expect(stream.receivedEnd() == true)
        let late = (stream.received(1), stream.receivedEnd())
        #expect(late == (false, false))
        #expect(!stream.outputHasEnded)
        #expect(stream.wrote(2 * TunnelStream.firstWindowBytes, budget) == nil, "nothing follows")
        #expect(stream.outputHasEnded)
    }

    /// A stream that fills its window grows to the largest one; one that does not stays small; neither passes the budget.
    @Test func windowsGrowWithNeedAndWithinTheBudget() {
        var busy = TunnelStream(sendCredit: 0)
        var idle = TunnelStream(sendCredit: 0)
        let small = WindowBudget(byteCountMax: 1 << 20)
        _ = small.take(2 * TunnelStream.firstWindowBytes)
        var credit = TunnelStream.firstWindowBytes
        for _ in 0..<20 {
            #expect(busy.received(credit, isShort: true) == true)
            credit = Int(busy.wrote(credit, small) ?? 0)
            #expect(idle.received(1_000) == true)
            _ = idle.wrote(1_000, small)
        }
        #expect(busy.windowBytes == 256 << 10 && idle.windowBytes == TunnelStream.firstWindowBytes)
        #expect(small.byteCount == busy.windowBytes + idle.windowBytes)
        var alone = TunnelStream(sendCredit: 0)
        credit = TunnelStream.firstWindowBytes
        for _ in 0..<20 {
            #expect(alone.received(credit, isShort: true) == true)
            credit = Int(alone.wrote(credit, budget) ?? 0)
        }
        #expect(alone.windowBytes == TunnelStream.windowBytesMax)
    }

    /// What a stream has said long ago takes no memory, also when it was never quite done.
    @Test func whatWasSentIsNotKept() {
        var stream = TunnelStream(sendCredit: 1 << 30)
        stream.read(ByteBuffer(repeating: 1, count: 100))
        for _ in 0..<2_000 {
            stream.read(ByteBuffer(repeating: 1, count: LinkLimits.pieceBytes))
            if let message = stream.nextMessage(1) { stream.sent(message) }
        }
        #expect(stream.pendingStorageBytes <= 256 << 10)
    }

    /// A reader that takes nothing gets no more than a window, however often it is asked.
    @Test func aSlowReaderIsGrantedNothing() {
        var stream = TunnelStream(sendCredit: 0)
        #expect(stream.received(TunnelStream.firstWindowBytes) == true)
        #expect(stream.wrote(100, budget) == nil)
        #expect(stream.received(1) == false)
    }
}

@Suite struct NetworkRuleTests {
    private func contains(_ rule: String, _ address: String) throws -> Bool {
        try #require(NetworkRule(rule)).contains(try SocketAddress(ipAddress: address, port: 5))
    }

    @Test(arguments: [
        ("10.0.0.0/8", "10.255.1.2", true), ("10.0.0.0/8", "11.0.0.1", false), ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3", "10.1.2.4", false), ("10.1.2.130/25", "10.1.2.200", true), ("10.1.2.130/25", "10.1.2.100", false),
        ("0.0.0.0/0", "203.0.113.9", true), ("0.0.0.0/0", "::1", false), ("fd00::/8", "fd12::1", true), ("fd00::/8", "fe80::1", false),
        ("::1", "::1", true), ("::/0", "fe80::1", true), ("10.0.0.0/8", "::ffff:10.1.1.1", true), ("::/0", "::ffff:10.1.1.1", false),
    ])
    func contains(rule: String, address: String, isIn: Bool) throws { #expect(try contains(rule, address) == isIn) }

    @Test(arguments: ["", "/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0/8", "::/129", "host/8", "10.0.0.0/8/8", "10.0.0.0/ 8"])
    func whatIsNoNetwork(text: String) { #expect(NetworkRule(text) == nil) }

    @Test func isWrittenWithoutWhatDoesNotCount() {
        #expect(NetworkRule("10.1.2.3/8")?.description == "10.0.0.0/8")
        #expect(NetworkRule("10.1.2.3")?.description == "10.1.2.3/32")
        #expect(NetworkRule("FD00:0::1/16")?.description == "fd00::/16")
    }
}
