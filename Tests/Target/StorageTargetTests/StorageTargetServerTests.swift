import Blocks
import NIOCore
import NIOPosix
import SCSI
import Testing

@testable import ISCSI
@testable import StorageTarget

private func pattern(_ count: Int, seed: UInt8) -> ByteBuffer {
    ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) ^ seed })
}

/// Records that a test cannot go on.
private func fail(_ what: String, sourceLocation: SourceLocation = #_sourceLocation) {
    Issue.record("\(what)", sourceLocation: sourceLocation)
}

private let bothDigests = [TextPair("HeaderDigest", "CRC32C"), TextPair("DataDigest", "CRC32C")]

@Suite struct StorageTargetDataTests {
    @Test(arguments: [[], bothDigests]) func whatIsWrittenIsReadBack(_ keys: [TextPair]) async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(
            fixture, keys + [TextPair("MaxRecvDataSegmentLength", "65536"), TextPair("MaxBurstLength", "131072")])
        // 512 KiB in several bursts, with immediate data first.
        let bytes = pattern(1024 * 512, seed: 0x5A)
        try await initiator.write(16, 1024, immediate: try #require(bytes.getSlice(at: 0, length: 8192)))
        while let pdu = try await initiator.receive() {
            if case .readyToTransfer(let r2t) = pdu {
                try await initiator.answer(r2t, from: bytes)
            } else {
                guard case .scsiResponse(let response) = pdu else { return fail("unexpected \(pdu)") }
                #expect(response.status == 0)
                break
            }
        }
        for isResident in [true, false] {
            try await fixture.run { _, device in device.isResident = isResident }
            try await initiator.read(16, 1024)
            #expect(try await initiator.readData() == bytes)
            // Small enough to be answered in place.
            try await initiator.read(17, 8)
            #expect(try await initiator.readData() == bytes.getSlice(at: 512, length: 4096))
        }
        initiator.close()
        try await fixture.stop()
    }

    @Test func manyReadsInFlightAreAllAnswered() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        for index in 0..<100 { try await initiator.read(UInt32(index), 1) }
        for index in 0..<100 {
            let expected = (0..<512).map { UInt8(truncatingIfNeeded: index &+ index * 512 &+ $0) }
            #expect(try await initiator.readData() == ByteBuffer(bytes: expected))
        }
        try await fixture.stop()
    }

    @Test func aCommandToAnAbsentUnitIsAnswered() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        var command = SCSICommandPDU()
        command.lun = 3 << 48
        command.initiatorTaskTag = 77
        command.cmdSN = initiator.cmdSN
        try await initiator.send(.scsiCommand(command))
        guard case .scsiResponse(let response)? = try await initiator.receive() else { return fail("no response") }
        #expect(response.status == 2)
        #expect(response.sense.getInteger(at: response.sense.readerIndex + 12) == UInt16(0x2500))
        try await fixture.stop()
    }

    @Test func anErrorOfTheDeviceIsSenseData() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in
            device.isResident = false
            device.error = .unreachable("the link is down")
        }
        try await initiator.read(0, 8)
        guard case .scsiResponse(let response)? = try await initiator.receive() else { return fail("no response") }
        #expect(response.status != 0)
        try await fixture.stop()
    }
}

