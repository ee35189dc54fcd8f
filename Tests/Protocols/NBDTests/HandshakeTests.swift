import NIOCore
import Testing

@testable import NBD

/// A client that has sent its flags, with what it has been answered.
struct HandshakeBench {
    static let export = NBDExport(name: "mail", byteCount: 1 << 30, isReadOnly: false)

    var handshake: NBDHandshake
    var output = ByteBuffer()

    init(_ security: NBDSecurity = .plain, flags: UInt32? = 3, exports: [NBDExport] = [Self.export], isReady: Bool = true) throws {
        handshake = NBDHandshake(
            security: security, list: { exports.map(\.name) },
            find: { name in
                guard let export = exports.first(where: { $0.name == name || (name.isEmpty && exports.count == 1) }) else {
                    return isReady ? .unknown : .notReady
                }
                return .found(export)
            })
        handshake.greet(into: &output)
        #expect(
            output.readMultipleIntegers() as (UInt64, UInt64, UInt16)? ?? (0, 0, 0) == (0x4E42_444D_4147_4943, 0x4948_4156_454F_5054, 3))
        guard let flags else { return }
        var input = ByteBuffer(integer: flags)
        #expect(try handshake.step(&input, &output) == .answered)
    }

    static func bytes(_ option: UInt32, _ data: ByteBuffer = ByteBuffer()) -> ByteBuffer {
        var bytes = ByteBuffer()
        bytes.writeMultipleIntegers(NBDMagic.option, option, UInt32(data.readableBytes))
        bytes.writeImmutableBuffer(data)
        return bytes
    }

    /// Sends an option and gives what the step came to, with the replies' types and data.
    mutating func send(_ option: NBDOption, _ data: ByteBuffer = ByteBuffer()) throws -> (
        NBDHandshake.Step, [(NBDOptionReply?, ByteBuffer)]
    ) {
        var input = Self.bytes(option.rawValue, data)
        let step = try handshake.step(&input, &output)
        #expect(input.readableBytes == 0)
        var replies: [(NBDOptionReply?, ByteBuffer)] = []
        while let (magic, of, type, count) = output.readMultipleIntegers(as: (UInt64, UInt32, UInt32, UInt32).self) {
            #expect(magic == 0x3_E889_0455_65A9)
            #expect(of == option.rawValue)
            replies.append((NBDOptionReply(rawValue: type), try unwrap(output.readSlice(length: Int(count)))))
        }
        return (step, replies)
    }

    static func info(_ name: String, _ wanted: [UInt16] = []) -> ByteBuffer {
        var data = ByteBuffer()
        data.writeInteger(UInt32(name.utf8.count))
        data.writeString(name)
        data.writeInteger(UInt16(wanted.count))
        for kind in wanted { data.writeInteger(kind) }
        return data
    }

    static func contexts(_ name: String, _ queries: [String]) -> ByteBuffer {
        var data = ByteBuffer()
        data.writeInteger(UInt32(name.utf8.count))
        data.writeString(name)
        data.writeInteger(UInt32(queries.count))
        for query in queries {
            data.writeInteger(UInt32(query.utf8.count))
            data.writeString(query)
        }
        return data
    }
}

