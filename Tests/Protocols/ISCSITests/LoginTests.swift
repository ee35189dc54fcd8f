import Ciphers
import NIOCore
import Testing

@testable import ISCSI

private let initiator = "iqn.2026-11.test:initiator"
private let normal = [TextPair("InitiatorName", initiator), TextPair("TargetName", "iqn.2026-11.test:disk")]
private let credentials: CHAPCredentials = {
    do {
        return try CHAPCredentials(user: "user", secret: "twelve bytes!", mutualUser: "target", mutualSecret: "another secret")
    } catch {
        fatalError("there is no memory for a secret: \(error)")
    }
}()

/// An initiator that sends one login request after the other.
private struct LoginHarness {
    var negotiator: LoginNegotiator
    var template = LoginRequest()

    init(
        _ admission: LoginAdmission = .admitted(.none), limits: NegotiationLimits = NegotiationLimits(),
        continuation: LoginContinuation = .refused(.sessionDoesNotExist, reason: "")
    ) {
        var random = SplitMix(seed: 7)
        negotiator = LoginNegotiator(
            limits: limits, tsih: 0x42, random: { count in (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) } },
            find: { _, _, _ in continuation }, admit: { _ in admission })
        template.isid = InitiatorSessionIdentifier(0x4000_0000_0001)
        template.initiatorTaskTag = 9
        template.cmdSN = 100
        template.expStatSN = 500
    }

    mutating func send(
        _ pairs: [TextPair], csg: LoginStage = .operationalNegotiation, nsg: LoginStage? = .fullFeaturePhase,
        change: (inout LoginRequest) -> Void = { _ in }
    ) -> LoginStep {
        var request = template
        request.currentStageCode = csg.rawValue
        request.transits = nsg != nil
        request.nextStageCode = nsg?.rawValue ?? 0
        TextKeys.write(pairs, into: &request.data)
        change(&request)
        return negotiator.receive(request)
    }
}

extension LoginStep {
    fileprivate var response: LoginResponse {
        switch self {
        case .respond(let response), .fail(let response, _), .finish(let response, _): response
        }
    }
    fileprivate var result: LoginResult? { if case .finish(_, let result) = self { result } else { nil } }
    fileprivate var failure: LoginStatus? { if case .fail(let response, _) = self { response.status } else { nil } }
    fileprivate var keys: [String: String] {
        let pairs = (try? TextKeys.parse(response.data)) ?? []
        return Dictionary(pairs.map { ($0.key, $0.value) }, uniquingKeysWith: { _, last in last })
    }
}

@Suite struct LoginNegotiationTests {
    @Test func aLoginWithoutSecurityEndsAtOnce() throws {
        var harness = LoginHarness()
        let step = harness.send(normal + [TextPair("MaxRecvDataSegmentLength", "65536")])
        let result = try #require(step.result)
        #expect(step.response.transits)
        #expect(step.response.nextStageCode == 3)
        #expect(step.response.tsih == 0x42)
        #expect(step.response.sequence.statSN == 500)
        #expect(step.keys["TargetPortalGroupTag"] == "1")
        #expect(step.keys["MaxRecvDataSegmentLength"] == "262144")
        #expect(result.statSN == 501)
        #expect(result.cmdSN == 100)
        #expect(result.parameters.initiatorMaxRecvDataSegmentLength == 65536)
        #expect(result.identity.targetName == "iqn.2026-11.test:disk")
    }

    struct KeyCase: Sendable {
        var key: String
        var offer: String
        var answer: String?
    }

