import Blocks
import Compression
import LinkProtocol
import NIOCore

/// The stream of a link's connection, cut into frames and taken by a session: hellos, acknowledgements, data in all classes.
///
/// Input: options (bit 0: which end; bit 1: the stream comes on two connections in turn), how it is cut, the stream.
public final class LinkFrameTarget: FuzzTarget {
    public static let name = "link-frame"
    public static let dictionary: [[UInt8]] = [
        Array("CWLK".utf8), [0x43, 0x57, 0x4C, 0x4B, 0, 1, 0, 1], [0, 0, 0x40, 0x40], [2, 0, 0, 0], [2, 1, 4, 0], [2, 2, 0, 0],
        [2, 0, 3, 0x80], [2, 0, 3, 0], [3, 0, 0, 0],
    ]

    public init() {}

    public static func seeds() -> [[UInt8]] {
        var seeds: [[UInt8]] = []
        // Two true sessions talk to each other, and each side's stream is a seed for the other.
        for role in [LinkRole.acceptor, .initiator] {
            let streams = LinkSamples.conversation()
            let stream = role == .acceptor ? streams.toAcceptor : streams.toInitiator
            seeds.append([role == .acceptor ? 0 : 1, 0] + stream)
            seeds.append([role == .acceptor ? 2 : 3, 9] + stream)
        }
        return seeds
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let options = reader.byte()
        var cut = SeededGenerator(seed: UInt64(reader.byte()))
        let stream = reader.rest()
        var random = SeededGenerator(seed: 7)
        let session = LinkSession(role: options & 1 == 0 ? .acceptor : .initiator, random: RandomSource { random.next() })
        let connections = options & 2 == 0 ? [ConnectionIdentifier(1)] : [ConnectionIdentifier(1), ConnectionIdentifier(2)]
        var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        for connection in connections { session.connectionOpened(connection, now: now) }
        var decoder = FrameDecoder()
        var fingerprint = Fingerprint()
        var position = 0
        var count = 0
        reading: while position < stream.count {
            let length = min(stream.count - position, 1 + cut.below(400))
            decoder.append(ByteBuffer(bytes: stream[position..<position + length]))
            position += length
            do throws(LinkViolation) {
                while let frame = try decoder.next() {
                    now = now + .milliseconds(1)
                    session.receive(frame, on: connections[count % connections.count], now: now)
                    count += 1
                    if drain(session, now, &fingerprint) { break reading }
                }
            } catch {
                fingerprint.add(error.description.utf8.count)
                break
            }
            if decoder.pendingBytes > FrameHeader.byteCount + LinkLimits.framePayloadBytes + LinkLimits.compressionOverheadBytes + 400 {
                throw FuzzFinding("\(decoder.pendingBytes) bytes wait for one frame")
            }
        }
        session.tick(now: now + .seconds(3))
        _ = drain(session, now + .seconds(3), &fingerprint)
        return fingerprint.value
    }

    /// Does what the session wants; true when it has ended its connections.
    private func drain(_ session: LinkSession, _ now: NIODeadline, _ fingerprint: inout Fingerprint) -> Bool {
        var hasClosed = false
        while let action = session.nextAction() {
            switch action {
            case .closeConnection(_, let reason):
                fingerprint.add(String(describing: reason).prefix { !$0.isNumber }.count)
                hasClosed = true
            case .deliver(let message, let trafficClass):
                fingerprint.add(UInt64(message.encodedBytes.bitWidth - message.encodedBytes.leadingZeroBitCount) << 8)
                fingerprint.add(trafficClass.rawValue)
                // Whoever gets a message may answer.
                if case .readRequest(let read, _, _) = message { _ = session.enqueue(.readFailed(read: read, status: .busy), .demand) }
            default: fingerprint.add(9)
            }
        }
        while let transmission = session.nextTransmission(now: now) { fingerprint.add(transmission.header.kind.rawValue) }
        return hasClosed && !session.isConnected
    }

    /// The lengths of frames that run over the end, and their sequences.
    public func repair(_ input: inout [UInt8]) {
        var position = 2
        while position + FrameHeader.byteCount <= input.count {
            let payload = Int(input[position + 5]) << 16 | Int(input[position + 6]) << 8 | Int(input[position + 7])
            let end = position + FrameHeader.byteCount + payload
            if end > input.count || input[position + 4] != 0 {
                let left = input.count - position - FrameHeader.byteCount
                for field in [4, 8] {
                    (input[position + field], input[position + field + 1]) = (0, 0)
                    input[position + field + 2] = UInt8(truncatingIfNeeded: left >> 8)
                    input[position + field + 3] = UInt8(truncatingIfNeeded: left)
                }
                return
            }
            for byte in 0..<4 { input[position + 8 + byte] = input[position + 4 + byte] }
            position = end
        }
    }
}

