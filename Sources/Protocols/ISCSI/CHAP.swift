import Ciphers

// CHAP as iSCSI uses it, RFC 7143 section 12.1.3 and RFC 1994:
//
//   initiator                         target
//   CHAP_A=7,5                  ->
//                               <-    CHAP_A=5, CHAP_I=i, CHAP_C=c
//   CHAP_N=user,
//   CHAP_R=H(i, secret, c)      ->    checked in constant time
//   [CHAP_I=j, CHAP_C=d]        ->
//                               <-    [CHAP_N=name, CHAP_R=H(j, other secret, d)]

/// Names and secrets of one target. The secrets lie in locked memory, and the description shows none.
public struct CHAPCredentials: Equatable, Sendable, CustomStringConvertible {
    /// The name that the initiator gives.
    public var user: String
    /// The secret that the initiator proves to know.
    public var secret: SecretText
    /// The name that the target gives when the initiator asks for proof.
    public var mutualUser: String?
    /// The secret that the target proves to know. It must differ from `secret`.
    public var mutualSecret: SecretText?

    public init(user: String, secret: SecretText, mutualUser: String? = nil, mutualSecret: SecretText? = nil) {
        self.user = user
        self.secret = secret
        self.mutualUser = mutualUser
        self.mutualSecret = mutualSecret
    }

    /// The same with copies of secrets that lie in ordinary memory.
    public init(user: String, secret: String, mutualUser: String? = nil, mutualSecret: String? = nil) throws(CipherError) {
        self.init(
            user: user, secret: try SecretText(secret), mutualUser: mutualUser,
            mutualSecret: try mutualSecret.map { text throws(CipherError) in try SecretText(text) })
    }

    public var description: String { "CHAP credentials of \(user)" }
}

/// The hash functions of CHAP_A that are offered: IANA's numbers.
enum CHAPAlgorithm: UInt8, CaseIterable {
    case md5 = 5
    case sha256 = 7

    /// The strongest algorithm of an initiator's list that we know.
    static func choose(from list: String) -> CHAPAlgorithm? {
        let offered = list.split(separator: ",").compactMap { UInt8($0) }
        if offered.contains(CHAPAlgorithm.sha256.rawValue) { return .sha256 }
        return offered.contains(CHAPAlgorithm.md5.rawValue) ? .md5 : nil
    }

    /// How many bytes a challenge of ours has.
    var challengeByteCount: Int { self == .md5 ? 16 : 32 }

    /// Nil when this machine's OpenSSL refuses the function.
    func response(identifier: UInt8, secret: SecretText, challenge: [UInt8]) -> [UInt8]? {
        let digest: MessageDigest = self == .md5 ? .md5 : .sha256
        return digest.hash([identifier], secret, challenge)
    }
}

enum CHAP {
    /// The longest binary value that the standard allows.
    static let maximumBinaryByteCount = 1024

    /// Compares without telling by time where the difference is.
    static func isEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        var difference: UInt8 = left.count == right.count ? 0 : 1
        for index in 0..<max(left.count, right.count) {
            let leftByte: UInt8 = index < left.count ? left[index] : 0
            let rightByte: UInt8 = index < right.count ? right[index] : 0
            difference |= leftByte ^ rightByte
        }
        return difference == 0
    }

    static func hexadecimal(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = Array("0x".utf8)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// A binary value: hexadecimal with 0x, or base64 with 0b (section 6.1).
    static func binary(_ text: String) -> [UInt8]? {
        let characters = Array(text.utf8)
        guard characters.count > 2, characters[0] == UInt8(ascii: "0") else { return nil }
        let rest = characters[2...]
        let bytes: [UInt8]?
        switch characters[1] {
        case UInt8(ascii: "x"), UInt8(ascii: "X"): bytes = hexadecimalBytes(rest)
        case UInt8(ascii: "b"), UInt8(ascii: "B"): bytes = base64Bytes(rest)
        default: bytes = nil
        }
        guard let bytes, !bytes.isEmpty, bytes.count <= maximumBinaryByteCount else { return nil }
        return bytes
    }

    private static func hexadecimalBytes(_ digits: ArraySlice<UInt8>) -> [UInt8]? {
        var bytes: [UInt8] = []
        // An odd number of digits has an implied leading zero.
        var high: UInt8? = digits.count % 2 == 0 ? nil : 0
        for digit in digits {
            guard let value = Character(Unicode.Scalar(digit)).hexDigitValue.map({ UInt8(truncatingIfNeeded: $0) }) else {
                return nil
            }
            if let first = high {
                bytes.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return bytes
    }

    private static func base64Bytes(_ characters: ArraySlice<UInt8>) -> [UInt8]? {
        var bytes: [UInt8] = []
        var bits: UInt32 = 0
        var bitCount = 0
        var isPadding = false
        for character in characters {
            if character == UInt8(ascii: "=") {
                isPadding = true
                continue
            }
            guard !isPadding, let value = base64Value(character) else { return nil }
            bits = (bits << 6 | value) & 0xFFFF
            bitCount += 6
            if bitCount >= 8 {
                bitCount -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(bitCount)))
            }
        }
        return bytes
    }

    private static func base64Value(_ character: UInt8) -> UInt32? {
        switch character {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character - UInt8(ascii: "A"))
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character - UInt8(ascii: "a")) + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character - UInt8(ascii: "0")) + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}

