import Blocks
import NIOCore
import NIOPosix
import SCSI
import Testing

@testable import ISCSI
@testable import StorageTarget

private func fail(_ what: String, sourceLocation: SourceLocation = #_sourceLocation) {
    Issue.record("\(what)", sourceLocation: sourceLocation)
}

/// Who sees which targets.
@Suite struct DiscoveryTests {
    private static let friend = "iqn.2026-11.test:friend"

    /// `disk` has a secret and an access list, `secret` a secret only, `listed` a list only, `open` neither.
    private static func fixture(_ discovery: DiscoveryAuthentication) async throws -> ServerFixture {
        let fixture = try await ServerFixture(
            chap: try CHAPCredentials(user: "user", secret: "first secret"), allowed: ["iqn.2026-11.test:Friend"], discovery: discovery)
        try await fixture.run { server, device in
            try ServerFixture.addTarget(
                "iqn.2026-11.test:secret", device, to: server, chap: try CHAPCredentials(user: "user", secret: "second secret"))
            try ServerFixture.addTarget("iqn.2026-11.test:listed", device, to: server, allowed: [friend])
            try ServerFixture.addTarget("iqn.2026-11.test:open", device, to: server)
        }
        return fixture
    }

    private static func seen(_ fixture: ServerFixture, by name: String, secret: String?) async throws -> Set<String>? {
        let initiator = try await TestInitiator.connect(fixture)
        let response =
            if let secret {
                try await initiator.login(user: "user", secret: secret, target: nil, name: name)
            } else { try await initiator.login(target: nil, name: name) }
        guard response.status == .success else {
            #expect(response.status == .authenticationFailure)
            return nil
        }
        let pairs = try await initiator.sendTargets()
        let port = fixture.address.port ?? 0
        #expect(pairs.filter { $0.key == "TargetAddress" }.allSatisfy { $0.value == "127.0.0.1:\(port),1" })
        initiator.close()
        return Set(pairs.filter { $0.key == "TargetName" }.map { String($0.value.dropFirst("iqn.2026-11.test:".count)) })
    }

    @Test func onlyWhatWasProvedIsShown() async throws {
        let fixture = try await Self.fixture(.optional)
        let stranger = "iqn.2026-11.test:stranger"
        #expect(try await Self.seen(fixture, by: Self.friend, secret: nil) == ["open"])
        #expect(try await Self.seen(fixture, by: Self.friend, secret: "first secret") == ["disk", "listed", "open"])
        #expect(try await Self.seen(fixture, by: Self.friend, secret: "second secret") == ["secret", "listed", "open"])
        #expect(try await Self.seen(fixture, by: Self.friend, secret: "a wrong secret") == nil)
        #expect(try await Self.seen(fixture, by: stranger, secret: "second secret") == ["secret", "open"])
        #expect(try await Self.seen(fixture, by: stranger, secret: "first secret") == nil, "its name is not on the list")
        try await fixture.stop()
    }

    @Test func discoveryMayAskForASecret() async throws {
        let fixture = try await Self.fixture(.required)
        #expect(try await Self.seen(fixture, by: Self.friend, secret: nil) == nil)
        #expect(try await Self.seen(fixture, by: Self.friend, secret: "first secret") == ["disk", "listed", "open"])
        try await fixture.stop()
    }

    @Test func discoveryMayGoByNames() async throws {
        let fixture = try await Self.fixture(.none)
        #expect(try await Self.seen(fixture, by: Self.friend, secret: nil) == ["disk", "secret", "listed", "open"])
        #expect(try await Self.seen(fixture, by: "iqn.2026-11.test:stranger", secret: nil) == ["secret", "open"])
        try await fixture.stop()
    }

    @Test func aDiscoverySessionThatIsSilentIsClosed() async throws {
        let fixture = try await ServerFixture { $0.idleTime = .milliseconds(50) }
        let initiator = try await TestInitiator.connect(fixture)
        #expect(try await initiator.login(target: nil).status == .success)
        #expect(try await initiator.receive() == nil)
        try await fixture.stop()
    }
}

/// Several addresses, and what is told about them.
@Suite struct PortalTests {
    private static func address(_ host: String, _ port: Int = 3260) throws -> SocketAddress {
        try SocketAddress(ipAddress: host, port: port)
    }