@Suite struct StorageTargetLimitTests {
    @Test func readyToTransferIsWithheldWhileTheBudgetIsUsedUp() async throws {
        let fixture = try await ServerFixture { $0.dataOutByteCount = 65_536 }
        let initiator = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in device.isHolding = true }
        let bytes = pattern(65_536, seed: 1)
        let first = try await initiator.write(0, 128)
        let second = try await initiator.write(128, 128)
        guard case .readyToTransfer(let r2t)? = try await initiator.receive() else { return fail("no R2T") }
        #expect(r2t.initiatorTaskTag == first)
        try await initiator.answer(r2t, from: bytes)
        try await fixture.until { _, device in device.pendingCount == 1 }
        #expect(try await fixture.run { server, _ in server.connections.values.map { $0.dataOut.waitingByteCount } } == [65_536])
        // Beyond as much again, the target is busy.
        let third = try await initiator.write(256, 128, immediate: try #require(bytes.getSlice(at: 0, length: 4096)))
        let fourth = try await initiator.write(384, 128, immediate: bytes)
        guard case .scsiResponse(let busy)? = try await initiator.receive() else { return fail("no BUSY") }
        #expect(busy.status == SCSIStatus.busy.rawValue)
        #expect(busy.initiatorTaskTag == fourth)
        try await fixture.run { _, device in device.answerAll() }
        for tag in [second, third] {
            guard case .scsiResponse(let done)? = try await initiator.receive() else { return fail("no response") }
            #expect(done.status == 0 && done.initiatorTaskTag == tag - 1)
            guard case .readyToTransfer(let next)? = try await initiator.receive() else { return fail("no R2T") }
            #expect(next.initiatorTaskTag == tag)
            try await initiator.answer(next, from: bytes)
        }
        guard case .scsiResponse? = try await initiator.receive() else { return fail("no response") }
        #expect(try await fixture.run { server, _ in server.unaskedByteCount } == 0)
        try await fixture.stop()
    }

    /// An ORDERED write that waits for memory does not wait for that of writes that wait for it.
    @Test func memoryIsNotTakenBeforeATaskHasItsTurn() async throws {
        let fixture = try await ServerFixture { $0.dataOutByteCount = 65_536 }
        let initiators = [
            try await TestInitiator.session(fixture), try await TestInitiator.session(fixture, isid: 0x4000_0000_0002),
        ]
        try await fixture.run { _, device in device.isHolding = true }
        let bytes = pattern(65_536, seed: 1)
        try await initiators[0].write(0, 128)
        guard case .readyToTransfer(let first)? = try await initiators[0].receive() else { return fail("no R2T") }
        try await initiators[0].answer(first, from: bytes)
        try await fixture.until { _, device in device.pendingCount == 1 }
        try await initiators[0].write(128, 128, attribute: 2)
        try await fixture.until { server, _ in server.connections.values.contains { $0.commands.count == 2 } }
        try await initiators[1].write(256, 128)
        try await fixture.until { server, _ in server.connections.values.allSatisfy { !$0.commands.isEmpty } }
        try await fixture.run { _, device in device.answerAll() }
        for (initiator, count) in [(initiators[0], 1), (initiators[1], 0)] {
            for _ in 0..<count {
                guard case .scsiResponse(let done)? = try await initiator.receive() else { return fail("no response") }
                #expect(done.status == 0)
            }
            guard case .readyToTransfer(let next)? = try await initiator.receive() else { return fail("no R2T") }
            try await initiator.answer(next, from: bytes)
            guard case .scsiResponse(let done)? = try await initiator.receive() else { return fail("no response") }
            #expect(done.status == 0)
        }
        #expect(try await fixture.run { server, _ in server.dataOut.heldByteCount } == 0)
        try await fixture.stop()
    }