@Suite struct HandshakeTests {
    @Test func goEntersWithWhatWasNegotiated() throws {
        var bench = try HandshakeBench()
        #expect(try bench.send(.structuredReply).1.map(\.0) == [.acknowledged])
        let (_, chosen) = try bench.send(.setMetadataContext, HandshakeBench.contexts("mail", ["qemu:dirty", "base:allocation"]))
        #expect(chosen.map(\.0) == [.metadataContext, .acknowledged])
        #expect(
            chosen[0].1
                == {
                    var data = ByteBuffer(integer: UInt32(1)); data.writeString("base:allocation"); return data
                }())
        let (step, replies) = try bench.send(.go, HandshakeBench.info("mail", [1, 3]))
        #expect(
            step
                == .enter(
                    NBDTerms(export: HandshakeBench.export, usesStructuredReplies: true, reportsAllocation: true, knowsBlockSize: true)))
        #expect(replies.map(\.0) == [.information, .information, .information, .acknowledged])
        var data = replies[0].1
        // FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, DF, MULTI_CONN, CACHE, FAST_ZERO
        #expect(try unwrap(data.readMultipleIntegers() as (UInt16, UInt64, UInt16)?) == (0, 1 << 30, 0b1101_1110_1101))
        #expect(
            replies[1].1
                == {
                    var data = ByteBuffer(integer: UInt16(1)); data.writeString("mail"); return data
                }())
        data = replies[2].1
        #expect(try unwrap(data.readMultipleIntegers() as (UInt16, UInt32, UInt32, UInt32)?) == (3, 512, 4096, 32 << 20))
    }

    @Test func infoTellsAndStays() throws {
        var bench = try HandshakeBench(exports: [NBDExport(name: "mail", byteCount: 512, isReadOnly: true)])
        let (step, replies) = try bench.send(.info, HandshakeBench.info(""))
        #expect(step == .answered)
        #expect(replies.map(\.0) == [.information, .acknowledged])
        var data = replies[0].1
        // Read-only, so nothing that writes; no DF without structured replies.
        #expect(try unwrap(data.readMultipleIntegers() as (UInt16, UInt64, UInt16)?) == (0, 512, 0b101_0000_0111))
        #expect(try bench.send(.info, HandshakeBench.info("other")).1.map(\.0) == [.unknownExport])
        let (last, _) = try bench.send(.go, HandshakeBench.info("mail"))
        guard case .enter(let terms) = last else { Issue.record("\(last)"); return }
        #expect(!terms.knowsBlockSize && !terms.usesStructuredReplies && terms.export.isReadOnly)
    }

    @Test(arguments: [(UInt32(1), 134), (3, 10)]) func exportNameEnters(_ flags: UInt32, _ byteCount: Int) throws {
        var bench = try HandshakeBench(flags: flags)
        var input = HandshakeBench.bytes(1, ByteBuffer(string: "mail"))
        #expect(try bench.handshake.step(&input, &bench.output) == .enter(NBDTerms(export: HandshakeBench.export)))
        #expect(bench.output.readableBytes == byteCount)
        #expect(bench.output.readInteger() == UInt64(1 << 30))
    }

    @Test func anUnknownNameEndsTheOldWay() throws {
        var bench = try HandshakeBench()
        #expect(throws: NBDHandshakeError.exportRefused) { try bench.send(.exportName, ByteBuffer(string: "other")) }
    }

    @Test func exportsAreListed() throws {
        var bench = try HandshakeBench(exports: ["a", "b"].map { NBDExport(name: $0, byteCount: 0, isReadOnly: false) })
        let (_, replies) = try bench.send(.list)
        #expect(replies.map(\.0) == [.server, .server, .acknowledged])
        #expect(
            replies[1].1
                == {
                    var data = ByteBuffer(integer: UInt32(1)); data.writeString("b"); return data
                }())
        #expect(try bench.send(.list, ByteBuffer(string: "x")).1.map(\.0) == [.invalid])
        // There are two, so none is the default.
        #expect(try bench.send(.go, HandshakeBench.info("")).1.map(\.0) == [.unknownExport])
    }

    @Test func contextsAreListedAndChosen() throws {
        var bench = try HandshakeBench()
        #expect(try bench.send(.listMetadataContext, HandshakeBench.contexts("mail", [])).1.map(\.0) == [.invalid])
        _ = try bench.send(.structuredReply)
        for queries in [[], ["base:"], ["base:allocation"]] {
            let (_, replies) = try bench.send(.listMetadataContext, HandshakeBench.contexts("mail", queries))
            #expect(replies.map(\.0) == [.metadataContext, .acknowledged])
        }
        #expect(try bench.send(.listMetadataContext, HandshakeBench.contexts("mail", ["qemu:"])).1.map(\.0) == [.acknowledged])
        #expect(try bench.send(.listMetadataContext, HandshakeBench.contexts("other", [])).1.map(\.0) == [.unknownExport])
        // Chosen, then not chosen: the last word counts.
        _ = try bench.send(.setMetadataContext, HandshakeBench.contexts("mail", ["base:allocation"]))
        #expect(try bench.send(.setMetadataContext, HandshakeBench.contexts("mail", ["base:"])).1.map(\.0) == [.acknowledged])
        let (step, _) = try bench.send(.go, HandshakeBench.info("mail"))
        #expect(step == .enter(NBDTerms(export: HandshakeBench.export, usesStructuredReplies: true)))
    }

    @Test func whatWasChosenForOneExportDoesNotHoldForAnother() throws {
        let exports = ["a", "b"].map { NBDExport(name: $0, byteCount: 0, isReadOnly: false) }
        var bench = try HandshakeBench(exports: exports)
        _ = try bench.send(.structuredReply)
        _ = try bench.send(.setMetadataContext, HandshakeBench.contexts("a", ["base:allocation"]))
        _ = try bench.send(.info, HandshakeBench.info("a", [3]))
        let (step, _) = try bench.send(.go, HandshakeBench.info("b"))
        #expect(step == .enter(NBDTerms(export: exports[1], usesStructuredReplies: true)))
    }

    @Test func abortEndsWithAnAnswer() throws {
        var bench = try HandshakeBench(.required)
        let (step, replies) = try bench.send(.abort)
        #expect(step == .close)
        #expect(replies.map(\.0) == [.acknowledged])
    }

    @Test func unknownOptionsAreRefusedAndTheHandshakeGoesOn() throws {
        var bench = try HandshakeBench()
        for code in [NBDOption.extendedHeaders, NBDOption(rawValue: 4), NBDOption(rawValue: .max)] {
            #expect(try bench.send(code, ByteBuffer(string: "anything")).1.map(\.0) == [.unsupported])
        }
        #expect(try bench.send(.list).1.last?.0 == .acknowledged)
    }

    @Test func exportsThatAreNotThereYetAreToldSo() throws {
        var bench = try HandshakeBench(exports: [], isReady: false)
        let (_, replies) = try bench.send(.go, HandshakeBench.info("mail"))
        #expect(replies.map(\.0) == [.unknownExport])
        #expect(String(buffer: replies[0].1).contains("again"))
    }
}

