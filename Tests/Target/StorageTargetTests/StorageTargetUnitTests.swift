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

/// Logical units that come and go under sessions.
@Suite struct StorageTargetUnitTests {
    private static let reportedNumbersHaveChanged: UInt16 = 0x3F0E
    private static let powerOn: UInt16 = 0x2900
    private static let notSupported: UInt16 = 0x2500

    /// Adds unit 1, on a disk of its own that holds `byte`s.
    private static func addUnit(_ fixture: ServerFixture, number: Int = 1, byte: UInt8 = 0x11) async throws
        -> NIOLoopBound<MemoryDevice>
    {
        let loop = fixture.loop
        return try await fixture.run { server, _ in
            let device = MemoryDevice(sectorCount: 1024)
            for index in device.bytes.indices { device.bytes[index] = byte }
            let identity = LogicalUnitIdentity(uniqueHigh: 1, uniqueLow: UInt64(number) + 10, targetName: ServerFixture.targetName)
            try server.addUnit(LogicalUnit(device: device, identity: identity), number: number, toTarget: ServerFixture.targetName)
            return NIOLoopBound(device, eventLoop: loop)
        }
    }

    private static func reportedNumbers(_ initiator: TestInitiator) async throws -> [UInt8] {
        try await initiator.command([0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], reads: 256)
        guard let data = try await initiator.readData() else { return [] }
        return stride(from: 9, to: data.readableBytes, by: 8).compactMap { data.getInteger(at: data.readerIndex + $0) }
    }

    @Test func aUnitThatComesIsToldToEverySession() async throws {
        let fixture = try await ServerFixture()
        let one = try await TestInitiator.session(fixture, isid: 1)
        let two = try await TestInitiator.session(fixture, isid: 2)
        _ = try await Self.addUnit(fixture)
        for initiator in [one, two] {
            #expect(try await initiator.outcome([0x00]).sense == Self.reportedNumbersHaveChanged)
            #expect(try await initiator.outcome([0x00]).status == 0)
            #expect(try await Self.reportedNumbers(initiator) == [0, 1])
            initiator.lun = 1 << 48
            #expect(try await initiator.outcome([0x00]).sense == Self.powerOn)
            try await initiator.read(0, 1)
            #expect(try await initiator.readData() == ByteBuffer(repeating: 0x11, count: 512))
        }
        // Whoever logs in later finds both.
        let late = try await TestInitiator.session(fixture, isid: 3)
        #expect(try await Self.reportedNumbers(late) == [0, 1])
        late.lun = 1 << 48
        #expect(try await late.outcome([0x00]).sense == Self.powerOn)
        try await fixture.stop()
    }

    @Test func commandsOnAUnitThatGoesFinishAndLaterOnesAreRefused() async throws {
        let fixture = try await ServerFixture()
        let device = try await Self.addUnit(fixture)
        let initiator = try await TestInitiator.session(fixture)
        initiator.lun = 1 << 48
        #expect(try await initiator.outcome([0x00]).sense == Self.powerOn)
        let loop = fixture.loop
        try await loop.submit { device.value.isHolding = true }.get()
        let running = try await initiator.write(0, 1, immediate: ByteBuffer(repeating: 0x22, count: 512))
        let collecting = try await initiator.write(8, 64)
        guard case .readyToTransfer(let r2t)? = try await initiator.receive() else { return fail("no R2T") }
        try await fixture.until { _, _ in device.value.pendingCount == 1 }
        let removed = loop.makePromise(of: [UInt8].self)
        try await fixture.run { server, _ in
            server.removeUnit(number: 1, ofTarget: ServerFixture.targetName) { removed.succeed(device.value.bytes) }
        }
        // What had not reached the medium is refused at once, and its data does nothing any more.
        guard case .scsiResponse(let refused)? = try await initiator.receive() else { return fail("no response") }
        #expect(refused.initiatorTaskTag == collecting)
        #expect(refused.sense.getInteger(at: refused.sense.readerIndex + 12) == Self.notSupported)
        try await initiator.answer(r2t, from: ByteBuffer(repeating: 0x33, count: 64 * 512))
        #expect(try await initiator.outcome([0x00]).sense == Self.notSupported)
        #expect(try await fixture.run { server, _ in server.sessionCount } == 1)
        try await loop.submit { device.value.answerAll() }.get()
        guard case .scsiResponse(let done)? = try await initiator.receive() else { return fail("no response") }
        #expect(done.initiatorTaskTag == running && done.status == 0)
        let bytes = try await removed.futureResult.get()
        #expect(bytes[0] == 0x22 && bytes[8 * 512] == 0x11)
        initiator.lun = 0
        #expect(try await initiator.outcome([0x00]).sense == Self.reportedNumbersHaveChanged)
        #expect(try await Self.reportedNumbers(initiator) == [0])
        try await fixture.stop()
    }

