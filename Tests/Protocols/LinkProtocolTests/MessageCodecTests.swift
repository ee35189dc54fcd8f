import Blocks
import NIOCore
import Testing

@testable import LinkProtocol

@Suite struct MessageCodecTests {
    static let volume = VolumeIdentifier(high: 0x0123_4567_89AB_CDEF, low: 42)

    static func range(_ start: UInt64, _ count: UInt64) -> SectorRange { SectorRange(from: start, to: start + count) }

    static let messages: [LinkMessage] = [
        .request(call: 1, method: "volumes.open", body: ByteBuffer(string: "{\"a\":1}")),
        .request(call: .max, method: String(repeating: "m", count: LinkLimits.methodBytes), body: ByteBuffer()),
        .reply(call: 7, status: 404, body: ByteBuffer(string: "{}")),
        .notice(method: "grüß", body: ByteBuffer(bytes: [0, 255])),
        .readRequest(read: 9, volume: volume, range: range(8, 4096)),
        .readData(read: 9, offset: 16384, data: ByteBuffer(repeating: 7, count: LinkLimits.pieceBytes)),
        .readZeroes(read: 9, offset: 0, byteCount: .max),
        .readReferences(read: 9, offset: 8, source: .init(high: 3, low: 4), block: 70, digests: [BlockDigest((1, 2, 3, .max))]),
        .readPlainRequest(read: 9, volume: .init(high: 3, low: 4), range: SectorRange(from: 8, to: 24), offset: 4_096),
        .pointReferences(
            volume: volume, point: 12, start: 80, source: .init(high: 3, low: 4), block: 70,
            digests: Array(repeating: BlockDigest((1, 2, 3, .max)), count: LinkLimits.references)),
        .pointPieceRequest(volume: volume, point: 12, range: range(80, 1_024)),
        .pointPiece(volume: volume, point: 12, start: 80, data: ByteBuffer(repeating: 1, count: 8_192)),
        .pointWithdrawn(volume: volume, point: 12),
        .tunnelOpen(stream: 1, window: 65_536, name: "ldap"), .tunnelOpened(stream: 1, window: 65_536),
        .tunnelData(stream: 1, isShort: true, data: ByteBuffer(string: "bytes")), .tunnelCredit(stream: 1, byteCount: 16_384),
        .tunnelFinish(stream: 2), .tunnelReset(stream: 2, reason: .busy),
        .readFailed(read: 9, status: .busy),
        .allocationRequest(read: 10, volume: volume, range: range(8, 1 << 40)),
        .allocationReply(
            read: 10,
            runs: [AllocationRun(sectorCount: 1, allocation: .mapped), AllocationRun(sectorCount: (1 << 63) - 1, allocation: .deallocated)]),
        .pointBegin(volume: volume, generation: 3, point: 12),
        .pointData(volume: volume, point: 12, start: 77, data: ByteBuffer(repeating: 1, count: 512)),
        .pointZeroes(volume: volume, point: 12, range: range(0, 1)),
        .pointCommit(volume: volume, point: 12, pieces: 2, digest: 0xDEAD_BEEF),
        .pointReceived(volume: volume, point: 12),
        .pointApplied(volume: volume, point: 12),
        .pointRefused(volume: volume, point: 12, refusal: .noSpace),
        .pointAttributes(volume: volume, point: 12, attributes: PointAttributes(consistency: .application, label: "nightly")),
        .pointAttributes(
            volume: volume, point: 12,
            attributes: PointAttributes(
                group: GroupPoint(
                    group: GroupIdentifier(high: 1, low: 2), number: 7,
                    members: [
                        .init(volume: volume, point: 12, isSealed: true), .init(volume: .init(high: 1, low: 1), point: 0, isSealed: false),
                    ]
                ))),
    ]

    static func encoded(_ message: LinkMessage) -> ByteBuffer {
        var buffer = ByteBuffer()
        message.encode(into: &buffer)
        return buffer
    }

    @Test(arguments: messages) func aMessageSurvivesItsEncoding(_ message: LinkMessage) throws {
        let bytes = Self.encoded(message)
        #expect(message.isEncodable)
        #expect(bytes.readableBytes == message.encodedBytes)
        #expect(try LinkMessage.decode(bytes) == message)
    }

    @Test(arguments: messages) func aMessageThatIsCutShortIsRefusedOrShorter(_ message: LinkMessage) {
        let bytes = Self.encoded(message)
        for length in 0..<min(bytes.readableBytes, 64) {
            let decoded = bytes.getSlice(at: 0, length: length).flatMap { try? LinkMessage.decode($0) }
            // Only kinds that end in free bytes can still be messages.
            if let decoded { #expect(decoded != message) }
        }
    }

    @Test func messagesBeyondTheLimitsAreNotSent() {
        let tooLong = ByteBuffer(repeating: 0, count: LinkLimits.pieceBytes + 1)
        let refused: [LinkMessage] = [
            .readData(read: 1, offset: 0, data: tooLong),
            .readData(read: 1, offset: 0, data: ByteBuffer()),
            .pointData(volume: Self.volume, point: 1, start: 0, data: ByteBuffer(repeating: 0, count: 511)),
            .pointData(volume: Self.volume, point: 1, start: .max, data: ByteBuffer(repeating: 0, count: 512)),
            .readReferences(read: 1, offset: 0, source: Self.volume, block: 0, digests: []),
            .readReferences(read: 1, offset: 0, source: Self.volume, block: .max, digests: [BlockDigest((1, 2, 3, 4))]),
            .pointReferences(volume: Self.volume, point: 1, start: 4, source: Self.volume, block: 0, digests: [BlockDigest((1, 2, 3, 4))]),
            .pointPieceRequest(volume: Self.volume, point: 1, range: Self.range(0, 1_032)),
            .pointPiece(volume: Self.volume, point: 1, start: 0, data: ByteBuffer(repeating: 0, count: 512)),
            .allocationReply(read: 1, runs: []),
            .allocationReply(read: 1, runs: [AllocationRun(sectorCount: 0, allocation: .mapped)]),
            .allocationReply(read: 1, runs: [AllocationRun(sectorCount: 1 << 63, allocation: .mapped)]),
            .allocationReply(
                read: 1, runs: Array(repeating: AllocationRun(sectorCount: 1, allocation: .mapped), count: LinkLimits.allocationRuns + 1)),
            .notice(method: "", body: ByteBuffer()),
            .notice(method: String(repeating: "m", count: 256), body: ByteBuffer()),
            .reply(call: 1, status: 200, body: ByteBuffer(repeating: 0, count: LinkLimits.controlMessageBytes)),
        ]
        for message in refused { #expect(!message.isEncodable) }
    }

    @Test func mutatedMessagesNeverTrapAndDecodeOnlyToWhatEncodesBack() {
        var generator = SeededGenerator(seed: 1)
        var decodedCount = 0
        for _ in 0..<20_000 {
            guard let message = Self.messages.randomElement(using: &generator) else { continue }
            var bytes = [UInt8](Self.encoded(message).readableBytesView.prefix(128))
            for _ in 0..<Int.random(in: 0...4, using: &generator) where !bytes.isEmpty {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            bytes = [UInt8](bytes.prefix(Int.random(in: 0...bytes.count, using: &generator)))
            if let decoded = try? LinkMessage.decode(ByteBuffer(bytes: bytes)) {
                decodedCount += 1
                #expect([UInt8](Self.encoded(decoded).readableBytesView) == bytes)
            }
        }
        #expect(decodedCount > 1000)
    }
}