    @Test(arguments: [
        KeyCase(key: "HeaderDigest", offer: "CRC32C,None", answer: "CRC32C"),
        KeyCase(key: "HeaderDigest", offer: "None,CRC32C", answer: "None"),
        KeyCase(key: "DataDigest", offer: "X-other,CRC32C", answer: "CRC32C"),
        KeyCase(key: "DataDigest", offer: "X-other", answer: "Reject"),
        KeyCase(key: "MaxConnections", offer: "8", answer: "1"),
        KeyCase(key: "InitialR2T", offer: "No", answer: "No"),
        KeyCase(key: "InitialR2T", offer: "Yes", answer: "Yes"),
        KeyCase(key: "InitialR2T", offer: "Maybe", answer: "Reject"),
        KeyCase(key: "ImmediateData", offer: "Yes", answer: "Yes"),
        KeyCase(key: "ImmediateData", offer: "No", answer: "No"),
        KeyCase(key: "MaxRecvDataSegmentLength", offer: "512", answer: nil),
        KeyCase(key: "MaxRecvDataSegmentLength", offer: "511", answer: "Reject"),
        KeyCase(key: "MaxRecvDataSegmentLength", offer: "16777216", answer: "Reject"),
        KeyCase(key: "MaxBurstLength", offer: "16776192", answer: "1048576"),
        KeyCase(key: "MaxBurstLength", offer: "0x10000", answer: "65536"),
        KeyCase(key: "FirstBurstLength", offer: "65536", answer: "65536"),
        KeyCase(key: "FirstBurstLength", offer: "99999999999999999999", answer: "Reject"),
        KeyCase(key: "DefaultTime2Wait", offer: "2", answer: "2"),
        KeyCase(key: "DefaultTime2Retain", offer: "20", answer: "0"),
        KeyCase(key: "MaxOutstandingR2T", offer: "16", answer: "4"),
        KeyCase(key: "MaxOutstandingR2T", offer: "0", answer: "Reject"),
        KeyCase(key: "DataPDUInOrder", offer: "No", answer: "Yes"),
        KeyCase(key: "DataSequenceInOrder", offer: "No", answer: "Yes"),
        KeyCase(key: "ErrorRecoveryLevel", offer: "2", answer: "0"),
        KeyCase(key: "IFMarker", offer: "Yes", answer: "No"),
        KeyCase(key: "OFMarkInt", offer: "1~65535", answer: "Reject"),
        KeyCase(key: "SendTargets", offer: "All", answer: "Reject"),
        KeyCase(key: "TaskReporting", offer: "FastAbort,RFC3720", answer: "RFC3720"),
        KeyCase(key: "iSCSIProtocolLevel", offer: "1", answer: "1"),
        KeyCase(key: "iSCSIProtocolLevel", offer: "2", answer: "2"),
        KeyCase(key: "iSCSIProtocolLevel", offer: "31", answer: "2"),
        KeyCase(key: "iSCSIProtocolLevel", offer: "32", answer: "Reject"),
        KeyCase(key: "TaskReporting", offer: "FastAbort", answer: "Reject"),
        KeyCase(key: "IFMarkInt", offer: "2048", answer: "Reject"),
        KeyCase(key: "X-org.example.thing", offer: "1", answer: "NotUnderstood"),
        KeyCase(key: "InitiatorAlias", offer: "a host", answer: nil),
        KeyCase(key: "SomethingElse", offer: "NotUnderstood", answer: nil),
    ])
    func eachKeyIsAnsweredAsTheStandardSays(_ item: KeyCase) {
        var harness = LoginHarness()
        // The declaration of our own length must not be mistaken for an answer.
        harness.negotiator.hasDeclaredLength = true
        let step = harness.send(normal + [TextPair(item.key, item.offer)])
        #expect(step.result != nil)
        #expect(step.keys[item.key] == item.answer)
    }

    @Test func burstsAreIrrelevantInADiscoverySession() throws {
        var harness = LoginHarness()
        let step = harness.send([
            TextPair("InitiatorName", initiator), TextPair("SessionType", "Discovery"), TextPair("MaxBurstLength", "65536"),
        ])
        let result = try #require(step.result)
        #expect(result.identity.sessionType == .discovery)
        #expect(step.keys["MaxBurstLength"] == "Irrelevant")
        #expect(step.keys["TargetPortalGroupTag"] == nil)
    }

    @Test func firstBurstNeverExceedsMaxBurst() throws {
        var harness = LoginHarness()
        let step = harness.send(normal + [TextPair("MaxBurstLength", "4096"), TextPair("FirstBurstLength", "65536")])
        #expect(try #require(step.result).parameters.firstBurstLength == 4096)
    }

