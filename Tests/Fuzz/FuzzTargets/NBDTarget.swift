import NBD
import NIOCore

// Input: options (bits 0 and 1: the security; bit 2: a read-only export; bit 3: the client is past the handshake), how the
// stream is cut, then what the client sends.

/// NBD: the options of the handshake, then requests and the payloads of writes.
public final class NBDTarget: FuzzTarget {
    public static let name = "nbd"
    public static let dictionary: [[UInt8]] =
        [Array("IHAVEOPT".utf8), [0x25, 0x60, 0x95, 0x13], Array("base:allocation".utf8), Array("base:".utf8), Array("disk".utf8)]
        + (1...11).map { [0, 0, 0, $0] } + (0...7).map { [0x25, 0x60, 0x95, 0x13, 0, 0, 0, $0] }
    private static let exportBytes: UInt64 = 1 << 20
    /// How the owner cuts payloads.
    private static let pieceBytes = 4096

    public init() {}

    public static func seeds() -> [[UInt8]] {
        func option(_ number: UInt32, _ data: [UInt8] = []) -> [UInt8] {
            var buffer = ByteBuffer(string: "IHAVEOPT")
            buffer.writeInteger(number)
            buffer.writeInteger(UInt32(data.count))
            buffer.writeBytes(data)
            return Array(buffer.readableBytesView)
        }
        func request(_ command: NBDCommand, _ flags: NBDCommandFlags = [], offset: UInt64 = 0, byteCount: UInt32 = 0) -> [UInt8] {
            var buffer = ByteBuffer()
            NBDRequest(command: command, flags: flags, handle: 7, offset: offset, byteCount: byteCount).write(into: &buffer)
            return Array(buffer.readableBytesView)
        }
        let name: [UInt8] = [0, 0, 0, 4] + Array("disk".utf8)
        let context: [UInt8] = name + [0, 0, 0, 1, 0, 0, 0, 15] + Array("base:allocation".utf8)
        let info = name + [0, 1, 0, 3]
        let flags: [UInt8] = [0, 0, 0, 3]
        let requests: [[UInt8]] = [
            request(.read, offset: 512, byteCount: 4096), request(.write, .forceUnitAccess, byteCount: 512),
            [UInt8](repeating: 5, count: 512), request(.blockStatus, .requestOne, byteCount: 65_536),
            request(.writeZeroes, .noHole, byteCount: 4096), request(.trim, byteCount: 4096), request(.cache, byteCount: 512),
            request(.flush), request(.write, offset: 1000, byteCount: 9000), [UInt8](repeating: 6, count: 9000), request(.disconnect),
        ]
        let stream = Array(requests.joined())
        let handshakes: [[UInt8]] = [
            flags + option(3) + option(8) + option(9, context) + option(10, context) + option(6, info) + option(7, info),
            flags + option(1, Array("disk".utf8)), flags + option(5) + option(8) + option(7, info), flags + option(2),
            [0, 0, 0, 1] + option(99, [1, 2]),
        ]
        let inputs = handshakes.flatMap { handshake -> [[UInt8]] in
            let some = Array(stream.prefix(600))
            return [[0, 0] + handshake + some, [1, 9] + handshake, [6, 3] + handshake + some.prefix(100)]
        }
        return inputs + [[8, 0] + stream, [12, 50] + stream]
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let options = reader.byte()
        let cut = reader.byte()
        let export = NBDExport(name: "disk", byteCount: Self.exportBytes, isReadOnly: options & 4 != 0)
        var fingerprint = Fingerprint()
        var stream = ByteBuffer(bytes: reader.rest())
        var terms = NBDTerms(export: export, usesStructuredReplies: true, reportsAllocation: true)
        if options & 8 == 0 {
            guard let agreed = try handshake(options & 3, export, &stream, cut, &fingerprint) else { return fingerprint.value }
            terms = agreed
        }
        try transmit(terms, stream, cut, &fingerprint)
        return fingerprint.value
    }

