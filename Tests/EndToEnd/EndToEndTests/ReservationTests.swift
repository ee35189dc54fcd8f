import Foundation
import Initiator
import Testing

extension EndToEnd {
    @Suite(.serialized)
    struct Reservations {
        /// An initiator port that stays the same over sessions.
        private static func session(_ lab: Lab, _ number: UInt32) throws -> BlockingInitiator {
            var options = ISCSIInitiatorSession.Options()
            options.initiatorName = "iqn.2026-01.example:node-\(number)"
            options.port = number
            return try BlockingInitiator(url: lab.url("data"), options: options)
        }

        private static func bytes(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * $0)) } }

        /// PERSISTENT RESERVE OUT.
        private static func out(
            _ initiator: BlockingInitiator, action: UInt8, type: UInt8 = 0, key: UInt64, actionKey: UInt64 = 0, flags: UInt8 = 0
        ) throws {
            let list = bytes(key) + bytes(actionKey) + [0, 0, 0, 0, flags, 0, 0, 0]
            _ = try initiator.execute(cdb: [0x5F, action, type, 0, 0, 0, 0, 0, 24, 0], dataOut: list)
        }

        private static func keys(_ initiator: BlockingInitiator) throws -> [UInt8] {
            try initiator.execute(cdb: [0x5E, 0, 0, 0, 0, 0, 0, 1, 0, 0], dataInByteCount: 256)
        }

        private static let conflict = InitiatorError.commandFailed(.failed(status: 0x18))
        private static let block = [UInt8](repeating: 7, count: 512)

        /// Takes what a new session or another initiator has left to be told.
        private static func settle(_ initiator: BlockingInitiator) {
            for _ in 0..<8 where (try? initiator.execute(cdb: [0, 0, 0, 0, 0, 0])) != nil { return }
        }

        @Test("APTPL: registrations and reservation outlive SIGKILL of the cloud daemon; without it they do not")
        func powerLoss() async throws {
            try await Lab.with(disks: [("data", 32 << 20)]) { lab in
                let one = try Self.session(lab, 1)
                let two = try Self.session(lab, 2)
                Self.settle(one)
                Self.settle(two)
                try Self.out(one, action: 0, key: 0, actionKey: 0x11, flags: 1)
                try Self.out(two, action: 0, key: 0, actionKey: 0x22, flags: 1)
                try Self.out(one, action: 1, type: 5, key: 0x11)
                let file = URL(fileURLWithPath: lab.edge(.cloud).state).appendingPathComponent("volumes")
                let volume = try #require(FileManager.default.contentsOfDirectory(atPath: file.path).first)
                let path = file.appendingPathComponent(volume).appendingPathComponent("reservations").path
                let content = try #require(FileManager.default.contents(atPath: path))
                #expect(content.range(of: Data("node-1".utf8)) == nil, "an initiator's name is on the cloud disk")

                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                let again = try Self.session(lab, 1)
                let other = try Self.session(lab, 2)
                let stranger = try Self.session(lab, 3)
                for initiator in [again, other, stranger] { Self.settle(initiator) }
                #expect(try Self.keys(again).dropFirst(4) == [0, 0, 0, 16] + Self.bytes(0x11) + Self.bytes(0x22))
                try again.write(block: 0, data: Self.block)
                try other.write(block: 0, data: Self.block)
                #expect(throws: Self.conflict) { try stranger.write(block: 0, data: Self.block) }
                #expect(try stranger.read(block: 0, blockCount: 1) == Self.block)

                // The last command says that nothing is to be kept.
                try Self.out(other, action: 6, key: 0, actionKey: 0x23)
                #expect(!FileManager.default.fileExists(atPath: path))
                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                let last = try Self.session(lab, 3)
                Self.settle(last)
                #expect(try Self.keys(last) == [0, 0, 0, 0, 0, 0, 0, 0])
                try last.write(block: 0, data: Self.block)
            }
        }

        @Test("a damaged reservation file keeps the volume from being served until it is gone")
        func damage() async throws {
            try await Lab.with(disks: [("data", 32 << 20)]) { lab in
                let one = try Self.session(lab, 1)
                Self.settle(one)
                try Self.out(one, action: 0, key: 0, actionKey: 0x11, flags: 1)
                let volumes = URL(fileURLWithPath: lab.edge(.cloud).state).appendingPathComponent("volumes")
                let volume = try #require(FileManager.default.contentsOfDirectory(atPath: volumes.path).first)
                let path = volumes.appendingPathComponent(volume).appendingPathComponent("reservations")
                try await lab.kill(.cloud)
                var content = try Data(contentsOf: path)
                content[100] ^= 1
                try content.write(to: path)
                try await lab.restart(.cloud)
                try await Lab.untilTrue(seconds: 60, "the event about the file") {
                    let events = try await lab.causeway(.cloud, "events", "--output", "json")
                    return events.output.contains("volume.failed") && events.output.contains("initiators that are shut out")
                }
                #expect(throws: InitiatorError.self) { try Self.session(lab, 1) }
                try FileManager.default.removeItem(at: path)
                try await lab.untilServing("data")
                let again = try Self.session(lab, 1)
                Self.settle(again)
                #expect(try Self.keys(again) == [0, 0, 0, 0, 0, 0, 0, 0])
            }
        }
    }
}