    @Test func securityThenOperationalThenFullFeature() throws {
        var harness = LoginHarness()
        let first = harness.send(
            normal + [TextPair("AuthMethod", "CHAP,None")], csg: .securityNegotiation, nsg: .operationalNegotiation)
        #expect(first.keys["AuthMethod"] == "None")
        #expect(first.response.transits && first.response.nextStageCode == 1)
        let second = harness.send([TextPair("HeaderDigest", "None")], nsg: nil)
        #expect(!second.response.transits)
        #expect(second.response.sequence.statSN == 501)
        let third = harness.send([])
        #expect(try #require(third.result).statSN == 503)
    }

    @Test func aTextMaySpanRequests() {
        var harness = LoginHarness()
        var text = ByteBuffer()
        TextKeys.write(normal, into: &text)
        let head = text.readSlice(length: 20) ?? ByteBuffer()
        let tail = text
        let first = harness.send([], nsg: nil) {
            $0.continues = true
            $0.data = head
        }
        #expect(first.response.data.readableBytes == 0)
        let second = harness.send([]) { $0.data = tail }
        #expect(second.result?.identity.initiatorName == initiator)
        #expect(second.response.sequence.statSN == 501)
    }

    @Test func aLongAnswerIsContinued() {
        var harness = LoginHarness()
        let unknown = (0..<200).map { TextPair("X-org.example.a-key-with-a-long-name.\($0)", "1") }
        var step = harness.send(normal + unknown)
        #expect(step.response.continues && !step.response.transits)
        #expect(step.response.data.readableBytes == LoginNegotiator.maximumTextByteCount)
        var total = step.response.data.readableBytes
        while step.result == nil, step.failure == nil {
            step = harness.send([])
            total += step.response.data.readableBytes
        }
        #expect(step.result != nil)
        #expect(total > 200 * 40)
    }

