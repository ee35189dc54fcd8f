import Blocks
import NIOCore
import SCSI
import StorageTarget
import Testing

@testable import NBD
@testable import NetworkBlockServer

private func pattern(_ count: Int, seed: UInt8) -> ByteBuffer {
    ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) ^ seed | 1 })
}

@Suite struct TransmissionTests {
    @Test(arguments: [true, false]) func whatIsWrittenIsReadBack(_ structured: Bool) async throws {
        let fixture = try await ServerFixture()
        let client = try await TestClient.transmitting(fixture, structured: structured)
        // Lengths from a part of a sector to more than a piece, at places that are not a sector's.
        let cases: [(UInt64, Int)] = [(0, 512), (4096, 65_536), (1, 3), (511, 2), (100, 1024), (1000, 200_000), (1 << 20, 131_072)]
        for (index, (offset, count)) in cases.enumerated() {
            let data = pattern(count, seed: UInt8(index))
            let before = try await fixture.run { $0.disk.bytes }
            try await client.send(
                NBDRequest(command: .write, handle: UInt64(index), offset: offset, byteCount: UInt32(count)), data)
            #expect(try await client.reply() == TestClient.Reply(handle: UInt64(index)))
            var expected = before
            expected.replaceSubrange(Int(offset)..<Int(offset) + count, with: data.readableBytesView)
            let after = try await fixture.run { $0.disk.bytes }
            #expect(after == expected)
            for isResident in [true, false] {
                try await fixture.run { $0.disk.isResident = isResident }
                try await client.send(NBDRequest(command: .read, handle: 99, offset: offset, byteCount: UInt32(count)))
                let reply = try await client.reply(readByteCount: count)
                #expect(reply?.error == 0 && reply?.handle == 99)
                #expect(reply?.data == data)
            }
        }
        client.close()
        try await fixture.stop()
    }

    @Test func zeroesAreSentAsHoles() async throws {
        let fixture = try await ServerFixture()
        try await fixture.run { parts in for index in 0..<147_456 { parts.disk.bytes[index] = 0 } }
        let client = try await TestClient.transmitting(fixture)
        for isResident in [true, false] {
            try await fixture.run { $0.disk.isResident = isResident }
            try await client.send(NBDRequest(command: .read, handle: 1, offset: 512, byteCount: 4096))
            #expect(try await client.reply() == .init(handle: 1, data: ByteBuffer(repeating: 0, count: 4096), holes: 1, chunks: 1))
        }
        // The first two pieces are zero, the third is not all.
        try await client.send(NBDRequest(command: .read, handle: 2, offset: 0, byteCount: 196_608))
        let reply = try #require(await client.reply())
        #expect(reply.holes == 2 && reply.chunks == 3)
        #expect(try await fixture.run { Array($0.disk.bytes[..<196_608]) } == Array(reply.data.readableBytesView))
        // Not to be fragmented: one chunk, with the zeroes in it.
        try await client.send(NBDRequest(command: .read, flags: .dontFragment, handle: 3, offset: 0, byteCount: 196_608))
        let whole = try #require(await client.reply())
        #expect(whole.chunks == 1 && whole.holes == 0 && whole.data == reply.data)
        try await fixture.stop()
    }

    @Test func flushAndForceUnitAccessReachTheDevice() async throws {
        let fixture = try await ServerFixture()
        let client = try await TestClient.transmitting(fixture)
        let data = pattern(512, seed: 1)
        try await client.send(NBDRequest(command: .write, handle: 1, offset: 0, byteCount: 512), data)
        #expect(try await client.reply()?.error == 0)
        #expect(try await fixture.run { $0.disk.durableWrites } == 0)
        try await client.send(NBDRequest(command: .write, flags: .forceUnitAccess, handle: 2, offset: 0, byteCount: 512), data)
        #expect(try await client.reply()?.error == 0)
        try await client.send(NBDRequest(command: .trim, flags: .forceUnitAccess, handle: 2, offset: 0, byteCount: 512))
        #expect(try await client.reply()?.error == 0)
        #expect(try await fixture.run { $0.disk.durableWrites } == 2)
        try await client.send(NBDRequest(command: .flush, handle: 3))
        #expect(try await client.reply() == .init(handle: 3))
        #expect(try await fixture.run { $0.disk.flushes } == 1)
        try await fixture.stop()
    }