/// The messages of the link. Input: one message.
public final class LinkMessageTarget: FuzzTarget {
    public static let name = "link-message"

    public init() {}

    public static func seeds() -> [[UInt8]] {
        LinkSamples.messages.map { message in
            var buffer = ByteBuffer()
            message.encode(into: &buffer)
            return Array(buffer.readableBytesView)
        }
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var fingerprint = Fingerprint()
        fingerprint.add(input.first ?? 0)
        let message: LinkMessage
        do throws(LinkViolation) { message = try LinkMessage.decode(ByteBuffer(bytes: input)) } catch {
            fingerprint.add(error.description.utf8.count)
            return fingerprint.value
        }
        var encoded = ByteBuffer()
        message.encode(into: &encoded)
        guard Array(encoded.readableBytesView) == input, encoded.readableBytes == message.encodedBytes else {
            throw FuzzFinding("\(message) encodes to other bytes than it came from")
        }
        if case .allocationReply(_, let runs) = message, runs.isEmpty || runs.count > LinkLimits.allocationRuns {
            throw FuzzFinding("an answer of \(runs.count) runs was taken")
        }
        fingerprint.add(input.count.bitWidth - input.count.leadingZeroBitCount)
        return fingerprint.value
    }
}

/// Payloads that are decompressed. Input: bit 0 the algorithm, the plain length (2), the bytes.
public final class CompressionTarget: FuzzTarget {
    public static let name = "compression"
    public static let inputBytesMax = 20_000
    private let compressor = Compressor()

    public init() {}

    public static func seeds() -> [[UInt8]] {
        let compressor = Compressor()
        let texts = [
            ByteBuffer(repeating: 7, count: 4096), ByteBuffer(string: String(repeating: "causeway ", count: 900)),
            ByteBuffer(bytes: (0..<2048).map { UInt8(truncatingIfNeeded: $0 / 7) }),
        ]
        var seeds: [[UInt8]] = []
        for text in texts {
            for (number, algorithm) in CompressionAlgorithm.allCases.enumerated() {
                guard let method = CompressionMethod.allCases.first(where: { $0.algorithm == algorithm }),
                    let compressed = compressor.compress(text, using: method)
                else { continue }
                let count = text.readableBytes
                seeds.append([UInt8(number), UInt8(count >> 8), UInt8(count & 255)] + Array(compressed.readableBytesView))
            }
        }
        return seeds
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let algorithms = CompressionAlgorithm.allCases
        let algorithm = algorithms[Int(reader.byte()) % algorithms.count]
        let byteCount = reader.number()
        var fingerprint = Fingerprint()
        do {
            let plain = try compressor.decompress(ByteBuffer(bytes: reader.rest()), using: algorithm, expecting: byteCount)
            if plain.readableBytes != byteCount { throw FuzzFinding("\(plain.readableBytes) bytes came instead of \(byteCount)") }
            fingerprint.add(byteCount.bitWidth - byteCount.leadingZeroBitCount)
        } catch let error as DecompressionError {
            fingerprint.add(String(describing: error))
        }
        return fingerprint.value
    }
}

/// Pieces of a stream that are decompressed one after the other. Input: for each, the plain length (2), the length (2) and the bytes.
public final class CompressionStreamTarget: FuzzTarget {
    public static let name = "compression-stream"
    public static let inputBytesMax = 40_000
    private let stream = DecompressionStream()

    public init() {}

    public static func seeds() -> [[UInt8]] {
        let texts = (0..<4).map { ByteBuffer(string: String(repeating: "causeway \($0 / 2) ", count: 300)) }
        return [CompressionMethod.zstandard1, .zstandard5].map { method in
            let stream = CompressionStream()
            guard stream.start(method) else { return [] }
            return texts.flatMap { text -> [UInt8] in
                guard let compressed = stream.compress(text, overheadMax: 64) else { return [] }
                let (plain, count) = (text.readableBytes, compressed.readableBytes)
                return [UInt8(plain >> 8), UInt8(plain & 255), UInt8(count >> 8), UInt8(count & 255)] + Array(compressed.readableBytesView)
            }
        }
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var bytes = ByteBuffer(bytes: input)
        var fingerprint = Fingerprint()
        do {
            try stream.start()
            while let (plain, count) = bytes.readMultipleIntegers(as: (UInt16, UInt16).self),
                let piece = bytes.readSlice(length: min(Int(count), bytes.readableBytes))
            {
                let output = try stream.decompress(piece, expecting: Int(plain))
                if output.readableBytes != Int(plain) { throw FuzzFinding("\(output.readableBytes) bytes came instead of \(plain)") }
                fingerprint.add(Int(plain).bitWidth - Int(plain).leadingZeroBitCount)
            }
        } catch let error as DecompressionError {
            fingerprint.add(String(describing: error))
        }
        return fingerprint.value
    }
}

