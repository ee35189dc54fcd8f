import Checksums
import ISCSI
import NIOCore

// Input: options (bits 0 and 1: header and data digest; bits 2 and 3: the limit of a data segment), how the
// stream is cut, then the stream.

/// The stream of an initiator: cut into frames, and these into PDUs.
public final class PDUTarget: FuzzTarget {
    public static let name = "pdu"
    public static let dictionary: [[UInt8]] = [
        // A header with the longest additional headers, one with the longest data, and types of additional headers.
        [0x01, 0x81, 0, 0, 0xFF, 0, 0, 0], [0x05, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF], [0, 1, 1, 0], [0, 5, 2, 0], [0xFF, 0xFF, 1, 0],
    ]
    static let limits = [512, 8192, 65_536, 262_144]

    public init() {}

    public static func seeds() -> [[UInt8]] {
        var seeds: [[UInt8]] = []
        for options in [UInt8(0), 1, 2, 3] {
            let encoder = PDUEncoder(digests: digests(options))
            let pdus = InitiatorSamples.all
            for pdu in pdus { seeds.append([options | 4, 0] + encoder.bytes([pdu])) }
            seeds.append([options | 4, 77] + encoder.bytes(pdus))
        }
        return seeds
    }

    static func digests(_ options: UInt8) -> Digests { Digests(header: options & 1 != 0, data: options & 2 != 0) }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let options = reader.byte()
        let cut = reader.byte()
        let stream = reader.rest()
        let (whole, failure) = try Self.decode(stream, options, cut: nil)
        let (pieces, pieceFailure) = try Self.decode(stream, options, cut: cut)
        guard whole == pieces, failure == pieceFailure else {
            throw FuzzFinding("the stream in pieces gives other frames than the stream at once")
        }
        var fingerprint = Fingerprint()
        fingerprint.add(failure.map(String.init(describing:))?.prefix(while: { $0 != "(" }).count ?? 0)
        for frame in whole {
            fingerprint.add(frame.header.opcode)
            fingerprint.add(frame.isDataDigestWrong ? 1 : 0)
            do {
                let pdu = try InitiatorPDU(frame)
                fingerprint.add(frame.header.flags)
                fingerprint.add(frame.additional.readableBytes)
                try Self.checkRoundTrip(pdu)
            } catch let error as PDUError {
                fingerprint.add(String(describing: error))
            }
        }
        return fingerprint.value
    }

    private static func decode(_ stream: [UInt8], _ options: UInt8, cut: UInt8?) throws -> ([PDUFrame], PDUError?) {
        var decoder = PDUDecoder(maximumDataByteCount: limits[Int(options >> 2) & 3])
        decoder.digests = digests(options)
        var random = SeededGenerator(seed: UInt64(cut ?? 0))
        var frames: [PDUFrame] = []
        var position = 0
        while position < stream.count {
            let length = cut == nil ? stream.count : min(stream.count - position, 1 + random.below(random.below(4) == 0 ? 200 : 8))
            decoder.append(ByteBuffer(bytes: stream[position..<position + length]))
            position += length
            do {
                while let frame = try decoder.next() { frames.append(frame) }
            } catch {
                return (frames, error)
            }
            let pduMax = 48 + PDUDecoder.maximumAdditionalByteCount + decoder.maximumDataByteCount + 16
            if decoder.bufferedByteCount > pduMax { throw FuzzFinding("\(decoder.bufferedByteCount) bytes wait for one PDU") }
        }
        return (frames, nil)
    }

    /// What a PDU says of itself, it says again when it is read back.
    private static func checkRoundTrip(_ pdu: InitiatorPDU) throws {
        var decoder = PDUDecoder(maximumDataByteCount: 1 << 24)
        decoder.digests = Digests(header: true, data: true)
        decoder.append(ByteBuffer(bytes: PDUEncoder(digests: decoder.digests).bytes([pdu])))
        guard let frame = try decoder.next(), try InitiatorPDU(frame) == pdu else {
            throw FuzzFinding("\(pdu) comes back as another PDU")
        }
    }

    public func repair(_ input: inout [UInt8]) {
        guard input.count > 2 else { return }
        let digests = Self.digests(input[0])
        var position = 2
        while position + 48 <= input.count {
            let additional = Int(input[position + 4]) * 4
            let data = Int(input[position + 5]) << 16 | Int(input[position + 6]) << 8 | Int(input[position + 7])
            var end = position + 48 + additional
            if digests.header, end + 4 <= input.count {
                input.set(CRC32C.checksum(of: ByteBuffer(bytes: input[position..<end])), at: end)
                end += 4
            }
            if data > 0 {
                let start = end
                end += (data + 3) & ~3
                if end > input.count {
                    // The data is as long as what is left.
                    let left = max(0, input.count - start - (digests.data ? 4 : 0))
                    input[position + 5] = 0
                    input[position + 6] = UInt8(truncatingIfNeeded: left >> 8)
                    input[position + 7] = UInt8(truncatingIfNeeded: left & ~3)
                    return
                }
                if digests.data, end + 4 <= input.count {
                    input.set(CRC32C.checksum(of: ByteBuffer(bytes: input[start..<end])), at: end)
                    end += 4
                }
            }
            position = end
        }
    }
}