    struct FailureCase: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var status: LoginStatus
        var admission: LoginAdmission = .admitted(.none)
        var pairs: [TextPair] = normal
        var change: @Sendable (inout LoginRequest) -> Void = { _ in }
    }

    @Test(arguments: [
        FailureCase(testDescription: "no such target", status: .notFound, admission: .refused(.notFound, reason: "")),
        FailureCase(
            testDescription: "not ready", status: .serviceUnavailable, admission: .refused(.serviceUnavailable, reason: "")),
        FailureCase(testDescription: "no InitiatorName", status: .missingParameter, pairs: [normal[1]]),
        FailureCase(testDescription: "no TargetName", status: .missingParameter, pairs: [normal[0]]),
        FailureCase(
            testDescription: "bad InitiatorName", status: .missingParameter, pairs: [TextPair("InitiatorName", "bob"), normal[1]]),
        FailureCase(
            testDescription: "unknown type", status: .sessionTypeNotSupported, pairs: normal + [TextPair("SessionType", "Odd")]),
        FailureCase(testDescription: "a name twice", status: .initiatorError, pairs: normal + normal),
        FailureCase(
            testDescription: "a key twice", status: .initiatorError,
            pairs: normal + [TextPair("MaxBurstLength", "512"), TextPair("MaxBurstLength", "512")]),
        FailureCase(testDescription: "version", status: .unsupportedVersion) { $0.versionMin = 1 },
        FailureCase(testDescription: "stage 2", status: .initiatorError) { $0.currentStageCode = 2 },
        FailureCase(testDescription: "stage 3", status: .initiatorError) { $0.currentStageCode = 3 },
        FailureCase(testDescription: "next stage 2", status: .initiatorError) { $0.nextStageCode = 2 },
        FailureCase(testDescription: "back in stages", status: .initiatorError) { $0.nextStageCode = 0 },
        FailureCase(testDescription: "T with C", status: .initiatorError) { $0.continues = true },
        FailureCase(testDescription: "a TSIH", status: .sessionDoesNotExist) { $0.tsih = 3 },
        FailureCase(testDescription: "no text", status: .initiatorError) { $0.data = ByteBuffer(string: "garbage") },
        FailureCase(testDescription: "CHAP skipped", status: .authenticationFailure, admission: .admitted(.required([credentials]))),
    ])
    func whatIsWrongHasItsStatus(_ item: FailureCase) {
        var harness = LoginHarness(item.admission)
        let step = harness.send(item.pairs, change: item.change)
        #expect(step.failure == item.status)
        #expect(!step.response.transits || item.status == .success)
    }

    @Test func aLoginDoesNotGoOnForEver() {
        var harness = LoginHarness()
        var step = harness.send(normal, nsg: nil)
        for _ in 0..<LoginNegotiator.maximumRequestCount { step = harness.send([], nsg: nil) }
        #expect(step.failure == .initiatorError)
    }

    @Test func securityKeysBelongToTheSecurityStage() {
        for key in ["AuthMethod", "CHAP_A"] {
            var harness = LoginHarness()
            #expect(harness.send(normal + [TextPair(key, "None")]).failure == .initiatorError)
        }
        var harness = LoginHarness()
        _ = harness.send(normal + [TextPair("AuthMethod", "None")], csg: .securityNegotiation, nsg: nil)
        let again = harness.send([TextPair("AuthMethod", "None")], csg: .securityNegotiation)
        #expect(again.failure == .initiatorError, "a key is negotiated once")
    }

    @Test func aSecondConnectionIsRefusedByItsStatus() {
        var harness = LoginHarness(continuation: .refused(.tooManyConnections, reason: ""))
        let step = harness.send(normal) { $0.tsih = 7 }
        #expect(step.failure == .tooManyConnections)
        #expect(step.response.tsih == 7)
    }

    @Test func aReinstatedConnectionKeepsWhatTheSessionAgreedOn() throws {
        var agreed = SessionParameters()
        agreed.maxBurstLength = 4096
        agreed.digests = Digests(header: true, data: true)
        agreed.initiatorMaxRecvDataSegmentLength = 512
        var harness = LoginHarness(continuation: .reinstates(agreed))
        harness.template.tsih = 7
        let step = harness.send(normal + [TextPair("MaxBurstLength", "65536"), TextPair("DataDigest", "CRC32C")])
        let result = try #require(step.result)
        #expect(step.keys["MaxBurstLength"] == "Irrelevant")
        #expect(step.response.tsih == 7 && result.tsih == 7 && result.reinstatesConnection)
        #expect(result.parameters.maxBurstLength == 4096)
        #expect(result.parameters.digests == Digests(header: false, data: true), "digests are the connection's")
        #expect(result.parameters.initiatorMaxRecvDataSegmentLength == 8192)
    }

    @Test func aSessionIsLookedForOnlyOnceTheInitiatorIsKnown() {
        var harness = LoginHarness(.admitted(.required([credentials])))
        let step = harness.send(
            normal + [TextPair("AuthMethod", "CHAP")], csg: .securityNegotiation, nsg: .operationalNegotiation
        ) { $0.tsih = 7 }
        #expect(step.failure == nil, "whether there is the session is not told to strangers")
    }

    @Test func aLoginMayNotChangeItsName() {
        var harness = LoginHarness()
        _ = harness.send(normal, nsg: nil)
        #expect(harness.send([], change: { $0.isid = InitiatorSessionIdentifier(1) }).failure == .invalidRequestDuringLogin)
    }
}