    @Test func aReaderThatDoesNotReadHoldsABoundedAmount() async throws {
        let limit = 2 << 20
        let fixture = try await ServerFixture { $0.dataInByteCount = limit }
        let initiator = try await TestInitiator.session(fixture, receivesByItself: false)
        // How much the kernel takes differs; what matters is that it stops: the connection takes no more, or, should it have room for
        // a little still, the limit does not let in another. One more is asked for when none waits: beyond a bound of what waits the
        // target would answer BUSY.
        let isStopped: @Sendable (StorageTargetServer) -> Bool = { server in
            server.connections.values.contains { !$0.channel.isWritable }
                || server.connections.values.contains { $0.dataIn.waitingByteCount > 0 }
                    && server.dataIn.heldByteCount + 512 * 512 > limit
        }
        try await fixture.run { _, device in device.isResident = false }
        var reads = 0
        var isStuck = false
        while !isStuck, reads < 1000 {
            try await initiator.read(0, 512)
            reads += 1
            let count = reads
            try await fixture.until { server, device in device.calls.count == count || isStopped(server) }
            isStuck = try await fixture.run { server, _ in isStopped(server) }
        }
        #expect(isStuck, "a reader that does not read must stop the target")
        #expect(try await fixture.run { server, _ in server.dataIn.heldByteCount } <= limit)
        try await initiator.channel.setOption(.autoRead, value: true).get()
        for _ in 0..<reads { #expect(try await initiator.readData()?.readableBytes == 512 * 512) }
        try await fixture.until { server, _ in server.dataIn.heldByteCount == 0 }
        try await fixture.stop()
    }

    /// A block that is at hand comes while long reads of the same session hold all the memory that they may.
    @Test func aShortReadDoesNotWaitForLongOnes() async throws {
        let fixture = try await ServerFixture { $0.sessionByteCount = 1 << 20 }
        let initiator = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in
            device.isResident = false
            device.isHolding = true
        }
        for _ in 0..<5 { try await initiator.read(0, 512) }
        try await fixture.until { server, device in
            device.pendingCount == 4 && server.connections.values.contains { $0.dataIn.waitingByteCount == 512 * 512 }
        }
        // Whether it is at hand, or comes from the device before the long ones do.
        try await fixture.run { _, device in device.isResident = true }
        try await initiator.read(8, 8)
        #expect(try await initiator.readData()?.readableBytes == 8 * 512)
        try await fixture.run { _, device in device.isResident = false }
        try await initiator.read(8, 8)
        try await fixture.until { _, device in device.pendingCount == 5 }
        try await fixture.run { _, device in device.answerAll() }
        var counts: [Int] = []
        for _ in 0..<6 { counts.append(try await initiator.readData()?.readableBytes ?? 0) }
        #expect(counts.sorted() == [8 * 512] + Array(repeating: 512 * 512, count: 5))
        try await fixture.until { server, _ in server.dataIn.heldByteCount == 0 }
        try await fixture.stop()
    }

    @Test func oneConnectionTooManyIsClosed() async throws {
        let fixture = try await ServerFixture { $0.connections = 1 }
        let first = try await TestInitiator.session(fixture)
        let second = try await TestInitiator.connect(fixture)
        #expect(try await second.receive() == nil)
        try await first.read(0, 1)
        #expect(try await first.readData()?.readableBytes == 512)
        try await fixture.stop()
    }

    @Test func aConnectionThatDoesNotLogInIsClosed() async throws {
        let fixture = try await ServerFixture { $0.loginTime = .milliseconds(100) }
        let silent = try await TestInitiator.connect(fixture)
        let half = try await TestInitiator.connect(fixture)
        // On a busy machine the time may be over before this is sent; the end is the same.
        try? await half.sendBytes(ByteBuffer(bytes: [0x43, 0x87, 0, 0]))
        #expect(try await silent.receive() == nil)
        #expect(try await half.receive() == nil)
        try await fixture.stop()
    }

    @Test func aSilentInitiatorIsPingedThenClosed() async throws {
        let fixture = try await ServerFixture {
            $0.idleTime = .milliseconds(100)
            $0.pingTime = .milliseconds(100)
        }
        let initiator = try await TestInitiator.session(fixture)
        guard case .nopIn(let ping)? = try await initiator.receive() else { return fail("no ping") }
        #expect(ping.targetTransferTag != BasicHeader.reservedTag)
        #expect(try await initiator.receive() == nil)
        try await fixture.until { server, _ in server.connectionCount == 0 }
        try await fixture.stop()
    }
}

