import Blocks
import NIOCore

// An encoded message: one byte of kind, fixed fields, and for the kinds that carry bytes the rest of the payload.
//
//   1  request       call u64, method length u8, method, body
//   2  reply         call u64, status u16, body
//   3  notice        method length u8, method, body
//   16 readRequest   read u64, volume 16, start u64, count u64
//   17 readData      read u64, offset u32, data
//   18 readZeroes    read u64, offset u32, bytes u32
//   19 readFailed    read u64, status u8
//   20 allocationRequest  read u64, volume 16, start u64, count u64
//   21 allocationReply    read u64, runs (u64 each: bit 63 deallocated, the rest a number of sectors)
//   22 readReferences     read u64, offset u32, volume 16, block u64, digests (32 each)
//   23 readPlainRequest   read u64, volume 16, start u64, count u64, offset u32
//   32 pointBegin    volume 16, generation u64, point u64
//   33 pointData     volume 16, point u64, start u64, data (whole sectors)
//   34 pointZeroes   volume 16, point u64, start u64, count u64
//   35 pointCommit   volume 16, point u64, pieces u64, digest u32
//   36 pointReceived volume 16, point u64
//   37 pointApplied  volume 16, point u64
//   38 pointRefused  volume 16, point u64, refusal u8
//   39 pointAttributes  volume 16, point u64, attributes (see PointAttributes)
//   40 pointReferences    volume 16, point u64, start u64, source volume 16, block u64, digests (32 each)
//   41 pointPieceRequest  volume 16, point u64, start u64, count u64
//   42 pointPiece         volume 16, point u64, start u64, data (whole blocks)
//   43 pointWithdrawn     volume 16, point u64
//   48 tunnelOpen    stream u64, window u32, name
//   49 tunnelOpened  stream u64, window u32
//   50 tunnelData    stream u64, short u8 (0 or 1), data
//   51 tunnelCredit  stream u64, bytes u32
//   52 tunnelFinish  stream u64
//   53 tunnelReset   stream u64, reason u8

enum MessageKind: UInt8 {
    case request = 1
    case reply = 2
    case notice = 3
    case readRequest = 16
    case readData = 17
    case readZeroes = 18
    case readFailed = 19
    case allocationRequest = 20
    case allocationReply = 21
    case readReferences = 22
    case readPlainRequest = 23
    case pointBegin = 32
    case pointData = 33
    case pointZeroes = 34
    case pointCommit = 35
    case pointReceived = 36
    case pointApplied = 37
    case pointRefused = 38
    case pointAttributes = 39
    case pointReferences = 40
    case pointPieceRequest = 41
    case pointPiece = 42
    case pointWithdrawn = 43
    case tunnelOpen = 48
    case tunnelOpened = 49
    case tunnelData = 50
    case tunnelCredit = 51
    case tunnelFinish = 52
    case tunnelReset = 53
}

extension LinkMessage {
    /// The encoded size, without what a frame adds.
    public var encodedBytes: Int {
        switch self {
        case .request(_, let method, let body): 10 + method.utf8.count + body.readableBytes
        case .reply(_, _, let body): 11 + body.readableBytes
        case .notice(let method, let body): 2 + method.utf8.count + body.readableBytes
        case .readRequest, .allocationRequest: 41
        case .allocationReply(_, let runs): 9 + 8 * runs.count
        case .readData(_, _, let data): 13 + data.readableBytes
        case .readZeroes: 17
        case .readReferences(_, _, _, _, let digests): 37 + BlockDigest.byteCount * digests.count
        case .readPlainRequest: 45
        case .readFailed: 10
        case .pointBegin: 33
        case .pointData(_, _, _, let data), .pointPiece(_, _, _, let data): 33 + data.readableBytes
        case .pointReferences(_, _, _, _, _, let digests): 57 + BlockDigest.byteCount * digests.count
        case .pointZeroes, .pointPieceRequest: 41
        case .pointCommit: 37
        case .pointReceived, .pointApplied, .pointWithdrawn: 25
        case .pointRefused: 26
        case .pointAttributes(_, _, let attributes): 25 + attributes.encodedBytes
        case .tunnelOpen(_, _, let name): 13 + name.utf8.count
        case .tunnelOpened, .tunnelCredit: 13
        case .tunnelData(_, _, let data): 10 + data.readableBytes
        case .tunnelFinish: 9
        case .tunnelReset: 10
        }
    }