@Suite struct HandshakeTLSTests {
    @Test func withoutTLSNothingGoesOnWhereItIsRequired() throws {
        var bench = try HandshakeBench(.required)
        for option in [NBDOption.list, .structuredReply, .info, .go, .listMetadataContext, NBDOption(rawValue: 99)] {
            #expect(try bench.send(option, HandshakeBench.info("mail")).1.map(\.0) == [.tlsRequired])
        }
        #expect(throws: NBDHandshakeError.exportRefused) { try bench.send(.exportName, ByteBuffer(string: "mail")) }
    }

    @Test func tlsBeginsOnceAndForgetsWhatWasBefore() throws {
        var bench = try HandshakeBench(.optional)
        _ = try bench.send(.structuredReply)
        _ = try bench.send(.setMetadataContext, HandshakeBench.contexts("mail", ["base:allocation"]))
        #expect(try bench.send(.startTLS, ByteBuffer(string: "x")).1.map(\.0) == [.invalid])
        let (step, replies) = try bench.send(.startTLS)
        #expect(step == .startTLS)
        #expect(replies.map(\.0) == [.acknowledged])
        bench.handshake.tlsDidBegin()
        #expect(try bench.send(.startTLS).1.map(\.0) == [.invalid])
        let (last, _) = try bench.send(.go, HandshakeBench.info("mail"))
        #expect(last == .enter(NBDTerms(export: HandshakeBench.export)))
    }

    @Test func bytesBeforeTLSAreNotTaken() throws {
        var bench = try HandshakeBench(.required)
        _ = try bench.send(.startTLS)
        var input = HandshakeBench.bytes(3)
        #expect(throws: NBDHandshakeError.bytesBeforeTLS) { try bench.handshake.step(&input, &bench.output) }
    }

    @Test func withoutACertificateTLSIsRefused() throws {
        var bench = try HandshakeBench(.plain)
        #expect(try bench.send(.startTLS).1.map(\.0) == [.policy])
    }
}

@Suite struct HostileHandshakeTests {
    @Test func unknownClientFlagsEndIt() throws {
        var bench = try HandshakeBench(flags: nil)
        var input = ByteBuffer(integer: UInt32(4))
        #expect(throws: NBDHandshakeError.unknownClientFlags(4)) { try bench.handshake.step(&input, &bench.output) }
    }

    @Test func garbageIsKnownByItsFirstBytes() throws {
        var bench = try HandshakeBench()
        var input = ByteBuffer(string: "GET / HT")
        #expect(throws: NBDHandshakeError.notAnOption) { try bench.handshake.step(&input, &bench.output) }
    }

