import Blocks
import Compression
import LinkProtocol
import NIOCore
import Testing

@testable import Link

@Suite struct FrameCompressorTests {
    static func volume(_ number: UInt64) -> VolumeIdentifier { VolumeIdentifier(high: 7, low: number) }

    /// Two sessions that know each other, of which the acceptor sends.
    final class Sender {
        let session = LinkSession(role: .acceptor, random: .system)
        let compressor = FrameCompressor()
        private let peer = LinkSession(role: .initiator, random: .system)
        static let connection = ConnectionIdentifier(1)

        init() {
            let now = NIODeadline.now()
            for session in [session, peer] { session.connectionOpened(Self.connection, now: now) }
            for _ in 0..<4 {
                while let frame = peer.nextTransmission(now: now) { session.receive(frame.frame, on: Self.connection, now: now) }
                while let frame = session.nextTransmission(now: now) { peer.receive(frame.frame, on: Self.connection, now: now) }
            }
        }

        /// The frame that carries a piece.
        func transmission(_ piece: ByteBuffer, of volume: VolumeIdentifier?, isBulk: Bool = true) throws -> LinkTransmission {
            let now = NIODeadline.now()
            #expect(session.enqueue(.readData(read: 1, offset: 0, data: piece), .demand, isBulk: isBulk, of: volume))
            let transmission = try #require(session.nextTransmission(now: now))
            peer.receive(transmission.frame, on: Self.connection, now: now)
            peer.tick(now: now + .milliseconds(1))
            while let frame = peer.nextTransmission(now: now + .milliseconds(1)) {
                session.receive(frame.frame, on: Self.connection, now: now + .milliseconds(1))
            }
            return transmission
        }
    }

    private static func frame(_ bytes: ByteBuffer) throws -> Frame {
        var decoder = FrameDecoder()
        decoder.append(bytes)
        return try #require(try decoder.next())
    }

    /// On a slow line: what comes up again in a volume is not sent again, and the other end gets what was meant.
    @Test func framesOfAVolumeGoThroughAStream() throws {
        let (sender, streams) = (Sender(), SendingStreams(StreamBudget()))
        let opener = FrameDecompressor(Compressor())
        var lengths: [Int] = []
        for number in 0..<200 {
            let piece = Texts.piece(UInt64(number % 4), byteCount: 8_000)
            let transmission = try sender.transmission(piece, of: Self.volume(1))
            let frame = try Self.frame(sender.compressor.encode(transmission, streams: streams, bytesPerSecond: 1e6))
            #expect(frame.header.compression == .zstandardStream)
            #expect(frame.header.stream == FrameStream(number: 0, count: number % 32, isNew: number == 0))
            #expect(try opener.open(frame) == transmission.payload)
            lengths.append(frame.payload.readableBytes)
        }
        #expect(lengths[0] > 1_000 && lengths[190] < lengths[0] / 8, "\(lengths[0]), then \(lengths[190])")
    }

    /// What somebody waits for may go out twice, on two connections; what has no volume may be anybody's; an old edge knows no streams.
    @Test func otherFramesAreCompressedEachOnItsOwn() throws {
        let sender = Sender()
        let opener = FrameDecompressor(Compressor())
        let piece = Texts.piece(1, byteCount: 8_000)
        for (volume, isBulk, streams) in [
            (Self.volume(1), false, SendingStreams(StreamBudget())), (nil, true, SendingStreams(StreamBudget())),
            (Self.volume(1), true, nil),
        ] as [(VolumeIdentifier?, Bool, SendingStreams?)] {
            let transmission = try sender.transmission(piece, of: volume, isBulk: isBulk)
            let frame = try Self.frame(sender.compressor.encode(transmission, streams: streams, bytesPerSecond: 1e6))
            #expect(frame.header.compression == .zstandard)
            #expect(try opener.open(frame) == transmission.payload)
        }
    }