    private static func list(_ portals: [SocketAddress], reached: SocketAddress) -> [String] {
        PortalAddresses.list(portals.map { ($0, 1) }, reached: reached, groupTag: 1)
    }

    @Test func theReachedAddressComesFirst() throws {
        let (one, two) = (try Self.address("192.0.2.1"), try Self.address("192.0.2.2"))
        #expect(Self.list([one, two], reached: two) == ["192.0.2.2:3260,1", "192.0.2.1:3260,1"])
    }

    @Test func aListenerOnAllAddressesIsToldAsTheOneThatWasReached() throws {
        let any = try Self.address("0.0.0.0")
        #expect(Self.list([any], reached: try Self.address("192.0.2.7")) == ["192.0.2.7:3260,1"])
        let both = [try Self.address("::"), try Self.address("::", 3261)]
        #expect(Self.list(both, reached: try Self.address("::ffff:192.0.2.7")) == ["192.0.2.7:3260,1", "192.0.2.7:3261,1"])
        #expect(Self.list(both, reached: try Self.address("2001:db8::7")) == ["[2001:db8::7]:3260,1", "[2001:db8::7]:3261,1"])
        let mixed = [try Self.address("::"), try Self.address("0.0.0.0", 3261)]
        #expect(Self.list(mixed, reached: try Self.address("2001:db8::7")) == ["[2001:db8::7]:3260,1"])
    }

    @Test func theLoopbackAddressIsForThisMachine() throws {
        let portals = [try Self.address("127.0.0.1"), try Self.address("192.0.2.1")]
        #expect(Self.list(portals, reached: portals[1]) == ["192.0.2.1:3260,1"])
        #expect(Self.list(portals, reached: portals[0]) == ["127.0.0.1:3260,1", "192.0.2.1:3260,1"])
    }

    @Test func sendTargetsTellsAllPortalsWithTheirGroups() async throws {
        let fixture = try await ServerFixture()
        let server = fixture.server
        let second = try await fixture.loop.flatSubmit { server.value.listen(host: "127.0.0.1", port: 0) }.get()
        let other = try await fixture.loop.flatSubmit { server.value.listen(host: "127.0.0.1", port: 0, portalGroupTag: 2) }.get()
        let ports = [fixture.address, second, other].compactMap(\.port)
        let initiator = try await TestInitiator.connect(fixture, at: second)
        #expect(try await initiator.login(target: nil).status == .success)
        let addresses = try await initiator.sendTargets().filter { $0.key == "TargetAddress" }.map(\.value)
        #expect(addresses == ["127.0.0.1:\(ports[1]),1", "127.0.0.1:\(ports[0]),1", "127.0.0.1:\(ports[2]),2"])
        let login = try await TestInitiator.connect(fixture, at: other)
        let keys = try TextKeys.parse(try await login.login().data)
        #expect(keys.contains(TextPair("TargetPortalGroupTag", "2")))
        try await fixture.stop()
    }