/// What edges say to each other.
enum LinkSamples {
    static let volume = VolumeIdentifier(high: 1, low: 2)

    static var messages: [LinkMessage] {
        let range = SectorRange(from: 8, to: 24)
        return [
            .request(call: 1, method: "open", body: ByteBuffer(string: "{}")), .reply(call: 1, status: 200, body: ByteBuffer(string: "{}")),
            .notice(method: "grants", body: ByteBuffer()), .readRequest(read: 9, volume: volume, range: range),
            .readData(read: 9, offset: 4096, data: ByteBuffer(repeating: 7, count: 512)),
            .readZeroes(read: 9, offset: 0, byteCount: 4096), .readFailed(read: 9, status: .busy),
            .readReferences(
                read: 9, offset: 4096, source: volume, block: 70, digests: [BlockDigest((1, 2, 3, 4)), BlockDigest((5, 6, 7, 8))]),
            .pointReferences(
                volume: volume, point: 12, start: 16, source: volume, block: 70,
                digests: [BlockDigest((1, 2, 3, 4)), BlockDigest((5, 6, 7, 8))]),
            .pointPieceRequest(volume: volume, point: 12, range: range),
            .pointPiece(volume: volume, point: 12, start: 8, data: ByteBuffer(repeating: 1, count: 4096)),
            .pointWithdrawn(volume: volume, point: 12),
            .tunnelOpen(stream: 1, window: 65_536, name: "ldap"), .tunnelOpened(stream: 1, window: 65_536),
            .tunnelData(stream: 1, isShort: true, data: ByteBuffer(string: "bytes")), .tunnelCredit(stream: 1, byteCount: 16_384),
            .tunnelFinish(stream: 2), .tunnelReset(stream: 2, reason: .busy),
            .readPlainRequest(read: 9, volume: volume, range: range, offset: 4096),
            .allocationRequest(read: 10, volume: volume, range: range),
            .allocationReply(
                read: 10,
                runs: [AllocationRun(sectorCount: 8, allocation: .mapped), AllocationRun(sectorCount: 8, allocation: .deallocated)]),
            .pointBegin(volume: volume, generation: 3, point: 12),
            .pointData(volume: volume, point: 12, start: 77, data: ByteBuffer(repeating: 1, count: 512)),
            .pointZeroes(volume: volume, point: 12, range: range), .pointCommit(volume: volume, point: 12, pieces: 2, digest: 0xDEAD_BEEF),
            .pointReceived(volume: volume, point: 12), .pointApplied(volume: volume, point: 12),
            .pointRefused(volume: volume, point: 12, refusal: .noSpace),
            .pointAttributes(
                volume: volume, point: 12,
                attributes: PointAttributes(
                    consistency: .application, label: "nightly",
                    group: GroupPoint(
                        group: GroupIdentifier(high: 1, low: 2), number: 7, members: [.init(volume: volume, point: 12, isSealed: true)]))),
        ]
    }

    /// What crosses a connection when two sessions say all messages to each other.
    static func conversation() -> (toAcceptor: [UInt8], toInitiator: [UInt8]) {
        var random = SeededGenerator(seed: 7)
        let ends = [LinkRole.acceptor, .initiator].map { LinkSession(role: $0, random: RandomSource { random.next() }) }
        let connection = ConnectionIdentifier(1)
        var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        var streams: [[UInt8]] = [[], []]
        for end in ends { end.connectionOpened(connection, now: now) }
        for round in 0..<40 {
            now = now + .milliseconds(5)
            for (side, end) in ends.enumerated() {
                if round == 8 { for message in messages { _ = end.enqueue(message, trafficClass(of: message)) } }
                end.tick(now: now)
                while end.nextAction() != nil {}
                while let transmission = end.nextTransmission(now: now) {
                    streams[1 - side] += Array(transmission.frame.encoded().readableBytesView)
                    ends[1 - side].receive(transmission.frame, on: connection, now: now)
                }
            }
        }
        return (streams[0], streams[1])
    }

    private static func trafficClass(of message: LinkMessage) -> TrafficClass {
        switch message {
        case .request, .reply, .notice, .pointReceived, .pointApplied, .pointRefused: .control
        case .pointBegin, .pointAttributes, .pointData, .pointZeroes, .pointCommit: .writeBehind
        default: .demand
        }
    }
}