    /// What does not shrink goes through the stream all the same, and later ones are tried more rarely.
    @Test func noiseAmongTextComesThrough() throws {
        let (sender, streams) = (Sender(), SendingStreams(StreamBudget()))
        let opener = FrameDecompressor(Compressor())
        var generator = SystemRandomNumberGenerator()
        var plain = 0
        for number in 0..<600 {
            // A little of it shrinks: too little to pay.
            let piece =
                number % 3 == 0
                ? Texts.piece(UInt64(number % 4), byteCount: 8_000)
                : ByteBuffer(bytes: (0..<8_000).map { _ in UInt8.random(in: 0..<250, using: &generator) })
            let transmission = try sender.transmission(piece, of: Self.volume(1))
            let frame = try Self.frame(sender.compressor.encode(transmission, streams: streams, bytesPerSecond: 1e6))
            if frame.header.compression == .none { plain += 1 }
            #expect(try opener.open(frame) == transmission.payload)
        }
        #expect(plain > 100)
    }

    @Test func aStreamIsOneVolumesAndThereAreFew() {
        let streams = SendingStreams(StreamBudget())
        for number in 0..<UInt64(LinkLimits.compressionStreams) {
            let place = streams.place(of: Self.volume(number), method: .zstandard1)
            #expect(place?.header == FrameStream(number: Int(number), isNew: true))
        }
        #expect(streams.place(of: Self.volume(99), method: .zstandard1)?.header == nil)
        #expect(streams.place(of: Self.volume(0), method: .zstandard1)?.header.isNew == false)
        // All but the first are idle, and the oldest of those is taken.
        for _ in 0..<SendingStreams.idleFrames { _ = streams.place(of: Self.volume(0), method: .zstandard1) }
        let taken = streams.place(of: Self.volume(99), method: .zstandard1)
        #expect(taken?.header == FrameStream(number: 1, isNew: true))
        #expect(streams.place(of: Self.volume(0), method: .lz4)?.header == nil)
    }

    /// All connections of a link together; one that ends leaves its to others.
    @Test func aLinkHasNoMoreStreamsThanItsBudget() {
        let budget = StreamBudget()
        var connections = (0..<8).map { _ in SendingStreams(budget) }
        func taken() -> Int {
            connections.reduce(0) { sum, streams in
                sum + (0..<UInt64(LinkLimits.compressionStreams)).count { streams.place(of: Self.volume($0), method: .zstandard1) != nil }
            }
        }
        #expect(taken() == LinkLimits.compressionStreamsOfLink && budget.left == 0)
        connections.removeFirst()
        #expect(budget.left == LinkLimits.compressionStreams)
        #expect(taken() == LinkLimits.compressionStreamsOfLink)
    }

    @Test func anotherMethodBeginsTheStreamAnewButNotTooSoon() throws {
        let streams = SendingStreams(StreamBudget())
        var starts = 0
        for number in 0..<4 * SendingStreams.leastFrames {
            let place = try #require(streams.place(of: Self.volume(1), method: number % 2 == 0 ? .zstandard1 : .zstandard3))
            if place.header.isNew { starts += 1 }
        }
        #expect((2...4).contains(starts))
        streams.failed(try #require(streams.place(of: Self.volume(1), method: .zstandard1)))
        #expect(streams.place(of: Self.volume(1), method: .zstandard1)?.header == FrameStream(number: 0, isNew: true))
    }

    /// Of a stream that never began, or twice the same, or with one missing.
    @Test(arguments: [[1], [0, 1, 1], [0, 2], [0, 1, 3], [0, 1, 2, 1]]) func aFrameThatDoesNotFollowIsDamaged(_ order: [Int]) throws {
        let (sender, streams) = (Sender(), SendingStreams(StreamBudget()))
        let frames = try (0..<4).map { number in
            let transmission = try sender.transmission(Texts.piece(UInt64(number), byteCount: 8_000), of: Self.volume(1))
            return try Self.frame(sender.compressor.encode(transmission, streams: streams, bytesPerSecond: 1e6))
        }
        let opener = FrameDecompressor(Compressor())
        for number in order.dropLast() { _ = try opener.open(frames[number]) }
        #expect(throws: DecompressionError.outOfOrder) { try opener.open(frames[order.last ?? 0]) }
    }
}

/// What shrinks to a third on its own, and to little when it has been seen.
enum Texts {
    static func piece(_ seed: UInt64, byteCount: Int) -> ByteBuffer {
        var state = seed &* 77 &+ 5
        var bytes = ByteBuffer()
        while bytes.readableBytes < byteCount {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            bytes.writeString("value \(state >> 40), ")
        }
        return bytes.getSlice(at: 0, length: byteCount) ?? bytes
    }
}
