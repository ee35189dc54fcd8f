import NIOCore
import Testing
@testable import ISCSI

@Suite struct WriteDataTests {
    @Test func immediateDataThatIsAllRunsAtOnce() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(writes: 1024, immediate: pattern(1024)))
        harness.session.prepare(handle, wanted: 1024)
        #expect(harness.actions() == [.execute(handle)])
        #expect(harness.session.takeData(handle) == pattern(1024))
        harness.session.complete(handle, .init(status: 0, transferByteCount: 1024))
        guard case .scsiResponse(let response)? = harness.sent().first else { return #expect(Bool(false), "no response") }
        #expect(response.residual == .none)
        #expect(response.sequence == TargetSequence(statSN: 50, expCmdSN: 11, maxCmdSN: 18))
    }

    @Test func unsolicitedThenSolicitedDataComesInBurstsAndInOrder() throws {
        let harness = SessionHarness {
            $0.firstBurstLength = 1024
            $0.maxBurstLength = 2048
            $0.maxOutstandingR2T = 2
        }
        let total = 8192
        let handle = try #require(harness.command(writes: total, immediate: pattern(512), isFinal: false))
        harness.session.prepare(handle, wanted: total)
        #expect(harness.actions().isEmpty, "no R2T before the unsolicited data is complete")
        harness.data(handle, pattern(512, from: 512), at: 512)
        var r2ts = harness.sent().compactMap { if case .readyToTransfer(let r2t) = $0 { r2t } else { nil } }
        #expect(r2ts.map(\.bufferOffset) == [1024, 3072])
        #expect(r2ts.map(\.desiredLength) == [2048, 2048])
        #expect(r2ts.map(\.r2tSN) == [0, 1])
        #expect(r2ts.allSatisfy { $0.sequence.statSN == 50 }, "an R2T uses up no StatSN")
        var next = 0
        while next < r2ts.count {
            let r2t = r2ts[next]
            next += 1
            let half = Int(r2t.desiredLength) / 2
            let offset = Int(r2t.bufferOffset)
            harness.data(handle, pattern(half, from: offset), at: offset, ttt: r2t.targetTransferTag, isFinal: false)
            let rest = Int(r2t.desiredLength) - half
            harness.data(handle, pattern(rest, from: offset + half), at: offset + half, ttt: r2t.targetTransferTag, dataSN: 1)
            for action in harness.actions() {
                switch action {
                case .send(.readyToTransfer(let r2t)): r2ts.append(r2t)
                case .execute(handle): #expect(next == r2ts.count)
                default: #expect(Bool(false), "unexpected \(action)")
                }
            }
        }
        #expect(r2ts.map(\.bufferOffset) == [1024, 3072, 5120, 7168])
        #expect(harness.session.task(handle)?.phase == .executing)
        #expect(harness.session.takeData(handle) == pattern(total))
    }

    @Test func dataThatTheCommandDoesNotWantIsCutOff() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(writes: 1024, immediate: pattern(1024)))
        harness.session.prepare(handle, wanted: 512)
        #expect(harness.actions() == [.execute(handle)])
        #expect(harness.session.takeData(handle) == pattern(512))
        harness.session.complete(handle, .init(status: 0, transferByteCount: 512))
        guard case .scsiResponse(let response)? = harness.sent().first else { return #expect(Bool(false), "no response") }
        #expect(response.residual == .underflow(512))
    }

    @Test func aCommandThatWantsMoreThanIsOfferedOverflows() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(writes: 512, immediate: pattern(512)))
        harness.session.prepare(handle, wanted: 2048)
        #expect(harness.actions() == [.execute(handle)])
        harness.session.complete(handle, .init(status: 0, transferByteCount: 2048))
        guard case .scsiResponse(let response)? = harness.sent().first else { return #expect(Bool(false), "no response") }
        #expect(response.residual == .overflow(1536))
    }

    enum Fault: CaseIterable, Sendable {
        case offset, dataSN, tag, tooLong, tooShort, digest
    }

    @Test(arguments: Fault.allCases) func wrongDataFailsTheCommandAndNoOther(_ fault: Fault) throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(writes: 1024))
        let other = try #require(harness.command(writes: 512))
        harness.session.prepare(handle, wanted: 1024)
        guard case .readyToTransfer(let r2t)? = harness.sent().first else { return #expect(Bool(false), "no R2T") }
        let tag = r2t.targetTransferTag
        let expected: TransportFailure
        switch fault {
        case .offset:
            harness.data(handle, pattern(512), at: 512, ttt: tag)
            expected = .dataSequence
        case .dataSN:
            harness.data(handle, pattern(1024), at: 0, ttt: tag, dataSN: 1)
            expected = .dataSequence
        case .tag:
            harness.data(handle, pattern(1024), at: 0, ttt: tag &+ 1)
            expected = .dataSequence
        case .tooLong:
            harness.data(handle, pattern(1025), at: 0, ttt: tag)
            expected = .incorrectAmountOfData
        case .tooShort:
            harness.data(handle, pattern(512), at: 0, ttt: tag)
            expected = .incorrectAmountOfData
        case .digest:
            harness.data(handle, pattern(1024), at: 0, ttt: tag, isDamaged: true)
            expected = .dataDigest
        }
        let actions = harness.actions()
        #expect(actions.last == .failed(handle, expected))
        if fault == .digest {
            guard case .send(.reject(let reject))? = actions.first else { return #expect(Bool(false), "no Reject") }
            #expect(reject.reasonCode == Reject.Reason.dataDigestError.rawValue)
            #expect(reject.data.readableBytes == 48)
        }
        // The rest of the data is on its way and must do nothing.
        harness.data(handle, pattern(512), at: 512, ttt: tag)
        #expect(harness.actions().isEmpty)
        harness.session.complete(handle, .init(status: 2, sense: ByteBuffer(bytes: [0x70])))
        #expect(harness.sent().count == 1)
        #expect(harness.session.task(other) != nil)
    }

    @Test func dataForAnotherUnitThanTheTasksIsRejected() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(writes: 512))
        harness.session.prepare(handle, wanted: 512)
        guard case .readyToTransfer(let r2t)? = harness.sent().first else { return #expect(Bool(false), "no R2T") }
        var pdu = DataOut()
        pdu.initiatorTaskTag = r2t.initiatorTaskTag
        pdu.targetTransferTag = r2t.targetTransferTag
        pdu.lun = 1 << 48
        pdu.data = pattern(512)
        harness.session.receive(pdu.frame)
        guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
        #expect(reject.reasonCode == Reject.Reason.invalidPDUField.rawValue)
        #expect(harness.session.task(handle)?.phase == .collecting)
        harness.data(handle, pattern(512), at: 0, ttt: r2t.targetTransferTag)
        #expect(harness.actions() == [.execute(handle)])
    }

    @Test func unsolicitedDataMustHaveBeenAgreed() throws {
        let harness = SessionHarness { $0.immediateData = false }
        #expect(harness.command(writes: 512, immediate: pattern(512)) == nil)
        let strict = SessionHarness { $0.initialR2T = true }
        #expect(strict.command(writes: 512, isFinal: false) == nil)
        let small = SessionHarness { $0.firstBurstLength = 512 }
        #expect(small.command(writes: 4096, immediate: pattern(1024)) == nil)
        let handle = try #require(small.command(writes: 4096, immediate: pattern(256), isFinal: false))
        small.session.prepare(handle, wanted: 4096)
        small.data(handle, pattern(512, from: 256), at: 256)
        #expect(small.actions().last == .failed(handle, .incorrectAmountOfData))
    }
}