    /// The handshake; nil when it does not reach the transmission phase.
    private func handshake(
        _ security: UInt8, _ export: NBDExport, _ stream: inout ByteBuffer, _ cut: UInt8, _ fingerprint: inout Fingerprint
    ) throws -> NBDTerms? {
        let securities: [NBDSecurity] = [.plain, .optional, .required, .plain]
        var handshake = NBDHandshake(
            security: securities[Int(security)], list: { ["disk", "other"] },
            find: { name in name == "" || name == "disk" ? .found(export) : name == "other" ? .notReady : .unknown })
        var random = SeededGenerator(seed: UInt64(cut))
        var input = ByteBuffer()
        var steps = 0
        while true {
            var output = ByteBuffer()
            let step: NBDHandshake.Step
            do throws(NBDHandshakeError) { step = try handshake.step(&input, &output) } catch {
                fingerprint.add(String(describing: error))
                return nil
            }
            steps += 1
            // A step without an end answers without bytes.
            if steps > 100_000 { throw FuzzFinding("the handshake never ends") }
            if output.readableBytes > 1 << 20 { throw FuzzFinding("an answer of \(output.readableBytes) bytes to one option") }
            fingerprint.add(output.readableBytes)
            switch step {
            case .answered: break
            case .needsBytes:
                guard stream.readableBytes > 0 else { return nil }
                if input.readableBytes > Int(NBDHandshake.maximumOptionByteCount) + 400 {
                    throw FuzzFinding("\(input.readableBytes) bytes wait for one option")
                }
                guard var piece = stream.readSlice(length: min(stream.readableBytes, 1 + random.below(cut == 0 ? 4096 : 40))) else {
                    return nil
                }
                input.writeBuffer(&piece)
            case .startTLS: handshake.tlsDidBegin()
            case .enter(let terms):
                fingerprint.add((terms.usesStructuredReplies ? 1 : 0) | (terms.reportsAllocation ? 2 : 0) | (terms.knowsBlockSize ? 4 : 0))
                guard terms.export == export else { throw FuzzFinding("the handshake ends with an export that there is not") }
                if security == 2, steps < 2 { throw FuzzFinding("a client entered without TLS") }
                var rest = input
                rest.writeBuffer(&stream)
                stream = rest
                return terms
            case .close:
                fingerprint.add(9)
                return nil
            }
        }
    }

    private func transmit(_ terms: NBDTerms, _ stream: ByteBuffer, _ cut: UInt8, _ fingerprint: inout Fingerprint) throws {
        var decoder = NBDRequestDecoder()
        var random = SeededGenerator(seed: UInt64(cut))
        var rest = stream
        var payload = 0
        var takes = true
        while true {
            if payload > 0 {
                if takes {
                    let wanted = min(payload, Self.pieceBytes)
                    if let piece = decoder.takePayload(wanted) {
                        guard piece.readableBytes == wanted else { throw FuzzFinding("a piece of a payload has another length") }
                        payload -= wanted
                        continue
                    }
                } else {
                    let skipped = decoder.skip(payload)
                    payload -= skipped
                    if skipped > 0 { continue }
                }
            } else {
                do throws(NBDTransmissionError) {
                    if let request = try decoder.next() {
                        check(request, terms, &fingerprint)
                        payload = request.payloadByteCount
                        takes = request.refusal(under: terms, exportByteCount: Self.exportBytes) == nil
                        continue
                    }
                } catch {
                    return fingerprint.add(String(describing: error).prefix { $0 != "(" }.count)
                }
            }
            if decoder.bufferedByteCount > Self.pieceBytes + 4096 + NBDRequest.headerByteCount {
                throw FuzzFinding("\(decoder.bufferedByteCount) bytes wait for one request")
            }
            guard let piece = rest.readSlice(length: min(rest.readableBytes, 1 + random.below(cut == 0 ? 4096 : 40))),
                piece.readableBytes > 0
            else { return }
            decoder.append(piece)
        }
    }

    private func check(_ request: NBDRequest, _ terms: NBDTerms, _ fingerprint: inout Fingerprint) {
        let refusal = request.refusal(under: terms, exportByteCount: Self.exportBytes)
        fingerprint.add(request.command.rawValue)
        fingerprint.add(refusal?.rawValue ?? 0)
        guard refusal == nil else { return }
        // What is not refused is cut into pieces of the disk.
        var pieces = NBDBytePieces(offset: request.offset, byteCount: request.byteCount, maximumByteCount: Self.pieceBytes)
        var count = 0
        while let piece = pieces.next() {
            count += 1
            fingerprint.add(piece.part == nil ? 1 : 2)
        }
        fingerprint.add(count)
    }

    /// The length of the last option fits what is left.
    public func repair(_ input: inout [UInt8]) {
        guard input.count > 22, input[0] & 8 == 0 else { return }
        var position = 6
        let word = Array("IHAVEOPT".utf8)
        while position + 16 <= input.count, Array(input[position..<position + 8]) == word {
            let length = input[position + 12..<position + 16].reduce(0) { $0 << 8 | Int($1) }
            if position + 16 + length > input.count {
                let left = input.count - position - 16
                for byte in 0..<4 { input[position + 12 + byte] = UInt8(truncatingIfNeeded: left >> (24 - 8 * byte)) }
                return
            }
            position += 16 + length
        }
    }
}
