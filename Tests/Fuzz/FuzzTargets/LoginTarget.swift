import Ciphers
import ISCSI
import NIOCore

// Input: options (bit 0: the target asks for CHAP; bit 1: it proves itself too; bit 2: small limits; bit 3: it takes an
// initiator without proof too), then the
// stream of the initiator without digests.
//
// The challenge is the same each time, so that a right answer can be in the corpus. Nobody who lacks the
// secret gets in: a login that ends well with CHAP has the right response among its bytes.

/// The login: text keys, their negotiation in stages, and CHAP.
public final class LoginTarget: FuzzTarget {
    public static let name = "login"
    public static let dictionary: [[UInt8]] =
        [
            "InitiatorName=iqn.a:b\0", "TargetName=iqn.2026-11.test:t\0", "SessionType=Normal\0", "SessionType=Discovery\0",
            "AuthMethod=CHAP\0",
            "AuthMethod=CHAP,None\0", "AuthMethod=None\0", "CHAP_A=5\0", "CHAP_A=7,5\0", "CHAP_N=user\0", "CHAP_R=0x", "CHAP_R=0b",
            "CHAP_I=1\0", "CHAP_C=0x00112233\0", "HeaderDigest=CRC32C,None\0", "DataDigest=None\0", "MaxRecvDataSegmentLength=512\0",
            "MaxBurstLength=16777215\0", "FirstBurstLength=0\0", "MaxOutstandingR2T=65535\0", "ErrorRecoveryLevel=2\0",
            "ImmediateData=Yes\0",
            "InitialR2T=No\0", "DefaultTime2Wait=3600\0", "TaskReporting=FastAbort,RFC3720\0", "iSCSIProtocolLevel=2\0",
            "X-com.example.a=b\0",
            "=", "\0", "0x", "NotUnderstood", "Irrelevant",
        ].map { Array($0.utf8) } + [[0x43, 0x87], [0x43, 0x81], [0x43, 0x83], [0x43, 0x40], [0x43, 0x04]]

    public init() {}

    public static func seeds() -> [[UInt8]] { LoginSamples.seeds }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let options = reader.byte()
        var limits = NegotiationLimits()
        if options & 4 != 0 {
            limits.maxBurstLength = 512
            limits.firstBurstLength = 512
            limits.maxOutstandingR2T = 1
            limits.digests = false
            limits.targetAlias = "alias"
        }
        var credentials = LoginSamples.credentials
        if options & 2 == 0 { credentials.mutualSecret = nil }
        let asked: LoginAuthentication =
            options & 1 == 0 ? .none : options & 8 == 0 ? .required([credentials]) : .accepted([credentials])
        var negotiator = LoginNegotiator(
            limits: limits, tsih: 1, random: { [UInt8](repeating: LoginSamples.randomByte, count: $0) },
            admit: { identity in
                identity.targetName == nil || identity.targetName == "iqn.2026-11.test:t"
                    ? .admitted(asked) : .refused(.notFound, reason: "no such target")
            })
        var decoder = PDUDecoder(maximumDataByteCount: LoginNegotiator.maximumTextByteCount)
        decoder.append(ByteBuffer(bytes: reader.rest()))
        var fingerprint = Fingerprint()
        do {
            while let frame = try decoder.next() {
                guard case .loginRequest(let request) = try InitiatorPDU(frame) else { break }
                let step = negotiator.receive(request)
                if try end(step, &fingerprint, asked, input) { break }
            }
        } catch let error as PDUError {
            fingerprint.add(String(describing: error))
        }
        return fingerprint.value
    }

    /// Looks at an answer; true when it was the last.
    private func end(_ step: LoginStep, _ fingerprint: inout Fingerprint, _ asked: LoginAuthentication, _ input: [UInt8]) throws -> Bool {
        switch step {
        case .respond(let response):
            try check(response)
            fingerprint.add(UInt64(response.currentStageCode) << 1 | (response.transits ? 1 : 0))
            fingerprint.add(response.data.readableBytes)
            return false
        case .fail(let response, let reason):
            try check(response)
            fingerprint.add(reason)
            return true
        case .finish(let response, let result):
            try check(response)
            fingerprint.add(0xF)
            let parameters = result.parameters
            fingerprint.add((parameters.digests.header ? 1 : 0) | (parameters.digests.data ? 2 : 0) | (parameters.initialR2T ? 4 : 0))
            guard (512...16_777_215).contains(parameters.maxBurstLength), (512...16_777_215).contains(parameters.firstBurstLength),
                (1...65_535).contains(parameters.maxOutstandingR2T),
                (512...16_777_215).contains(parameters.initiatorMaxRecvDataSegmentLength)
            else { throw FuzzFinding("the login agreed on \(parameters)") }
            var isProven = !result.provenCredentials.isEmpty
            if case .required = asked { isProven = true }
            if isProven, !LoginSamples.hasRightResponse(input) {
                throw FuzzFinding("the login went through CHAP without the right response")
            }
            return true
        }
    }

    private func check(_ response: LoginResponse) throws {
        if response.data.readableBytes > LoginNegotiator.maximumTextByteCount {
            throw FuzzFinding("an answer of \(response.data.readableBytes) bytes in the login")
        }
    }

    /// Lengths that fit what is there.
    public func repair(_ input: inout [UInt8]) { PDURepair.fitLast(&input, from: 1) }
}