/// The target's side of one CHAP exchange, with one or several credentials that will do.
struct CHAPExchange {
    enum Outcome {
        /// Keys to answer; the exchange goes on.
        case answer([TextPair])
        /// The initiator has proved that it knows these; keys to answer, if any.
        case authenticated([TextPair], [CHAPCredentials])
        /// It has not.
        case failed(String)
    }

    private static let refused = "this machine's OpenSSL refuses the hash function of CHAP"

    private let candidates: [CHAPCredentials]
    private var algorithm: CHAPAlgorithm?
    private var identifier: UInt8 = 0
    private var challenge: [UInt8] = []

    init(_ candidates: [CHAPCredentials]) {
        self.candidates = candidates
    }

    mutating func take(_ keys: [String: String], random: (Int) -> [UInt8]) -> Outcome {
        if algorithm == nil { return start(keys, random: random) }
        return check(keys)
    }

    private mutating func start(_ keys: [String: String], random: (Int) -> [UInt8]) -> Outcome {
        guard let offer = keys["CHAP_A"] else { return .answer([]) }
        guard let chosen = CHAPAlgorithm.choose(from: offer) else { return .failed("no common CHAP algorithm") }
        algorithm = chosen
        identifier = random(1).first ?? 0
        challenge = random(chosen.challengeByteCount)
        return .answer([
            TextPair("CHAP_A", String(chosen.rawValue)), TextPair("CHAP_I", String(identifier)),
            TextPair("CHAP_C", CHAP.hexadecimal(challenge)),
        ])
    }

    private func check(_ keys: [String: String]) -> Outcome {
        guard let algorithm, let name = keys["CHAP_N"], let text = keys["CHAP_R"], let response = CHAP.binary(text) else {
            return .failed("CHAP_N or CHAP_R is missing")
        }
        var proven: [CHAPCredentials] = []
        for candidate in candidates {
            guard let expected = algorithm.response(identifier: identifier, secret: candidate.secret, challenge: challenge) else {
                return .failed(Self.refused)
            }
            // Both are always compared, so that a wrong name takes as long as a wrong secret.
            let isNameRight = CHAP.isEqual(Array(name.utf8), Array(candidate.user.utf8))
            let isResponseRight = CHAP.isEqual(response, expected)
            if isNameRight, isResponseRight { proven.append(candidate) }
        }
        guard !proven.isEmpty else { return .failed("wrong CHAP name or secret") }
        return mutual(keys, algorithm, proven)
    }

    private func mutual(_ keys: [String: String], _ algorithm: CHAPAlgorithm, _ proven: [CHAPCredentials]) -> Outcome {
        if keys["CHAP_I"] == nil, keys["CHAP_C"] == nil { return .authenticated([], proven) }
        guard let identifierText = keys["CHAP_I"], let theirs = OperationalKeys.number(identifierText, 0...255),
            let challengeText = keys["CHAP_C"], let theirChallenge = CHAP.binary(challengeText)
        else { return .failed("CHAP_I or CHAP_C is malformed") }
        // A challenge of ours that comes back wants us to answer for the initiator (section 9.2.1).
        guard !CHAP.isEqual(theirChallenge, challenge) else { return .failed("the CHAP challenge was reflected") }
        guard let ours = proven.first(where: { $0.mutualSecret != nil }), let secret = ours.mutualSecret else {
            return .failed("mutual CHAP is not configured")
        }
        guard secret != ours.secret else { return .failed("both directions of CHAP have the same secret") }
        guard let answer = algorithm.response(identifier: UInt8(truncatingIfNeeded: theirs), secret: secret, challenge: theirChallenge)
        else { return .failed(Self.refused) }
        let pairs = [TextPair("CHAP_N", ours.mutualUser ?? ours.user), TextPair("CHAP_R", CHAP.hexadecimal(answer))]
        // Where several know the secret, only those are proved both ways whose answer this would be.
        return .authenticated(pairs, proven.filter { $0.mutualSecret == secret && $0.mutualUser == ours.mutualUser })
    }
}