    /// True when the message keeps the limits of the protocol and may be sent.
    var isEncodable: Bool {
        switch self {
        case .request(_, let method, _), .notice(let method, _):
            (1...LinkLimits.methodBytes).contains(method.utf8.count) && encodedBytes <= LinkLimits.controlMessageBytes
        case .reply: encodedBytes <= LinkLimits.controlMessageBytes
        case .readData(_, _, let data): (1...LinkLimits.pieceBytes).contains(data.readableBytes)
        case .readReferences(_, _, _, let block, let digests):
            Self.isEncodable(digests, from: block)
        case .pointReferences(_, _, let start, _, let block, let digests):
            Self.isEncodable(digests, from: block) && start % BlockGeometry.sectorsPerBlock == 0
                && SectorRange(start: start, count: UInt64(digests.count) * BlockGeometry.sectorsPerBlock) != nil
        case .pointPieceRequest(_, _, let range):
            (1...UInt64(LinkLimits.references) * BlockGeometry.sectorsPerBlock).contains(range.count)
                && range.start % BlockGeometry.sectorsPerBlock == 0 && range.count % BlockGeometry.sectorsPerBlock == 0
        case .pointPiece(_, _, let start, let data):
            (1...LinkLimits.pieceBytes).contains(data.readableBytes) && data.readableBytes % BlockGeometry.blockBytes == 0
                && start % BlockGeometry.sectorsPerBlock == 0
                && SectorRange(start: start, count: UInt64(data.readableBytes / BlockGeometry.sectorBytes)) != nil
        case .allocationReply(_, let runs):
            (1...LinkLimits.allocationRuns).contains(runs.count)
                && runs.allSatisfy { $0.sectorCount > 0 && $0.sectorCount < Self.deallocatedBit }
        case .pointData(_, _, let start, let data):
            (1...LinkLimits.pieceBytes).contains(data.readableBytes) && data.readableBytes % BlockGeometry.sectorBytes == 0
                && SectorRange(start: start, count: UInt64(data.readableBytes / BlockGeometry.sectorBytes)) != nil
        case .tunnelOpen(_, _, let name): (1...LinkLimits.tunnelNameBytes).contains(name.utf8.count)
        case .tunnelData(_, _, let data): (1...LinkLimits.pieceBytes).contains(data.readableBytes)
        default: true
        }
    }

    private static func isEncodable(_ digests: [BlockDigest], from block: UInt64) -> Bool {
        (1...LinkLimits.references).contains(digests.count) && block <= .max - UInt64(digests.count)
    }

    /// Appends the encoded message.
    public func encode(into buffer: inout ByteBuffer) {
        switch self {
        case .tunnelOpen, .tunnelOpened, .tunnelData, .tunnelCredit, .tunnelFinish, .tunnelReset: encodeTunnel(into: &buffer)
        case .request(let call, let method, let body):
            buffer.writeMultipleIntegers(MessageKind.request.rawValue, call)
            Self.write(method: method, body: body, into: &buffer)
        case .reply(let call, let status, let body):
            buffer.writeMultipleIntegers(MessageKind.reply.rawValue, call, status)
            buffer.writeImmutableBuffer(body)
        case .notice(let method, let body):
            buffer.writeInteger(MessageKind.notice.rawValue)
            Self.write(method: method, body: body, into: &buffer)
        case .readRequest(let read, let volume, let range):
            buffer.writeMultipleIntegers(
                MessageKind.readRequest.rawValue, read, volume.high, volume.low, range.start, range.count)
        case .readData(let read, let offset, let data):
            buffer.writeMultipleIntegers(MessageKind.readData.rawValue, read, offset)
            buffer.writeImmutableBuffer(data)
        case .readZeroes(let read, let offset, let byteCount):
            buffer.writeMultipleIntegers(MessageKind.readZeroes.rawValue, read, offset, byteCount)
        case .readFailed(let read, let status):
            buffer.writeMultipleIntegers(MessageKind.readFailed.rawValue, read, status.rawValue)
        case .readReferences(let read, let offset, let source, let block, let digests):
            buffer.writeMultipleIntegers(MessageKind.readReferences.rawValue, read, offset, source.high, source.low, block)
            for digest in digests { digest.encode(into: &buffer) }
        case .readPlainRequest(let read, let volume, let range, let offset):
            buffer.writeMultipleIntegers(
                MessageKind.readPlainRequest.rawValue, read, volume.high, volume.low, range.start, range.count, offset)
        case .allocationRequest(let read, let volume, let range):
            buffer.writeMultipleIntegers(
                MessageKind.allocationRequest.rawValue, read, volume.high, volume.low, range.start, range.count)
        case .allocationReply(let read, let runs):
            buffer.writeMultipleIntegers(MessageKind.allocationReply.rawValue, read)
            for run in runs { buffer.writeInteger(run.sectorCount | (run.allocation == .deallocated ? Self.deallocatedBit : 0)) }
        case .pointBegin, .pointData, .pointZeroes, .pointCommit, .pointReceived, .pointApplied, .pointRefused, .pointAttributes,
            .pointReferences, .pointPieceRequest, .pointPiece, .pointWithdrawn:
            encodePoint(into: &buffer)
        }
    }