    @Test func zeroesAreHolesUnlessTheyAreToTakeUpSpace() async throws {
        let fixture = try await ServerFixture()
        let client = try await TestClient.transmitting(fixture)
        func send(_ command: NBDCommand, _ flags: NBDCommandFlags, _ offset: UInt64, _ count: UInt32) async throws -> UInt32? {
            try await client.send(NBDRequest(command: command, flags: flags, handle: 1, offset: offset, byteCount: count))
            return try await client.reply()?.error
        }
        #expect(try await send(.writeZeroes, .fastZero, 4096, 8192) == 0)
        #expect(try await fixture.run { $0.disk.zeroedRanges } == [SectorRange(from: 8, to: 24)])
        // Parts of sectors are written, the rest are holes.
        #expect(try await send(.writeZeroes, [], 20_480 + 100, 1024) == 0)
        #expect(try await fixture.run { $0.disk.zeroedRanges.last } == SectorRange(from: 41, to: 42))
        #expect(
            try await fixture.run {
                $0.disk.bytes[20_580..<21_604].allSatisfy { $0 == 0 } && $0.disk.bytes[20_579] != 0 && $0.disk.bytes[21_604] != 0
            })
        #expect(try await send(.writeZeroes, .noHole, 1 << 20, 1 << 19) == 0)
        #expect(try await fixture.run { $0.disk.bytes[(1 << 20)..<(3 << 19)].allSatisfy { $0 == 0 } })
        // A trim that names parts of sectors leaves those alone.
        #expect(try await send(.trim, [], 7 << 18 + 1, 1024) == 0)
        #expect(try await fixture.run { $0.disk.zeroedRanges.count } == 3)
        #expect(try await send(.trim, [], 7 << 18 + 1, 100) == 0)
        #expect(try await fixture.run { $0.disk.zeroedRanges.count } == 3)
        // What cannot be fast says so.
        #expect(try await send(.writeZeroes, [.fastZero, .noHole], 0, 512) == NBDErrorNumber.notSupported.rawValue)
        #expect(try await send(.writeZeroes, .fastZero, 1, 512) == NBDErrorNumber.notSupported.rawValue)
        try await fixture.stop()
    }

    @Test func blockStatusAndCache() async throws {
        let fixture = try await ServerFixture()
        try await fixture.run { parts in for index in 0..<65_536 { parts.disk.bytes[index] = 0 } }
        let client = try await TestClient.transmitting(fixture)
        try await client.send(NBDRequest(command: .blockStatus, handle: 1, offset: 1, byteCount: 131_071))
        #expect(try await client.reply()?.allocation == [65_535, 3, 65_536, 0])
        try await client.send(NBDRequest(command: .blockStatus, flags: .requestOne, handle: 1, offset: 4096, byteCount: 131_072))
        #expect(try await client.reply()?.allocation == [61_440, 3])
        try await client.send(NBDRequest(command: .cache, handle: 2, offset: 1, byteCount: (2 << 20) - 1))
        #expect(try await client.reply() == .init(handle: 2))
        try await fixture.run { $0.disk.error = .medium("broken") }
        try await client.send(NBDRequest(command: .cache, handle: 3, offset: 1, byteCount: (2 << 20) - 1))
        #expect(try await client.reply()?.error == 5)
        try await fixture.stop()
    }

    @Test func errorsOfTheDeviceAreTold() async throws {
        let fixture = try await ServerFixture { limits in
            limits.retryTime = .milliseconds(20)
            limits.retryPause = .milliseconds(5)
        }
        for structured in [true, false] {
            let client = try await TestClient.transmitting(fixture, structured: structured)
            try await fixture.run { $0.disk.isResident = false }
            let errors: [(BlockDeviceError, UInt32)] = [
                (.medium("broken"), 5), (.unreachable("down"), 5), (.stopped("gone"), 108), (.noSpace("full"), 28),
                (.writeProtected, 1), (.outOfRange, 22),
            ]
            for (error, number) in errors {
                try await fixture.run { $0.disk.error = error }
                for count in [512, 196_608] {
                    try await client.send(NBDRequest(command: .read, handle: 7, byteCount: UInt32(count)))
                    #expect(try await client.reply(readByteCount: count)?.error == number)
                }
                try await client.send(NBDRequest(command: .write, handle: 8, byteCount: 196_608), pattern(196_608, seed: 0))
                #expect(try await client.reply()?.error == number)
                try await client.send(NBDRequest(command: .flush, handle: 9))
                #expect(try await client.reply()?.error == number)
            }
            try await fixture.run { $0.disk.error = nil }
            client.close()
        }
        try await fixture.stop()
    }

    @Test func aRequestWaitsWhileTheOtherSiteIsAway() async throws {
        let fixture = try await ServerFixture { $0.retryPause = .milliseconds(1) }
        let client = try await TestClient.transmitting(fixture)
        try await fixture.run { parts in
            parts.disk.isResident = false
            parts.disk.error = .unreachable("the link is down")
        }
        try await client.send(NBDRequest(command: .read, handle: 1, byteCount: 512))
        try await client.send(NBDRequest(command: .flush, handle: 2))
        try await fixture.until { $0.server.connections(toExport: "disk").first?.requestsInFlight == 2 }
        try await fixture.run { $0.disk.error = nil }
        #expect(Set([try await client.reply()?.handle, try await client.reply()?.handle]) == [1, 2])
        try await fixture.stop()
    }

    @Test func aReservationKeepsNBDOut() async throws {
        let fixture = try await ServerFixture()
        let client = try await TestClient.transmitting(fixture)
        let nexus = NexusIdentifier(1)
        /// Sends a command as an initiator.
        func scsi(_ cdb: [UInt8]) async throws {
            try await fixture.run { parts in
                guard case .accepted(let task) = parts.unit.admit(CommandDescriptorBlock(cdb), nexus: nexus) else {
                    Issue.record("refused")
                    return
                }
                parts.unit.execute(task) { #expect($0.status == .good) }
            }
        }
        try await fixture.run { parts in
            #expect(parts.unit.addNexus(nexus, initiatorPortName: "iqn.x,i,0x1"))
            // The power-on attention.
            _ = parts.unit.admit(CommandDescriptorBlock([0, 0, 0, 0, 0, 0]), nexus: nexus)
        }
        func errors() async throws -> [UInt32?] {
            var errors: [UInt32?] = []
            for command in [NBDCommand.read, .write, .trim, .flush] {
                let count: UInt32 = command == .flush ? 0 : 512
                try await client.send(
                    NBDRequest(command: command, handle: 1, byteCount: count), command == .write ? pattern(512, seed: 1) : ByteBuffer())
                errors.append(try await client.reply()?.error)
            }
            return errors
        }
        #expect(try await errors() == [0, 0, 0, 0])
        try await scsi([0x16, 0, 0, 0, 0, 0])
        #expect(try await errors() == [1, 1, 1, 1])
        try await scsi([0x17, 0, 0, 0, 0, 0])
        #expect(try await errors() == [0, 0, 0, 0])
        try await fixture.stop()
    }

    @Test func aReadOnlyUnitIsAReadOnlyExport() async throws {
        let fixture = try await ServerFixture()
        try await fixture.run { $0.disk.isWriteProtected = true }
        let client = try await TestClient.transmitting(fixture)
        try await client.send(NBDRequest(command: .write, handle: 1, byteCount: 4096), pattern(4096, seed: 1))
        #expect(try await client.reply()?.error == 1)
        // The payload was skipped, and the connection goes on.
        try await client.send(NBDRequest(command: .read, handle: 2, byteCount: 512))
        #expect(try await client.reply()?.error == 0)
        try await fixture.stop()
    }

    @Test func aCompareAndWriteAndAnUpdateDoNotMix() async throws {
        let fixture = try await ServerFixture()
        let client = try await TestClient.transmitting(fixture)
        try await fixture.run { $0.disk.isHolding = true }
        // The update has read its sector and is about to write; the plain write must wait for it.
        try await client.send(NBDRequest(command: .write, handle: 1, offset: 10, byteCount: 4), ByteBuffer(bytes: [9, 9, 9, 9]))
        try await client.send(NBDRequest(command: .write, handle: 2, offset: 0, byteCount: 512), ByteBuffer(repeating: 7, count: 512))
        try await fixture.until { $0.server.connections(toExport: "disk").first?.requestsInFlight == 2 }
        #expect(try await fixture.run { $0.disk.pendingCount } == 1)
        try await fixture.run { $0.disk.answerAll() }
        #expect(try await client.reply()?.handle == 1)
        #expect(try await client.reply()?.handle == 2)
        #expect(try await fixture.run { $0.disk.bytes[0..<512].allSatisfy { $0 == 7 } })
        try await fixture.stop()
    }
}