    @Test func oneNameInTwoGroupsIsTwoSessions() async throws {
        let fixture = try await ServerFixture()
        let server = fixture.server
        let other = try await fixture.loop.flatSubmit { server.value.listen(host: "127.0.0.1", port: 0, portalGroupTag: 2) }.get()
        let one = try await TestInitiator.session(fixture)
        let two = try await TestInitiator.connect(fixture, at: other)
        #expect(try await two.login().status == .success)
        #expect(try await fixture.run { server, _ in server.sessionCount } == 2)
        try await one.read(0, 1)
        #expect(try await one.readData()?.readableBytes == 512)
        // A session stays in its group.
        let tsih = try await fixture.run { server, _ in server.connections.values.first { $0.portalGroupTag == 1 }?.session?.tsih ?? 0 }
        let stray = try await TestInitiator.connect(fixture, at: other)
        #expect(try await stray.login(tsih: tsih).status == .cannotIncludeInSession)
        // Each finds its own port in page 83h, and both ports in REPORT TARGET PORT GROUPS.
        #expect(try await two.outcome([0x00]).sense == 0x2900)
        for (initiator, port) in [(one, 1), (two, 2)] as [(TestInitiator, UInt16)] {
            try await initiator.command([0x12, 1, 0x83, 0x02, 0, 0], reads: 512)
            let page = Array(try #require(try await initiator.readData()).readableBytesView)
            let relativePort: [UInt8] = [0x51, 0x94, 0, 4, 0, 0, 0, UInt8(port)]
            let group: [UInt8] = [0x51, 0x95, 0, 4, 0, 0, 0, UInt8(port)]
            #expect(page.indices.contains { page[$0...].starts(with: relativePort) })
            #expect(page.indices.contains { page[$0...].starts(with: group) })
            #expect(String(decoding: page, as: UTF8.self).contains(",t,0x000\(port)"))
            try await initiator.command([0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0], reads: 512)
            let groups = try #require(try await initiator.readData())
            #expect(groups.readableBytes == 4 + 24)
            #expect([6, 14, 18, 26].map { groups.getInteger(at: groups.readerIndex + $0, as: UInt16.self) } == [1, 1, 2, 2])
        }
        try await fixture.stop()
    }
}

/// One connection a session, and what takes its place (RFC 7143 sections 6.3.1, 6.3.4 and 6.3.5).
@Suite struct ReinstatementTests {
    @Test func aSecondConnectionIsRefused() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        let tsih = try await fixture.run { server, _ in server.sessions(ofTarget: ServerFixture.targetName).first?.tsih ?? 0 }
        let second = try await TestInitiator.connect(fixture)
        #expect(try await second.login(tsih: tsih, connection: 1).status == .tooManyConnections)
        #expect(try await second.receive() == nil)
        let unknown = try await TestInitiator.connect(fixture)
        #expect(try await unknown.login(tsih: tsih &+ 1).status == .sessionDoesNotExist)
        let other = try await TestInitiator.connect(fixture)
        other.isid = 2
        #expect(try await other.login(tsih: tsih).status == .sessionDoesNotExist, "the TSIH of another ISID")
        try await initiator.read(0, 1)
        #expect(try await initiator.readData()?.readableBytes == 512, "the session has not noticed")
        try await fixture.stop()
    }

    @Test func aConnectionIsReinstatedAndTheSessionGoesOn() async throws {
        let fixture = try await ServerFixture()
        let old = try await TestInitiator.session(fixture)
        let tsih = try await fixture.run { server, _ in server.sessions(ofTarget: ServerFixture.targetName).first?.tsih ?? 0 }
        try await fixture.run { _, device in device.isHolding = true }
        try await old.write(0, 1, immediate: ByteBuffer(repeating: 9, count: 512))
        try await fixture.until { _, device in device.pendingCount == 1 }
        let new = try await TestInitiator.connect(fixture)
        // One more command was sent and lost with the old connection.
        new.cmdSN = old.cmdSN + 1
        try await new.sendLogin(tsih: tsih)
        #expect(try await old.receive() == nil, "the old connection is closed, and its command is not answered")
        #expect(try await fixture.run { server, _ in server.sessionCount } == 0, "the login waits for the command")
        try await fixture.run { _, device in device.answerAll() }
        guard case .loginResponse(let response)? = try await new.receive() else { return fail("no login response") }
        #expect(response.status == .success && response.tsih == tsih)
        // No unit attention: it is the same I_T nexus.
        #expect(try await new.outcome([0x00]).status == 0)
        try await new.read(0, 1)
        #expect(try await new.readData() == ByteBuffer(repeating: 9, count: 512))
        try await fixture.stop()
    }

