import NIOCore
import Testing

@testable import LinkProtocol

@Suite struct FrameTests {
    static func dataFrame(_ count: Int, sequence: UInt64 = 5) -> Frame {
        Frame(
            header: FrameHeader(kind: .data, trafficClass: .prefetch, hasMore: true, payloadBytes: count, sequence: sequence),
            payload: ByteBuffer(repeating: 3, count: count))
    }

    @Test func aStreamCutAnywhereGivesTheSameFrames() throws {
        let frames = [
            Self.dataFrame(1000), Frame(header: FrameHeader(kind: .ping, sequence: 77)), Self.dataFrame(1, sequence: .max),
        ]
        var stream = ByteBuffer()
        for frame in frames { stream.writeImmutableBuffer(frame.encoded()) }
        for size in [1, 7, 19, 20, 21, 500, 5000] {
            var decoder = FrameDecoder()
            var rest = stream
            var decoded: [Frame] = []
            while let part = rest.readSlice(length: min(size, rest.readableBytes)), part.readableBytes > 0 {
                decoder.append(part)
                while let frame = try decoder.next() { decoded.append(frame) }
            }
            #expect(decoded == frames)
            #expect(decoder.pendingBytes == 0)
        }
    }

    @Test func headersThatLieAreViolations() {
        let wrong: [FrameHeader] = [
            FrameHeader(kind: .data, payloadBytes: LinkLimits.framePayloadBytes + 1),
            FrameHeader(kind: .data, compression: .lz4, payloadBytes: 10, plainBytes: LinkLimits.framePayloadBytes + 1),
            FrameHeader(kind: .data, compression: .lz4, payloadBytes: 10, plainBytes: 10),
            FrameHeader(kind: .data, payloadBytes: 10, plainBytes: 11),
            FrameHeader(kind: .ping, trafficClass: .control),
            FrameHeader(kind: .ping, compression: .zstandard, payloadBytes: 1, plainBytes: 2),
            FrameHeader(kind: .data, compression: .zstandardStream, payloadBytes: 0, plainBytes: 10),
            FrameHeader(kind: .data, compression: .zstandardStream, payloadBytes: 1, plainBytes: 0),
            FrameHeader(kind: .data, compression: .zstandardStream, payloadBytes: 75, plainBytes: 10),
            FrameHeader(kind: .data, compression: .zstandardStream, payloadBytes: 10, plainBytes: LinkLimits.framePayloadBytes + 1),
            Self.inStream(FrameStream(number: 1), .zstandard),
            Self.inStream(FrameStream(isNew: true), .zstandard),
        ]
        for header in wrong {
            var bytes = ByteBuffer()
            header.encode(into: &bytes)
            #expect(throws: LinkViolation.self) { try FrameHeader.decode(from: &bytes) }
        }
    }

    static func inStream(_ stream: FrameStream, _ compression: FrameCompression) -> FrameHeader {
        FrameHeader(kind: .data, compression: compression, stream: stream, payloadBytes: 10, plainBytes: 20)
    }

    /// Also one that did not shrink, and is as long as frames get.
    @Test(arguments: 0..<LinkLimits.compressionStreams, [(0, true), (1, false), (31, false)])
    func theStreamOfAFrameComesBack(number: Int, frame: (count: Int, isNew: Bool)) throws {
        let header = FrameHeader(
            kind: .data, compression: .zstandardStream, stream: FrameStream(number: number, count: frame.count, isNew: frame.isNew),
            payloadBytes: LinkLimits.framePayloadBytes + LinkLimits.compressionOverheadBytes, plainBytes: LinkLimits.framePayloadBytes)
        var bytes = ByteBuffer()
        header.encode(into: &bytes)
        #expect(try FrameHeader.decode(from: &bytes) == header)
    }

    @Test func garbageEndsInAViolationOrWaitsWithinBounds() {
        var generator = SeededGenerator(seed: 2)
        var violations = 0
        for _ in 0..<5000 {
            var decoder = FrameDecoder()
            var bytes = [UInt8](Self.dataFrame(40).encoded().readableBytesView)
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            decoder.append(ByteBuffer(bytes: bytes))
            do {
                while try decoder.next() != nil {}
                #expect(decoder.pendingBytes <= bytes.count)
            } catch {
                violations += 1
            }
        }
        #expect(violations > 1000)
    }

    @Test func helloAndAcknowledgementSurviveTheirEncoding() throws {
        let positions = [
            ClassPosition(trafficClass: .demand, next: 3, credit: 1 << 40, arrived: [5, 0, .max]),
            ClassPosition(trafficClass: .migration, next: 0, credit: 0, arrived: []),
        ]
        let hello = HelloBody(session: 1, incarnation: 2, positions: positions)
        #expect(try HelloBody.decode(hello.frame().payload) == hello)
        let acknowledgement = AcknowledgementBody(delayMicroseconds: 9, positions: positions)
        #expect(try AcknowledgementBody.decode(acknowledgement.frame().payload) == acknowledgement)
        var newer = hello
        newer.newestVersion = 9
        newer.oldestVersion = LinkVersion.newest + 1
        #expect(throws: LinkViolation.self) { try HelloBody.decode(newer.frame().payload) }
        newer.oldestVersion = LinkVersion.newest
        #expect(try HelloBody.decode(newer.frame().payload) == newer)
    }

    @Test func aGoodbyeCarriesReadableText() throws {
        let reason = LinkCloseReason.violation("a\u{1B}[31mb" + String(repeating: "x", count: 400))
        let frame = reason.goodbyeFrame
        #expect(frame.payload.readableBytes <= LinkLimits.goodbyeTextBytes + 2)
        guard case .goodbye(let text) = try LinkCloseReason.decodeGoodbye(frame.payload) else {
            Issue.record("not a goodbye")
            return
        }
        #expect(text.hasPrefix("protocol violation: a?[31mb"))
    }
}