@Suite struct CHAPTests {
    /// Goes as far as the challenge.
    private func challenged(_ algorithms: String) throws -> (LoginHarness, CHAPAlgorithm, UInt8, [UInt8]) {
        var harness = LoginHarness(.admitted(.required([credentials])))
        let method = harness.send(
            normal + [TextPair("AuthMethod", "CHAP,None")], csg: .securityNegotiation, nsg: .operationalNegotiation)
        #expect(method.keys["AuthMethod"] == "CHAP")
        #expect(!method.response.transits)
        let challenge = harness.send([TextPair("CHAP_A", algorithms)], csg: .securityNegotiation, nsg: nil).keys
        let algorithm = try #require(challenge["CHAP_A"].flatMap { UInt8($0) }.flatMap { CHAPAlgorithm(rawValue: $0) })
        let identifier = try #require(challenge["CHAP_I"].flatMap { UInt8($0) })
        return (harness, algorithm, identifier, try #require(challenge["CHAP_C"].flatMap { CHAP.binary($0) }))
    }

    private func proof(_ algorithm: CHAPAlgorithm, _ identifier: UInt8, _ secret: String, _ challenge: [UInt8]) -> String {
        let digest: MessageDigest = algorithm == .md5 ? .md5 : .sha256
        return CHAP.hexadecimal(digest.hash([identifier] + Array(secret.utf8) + challenge) ?? [])
    }

    @Test(arguments: [("5", 5 as UInt8), ("5,7", 7), ("7", 7)])
    func theRightSecretLogsIn(_ offer: String, _ expected: UInt8) throws {
        var (harness, algorithm, identifier, challenge) = try challenged(offer)
        #expect(algorithm.rawValue == expected)
        let answer = proof(algorithm, identifier, "twelve bytes!", challenge)
        let step = harness.send(
            [TextPair("CHAP_N", "user"), TextPair("CHAP_R", answer)], csg: .securityNegotiation, nsg: .operationalNegotiation)
        #expect(step.response.transits)
        #expect(harness.send([]).result != nil)
    }

    @Test(arguments: [("user", "wrong secret"), ("other", "twelve bytes!"), ("", "")])
    func aWrongNameOrSecretDoesNot(_ name: String, _ secret: String) throws {
        var (harness, algorithm, identifier, challenge) = try challenged("5")
        let answer = proof(algorithm, identifier, secret, challenge)
        let step = harness.send([TextPair("CHAP_N", name), TextPair("CHAP_R", answer)], csg: .securityNegotiation)
        #expect(step.failure == .authenticationFailure)
    }

    @Test func theTargetProvesItselfWhenAsked() throws {
        var (harness, algorithm, identifier, challenge) = try challenged("7,5")
        let theirs = Array("their own challenge".utf8)
        let step = harness.send(
            [
                TextPair("CHAP_N", "user"), TextPair("CHAP_R", proof(algorithm, identifier, "twelve bytes!", challenge)),
                TextPair("CHAP_I", "0x17"), TextPair("CHAP_C", CHAP.hexadecimal(theirs)),
            ], csg: .securityNegotiation)
        #expect(step.keys["CHAP_N"] == "target")
        #expect(step.keys["CHAP_R"] == proof(algorithm, 0x17, "another secret", theirs))
        #expect(step.result != nil)
    }

    /// What a discovery session with several targets does.
    private func discovery(_ offer: String, _ user: String, _ secret: String) throws -> LoginStep {
        let other = try CHAPCredentials(user: "user", secret: "another one, too")
        var harness = LoginHarness(.admitted(.accepted([other, credentials])))
        let names = [TextPair("InitiatorName", initiator), TextPair("SessionType", "Discovery")]
        let method = harness.send(names + [TextPair("AuthMethod", offer)], csg: .securityNegotiation)
        guard method.keys["AuthMethod"] == "CHAP" else { return method }
        let challenge = harness.send([TextPair("CHAP_A", "7")], csg: .securityNegotiation, nsg: nil).keys
        let identifier = try #require(challenge["CHAP_I"].flatMap { UInt8($0) })
        let bytes = try #require(challenge["CHAP_C"].flatMap { CHAP.binary($0) })
        return harness.send(
            [TextPair("CHAP_N", user), TextPair("CHAP_R", proof(.sha256, identifier, secret, bytes))], csg: .securityNegotiation)
    }

    @Test func discoveryProvesWhatItCan() throws {
        #expect(try discovery("CHAP,None", "user", "twelve bytes!").result?.provenCredentials == [credentials])
        #expect(try discovery("CHAP", "user", "another one, too").result?.provenCredentials.map(\.secret.text) == ["another one, too"])
        // What was begun is not left half way: a wrong secret does not fall back to none.
        #expect(try discovery("CHAP,None", "user", "a wrong secret").failure == .authenticationFailure)
        #expect(try discovery("CHAP,None", "someone", "twelve bytes!").failure == .authenticationFailure)
        // The initiator's preference counts.
        #expect(try discovery("None,CHAP", "", "").result?.provenCredentials == [])
        #expect(try discovery("None", "", "").result?.provenCredentials == [])
        #expect(try discovery("KRB5", "", "").failure == .authenticationFailure)
    }

    @Test func aReflectedChallengeIsRefused() throws {
        var (harness, algorithm, identifier, challenge) = try challenged("5")
        let step = harness.send(
            [
                TextPair("CHAP_N", "user"), TextPair("CHAP_R", proof(algorithm, identifier, "twelve bytes!", challenge)),
                TextPair("CHAP_I", String(identifier)), TextPair("CHAP_C", CHAP.hexadecimal(challenge)),
            ], csg: .securityNegotiation)
        #expect(step.failure == .authenticationFailure)
        #expect(step.keys["CHAP_R"] == nil)
    }

    @Test func anInitiatorThatOffersNoCHAPIsRefused() {
        var harness = LoginHarness(.admitted(.required([credentials])))
        #expect(
            harness.send(normal + [TextPair("AuthMethod", "None")], csg: .securityNegotiation).failure == .authenticationFailure)
    }