@Suite struct ReadDataTests {
    @Test func dataIsCutByLengthAndBurstAndTheLastPDUHasTheStatus() throws {
        let harness = SessionHarness {
            $0.initiatorMaxRecvDataSegmentLength = 1000
            $0.maxBurstLength = 2048
        }
        let handle = try #require(harness.command(reads: 5000))
        harness.session.prepare(handle, wanted: 0)
        #expect(harness.actions() == [.execute(handle)])
        harness.session.complete(handle, .init(status: 0, dataIn: pattern(4500)))
        let pdus = harness.sent().compactMap { if case .dataIn(let pdu) = $0 { pdu } else { nil } }
        #expect(pdus.map { $0.data.readableBytes } == [1000, 1000, 48, 1000, 1000, 48, 404])
        #expect(pdus.map(\.isFinal) == [false, false, true, false, false, true, true])
        #expect(pdus.map(\.dataSN) == Array(0..<7))
        #expect(pdus.map(\.bufferOffset) == [0, 1000, 2000, 2048, 3048, 4048, 4096])
        #expect(pdus.dropLast().allSatisfy { $0.status == nil && $0.sequence.statSN == 50 })
        #expect(pdus.last?.status == 0)
        #expect(pdus.last?.residual == .underflow(500))
        var joined = ByteBuffer()
        for pdu in pdus { joined.writeImmutableBuffer(pdu.data) }
        #expect(joined == pattern(4500))
    }

    @Test func moreThanIsExpectedIsCutOff() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(reads: 512))
        harness.session.prepare(handle, wanted: 0)
        harness.session.complete(handle, .init(status: 0, dataIn: pattern(1024)))
        guard case .dataIn(let pdu)? = harness.sent().first else { return #expect(Bool(false), "no Data-In") }
        #expect(pdu.data == pattern(512))
        #expect(pdu.residual == .overflow(512))
    }

    @Test func aFailedReadHasAResponseWithSense() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(reads: 512))
        harness.session.prepare(handle, wanted: 0)
        harness.session.complete(handle, .init(status: 2, sense: ByteBuffer(bytes: [0x70, 0, 3])))
        guard case .scsiResponse(let response)? = harness.sent().first else { return #expect(Bool(false), "no response") }
        #expect(response.status == 2)
        #expect(response.sense == ByteBuffer(bytes: [0x70, 0, 3]))
        #expect(response.residual == .underflow(512))
    }

    @Test func anAnswerInPlaceIsTheSamePDU() throws {
        let harness = SessionHarness()
        let first = try #require(harness.command(reads: 4096))
        let header = harness.session.completeInPlace(first, byteCount: 4096)
        let second = try #require(harness.command(reads: 4096))
        harness.session.complete(second, .init(status: 0, dataIn: pattern(4096)))
        guard case .dataIn(var pdu)? = harness.sent().first else { return #expect(Bool(false), "no Data-In") }
        #expect(pdu.sequence == TargetSequence(statSN: 51, expCmdSN: 12, maxCmdSN: 19))
        pdu.initiatorTaskTag -= 1
        pdu.sequence = TargetSequence(statSN: 50, expCmdSN: 11, maxCmdSN: 18)
        #expect(pdu.header == header)
        #expect(harness.session.taskCount == 0)
        let third = try #require(harness.command(reads: 512))
        let tooLong = harness.session.completeInPlace(third, byteCount: 4096)
        #expect(tooLong == nil)
        #expect(harness.session.task(third) != nil)
    }
}