    @Test func aSessionThatIsLostDoesNotHoldUpARemoval() async throws {
        let fixture = try await ServerFixture()
        let device = try await Self.addUnit(fixture)
        let initiator = try await TestInitiator.session(fixture)
        initiator.lun = 1 << 48
        #expect(try await initiator.outcome([0x00]).sense == Self.powerOn)
        let loop = fixture.loop
        try await loop.submit { device.value.isHolding = true }.get()
        try await initiator.write(0, 1, immediate: ByteBuffer(repeating: 0x22, count: 512))
        try await fixture.until { _, _ in device.value.pendingCount == 1 }
        let removed = loop.makePromise(of: Int.self)
        try await fixture.run { server, _ in
            server.removeUnit(number: 1, ofTarget: ServerFixture.targetName) { removed.succeed(device.value.pendingCount) }
        }
        initiator.close()
        try await fixture.until { server, _ in server.sessionCount == 0 }
        try await loop.submit { device.value.answerAll() }.get()
        #expect(try await removed.futureResult.get() == 0)
        try await fixture.stop()
    }

    @Test func theLastUnitMayGoAndAnotherCome() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        let removed = fixture.loop.makePromise(of: Void.self)
        try await fixture.run { server, _ in
            server.removeUnit(number: 0, ofTarget: ServerFixture.targetName) { removed.succeed() }
        }
        try await removed.futureResult.get()
        #expect(try await initiator.outcome([0x00]).sense == Self.notSupported)
        #expect(try await Self.reportedNumbers(initiator) == [])
        _ = try await Self.addUnit(fixture, number: 0, byte: 0x44)
        #expect(try await initiator.outcome([0x00]).sense == Self.powerOn)
        try await initiator.read(0, 1)
        #expect(try await initiator.readData() == ByteBuffer(repeating: 0x44, count: 512))
        initiator.close()
        try await fixture.stop()
    }

    @Test func whatCannotBeAddedIsRefused() async throws {
        let fixture = try await ServerFixture { $0.unitsPerTarget = 2 }
        func error(_ number: Int, _ target: String = ServerFixture.targetName) async throws -> StorageTargetError? {
            try await fixture.run { server, device in
                let unit = LogicalUnit(
                    device: device, identity: LogicalUnitIdentity(uniqueHigh: 1, uniqueLow: 9, targetName: target))
                do throws(StorageTargetError) {
                    try server.addUnit(unit, number: number, toTarget: target)
                    return nil
                } catch { return error }
            }
        }
        #expect(try await error(0) == .numberInUse)
        #expect(try await error(1, "iqn.2026-11.test:none") == .noSuchTarget)
        #expect(try await error(20_000) == .invalidDescription("logical unit number 20000"))
        #expect(try await error(1) == nil)
        #expect(try await error(2) == .tooManyUnits)
        try await fixture.stop()
    }

    @Test func aChangedCapacityIsToldToEverySession() async throws {
        let fixture = try await ServerFixture()
        let initiator = try await TestInitiator.session(fixture)
        try await fixture.run { server, device in
            device.bytes += [UInt8](repeating: 0, count: 512 * 8)
            server.capacityDidChange(number: 0, ofTarget: ServerFixture.targetName)
        }
        #expect(try await initiator.outcome([0x00]).sense == 0x2A09)
        try await initiator.read(8192, 8)
        #expect(try await initiator.readData()?.readableBytes == 4096)
        try await fixture.stop()
    }

    /// Units come and go while sessions read and write: each command is answered, and none but with what a removal allows.
    @Test func unitsComeAndGoUnderLoad() async throws {
        let fixture = try await ServerFixture()
        let workers = (1...4).map { index in
            Task {
                let initiator = try await TestInitiator.session(fixture, isid: UInt64(index))
                initiator.lun = 1 << 48
                var counts: [UInt16: Int] = [:]
                for turn in 0..<400 {
                    if turn % 2 == 0 {
                        try await initiator.write(UInt32(turn), 1, immediate: ByteBuffer(repeating: 1, count: 512))
                    } else {
                        try await initiator.read(UInt32(turn), 1)
                    }
                    switch try await initiator.receive() {
                    case .scsiResponse(let response)?:
                        let sense: UInt16? = response.sense.getInteger(at: response.sense.readerIndex + 12)
                        counts[response.status == 0 ? 0 : sense ?? 0xFFFF, default: 0] += 1
                    case .dataIn(let data)?:
                        #expect(data.status == 0 && data.data.readableBytes == 512)
                        counts[0, default: 0] += 1
                    case let other: Issue.record("unexpected \(String(describing: other))")
                    }
                }
                initiator.close()
                return counts
            }
        }
        for _ in 0..<25 {
            _ = try await Self.addUnit(fixture)
            try await Task.sleep(for: .milliseconds(5))
            let removed = fixture.loop.makePromise(of: Void.self)
            try await fixture.run { server, _ in
                server.removeUnit(number: 1, ofTarget: ServerFixture.targetName) { removed.succeed() }
            }
            try await removed.futureResult.get()
        }
        for worker in workers {
            let counts = try await worker.value
            #expect(counts.values.reduce(0, +) == 400)
            #expect(Set(counts.keys).isSubset(of: [0, Self.notSupported, Self.powerOn, Self.reportedNumbersHaveChanged, 0x2907]))
        }
        try await fixture.stop()
    }
}