    /// Whatever the old session had in flight is on the medium, or never comes there, before the new one begins.
    @Test func aSessionThatIsReinstatedWritesNothingLater() async throws {
        let fixture = try await ServerFixture()
        let old = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in device.isHolding = true }
        for index in 0..<8 { try await old.write(UInt32(index), 1, immediate: ByteBuffer(repeating: 0xEE, count: 512)) }
        try await old.write(100, 64)
        guard case .readyToTransfer? = try await old.receive() else { return fail("no R2T") }
        try await fixture.until { _, device in device.pendingCount == 8 }
        let new = try await TestInitiator.connect(fixture)
        try await new.sendLogin()
        #expect(try await old.receive() == nil)
        for _ in 0..<7 { try await fixture.run { _, device in device.answerOne() } }
        #expect(try await fixture.run { server, _ in server.sessionCount } == 0, "one command is still on the medium")
        try await fixture.run { _, device in device.answerAll() }
        guard case .loginResponse(let response)? = try await new.receive() else { return fail("no login response") }
        #expect(response.status == .success)
        let calls = try await fixture.run { _, device in device.calls.count }
        #expect(try await new.outcome([0x00]).sense == 0x2900)
        try await new.write(0, 1, immediate: ByteBuffer(repeating: 0x11, count: 512))
        guard case .scsiResponse(let done)? = try await new.receive() else { return fail("no response") }
        #expect(done.status == 0)
        try await new.read(0, 1)
        #expect(try await new.readData() == ByteBuffer(repeating: 0x11, count: 512))
        #expect(try await fixture.run { _, device in device.calls.count } == calls + 1)
        #expect(try await fixture.run { server, _ in server.dataOut.heldByteCount } == 0)
        try await fixture.stop()
    }

    /// Logins of one name that overtake each other: one session is left, and it works.
    @Test func manyLoginsOfOneNameLeaveOneSession() async throws {
        let fixture = try await ServerFixture()
        let first = try await TestInitiator.session(fixture)
        try await fixture.run { _, device in device.isHolding = true }
        try await first.write(0, 1, immediate: ByteBuffer(repeating: 9, count: 512))
        try await fixture.until { _, device in device.pendingCount == 1 }
        let logins = (0..<5).map { _ in
            Task {
                let initiator = try await TestInitiator.connect(fixture)
                return try await initiator.tryLogin()?.status == .success
            }
        }
        try await fixture.until { server, _ in server.connectionCount == 6 }
        try await fixture.run { _, device in device.answerAll() }
        var succeeded = 0
        for login in logins where try await login.value { succeeded += 1 }
        #expect(succeeded >= 1)
        try await fixture.until { server, _ in server.sessionCount == 1 && server.connectionCount == 1 }
        try await fixture.stop()
    }

    @Test func anInitiatorThatIsAskedToLogOutMayDoSo() async throws {
        let fixture = try await ServerFixture { $0.logoutTime = .seconds(60) }
        let initiator = try await TestInitiator.session(fixture)
        let removed = fixture.loop.makePromise(of: Void.self)
        try await fixture.run { server, _ in server.removeTarget(ServerFixture.targetName) { removed.succeed() } }
        guard case .asyncMessage(let message)? = try await initiator.receive() else { return fail("no message") }
        #expect(message.eventCode == AsyncMessage.Event.requestsLogout.rawValue && message.parameter3 == 60)
        // What comes now is for the next session.
        try await initiator.read(0, 1)
        var logout = LogoutRequest()
        logout.isImmediate = true
        logout.initiatorTaskTag = 0x8000
        try await initiator.send(.logoutRequest(logout))
        guard case .logoutResponse(let response)? = try await initiator.receive() else { return fail("no logout response") }
        #expect(response.response == 0)
        try await removed.futureResult.get()
        try await fixture.stop()
    }
}

/// Task management that reaches beyond a session, and RFC 7144's.
@Suite struct TaskManagementTests {
    private static let level = [TextPair("iSCSIProtocolLevel", "2")]

    private static func response(_ initiator: TestInitiator, _ function: TaskManagementRequest.Function) async throws
        -> TaskManagementResponse?
    {
        try await initiator.manage(function)
        guard case .taskManagementResponse(let response)? = try await initiator.receive() else { return nil }
        return response
    }