    private func encodePoint(into buffer: inout ByteBuffer) {
        switch self {
        case .pointBegin(let volume, let generation, let point):
            buffer.writeMultipleIntegers(MessageKind.pointBegin.rawValue, volume.high, volume.low, generation, point)
        case .pointData(let volume, let point, let start, let data):
            buffer.writeMultipleIntegers(MessageKind.pointData.rawValue, volume.high, volume.low, point, start)
            buffer.writeImmutableBuffer(data)
        case .pointZeroes(let volume, let point, let range):
            buffer.writeMultipleIntegers(
                MessageKind.pointZeroes.rawValue, volume.high, volume.low, point, range.start, range.count)
        case .pointCommit(let volume, let point, let pieces, let digest):
            buffer.writeMultipleIntegers(MessageKind.pointCommit.rawValue, volume.high, volume.low, point, pieces, digest)
        case .pointReceived(let volume, let point):
            buffer.writeMultipleIntegers(MessageKind.pointReceived.rawValue, volume.high, volume.low, point)
        case .pointWithdrawn(let volume, let point):
            buffer.writeMultipleIntegers(MessageKind.pointWithdrawn.rawValue, volume.high, volume.low, point)
        case .pointApplied(let volume, let point):
            buffer.writeMultipleIntegers(MessageKind.pointApplied.rawValue, volume.high, volume.low, point)
        case .pointRefused(let volume, let point, let refusal):
            buffer.writeMultipleIntegers(MessageKind.pointRefused.rawValue, volume.high, volume.low, point, refusal.rawValue)
        case .pointReferences(let volume, let point, let start, let source, let block, let digests):
            buffer.writeMultipleIntegers(MessageKind.pointReferences.rawValue, volume.high, volume.low, point, start)
            buffer.writeMultipleIntegers(source.high, source.low, block)
            for digest in digests { digest.encode(into: &buffer) }
        case .pointPieceRequest(let volume, let point, let range):
            buffer.writeMultipleIntegers(
                MessageKind.pointPieceRequest.rawValue, volume.high, volume.low, point, range.start, range.count)
        case .pointPiece(let volume, let point, let start, let data):
            buffer.writeMultipleIntegers(MessageKind.pointPiece.rawValue, volume.high, volume.low, point, start)
            buffer.writeImmutableBuffer(data)
        case .pointAttributes(let volume, let point, let attributes):
            buffer.writeMultipleIntegers(MessageKind.pointAttributes.rawValue, volume.high, volume.low, point)
            attributes.encode(into: &buffer)
        default: break
        }
    }

    /// In a run of an `allocationReply`: the sectors are deallocated.
    private static let deallocatedBit: UInt64 = 1 << 63

    private static func write(method: String, body: ByteBuffer, into buffer: inout ByteBuffer) {
        buffer.writeInteger(UInt8(truncatingIfNeeded: method.utf8.count))
        buffer.writeString(method)
        buffer.writeImmutableBuffer(body)
    }
}