    @Test func longOptionsAreSkippedAndVeryLongOnesEndIt() throws {
        var bench = try HandshakeBench()
        var input = ByteBuffer()
        input.writeMultipleIntegers(NBDMagic.option, NBDOption.go.rawValue, NBDHandshake.maximumSkippedByteCount)
        for _ in 0..<1024 {
            input.writeRepeatingByte(0xFF, count: 1024)
            let step = try bench.handshake.step(&input, &bench.output)
            // Nothing of it is kept.
            #expect(input.readableBytes == 0)
            if step == .answered { break }
        }
        #expect(bench.output.readMultipleIntegers() as (UInt64, UInt32, UInt32)? ?? (0, 0, 0) == (NBDMagic.optionReply, 7, 0x8000_0009))
        bench.output.clear()
        #expect(try bench.send(.list).1.count == 2)

        input.clear()
        input.writeMultipleIntegers(NBDMagic.option, NBDOption.go.rawValue, NBDHandshake.maximumSkippedByteCount + 1)
        #expect(throws: NBDHandshakeError.optionTooLong(byteCount: (1 << 20) + 1)) { try bench.handshake.step(&input, &bench.output) }
    }

    @Test func optionsAreCounted() throws {
        var bench = try HandshakeBench()
        var options = ByteBuffer()
        for _ in 0..<NBDHandshake.maximumOptions { options.writeImmutableBuffer(HandshakeBench.bytes(8)) }
        while options.readableBytes > 0 { _ = try bench.handshake.step(&options, &bench.output) }
        bench.output.clear()
        #expect(throws: NBDHandshakeError.tooManyOptions) { try bench.send(.structuredReply) }
    }

    /// Lengths that lie, and text that is none.
    @Test(
        arguments: [
            [], [0, 0, 0, 9, 1], [0xFF, 0xFF, 0xFF, 0xFF], [0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 2, 0, 1], [0, 0, 0, 0, 0, 0, 9],
            [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0xFF, 0, 0],
        ] as [[UInt8]]) func malformedDataIsInvalid(_ bytes: [UInt8]) throws
    {
        for option in [NBDOption.info, .go, .listMetadataContext, .setMetadataContext] {
            var bench = try HandshakeBench()
            _ = try bench.send(.structuredReply)
            #expect(try bench.send(option, ByteBuffer(bytes: bytes)).1.map(\.0) == [.invalid])
        }
    }

    @Test func aNameOfMoreThan4096BytesIsInvalid() throws {
        var bench = try HandshakeBench()
        #expect(try bench.send(.info, HandshakeBench.info(String(repeating: "x", count: 4096))).1.map(\.0) == [.unknownExport])
        #expect(try bench.send(.info, HandshakeBench.info(String(repeating: "x", count: 4097))).1.map(\.0) == [.invalid])
    }

    @Test func anySplitOfTheBytesGivesTheSame() throws {
        var whole = HandshakeBench.bytes(8)
        whole.writeImmutableBuffer(HandshakeBench.bytes(10, HandshakeBench.contexts("mail", ["base:allocation"])))
        whole.writeImmutableBuffer(HandshakeBench.bytes(7, HandshakeBench.info("mail", [3])))
        for size in 1...whole.readableBytes {
            var bench = try HandshakeBench()
            var rest = whole
            var input = ByteBuffer()
            var entered: NBDTerms?
            while entered == nil, let part = rest.readSlice(length: min(size, rest.readableBytes)), part.readableBytes > 0 {
                input.writeImmutableBuffer(part)
                loop: while true {
                    switch try bench.handshake.step(&input, &bench.output) {
                    case .enter(let terms): entered = terms; break loop
                    case .answered: continue
                    default: break loop
                    }
                }
            }
            #expect(entered?.reportsAllocation == true)
        }
    }

    @Test func randomOptionsNeverTrap() throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2_000 {
            var bench = try HandshakeBench(Bool.random() ? .plain : .optional)
            _ = try bench.send(.structuredReply)
            let bytes = (0..<Int.random(in: 0...40, using: &random)).map { _ in
                UInt8.random(in: 0...(Bool.random() ? 255 : 4), using: &random)
            }
            var input = HandshakeBench.bytes(UInt32.random(in: 0...12, using: &random), ByteBuffer(bytes: bytes))
            _ = try? bench.handshake.step(&input, &bench.output)
        }
    }
}

/// A value that must be there. What is read from a buffer changes the buffer, which `#require` does not allow.
func unwrap<Value>(_ value: Value?, sourceLocation: SourceLocation = #_sourceLocation) throws -> Value {
    try #require(value, sourceLocation: sourceLocation)
}