    @Test func pendingUnitAttentionsAreAskedFor() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture, Self.level)
        #expect(try await Self.response(initiator, .queryAsynchronousEvent)?.responseCode == 0)
        try await fixture.run { server, _ in server.capacityDidChange(number: 0, ofTarget: ServerFixture.targetName) }
        let one = try await Self.response(initiator, .queryAsynchronousEvent)
        #expect(one?.responseCode == 7 && one?.additionalInformation == 0x16_2A09)
        #expect(try await initiator.outcome([0x00]).sense == 0x2A09)
        try await fixture.stop()
    }

    @Test func aNexusResetEndsTheSessionsTasksAndIsTold() async throws {
        let fixture = try await ServerFixture()
        let one = try await TestInitiator.session(fixture, Self.level, isid: 1)
        let two = try await TestInitiator.session(fixture, isid: 2)
        try await fixture.run { _, device in device.isHolding = true }
        try await one.write(0, 1, immediate: ByteBuffer(repeating: 1, count: 512))
        let kept = try await two.write(8, 1, immediate: ByteBuffer(repeating: 2, count: 512))
        try await fixture.until { _, device in device.pendingCount == 2 }
        try await one.manage(.nexusReset)
        try await fixture.until { server, _ in server.connections.values.contains { !$0.abortWaiters.isEmpty } }
        try await fixture.run { _, device in device.answerAll() }
        guard case .taskManagementResponse(let response)? = try await one.receive() else { return fail("no answer") }
        #expect(response.responseCode == 0)
        #expect(try await one.outcome([0x00]).sense == 0x2907)
        guard case .scsiResponse(let done)? = try await two.receive() else { return fail("no response") }
        #expect(done.initiatorTaskTag == kept && done.status == 0)
        try await fixture.stop()
    }

    @Test func commandsOfOthersInAClearedTaskSetEndWithTaskAborted() async throws {
        let fixture = try await ServerFixture()
        let one = try await TestInitiator.session(fixture, isid: 1)
        let two = try await TestInitiator.session(fixture, isid: 2)
        let idle = try await TestInitiator.session(fixture, isid: 3)
        try await fixture.run { _, device in device.isHolding = true }
        try await two.write(0, 1, immediate: ByteBuffer(repeating: 1, count: 512))
        try await fixture.until { _, device in device.pendingCount == 1 }
        // And one whose data has not come, sent to the other name of the unit.
        two.lun = 0x4000 << 48
        try await two.write(8, 128)
        guard case .readyToTransfer? = try await two.receive() else { return fail("no R2T") }
        try await one.manage(.clearTaskSet)
        guard case .scsiResponse(let collecting)? = try await two.receive() else { return fail("no response") }
        try await fixture.run { _, device in device.answerAll() }
        guard case .scsiResponse(let running)? = try await two.receive() else { return fail("no response") }
        #expect(collecting.initiatorTaskTag == running.initiatorTaskTag + 1)
        #expect([collecting, running].allSatisfy { $0.status == SCSIStatus.taskAborted.rawValue })
        guard case .taskManagementResponse(let response)? = try await one.receive() else { return fail("no answer") }
        #expect(response.responseCode == 0)
        // There is no unit attention besides.
        #expect(try await two.outcome([0x00]).status == 0)
        #expect(try await idle.outcome([0x00]).status == 0)
        try await fixture.stop()
    }

    @Test func aResetEndsCommandsThatWereSentToTheUnitsOtherName() async throws {
        let fixture = try await ServerFixture()
        let one = try await TestInitiator.session(fixture, isid: 1)
        let two = try await TestInitiator.session(fixture, isid: 2)
        try await two.write(0, 128)
        guard case .readyToTransfer(let r2t)? = try await two.receive() else { return fail("no R2T") }
        one.lun = 0x4000 << 48
        #expect(try await Self.response(one, .logicalUnitReset)?.responseCode == 0)
        // Its data finds no command any more.
        let before = try await fixture.run { _, device in device.calls.count }
        try await two.answer(r2t, from: ByteBuffer(repeating: 0xEE, count: 65_536))
        #expect(try await two.outcome([0x00]).status == 2)
        #expect(try await fixture.run { _, device in device.calls.count } == before)
        try await fixture.stop()
    }

    @Test func aWarmResetKeepsTheSessionsAndAColdOneEndsThem() async throws {
        let fixture = try await ServerFixture()
        let one = try await TestInitiator.session(fixture, isid: 1)
        let two = try await TestInitiator.session(fixture, isid: 2)
        #expect(try await Self.response(one, .targetWarmReset)?.responseCode == 0)
        #expect(try await two.outcome([0x00]).sense == 0x2903)
        #expect(try await Self.response(one, .targetColdReset)?.responseCode == 0)
        for initiator in [one, two] { #expect(try await initiator.receive() == nil, "closed, and nothing said about it") }
        try await fixture.stop()
    }

    @Test func anAbsentUnitIsSaid() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture, Self.level)
        initiator.lun = 7 << 48
        for function in [TaskManagementRequest.Function.abortTaskSet, .clearTaskSet, .logicalUnitReset, .queryAsynchronousEvent] {
            #expect(try await Self.response(initiator, function)?.responseCode == 2)
        }
        try await fixture.stop()
    }
}