    @Test func anInitiatorThatIgnoresCHAPStaysOutside() {
        var harness = LoginHarness(.admitted(.required([credentials])))
        #expect(!harness.send(normal, csg: .securityNegotiation).response.transits)
        #expect(!harness.send([], csg: .securityNegotiation).response.transits)
        #expect(harness.send([], csg: .operationalNegotiation).failure == .invalidRequestDuringLogin)
    }

    @Test func binaryValuesAreReadInBothForms() {
        #expect(CHAP.binary("0x0aFF") == [0x0A, 0xFF])
        #expect(CHAP.binary("0xaff") == [0x0A, 0xFF])
        #expect(CHAP.binary("0bAAEC/w==") == [0, 1, 2, 255])
        #expect(CHAP.binary("0x") == nil)
        #expect(CHAP.binary("0xzz") == nil)
        #expect(CHAP.binary("1234") == nil)
        #expect(CHAP.binary("0x" + String(repeating: "00", count: 1025)) == nil)
    }

    @Test func aVectorByMD5() throws {
        // MD5 of 01 "abc" 02 03, computed by another implementation.
        let digest = try #require(CHAPAlgorithm.md5.response(identifier: 1, secret: try SecretText("abc"), challenge: [2, 3]))
        #expect(CHAP.hexadecimal(digest) == "0x933b6a2a0e07817b413af749f222829c")
    }
}

@Suite struct LoginFuzzTests {
    @Test func mutatedLoginsNeverReachTheFullFeaturePhase() {
        var random = SplitMix(seed: 99)
        var failures = 0
        for _ in 0..<4000 {
            var harness = LoginHarness(.admitted(.required([credentials])))
            for _ in 0..<4 {
                var step = harness.send(
                    normal + [
                        TextPair("AuthMethod", "CHAP"), TextPair("CHAP_A", "5,7"), TextPair("CHAP_N", "user"),
                        TextPair("CHAP_R", "0x00"),
                    ],
                    csg: .securityNegotiation, change: { _ in })
                step = harness.send([], csg: .securityNegotiation) { request in
                    for _ in 0..<(random.next() % 4) { request.data.writeInteger(UInt8(truncatingIfNeeded: random.next())) }
                    request.currentStageCode = UInt8(random.next() % 4)
                    request.nextStageCode = UInt8(random.next() % 4)
                    request.continues = random.next() % 2 == 0
                    request.transits = random.next() % 2 == 0
                }
                #expect(step.result == nil)
                if step.failure != nil { failures += 1 }
            }
        }
        #expect(failures > 0)
    }

    @Test func textsOfAnyBytesAreParsedOrRefused() {
        var random = SplitMix(seed: 3)
        var parsed = 0
        for _ in 0..<5000 {
            var text = ByteBuffer()
            TextKeys.write(normal, into: &text)
            for _ in 0..<(random.next() % 3) {
                text.setInteger(UInt8(truncatingIfNeeded: random.next()), at: Int(random.next() % UInt64(text.readableBytes)))
            }
            if let pairs = try? TextKeys.parse(text) {
                parsed += 1
                #expect(pairs.count <= 8)
            }
        }
        #expect(parsed > 1000)
    }
}