extension [UInt8] {
    /// Writes a digest as iSCSI has it: the least significant byte first.
    mutating func set(_ digest: UInt32, at index: Int) {
        for byte in 0..<4 { self[index + byte] = UInt8(truncatingIfNeeded: digest >> UInt32(8 * byte)) }
    }
}

extension PDUEncoder {
    /// The stream of some PDUs.
    func bytes(_ pdus: [InitiatorPDU]) -> [UInt8] {
        var buffer = ByteBuffer()
        for pdu in pdus { write(pdu.frame, into: &buffer) }
        return Array(buffer.readableBytesView)
    }
}

/// One of each PDU, with all that it can carry.
enum InitiatorSamples {
    static var all: [InitiatorPDU] { [ping, command, write, longCommand, dataOut, abort, text, logout, snack, login] }

    static var ping: InitiatorPDU {
        var pdu = NOPOut()
        pdu.initiatorTaskTag = 7
        pdu.isImmediate = true
        pdu.data = ByteBuffer(string: "ping")
        return .nopOut(pdu)
    }

    /// READ (10) of one block.
    static var command: InitiatorPDU {
        var pdu = SCSICommandPDU()
        pdu.reads = true
        pdu.initiatorTaskTag = 1
        pdu.expectedDataTransferLength = 512
        pdu.cmdSN = 1
        pdu.cdbHigh = 0x2800_0000_0000_0000
        pdu.cdbLow = 0x0100_0000_0000_0000
        return .scsiCommand(pdu)
    }

    /// WRITE (10) of two blocks, of which one comes as immediate data.
    static var write: InitiatorPDU {
        var pdu = SCSICommandPDU()
        pdu.writes = true
        pdu.isFinal = false
        pdu.initiatorTaskTag = 2
        pdu.expectedDataTransferLength = 1024
        pdu.cmdSN = 2
        pdu.cdbHigh = 0x2A00_0000_0000_0002
        pdu.data = ByteBuffer(repeating: 0x5A, count: 512)
        return .scsiCommand(pdu)
    }

    /// A CDB of 32 bytes and the length of a bidirectional read, both in additional headers.
    static var longCommand: InitiatorPDU {
        var pdu = SCSICommandPDU()
        pdu.reads = true
        pdu.writes = true
        pdu.initiatorTaskTag = 3
        pdu.expectedDataTransferLength = 512
        pdu.cmdSN = 3
        pdu.cdbHigh = 0x7F00_0000_0000_0018
        pdu.extendedCDB = ByteBuffer(repeating: 9, count: 16)
        pdu.bidirectionalReadLength = 512
        return .scsiCommand(pdu)
    }

    static var dataOut: InitiatorPDU {
        var pdu = DataOut()
        pdu.initiatorTaskTag = 2
        pdu.targetTransferTag = BasicHeader.reservedTag
        pdu.bufferOffset = 512
        pdu.isFinal = true
        pdu.data = ByteBuffer(repeating: 0xA5, count: 512)
        return .dataOut(pdu)
    }

    static var abort: InitiatorPDU {
        var pdu = TaskManagementRequest()
        pdu.functionCode = 1
        pdu.isImmediate = true
        pdu.initiatorTaskTag = 9
        pdu.referencedTaskTag = 2
        return .taskManagementRequest(pdu)
    }

    static var text: InitiatorPDU {
        var pdu = TextRequest()
        pdu.initiatorTaskTag = 10
        pdu.cmdSN = 4
        TextKeys.write([TextPair("SendTargets", "All")], into: &pdu.data)
        return .textRequest(pdu)
    }

    static var logout: InitiatorPDU {
        var pdu = LogoutRequest()
        pdu.initiatorTaskTag = 11
        pdu.cmdSN = 5
        return .logoutRequest(pdu)
    }

    static var snack: InitiatorPDU {
        var pdu = SNACKRequest()
        pdu.initiatorTaskTag = 1
        pdu.runLength = 3
        return .snackRequest(pdu)
    }

    static var login: InitiatorPDU { .loginRequest(LoginSamples.request(LoginSamples.names, stage: 0, next: 1)) }
}
