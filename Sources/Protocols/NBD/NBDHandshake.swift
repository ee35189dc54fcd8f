import NIOCore

// The fixed newstyle handshake, as a server:
//
//   greeting --client flags--> options --EXPORT_NAME or GO--> transmission
//                               |   ^
//                               |   +--(TLS is up)-- STARTTLS: all that was negotiated is forgotten
//                               +--ABORT, a broken rule--> closed
//
// Answers are appended to a buffer of the caller. One call of `step` answers one option at most, so that the caller can stop
// taking options when its answers do not leave.

/// Why a handshake ends without an export.
public enum NBDHandshakeError: Error, Equatable, Sendable {
    /// The client flags have bits that were not offered.
    case unknownClientFlags(UInt32)
    /// What should have been an option does not begin as one.
    case notAnOption
    /// An option of more bytes than are even skipped.
    case optionTooLong(byteCount: UInt32)
    case tooManyOptions
    /// `NBD_OPT_EXPORT_NAME` cannot be refused in words (doc/proto.md, option types).
    case exportRefused
    /// Bytes came between `NBD_OPT_STARTTLS` and its answer: nothing that was sent in plain may be taken as if it came by TLS.
    case bytesBeforeTLS
}

extension NBDHandshakeError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unknownClientFlags(let flags): "the client sets flags that were not offered (0x\(String(flags, radix: 16)))"
        case .notAnOption: "what should be an option does not begin as one"
        case .optionTooLong(let byteCount): "an option announces \(byteCount) bytes"
        case .tooManyOptions: "too many options"
        case .exportRefused: "the export is not there for this client, or needs TLS"
        case .bytesBeforeTLS: "bytes came between the beginning of TLS and its answer"
        }
    }
}

/// Whether a client may or must begin TLS (doc/proto.md, TLS support). It stays the same for a connection.
public enum NBDSecurity: Equatable, Sendable {
    /// NOTLS
    case plain
    /// SELECTIVETLS, with no export that demands it.
    case optional
    /// FORCEDTLS
    case required
}

/// The server's side of a handshake.
public struct NBDHandshake {
    /// The most options of one connection; one more closes it. A client that lists all exports sends a few for each.
    public static let maximumOptions = 16_384
    /// The longest option that is looked at, in bytes; a longer one is skipped and answered with `NBD_REP_ERR_TOO_BIG`.
    public static let maximumOptionByteCount: UInt32 = 16 << 10
    /// The longest option that is skipped, in bytes; a longer one closes the connection.
    public static let maximumSkippedByteCount: UInt32 = 1 << 20
    /// The longest string of the protocol, in bytes.
    static let maximumStringByteCount = 4096
    /// The one metadata context, and its identifier on each connection.
    static let allocationContext = "base:allocation"
    static let allocationContextIdentifier: UInt32 = 1

    /// What a step came to.
    public enum Step: Equatable, Sendable {
        /// Something was answered; there may be more to do.
        case answered
        /// Nothing can be done before more bytes come.
        case needsBytes
        /// Send what was answered, begin TLS, then call `tlsDidBegin`.
        case startTLS
        /// The transmission phase has begun; the rest of the input belongs to it.
        case enter(NBDTerms)
        /// The client wants to leave.
        case close
    }

    private enum State {
        case clientFlags
        case option
        case skipping(NBDOption, remaining: UInt32)
        case startingTLS
        case ended
    }

    private var state = State.clientFlags
    private var optionCount = 0
    private var sendsZeroes = true
    private let security: NBDSecurity
    private(set) var isEncrypted = false
    let list: () -> [String]
    let find: (String) -> NBDLookup

    var usesStructuredReplies = false
    /// The export that `base:allocation` was chosen for.
    var allocationExport: String?
    /// The export whose block size was told.
    var blockSizeExport: String?

    /// - Parameters:
    ///   - list: the names that `NBD_OPT_LIST` tells this client.
    ///   - find: what is behind a name; an empty one asks for the default.
    public init(security: NBDSecurity, list: @escaping () -> [String], find: @escaping (String) -> NBDLookup) {
        self.security = security
        self.list = list
        self.find = find
    }

    /// The first bytes of a connection.
    public func greet(into output: inout ByteBuffer) {
        output.writeMultipleIntegers(NBDMagic.initial, NBDMagic.option, UInt16(truncatingIfNeeded: NBDHandshakeFlags.offered.rawValue))
    }

    /// TLS is up: the client starts over.
    public mutating func tlsDidBegin() {
        guard case .startingTLS = state else { return }
        state = .option
        isEncrypted = true
        usesStructuredReplies = false
        allocationExport = nil
        blockSizeExport = nil
    }

