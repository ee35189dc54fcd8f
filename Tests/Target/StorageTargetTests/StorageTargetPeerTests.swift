import Blocks
import NIOCore
import NIOPosix
import SCSI
import Testing

@testable import ISCSI
@testable import StorageTarget

/// Many peers at once, and peers that mean no good.
@Suite struct StorageTargetPeerTests {
    @Test func manySessionsWorkAndKeepLittleWhileIdle() async throws {
        let fixture = try await ServerFixture()
        var initiators: [TestInitiator] = []
        for index in 1...256 { initiators.append(try await TestInitiator.session(fixture, isid: UInt64(index))) }
        #expect(try await fixture.run { server, _ in server.sessionCount } == 256)
        for initiator in initiators { try await initiator.read(0, 256) }
        for initiator in initiators { #expect(try await initiator.readData()?.readableBytes == 256 * 512) }
        // What traffic needed is given back when it has stopped for a second or two.
        try await fixture.until { server, _ in
            server.connections.values.allSatisfy { $0.answers.buffer.capacity <= 1024 && $0.decoder.bufferedByteCount == 0 }
        }
        for initiator in initiators { initiator.close() }
        try await fixture.until { server, _ in server.connectionCount == 0 }
        try await fixture.stop()
    }

    @Test func pingsThatAreNotReadHoldUpTheirSenderOnly() async throws {
        let fixture = try await ServerFixture { $0.outboundByteCount = 262_144 }
        let flood = try await TestInitiator.session(fixture, isid: 1, receivesByItself: false)
        let count = 4000
        var wire = ByteBuffer()
        for index in 0..<count {
            var nop = NOPOut()
            nop.isImmediate = true
            nop.initiatorTaskTag = UInt32(index)
            nop.cmdSN = flood.cmdSN
            nop.data = ByteBuffer(repeating: 0x55, count: 8192)
            PDUEncoder().write(nop.frame, into: &wire)
        }
        let channel = flood.channel
        let sending = Task { [wire] in try await channel.writeAndFlush(wire) }
        // The target stops reading when its answers do not leave.
        try await fixture.until { server, _ in server.connections.values.contains { !$0.channel.isWritable } }
        let other = try await TestInitiator.session(fixture, isid: 2)
        try await other.read(0, 1)
        #expect(try await other.readData()?.readableBytes == 512)
        let held = try await fixture.run { server, _ in
            server.connections.values.reduce(0) { $0 + $1.answers.buffer.readableBytes + $1.decoder.bufferedByteCount }
        }
        // A batch of answers, and what one turn reads from the socket.
        #expect(held <= 262_144 + 16_384 + 4 * 131_072)
        try await channel.setOption(.autoRead, value: true).get()
        for index in 0..<count {
            guard case .nopIn(let answer)? = try await flood.receive() else {
                Issue.record("no answer to ping \(index)")
                break
            }
            #expect(answer.initiatorTaskTag == UInt32(index))
        }
        try await sending.value
        try await fixture.stop()
    }

    @Test func aTextWithoutAnEndIsCutOff() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.connect(fixture)
        #expect(try await initiator.login(target: nil).status == .success)
        var request = TextRequest()
        request.isImmediate = true
        request.initiatorTaskTag = 1
        (request.isFinal, request.continues) = (false, true)
        request.data = ByteBuffer(repeating: 0x41, count: 4096)
        var answers = 0
        var rejects = 0
        for _ in 0..<10_000 {
            guard (try? await initiator.send(.textRequest(request))) != nil, let answer = try await initiator.receive() else { break }
            switch answer {
            case .textResponse(let response):
                answers += 1
                request.targetTransferTag = response.targetTransferTag
            case .reject: rejects += 1
            default: Issue.record("unexpected \(answer)")
            }
        }
        #expect(answers >= TextAccumulator.maximumByteCount / 4096)
        #expect(rejects == SessionLimits().rejects, "then the connection is closed")
        try await fixture.until { server, _ in server.connectionCount == 0 }
        try await fixture.stop()
    }

