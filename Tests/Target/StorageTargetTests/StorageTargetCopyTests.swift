import Blocks
import NIOCore
import SCSI
import Testing

@testable import ISCSI
@testable import StorageTarget

@Suite("Copies between the targets of a server")
struct StorageTargetCopyTests {
    static let otherName = "iqn.2026-11.test:other"

    /// EXTENDED COPY of the first block of `source` to block 100 of `destination`.
    private static func parameters(from source: LogicalUnitIdentity, to destination: LogicalUnitIdentity) -> ByteBuffer {
        var list: [UInt8] = [1, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0]
        for identity in [source, destination] {
            list += [0xE4, 0, 0, 0, 1, 3, 0, 8] + CDB.bytes(identity.nameAddressAuthority, 8)
            list += [UInt8](repeating: 0, count: 12) + [0, 0, 2, 0]
        }
        list += [0x02, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 1] + CDB.bytes(0, 8) + CDB.bytes(100, 8)
        return ByteBuffer(bytes: list)
    }

    private static func copy(_ initiator: TestInitiator, _ list: ByteBuffer) async throws -> SCSIResponsePDU? {
        try await initiator.command(
            [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0] + CDB.bytes(UInt64(list.readableBytes), 4), writes: list.readableBytes, immediate: list)
        guard case .scsiResponse(let response)? = try await initiator.receive() else { return nil }
        return response
    }

    @Test("A copy reaches another target only where the same initiator has a session")
    func rights() async throws {
        let fixture = try await ServerFixture()
        let mine = LogicalUnitIdentity(uniqueHigh: 1, uniqueLow: 2, targetName: ServerFixture.targetName)
        let theirs = LogicalUnitIdentity(uniqueHigh: 1, uniqueLow: 3, targetName: Self.otherName)
        try await fixture.run { server, _ in
            let device = MemoryDevice(sectorCount: 256)
            for index in 0..<512 { device.bytes[index] = 0xC3 }
            let unit = LogicalUnit(device: device, identity: theirs)
            try server.addTarget(TargetDescription(name: Self.otherName, label: "other", units: [(0, unit)]))
        }
        let initiator = try await TestInitiator.session(fixture)
        let notReachable = UInt16(0x0D02)
        let list = Self.parameters(from: theirs, to: mine)
        let alone = try await Self.copy(initiator, list)
        #expect(alone?.status == 2 && alone?.sense.getInteger(at: (alone?.sense.readerIndex ?? 0) + 12) == notReachable)

        // Another initiator's session there is of no use.
        let stranger = try await TestInitiator.connect(fixture)
        stranger.isid = 0x4000_0000_0009
        #expect(try await stranger.login(target: Self.otherName, name: "iqn.2026-11.test:stranger").status == .success)
        let refused = try await Self.copy(initiator, list)
        #expect(refused?.status == 2 && refused?.sense.getInteger(at: (refused?.sense.readerIndex ?? 0) + 12) == notReachable)

        let second = try await TestInitiator.connect(fixture)
        second.isid = 0x4000_0000_0001
        #expect(try await second.login(target: Self.otherName).status == .success)
        #expect(try await Self.copy(initiator, list)?.status == 0)
        #expect(try await fixture.run { _, device in Array(device.bytes[100 * 512..<101 * 512]) } == [UInt8](repeating: 0xC3, count: 512))

        // And no longer when the session has gone.
        second.close()
        try await fixture.until { server, _ in server.sessions(ofTarget: Self.otherName).count == 1 }
        #expect(try await Self.copy(initiator, list)?.status == 2)
        for one in [initiator, stranger] { one.close() }
        try await fixture.stop()
    }
}