@Suite struct StorageTargetLoginTests {
    @Test func refusalsHaveTheirStatus() async throws {
        let fixture = try await ServerFixture(
            chap: try CHAPCredentials(user: "u", secret: "s"), allowed: ["iqn.2026-11.test:initiator"])
        func status(_ target: String, _ name: String = "iqn.2026-11.test:initiator") async throws -> LoginStatus {
            let initiator = try await TestInitiator.connect(fixture)
            let status = try await initiator.login(target: target, name: name).status
            #expect(try await initiator.receive() == nil, "the connection is closed")
            return status
        }
        #expect(try await status(ServerFixture.targetName) == .authenticationFailure)
        // A stranger does not learn that there is the target.
        #expect(try await status(ServerFixture.targetName, "iqn.2026-11.test:stranger") == .notFound)
        #expect(try await status("iqn.2026-11.test:none") == .notFound)
        try await fixture.run { server, _ in server.isReady = false }
        #expect(try await status("iqn.2026-11.test:none") == .serviceUnavailable)
        try await fixture.stop()
    }

    @Test func aSecondLoginOfTheSameNameWaitsForTheFirstsCommands() async throws {
        let fixture = try await ServerFixture()
        let old = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in device.isHolding = true }
        try await old.write(0, 1, immediate: pattern(512, seed: 9))
        try await fixture.until { _, device in device.pendingCount == 1 }
        let new = try await TestInitiator.connect(fixture)
        async let login = new.login()
        #expect(try await old.receive() == nil, "the old connection is closed")
        #expect(try await fixture.run { server, _ in server.sessionCount } == 0, "the login waits")
        try await fixture.run { _, device in device.answerAll() }
        #expect(try await login.status == .success)
        #expect(try await fixture.run { server, _ in server.sessions(ofTarget: ServerFixture.targetName).count } == 1)
        try await fixture.stop()
    }

    @Test func severalSessionsShareATarget() async throws {
        let fixture = try await ServerFixture()
        var initiators: [TestInitiator] = []
        for index in 1...4 { initiators.append(try await TestInitiator.session(fixture, isid: UInt64(index))) }
        #expect(try await fixture.run { server, _ in server.sessionCount } == 4)
        for initiator in initiators {
            try await initiator.read(3, 1)
            #expect(try await initiator.readData()?.readableBytes == 512)
        }
        var logout = LogoutRequest()
        logout.initiatorTaskTag = 1
        logout.cmdSN = initiators[0].cmdSN
        try await initiators[0].send(.logoutRequest(logout))
        guard case .logoutResponse(let response)? = try await initiators[0].receive() else { return fail("no logout response") }
        #expect(response.response == 0)
        #expect(try await initiators[0].receive() == nil)
        try await fixture.until { server, _ in server.sessionCount == 3 }
        try await fixture.stop()
    }
}

