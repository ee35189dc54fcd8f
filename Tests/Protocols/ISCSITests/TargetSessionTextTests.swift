import NIOCore
import Testing
@testable import ISCSI

@Suite struct TextTests {
    private func text(_ pairs: [TextPair], tag: UInt32 = BasicHeader.reservedTag, cmdSN: UInt32) -> PDUFrame {
        var request = TextRequest()
        request.initiatorTaskTag = 3
        request.targetTransferTag = tag
        request.cmdSN = cmdSN
        TextKeys.write(pairs, into: &request.data)
        return request.frame
    }

    @Test func sendTargetsInPiecesThatFit() throws {
        let harness = SessionHarness(type: .discovery) { $0.initiatorMaxRecvDataSegmentLength = 50 }
        var cmdSN: UInt32 = 10
        harness.session.receive(text([TextPair("SendTargets", "All")], cmdSN: cmdSN))
        var whole = ByteBuffer()
        var pieces = 0
        while case .textResponse(let response)? = harness.sent().first {
            whole.writeImmutableBuffer(response.data)
            pieces += 1
            #expect(response.continues == !response.isFinal)
            if response.isFinal { break }
            cmdSN += 1
            harness.session.receive(text([], tag: response.targetTransferTag, cmdSN: cmdSN))
        }
        #expect(pieces > 2)
        let pairs = try TextKeys.parse(whole)
        #expect(
            pairs.filter { $0.key == "TargetName" }.map(\.value) == [
                "iqn.2026-11.test:t", "iqn.2026-11.test:t1", "iqn.2026-11.test:t2",
            ])
        #expect(pairs.filter { $0.key == "TargetAddress" }.count == 3)
    }

    @Test func aNormalSessionSeesItsOwnTargetOnly() throws {
        let harness = SessionHarness()
        harness.session.receive(
            text([TextPair("SendTargets", ""), TextPair("MaxBurstLength", "512"), TextPair("Odd", "1")], cmdSN: 10))
        guard case .textResponse(let response)? = harness.sent().first else { return #expect(Bool(false), "no text") }
        #expect(
            try TextKeys.parse(response.data) == [
                TextPair("TargetName", "iqn.2026-11.test:t"), TextPair("TargetAddress", "127.0.0.1:3260,1"),
                TextPair("MaxBurstLength", "Reject"), TextPair("Odd", "NotUnderstood"),
            ])
        harness.session.receive(text([TextPair("SendTargets", "All")], cmdSN: 11))
        guard case .textResponse(let all)? = harness.sent().first else { return #expect(Bool(false), "no text") }
        #expect(try TextKeys.parse(all.data) == [TextPair("SendTargets", "Reject")])
    }

    /// RFC 7143 section 4.3: Text with SendTargets, and a logout of the whole session.
    @Test func aDiscoverySessionTakesNothingElse() {
        var nop = NOPOut()
        nop.isImmediate = true
        nop.initiatorTaskTag = 1
        var management = TaskManagementRequest()
        management.isImmediate = true
        var logout = LogoutRequest()
        logout.isImmediate = true
        logout.reason = 1
        for frame in [nop.frame, management.frame, logout.frame, SCSICommandPDU().frame] {
            let harness = SessionHarness(type: .discovery)
            var frame = frame
            frame.header.at24 = 10
            harness.session.receive(frame)
            guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
            #expect(reject.reasonCode == Reject.Reason.protocolError.rawValue)
            #expect(harness.session.taskCount == 0)
        }
    }

    @Test func aNormalSessionLearnsNothingOfOtherTargets() throws {
        let harness = SessionHarness()
        for (index, name) in ["iqn.2026-11.test:t1", "iqn.2026-11.test:T"].enumerated() {
            harness.session.receive(text([TextPair("SendTargets", name)], cmdSN: UInt32(10 + index)))
            guard case .textResponse(let response)? = harness.sent().first else { return #expect(Bool(false), "no text") }
            #expect(try TextKeys.parse(response.data).isEmpty == (index == 0))
        }
    }

    /// A text in several requests, with C and then without F, answered when it is whole (sections 6.2 and 11.10).
    @Test func aTextComesInPieces() throws {
        let harness = SessionHarness(type: .discovery)
        var whole = ByteBuffer()
        TextKeys.write([TextPair("SendTargets", "iqn.2026-11.test:t1")], into: &whole)
        var request = TextRequest()
        request.initiatorTaskTag = 3
        request.cmdSN = 10
        (request.isFinal, request.continues) = (false, true)
        request.data = whole.readSlice(length: 9) ?? ByteBuffer()
        harness.session.receive(request.frame)
        guard case .textResponse(let first)? = harness.sent().first else { return #expect(Bool(false), "no text") }
        #expect(!first.isFinal && first.data.readableBytes == 0 && first.targetTransferTag != BasicHeader.reservedTag)
        request.targetTransferTag = first.targetTransferTag
        request.cmdSN = 11
        request.continues = false
        request.data = whole
        harness.session.receive(request.frame)
        guard case .textResponse(let second)? = harness.sent().first else { return #expect(Bool(false), "no text") }
        #expect(!second.isFinal, "the initiator has not said that it is done")
        #expect(try TextKeys.parse(second.data).first == TextPair("TargetName", "iqn.2026-11.test:t1"))
        request.cmdSN = 12
        request.isFinal = true
        request.data = ByteBuffer()
        harness.session.receive(request.frame)
        guard case .textResponse(let last)? = harness.sent().first else { return #expect(Bool(false), "no text") }
        #expect(last.isFinal && last.targetTransferTag == BasicHeader.reservedTag)
    }

    /// Section 6.4: no key comes twice. One that could would have a list of targets sent again and again.
    @Test func aKeyMayNotComeTwice() throws {
        let harness = SessionHarness(type: .discovery)
        harness.session.receive(text([TextPair("SendTargets", "All"), TextPair("SendTargets", "All")], cmdSN: 10))
        guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
        #expect(reject.reasonCode == Reject.Reason.protocolError.rawValue)
        harness.session.receive(text([TextPair("SendTargets", "All")], cmdSN: 11))
        guard case .textResponse? = harness.sent().first else { return #expect(Bool(false), "no text") }
    }

    @Test func whatIsNoTextIsRejected() {
        let changes: [(inout TextRequest) -> Void] = [
            { ($0.isFinal, $0.continues) = (true, true) },
            { $0.targetTransferTag = 99 },
            { $0.data = ByteBuffer(string: "no equals sign") },
            { $0.data = ByteBuffer(repeating: 0x41, count: TextAccumulator.maximumByteCount + 1) },
        ]
        for change in changes {
            let harness = SessionHarness(type: .discovery)
            var request = TextRequest()
            request.initiatorTaskTag = 3
            request.cmdSN = 10
            change(&request)
            harness.session.receive(request.frame)
            guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
            #expect(reject.reasonCode == Reject.Reason.protocolError.rawValue)
        }
    }

    @Test func aTextKeepsItsTag() throws {
        let harness = SessionHarness(type: .discovery) { $0.initiatorMaxRecvDataSegmentLength = 50 }
        harness.session.receive(text([TextPair("SendTargets", "All")], cmdSN: 10))
        guard case .textResponse(let first)? = harness.sent().first else { return #expect(Bool(false), "no text") }
        var next = TextRequest()
        next.initiatorTaskTag = 4
        next.targetTransferTag = first.targetTransferTag
        next.cmdSN = 11
        harness.session.receive(next.frame)
        guard case .reject? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
    }

    @Test func whatErrorRecoveryLevelZeroHasNotIsRefused() {
        let harness = SessionHarness()
        harness.session.receive(SNACKRequest().frame)
        guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
        #expect(reject.reasonCode == Reject.Reason.snackReject.rawValue)
        #expect(reject.data.readableBytes == BasicHeader.byteCount)
        harness.session.receive(PDUFrame(header: BasicHeader(opcode: 0x1C)))
        guard case .reject(let unknown)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
        #expect(unknown.reasonCode == Reject.Reason.commandNotSupported.rawValue)
        harness.session.receive(LoginRequest().frame)
        #expect(harness.session.isClosing)
    }

    @Test func aMalformedCommandUsesUpItsNumber() throws {
        let harness = SessionHarness()
        var frame = SCSICommandPDU().frame
        frame.header.at24 = 10
        frame.additional = ByteBuffer(bytes: [0, 1, 9, 0])
        harness.session.receive(frame)
        guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
        #expect(reject.reasonCode == Reject.Reason.invalidPDUField.rawValue)
        #expect(harness.session.nextCmdSN == 11)
        harness.cmdSN = 11
        #expect(harness.command() != nil)
    }

    @Test func rejectsAreForgivenByACommandThatIsTaken() throws {
        let harness = SessionHarness()
        for _ in 0..<10 {
            for _ in 0..<3 { harness.session.receive(SNACKRequest().frame) }
            let handle = harness.actions().count == 3 ? harness.command() : nil
            harness.session.complete(try #require(handle), .init(status: 0))
            _ = harness.actions()
        }
        #expect(!harness.session.isClosing)
    }
}