enum PDURepair {
    /// Makes the last PDU of a stream without digests end where the stream ends.
    static func fitLast(_ input: inout [UInt8], from start: Int) {
        var position = start
        while position + 48 <= input.count {
            let data = Int(input[position + 5]) << 16 | Int(input[position + 6]) << 8 | Int(input[position + 7])
            let dataStart = position + 48 + Int(input[position + 4]) * 4
            let end = dataStart + (data + 3) & ~3
            if dataStart > input.count {
                input[position + 4] = 0
                continue
            }
            if end > input.count {
                let left = input.count - dataStart
                input[position + 5] = UInt8(truncatingIfNeeded: left >> 16)
                input[position + 6] = UInt8(truncatingIfNeeded: left >> 8)
                input[position + 7] = UInt8(truncatingIfNeeded: left)
                input += [UInt8](repeating: 0, count: (4 - left % 4) % 4)
                return
            }
            position = end
        }
    }
}

/// Logins as initiators make them.
enum LoginSamples {
    static let randomByte: UInt8 = 0x21
    private static let secret = "secret-of-the-initiator"
    static let credentials: CHAPCredentials = {
        do {
            return try CHAPCredentials(user: "user", secret: secret, mutualUser: "target", mutualSecret: "secret-of-the-target")
        } catch {
            fatalError("there is no memory for a secret: \(error)")
        }
    }()
    static let names = [
        TextPair("InitiatorName", "iqn.2026-11.test:i"), TextPair("TargetName", "iqn.2026-11.test:t"), TextPair("SessionType", "Normal"),
    ]
    static let operational = [
        TextPair("HeaderDigest", "CRC32C,None"), TextPair("DataDigest", "None,CRC32C"), TextPair("InitialR2T", "No"),
        TextPair("ImmediateData", "Yes"), TextPair("MaxRecvDataSegmentLength", "262144"), TextPair("MaxBurstLength", "262144"),
        TextPair("FirstBurstLength", "65536"), TextPair("MaxOutstandingR2T", "1"), TextPair("MaxConnections", "1"),
        TextPair("DefaultTime2Wait", "2"), TextPair("DefaultTime2Retain", "20"), TextPair("ErrorRecoveryLevel", "0"),
        TextPair("IFMarker", "No"), TextPair("OFMarker", "No"), TextPair("DataPDUInOrder", "Yes"), TextPair("DataSequenceInOrder", "Yes"),
    ]