extension LinkMessage {
    /// Reads a message that is the whole of `payload`. Bodies and data are slices of it.
    public static func decode(_ payload: ByteBuffer) throws(LinkViolation) -> LinkMessage {
        var buffer = payload
        guard let kindByte = buffer.readInteger(as: UInt8.self), let kind = MessageKind(rawValue: kindByte) else {
            throw LinkViolation("unknown kind of message")
        }
        guard let message = decode(kind, from: &buffer), buffer.readableBytes == 0 else {
            throw LinkViolation("damaged message of kind \(kindByte)")
        }
        return message
    }

    private static func decode(_ kind: MessageKind, from buffer: inout ByteBuffer) -> LinkMessage? {
        switch kind {
        case .request:
            guard let call = buffer.readInteger(as: UInt64.self), let method = readMethod(from: &buffer) else { return nil }
            return .request(call: call, method: method, body: rest(of: &buffer))
        case .reply:
            guard let (call, status) = buffer.readMultipleIntegers(as: (UInt64, UInt16).self) else { return nil }
            return .reply(call: call, status: status, body: rest(of: &buffer))
        case .notice:
            guard let method = readMethod(from: &buffer) else { return nil }
            return .notice(method: method, body: rest(of: &buffer))
        case .readRequest:
            guard let read = buffer.readInteger(as: UInt64.self), let volume = readVolume(from: &buffer),
                let range = readRange(from: &buffer)
            else { return nil }
            return .readRequest(read: read, volume: volume, range: range)
        case .allocationRequest:
            guard let read = buffer.readInteger(as: UInt64.self), let volume = readVolume(from: &buffer),
                let range = readRange(from: &buffer)
            else { return nil }
            return .allocationRequest(read: read, volume: volume, range: range)
        case .allocationReply: return decodeAllocationReply(from: &buffer)
        case .readData:
            guard let (read, offset) = buffer.readMultipleIntegers(as: (UInt64, UInt32).self),
                (1...LinkLimits.pieceBytes).contains(buffer.readableBytes)
            else { return nil }
            return .readData(read: read, offset: offset, data: rest(of: &buffer))
        case .readZeroes:
            guard let (read, offset, byteCount) = buffer.readMultipleIntegers(as: (UInt64, UInt32, UInt32).self) else {
                return nil
            }
            return .readZeroes(read: read, offset: offset, byteCount: byteCount)
        case .readReferences: return decodeReferences(from: &buffer)
        case .readPlainRequest:
            guard let read = buffer.readInteger(as: UInt64.self), let volume = readVolume(from: &buffer),
                let range = readRange(from: &buffer), let offset = buffer.readInteger(as: UInt32.self)
            else { return nil }
            return .readPlainRequest(read: read, volume: volume, range: range, offset: offset)
        case .readFailed:
            guard let (read, statusByte) = buffer.readMultipleIntegers(as: (UInt64, UInt8).self),
                let status = ReadStatus(rawValue: statusByte)
            else { return nil }
            return .readFailed(read: read, status: status)
        case .pointBegin, .pointData, .pointZeroes, .pointCommit, .pointReceived, .pointApplied, .pointRefused, .pointAttributes,
            .pointReferences, .pointPieceRequest, .pointPiece, .pointWithdrawn:
            guard let volume = readVolume(from: &buffer) else { return nil }
            return decodePoint(kind, volume: volume, from: &buffer)
        case .tunnelOpen, .tunnelOpened, .tunnelData, .tunnelCredit, .tunnelFinish, .tunnelReset: return decodeTunnel(kind, from: &buffer)
        }
    }

