import APIModels
import Blocks
import Checksums
import Ciphers
import Files
import Foundation
import NIOCore
import NIOPosix
import SCSI
import Testing

@testable import EdgeServices

@Suite("The file of persistent reservations")
struct ReservationFileTests {
    let volume = VolumeIdentifier(high: 1, low: 2)
    let salt = [UInt8](repeating: 7, count: 32)

    func key(_ byte: UInt8 = 1) throws -> SecretKey { try SecretKey([UInt8](repeating: byte, count: 32)) }

    func state() throws -> PersistentReservations {
        var state = PersistentReservations()
        let registrant = Registrant(initiatorPortName: InitiatorPort.name(initiatorName: "iqn.2026-01.example:secret-node", isid: 5))
        var parameters = PersistentReserveParameters(key: 0, serviceActionKey: 0xABCD_EF01_2345_6789)
        parameters.activatesPersistence = true
        let surroundings = PersistentReservations.Surroundings(canPersist: true)
        _ = try state.perform(PersistentReserveOut(serviceAction: .register), parameters, by: registrant, in: surroundings)
        _ = try state.perform(
            PersistentReserveOut(serviceAction: .reserve, type: 3), PersistentReserveParameters(key: 0xABCD_EF01_2345_6789),
            by: registrant)
        return state
    }

    @Test("What was sealed is opened, and tells nothing to who has no key")
    func roundTrip() throws {
        let state = try state()
        let file = try ReservationFileFormat.seal(state.encoded(), volume: volume, key: key(), salt: salt)
        #expect(file.readableBytes == 64 + 4096 + 16 + 4)
        let opened = try ReservationFileFormat.open(file, volume: volume, keys: DataKeys(key())).state
        #expect(opened.isKeptAs(state) && opened.isPersistent)
        let bytes = Data(file.readableBytesView)
        #expect(bytes.range(of: Data("secret-node".utf8)) == nil)
        #expect(bytes.range(of: Data([0xAB, 0xCD, 0xEF, 0x01])) == nil)
    }

    @Test("A damaged, foreign or later file is refused")
    func refusals() throws {
        let file = try ReservationFileFormat.seal(state().encoded(), volume: volume, key: key(), salt: salt)
        #expect(throws: SealedFileError.wrongKey) { try ReservationFileFormat.open(file, volume: volume, keys: DataKeys(key(2))) }
        #expect(throws: SealedFileError.otherOwner) {
            try ReservationFileFormat.open(file, volume: VolumeIdentifier(high: 1, low: 3), keys: DataKeys(key()))
        }
        for index in stride(from: 0, to: file.readableBytes, by: 61) {
            #expect(throws: SealedFileError.damaged) {
                try ReservationFileFormat.open(file.getSlice(at: 0, length: index) ?? file, volume: volume, keys: DataKeys(key()))
            }
            #expect(throws: SealedFileError.damaged) {
                try ReservationFileFormat.open(changed(file, at: index, mends: false), volume: volume, keys: DataKeys(key()))
            }
        }
        // Whoever mends the checksum is stopped by the tag, which covers the header too.
        for index in [10, 12, 40, 64, 1000, 64 + 4096] {
            #expect(throws: SealedFileError.self) {
                try ReservationFileFormat.open(changed(file, at: index, mends: true), volume: volume, keys: DataKeys(key()))
            }
        }
        #expect(throws: SealedFileError.unknownVersion(257)) {
            try ReservationFileFormat.open(changed(file, at: 8, mends: true), volume: volume, keys: DataKeys(key()))
        }
    }

    func changed(_ file: ByteBuffer, at index: Int, mends: Bool) throws -> ByteBuffer {
        var changed = file
        let byte = try #require(file.getInteger(at: index, as: UInt8.self))
        changed.setInteger(byte ^ 1, at: index)
        if mends {
            let bound = try #require(changed.getSlice(at: 0, length: changed.readableBytes - 4))
            changed.setInteger(CRC32C.checksum(of: bound), at: bound.readableBytes)
        }
        return changed
    }

    @Test("Stored, loaded, replaced, removed")
    func file() async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-reservations-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let directory = try OpenDirectory(path, create: true)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        let state = try state()
        let (volume, keys) = (volume, DataKeys(try key()))

        func load() async throws -> PersistentReservations? {
            let promise = eventLoop.makePromise(of: PersistentReservations?.self)
            eventLoop.execute {
                ReservationFile(directory: directory, volume: volume, keys: keys, eventLoop: eventLoop, threadPool: .singleton)
                    .load { promise.completeWith($0) }
            }
            return try await promise.futureResult.get()
        }
        func store(_ state: ByteBuffer?) async throws -> Bool {
            let promise = eventLoop.makePromise(of: Bool.self)
            eventLoop.execute {
                ReservationFile(directory: directory, volume: volume, keys: keys, eventLoop: eventLoop, threadPool: .singleton)
                    .store(state) { promise.succeed($0) }
            }
            return try await promise.futureResult.get()
        }
        #expect(try await load() == nil)
        #expect(try await store(state.encoded()))
        #expect(try await load()?.isKeptAs(state) == true)
        #expect(try await store(state.encoded()))
        #expect(try directory.list().filter { !$0.hasPrefix(".") || $0.count > 2 } == [ReservationFile.name])
        #expect(try await store(nil))
        #expect(try await load() == nil)
        try directory.replaceFile(ReservationFile.name, with: [1, 2, 3])
        await #expect(throws: Problem.self) { try await load() }
    }
    @Test("A new key seals the file anew, in turn with what else changes it")
    func rotation() async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-reservations-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let directory = try OpenDirectory(path, create: true)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        let encoded = try state().encoded()
        let volume = volume
        let (first, both, second) = (
            DataKeys(try key(1)), try #require(DataKeys([1: key(1), 2: key(2)])), DataKeys(try key(2), generation: 2)
        )
        let written = eventLoop.makePromise(of: Bool.self)
        let generations = eventLoop.makePromise(of: [Set<UInt64>].self)
        eventLoop.execute {
            let file = ReservationFile(
                directory: directory, volume: volume, keys: first, eventLoop: eventLoop, threadPool: .singleton)
            var found: [Set<UInt64>] = []
            file.store(encoded) { isWritten in
                written.succeed(isWritten)
                found.append(file.keyGenerations)
                file.use(both)
                // Behind the sealing anew in the row.
                file.store(encoded) { _ in
                    found.append(file.keyGenerations)
                    generations.succeed(found)
                }
            }
            // Also while it is on its way: home must not destroy its key before it is there.
            found.append(file.keyGenerations)
        }
        #expect(try await written.futureResult.get())
        #expect(try await generations.futureResult.get() == [[1], [1], [2]])
        let bytes = ByteBuffer(bytes: try directory.readFile(ReservationFile.name, byteCountMax: 1 << 20))
        #expect(try ReservationFileFormat.open(bytes, volume: volume, keys: second).state.isKeptAs(state()))
        #expect(throws: SealedFileError.wrongKey) { try ReservationFileFormat.open(bytes, volume: volume, keys: first) }
    }
}