    /// Takes the next option from `input` and appends what there is to answer to `output`.
    public mutating func step(_ input: inout ByteBuffer, _ output: inout ByteBuffer) throws(NBDHandshakeError) -> Step {
        switch state {
        case .clientFlags: return try takeClientFlags(&input)
        case .option: return try takeOption(&input, &output)
        case .skipping(let option, let remaining):
            let count = min(Int(remaining), input.readableBytes)
            input.moveReaderIndex(forwardBy: count)
            if count < Int(remaining) {
                state = .skipping(option, remaining: remaining - UInt32(count))
                return .needsBytes
            }
            state = .option
            reply(to: option, .tooBig, "the option is too long", &output)
            return .answered
        case .startingTLS: throw .bytesBeforeTLS
        case .ended: return .close
        }
    }

    private mutating func takeClientFlags(_ input: inout ByteBuffer) throws(NBDHandshakeError) -> Step {
        guard let value: UInt32 = input.readInteger() else { return .needsBytes }
        let flags = NBDHandshakeFlags(rawValue: value)
        guard flags.isSubset(of: .offered) else { throw .unknownClientFlags(value) }
        sendsZeroes = !flags.contains(.noZeroes)
        state = .option
        return .answered
    }

    private mutating func takeOption(_ input: inout ByteBuffer, _ output: inout ByteBuffer) throws(NBDHandshakeError) -> Step {
        guard input.readableBytes >= 16 else {
            // Garbage is known by its first bytes; who sends it does not wait for an answer to the rest.
            if let magic: UInt64 = input.getInteger(at: input.readerIndex), magic != NBDMagic.option { throw .notAnOption }
            return .needsBytes
        }
        let start = input.readerIndex
        guard let (magic, code, byteCount) = input.readMultipleIntegers(as: (UInt64, UInt32, UInt32).self) else { return .needsBytes }
        guard magic == NBDMagic.option else { throw .notAnOption }
        guard byteCount <= Self.maximumSkippedByteCount else { throw .optionTooLong(byteCount: byteCount) }
        let option = NBDOption(rawValue: code)
        if byteCount > Self.maximumOptionByteCount {
            if option == .exportName { throw .exportRefused }
            try countOption()
            state = .skipping(option, remaining: byteCount)
            return try step(&input, &output)
        }
        guard var data = input.readSlice(length: Int(byteCount)) else {
            input.moveReaderIndex(to: start)
            return .needsBytes
        }
        try countOption()
        return try answer(option, &data, &output)
    }

    private mutating func countOption() throws(NBDHandshakeError) {
        optionCount += 1
        if optionCount > Self.maximumOptions { throw .tooManyOptions }
    }

    private mutating func answer(_ option: NBDOption, _ data: inout ByteBuffer, _ output: inout ByteBuffer)
        throws(NBDHandshakeError) -> Step
    {
        if security == .required, !isEncrypted, option != .startTLS, option != .abort {
            if option == .exportName { throw .exportRefused }
            reply(to: option, .tlsRequired, "this server wants TLS", &output)
            return .answered
        }
        switch option {
        case .exportName: return try chooseByName(&data, &output)
        case .abort:
            reply(to: option, .acknowledged, &output)
            state = .ended
            return .close
        case .startTLS: return startTLS(data, &output)
        case .list: listExports(data, &output)
        case .info, .go:
            if let terms = tellExport(option, &data, &output), option == .go {
                state = .ended
                return .enter(terms)
            }
        case .structuredReply:
            if data.readableBytes > 0 {
                reply(to: option, .invalid, "the option has no data", &output)
            } else {
                usesStructuredReplies = true
                reply(to: option, .acknowledged, &output)
            }
        case .listMetadataContext, .setMetadataContext: answerContexts(option, &data, &output)
        default: reply(to: option, .unsupported, "the option is not known", &output)
        }
        return .answered
    }

    private mutating func startTLS(_ data: ByteBuffer, _ output: inout ByteBuffer) -> Step {
        if security == .plain {
            reply(to: .startTLS, .policy, "this server has no certificate", &output)
        } else if isEncrypted {
            reply(to: .startTLS, .invalid, "TLS is up", &output)
        } else if data.readableBytes > 0 {
            reply(to: .startTLS, .invalid, "the option has no data", &output)
        } else {
            reply(to: .startTLS, .acknowledged, &output)
            state = .startingTLS
            return .startTLS
        }
        return .answered
    }

    /// `NBD_OPT_EXPORT_NAME`: the old way in, whose answer has no room for an error.
    private mutating func chooseByName(_ data: inout ByteBuffer, _ output: inout ByteBuffer) throws(NBDHandshakeError) -> Step {
        guard let name = Self.string(&data, byteCount: data.readableBytes), case .found(let export) = find(name) else {
            throw .exportRefused
        }
        let terms = terms(for: export)
        output.writeMultipleIntegers(
            export.byteCount, export.transmissionFlags(usesStructuredReplies: terms.usesStructuredReplies).rawValue)
        if sendsZeroes { output.writeRepeatingByte(0, count: 124) }
        state = .ended
        return .enter(terms)
    }

    func terms(for export: NBDExport) -> NBDTerms {
        NBDTerms(
            export: export, usesStructuredReplies: usesStructuredReplies,
            reportsAllocation: usesStructuredReplies && allocationExport == export.name, knowsBlockSize: blockSizeExport == export.name)
    }
}