@Suite struct StorageTargetEndTests {
    @Test func removingATargetLetsCommandsFinish() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in device.isHolding = true }
        try await initiator.write(0, 1, immediate: pattern(512, seed: 3))
        try await fixture.until { _, device in device.pendingCount == 1 }
        let removed = fixture.loop.makePromise(of: Int.self)
        try await fixture.run { server, device in
            server.removeTarget(ServerFixture.targetName) { removed.succeed(server.connectionCount) }
            #expect(server.sessionCount == 1, "the session waits for its command")
            device.answerAll()
        }
        guard case .scsiResponse(let response)? = try await initiator.receive() else { return fail("no response") }
        #expect(response.status == 0)
        guard case .asyncMessage(let request)? = try await initiator.receive() else { return fail("no message") }
        #expect(request.eventCode == AsyncMessage.Event.requestsLogout.rawValue && request.parameter3 == 1)
        guard case .asyncMessage(let message)? = try await initiator.receive() else { return fail("no message") }
        #expect(message.eventCode == AsyncMessage.Event.dropsAllConnections.rawValue)
        #expect(try await initiator.receive() == nil)
        #expect(try await removed.futureResult.get() == 0)
        let again = try await TestInitiator.connect(fixture)
        #expect(try await again.login().status == .notFound)
        try await fixture.stop()
    }

    @Test func abortedTasksAreSilentAndTheAnswerWaitsForThem() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in device.isHolding = true }
        let tag = try await initiator.write(0, 1, immediate: pattern(512, seed: 3))
        try await fixture.until { _, device in device.pendingCount == 1 }
        try await initiator.manage(.abortTask, task: tag)
        // A ping shows that the abort was seen and not yet answered.
        var nop = NOPOut()
        nop.isImmediate = true
        nop.initiatorTaskTag = 0x7000
        nop.cmdSN = initiator.cmdSN
        try await initiator.send(.nopOut(nop))
        guard case .nopIn? = try await initiator.receive() else { return fail("the abort was answered too early") }
        try await fixture.run { _, device in device.answerAll() }
        guard case .taskManagementResponse(let response)? = try await initiator.receive() else { return fail("no answer") }
        #expect(response.responseCode == 0)
        try await fixture.stop()
    }

    @Test func aResetReachesAllSessions() async throws {
        let fixture = try await ServerFixture()
        let one = try await TestInitiator.session(fixture, isid: 1)
        let two = try await TestInitiator.session(fixture, isid: 2)
        try await fixture.run { _, device in device.isHolding = true }
        try await two.write(0, 1, immediate: pattern(512, seed: 3))
        try await fixture.until { _, device in device.pendingCount == 1 }
        try await one.manage(.logicalUnitReset)
        try await fixture.until { server, _ in server.connections.values.contains { !$0.abortWaiters.isEmpty } }
        try await fixture.run { _, device in device.answerAll() }
        guard case .taskManagementResponse(let response)? = try await one.receive() else { return fail("no answer") }
        #expect(response.responseCode == 0)
        try await two.command([0x00])
        guard case .scsiResponse(let attention)? = try await two.receive() else { return fail("no response") }
        #expect(attention.status == 2)
        #expect(attention.sense.getInteger(at: attention.sense.readerIndex + 12, as: UInt8.self) == 0x29)
        try await fixture.stop()
    }

    @Test func aConnectionThatIsLostLetsItsCommandsEnd() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in device.isHolding = true }
        try await initiator.write(0, 1, immediate: pattern(512, seed: 3))
        try await initiator.write(8, 64)
        try await fixture.until { server, device in device.pendingCount == 1 && server.dataOut.heldByteCount > 32_000 }
        initiator.close()
        try await fixture.until { server, _ in server.sessionCount == 0 && server.dataOut.heldByteCount == 512 }
        try await fixture.run { _, device in device.answerAll() }
        try await fixture.until { server, _ in server.connectionCount == 0 && server.dataOut.heldByteCount == 0 }
        try await fixture.stop()
    }

    @Test func garbageClosesItsConnectionOnly() async throws {
        let fixture = try await ServerFixture()
        let good = try await TestInitiator.session(fixture)
        var random = SystemRandomNumberGenerator()
        var oversized = ByteBuffer()
        PDUEncoder().writeHeader(BasicHeader(opcode: 3, isImmediate: true), dataByteCount: 0xFF_FFFF, into: &oversized)
        var inputs = [oversized, ByteBuffer(string: "GET / HTTP/1.1\r\nHost: a\r\n\r\n" + String(repeating: " ", count: 64))]
        var early = ByteBuffer()
        PDUEncoder().write(InitiatorPDU.nopOut(NOPOut()).frame, into: &early)
        inputs.append(early)
        for _ in 0..<20 { inputs.append(ByteBuffer(bytes: (0..<4096).map { _ in UInt8.random(in: 0...255, using: &random) })) }
        for input in inputs {
            let bad = try await TestInitiator.connect(fixture)
            try? await bad.sendBytes(input)
            if input.readableBytes < 100 { #expect(try await bad.receive() == nil) }
            bad.close()
        }
        try await fixture.until { server, _ in server.connectionCount == 1 }
        try await good.read(0, 1)
        #expect(try await good.readData()?.readableBytes == 512)
        try await fixture.stop()
    }
}