    private static func decodePoint(_ kind: MessageKind, volume: VolumeIdentifier, from buffer: inout ByteBuffer) -> LinkMessage? {
        guard let first = buffer.readInteger(as: UInt64.self) else { return nil }
        switch kind {
        case .pointBegin:
            guard let point = buffer.readInteger(as: UInt64.self) else { return nil }
            return .pointBegin(volume: volume, generation: first, point: point)
        case .pointData:
            guard let start = buffer.readInteger(as: UInt64.self) else { return nil }
            let message = LinkMessage.pointData(volume: volume, point: first, start: start, data: rest(of: &buffer))
            return message.isEncodable ? message : nil
        case .pointZeroes:
            guard let range = readRange(from: &buffer) else { return nil }
            return .pointZeroes(volume: volume, point: first, range: range)
        case .pointCommit:
            guard let (pieces, digest) = buffer.readMultipleIntegers(as: (UInt64, UInt32).self) else { return nil }
            return .pointCommit(volume: volume, point: first, pieces: pieces, digest: digest)
        case .pointReferences:
            guard let start = buffer.readInteger(as: UInt64.self), let source = readVolume(from: &buffer),
                let block = buffer.readInteger(as: UInt64.self), let digests = readDigests(from: &buffer)
            else { return nil }
            let message = LinkMessage.pointReferences(
                volume: volume, point: first, start: start, source: source, block: block, digests: digests)
            return message.isEncodable ? message : nil
        case .pointPieceRequest:
            guard let range = readRange(from: &buffer) else { return nil }
            let message = LinkMessage.pointPieceRequest(volume: volume, point: first, range: range)
            return message.isEncodable ? message : nil
        case .pointPiece:
            guard let start = buffer.readInteger(as: UInt64.self) else { return nil }
            let message = LinkMessage.pointPiece(volume: volume, point: first, start: start, data: rest(of: &buffer))
            return message.isEncodable ? message : nil
        case .pointReceived: return .pointReceived(volume: volume, point: first)
        case .pointApplied: return .pointApplied(volume: volume, point: first)
        case .pointWithdrawn: return .pointWithdrawn(volume: volume, point: first)
        case .pointRefused:
            guard let byte = buffer.readInteger(as: UInt8.self), let refusal = PointRefusal(rawValue: byte) else { return nil }
            return .pointRefused(volume: volume, point: first, refusal: refusal)
        case .pointAttributes: return PointAttributes(from: &buffer).map { .pointAttributes(volume: volume, point: first, attributes: $0) }
        default: return nil
        }
    }

    private static func decodeReferences(from buffer: inout ByteBuffer) -> LinkMessage? {
        guard let (read, offset) = buffer.readMultipleIntegers(as: (UInt64, UInt32).self), let source = readVolume(from: &buffer),
            let block = buffer.readInteger(as: UInt64.self), let digests = readDigests(from: &buffer)
        else { return nil }
        let message = LinkMessage.readReferences(read: read, offset: offset, source: source, block: block, digests: digests)
        return message.isEncodable ? message : nil
    }

    private static func readDigests(from buffer: inout ByteBuffer) -> [BlockDigest]? {
        guard buffer.readableBytes <= BlockDigest.byteCount * LinkLimits.references else { return nil }
        var digests: [BlockDigest] = []
        digests.reserveCapacity(buffer.readableBytes / BlockDigest.byteCount)
        while let digest = BlockDigest(from: &buffer) { digests.append(digest) }
        return digests
    }

    private static func decodeAllocationReply(from buffer: inout ByteBuffer) -> LinkMessage? {
        guard let read = buffer.readInteger(as: UInt64.self), buffer.readableBytes <= 8 * LinkLimits.allocationRuns else { return nil }
        var runs: [AllocationRun] = []
        runs.reserveCapacity(buffer.readableBytes / 8)
        while let word = buffer.readInteger(as: UInt64.self) {
            runs.append(
                AllocationRun(
                    sectorCount: word & ~deallocatedBit, allocation: word & deallocatedBit == 0 ? .mapped : .deallocated))
        }
        let message = LinkMessage.allocationReply(read: read, runs: runs)
        return message.isEncodable ? message : nil
    }

    private static func readVolume(from buffer: inout ByteBuffer) -> VolumeIdentifier? {
        guard let (high, low) = buffer.readMultipleIntegers(as: (UInt64, UInt64).self) else { return nil }
        return VolumeIdentifier(high: high, low: low)
    }

    private static func readRange(from buffer: inout ByteBuffer) -> SectorRange? {
        guard let (start, count) = buffer.readMultipleIntegers(as: (UInt64, UInt64).self) else { return nil }
        return SectorRange(start: start, count: count)
    }

    private static func readMethod(from buffer: inout ByteBuffer) -> String? {
        guard let length = buffer.readInteger(as: UInt8.self), length > 0, let bytes = buffer.readSlice(length: Int(length))
        else {
            return nil
        }
        return String(validating: bytes.readableBytesView, as: UTF8.self)
    }

    static func rest(of buffer: inout ByteBuffer) -> ByteBuffer {
        let bytes = buffer.slice()
        buffer.moveReaderIndex(to: buffer.writerIndex)
        return bytes
    }
}