    static func request(_ pairs: [TextPair], stage: UInt8, next: UInt8?, continues: Bool = false) -> LoginRequest {
        var request = LoginRequest()
        request.initiatorTaskTag = 1
        request.cmdSN = 1
        request.currentStageCode = stage
        request.transits = next != nil
        request.nextStageCode = next ?? 0
        request.continues = continues
        TextKeys.write(pairs, into: &request.data)
        return request
    }

    /// What a login to a target, and one for discovery, end with.
    static let logins: [LoginResult] = [names, [names[0], TextPair("SessionType", "Discovery")]].compactMap { pairs in
        var negotiator = LoginNegotiator(
            limits: NegotiationLimits(), tsih: 1, random: { [UInt8](repeating: randomByte, count: $0) }, admit: { _ in .admitted(.none) })
        guard case .finish(_, let result) = negotiator.receive(request(pairs, stage: 1, next: 3)) else { return nil }
        return result
    }

    /// The right response to the challenge, of either hash.
    static var rightResponses: [[UInt8]] {
        let secret = Array(secret.utf8)
        let short = [randomByte] + secret + [UInt8](repeating: randomByte, count: 16)
        let long = [randomByte] + secret + [UInt8](repeating: randomByte, count: 32)
        return [MessageDigest.md5.hash(short), MessageDigest.sha256.hash(long)].compactMap { $0 }
    }

    private static let rightTexts = rightResponses.map { hexadecimal($0) }

    static func hexadecimal(_ bytes: [UInt8]) -> String {
        bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }

    /// True when a right response stands in the input in some writing. Base64 is let pass: nothing makes it by chance.
    static func hasRightResponse(_ input: [UInt8]) -> Bool {
        let text = String(decoding: input.filter { $0 != 0 }, as: Unicode.ASCII.self).lowercased()
        // A text may be spread over PDUs, whose headers stand between its parts.
        return text.contains("0b") || rightTexts.contains { text.contains($0.prefix(16)) || text.contains($0.suffix(16)) }
    }

    static var seeds: [[UInt8]] {
        let encoder = PDUEncoder()
        func stream(_ options: UInt8, _ requests: [LoginRequest]) -> [UInt8] {
            [options] + encoder.bytes(requests.map { .loginRequest($0) })
        }
        let proof = [TextPair("CHAP_N", "user"), TextPair("CHAP_R", "0x" + hexadecimal(rightResponses[0]))]
        let longProof = [TextPair("CHAP_N", "user"), TextPair("CHAP_R", "0x" + hexadecimal(rightResponses[1]))]
        let challenge = [TextPair("CHAP_I", "9"), TextPair("CHAP_C", "0x000102030405060708090a0b0c0d0e0f")]
        let offer = [TextPair("AuthMethod", "CHAP,None")]
        var split = request(names + operational, stage: 1, next: 3)
        var head = split
        head.transits = false
        head.nextStageCode = 0
        head.continues = true
        head.data = split.data.readSlice(length: 100) ?? ByteBuffer()
        return [
            stream(0, [request(names + operational, stage: 1, next: 3)]),
            stream(0, [request(names + [TextPair("AuthMethod", "None")], stage: 0, next: 1), request(operational, stage: 1, next: 3)]),
            stream(4, [request(names, stage: 0, next: 3)]),
            stream(0, [request([names[0], TextPair("SessionType", "Discovery")], stage: 1, next: 3)]),
            stream(
                1,
                [
                    request(names + offer, stage: 0, next: nil), request([TextPair("CHAP_A", "5")], stage: 0, next: nil),
                    request(proof, stage: 0, next: 1), request(operational, stage: 1, next: 3),
                ]),
            stream(
                3,
                [
                    request(names + offer, stage: 0, next: nil), request([TextPair("CHAP_A", "7,5")], stage: 0, next: nil),
                    request(longProof + challenge, stage: 0, next: 1), request(operational, stage: 1, next: 3),
                ]),
            stream(0, [head, split]),
            stream(1, [request(names + operational, stage: 1, next: 3)]),
        ]
    }
}