    @Test func anInitiatorThatVanishesIsNoticed() async throws {
        let fixture = try await ServerFixture {
            $0.idleTime = .milliseconds(100)
            $0.pingTime = .milliseconds(100)
        }
        let initiator = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in device.isHolding = true }
        try await initiator.write(0, 1, immediate: ByteBuffer(repeating: 1, count: 512))
        try await fixture.until { _, device in device.pendingCount == 1 }
        // The connection stays open and says nothing more: its session ends when its command has left the disk.
        try await fixture.until { server, _ in server.sessionCount == 0 }
        #expect(try await fixture.run { server, _ in server.connectionCount } == 1)
        try await fixture.run { _, device in device.answerAll() }
        try await fixture.until { server, _ in server.connectionCount == 0 }
        try await fixture.stop()
    }

    @Test func aLoginThatStopsHalfWayHoldsNothing() async throws {
        let fixture = try await ServerFixture { $0.loginTime = .milliseconds(200) }
        var halves: [TestInitiator] = []
        for index in 0..<32 {
            let half = try await TestInitiator.connect(fixture)
            var request = LoginRequest()
            request.isid = InitiatorSessionIdentifier(UInt64(index))
            request.continues = true
            request.data = ByteBuffer(repeating: 0x41, count: 8192)
            try? await half.send(.loginRequest(request))
            halves.append(half)
        }
        for half in halves { while try await half.receive() != nil {} }
        try await fixture.until { server, _ in server.connectionCount == 0 }
        try await fixture.stop()
    }

    @Test func answersLeaveOnceWhenTheChannelCanBeWrittenAgainAmidAFlush() async throws {
        // The digest of the last Data-In is all that is left in the batch when the channel has too much already.
        let fixture = try await ServerFixture { $0.outboundByteCount = 65_536 }
        let initiator = try await TestInitiator.session(
            fixture, [TextPair("DataDigest", "CRC32C"), TextPair("MaxRecvDataSegmentLength", "262144")])
        for _ in 0..<8 {
            try await initiator.read(0, 256)
            #expect(try await initiator.readData()?.readableBytes == 256 * 512)
        }
        try await fixture.stop()
    }

    @Test func anInitiatorThatTakesNoAnswersKeepsNoMemory() async throws {
        let fixture = try await ServerFixture {
            $0.outboundByteCount = 65_536
            $0.idleTime = .milliseconds(100)
            $0.pingTime = .milliseconds(100)
        }
        let initiator = try await TestInitiator.session(fixture, receivesByItself: false)
        try await fillChannel(of: initiator, fixture)
        #expect(try await fixture.run { server, _ in server.dataIn.heldByteCount } > 0)
        // It is hung up on, and its socket closed while it still holds what nobody takes.
        try await fixture.until { server, _ in server.connectionCount == 0 && server.dataIn.heldByteCount == 0 }
        try await fixture.stop()
    }

    /// Reads until the channel takes no more.
    private func fillChannel(of initiator: TestInitiator, _ fixture: ServerFixture) async throws {
        for _ in 0..<1000 {
            try await initiator.read(0, 512)
            // An answer that is not there yet may still fill it.
            try await fixture.until { server, _ in
                server.connections.values.allSatisfy { !$0.channel.isWritable || $0.commands.isEmpty }
            }
            if try await fixture.run({ server, _ in server.connections.values.contains { !$0.channel.isWritable } }) { return }
        }
        Issue.record("an initiator that takes nothing must fill its channel")
    }

    @Test func writesWithoutTheirDataHoldUpTheirSenderOnlyAndNotForEver() async throws {
        let fixture = try await ServerFixture {
            $0.dataOutByteCount = 262_144
            $0.sessionByteCount = 65_536
            $0.dataTime = .seconds(5)
        }
        let silent = try await TestInitiator.session(fixture, isid: 1)
        for _ in 0..<8 { try await silent.write(0, 128) }
        try await fixture.until { server, _ in server.dataOut.heldByteCount == 65_536 }
        let other = try await TestInitiator.session(fixture, isid: 2)
        try await other.write(0, 1, immediate: ByteBuffer(repeating: 7, count: 512))
        guard case .scsiResponse(let response)? = try await other.receive() else {
            Issue.record("no response")
            return
        }
        #expect(response.status == 0)
        try await fixture.until { server, _ in server.sessionCount == 1 && server.dataOut.heldByteCount == 0 }
        try await fixture.stop()
    }
}
