import NIOCore
import Testing
@testable import ISCSI

@Suite struct CommandOrderTests {
    @Test func theWindowClosesAndOpens() throws {
        let harness = SessionHarness(window: 2)
        let first = try #require(harness.command())
        _ = try #require(harness.command())
        #expect(harness.session.plainSequence == TargetSequence(statSN: 50, expCmdSN: 12, maxCmdSN: 11))
        #expect(harness.command() == nil)
        #expect(harness.actions().isEmpty, "a command beyond the window is ignored")
        harness.cmdSN -= 1
        harness.session.prepare(first, wanted: 0)
        harness.session.complete(first, .init(status: 0))
        _ = harness.actions()
        #expect(harness.session.plainSequence.maxCmdSN == 12)
        #expect(harness.command() != nil)
    }

    @Test func aNumberBelowTheWindowIsIgnoredAndAGapEndsTheSession() throws {
        let harness = SessionHarness()
        #expect(harness.command { $0.cmdSN = 9 } == nil)
        #expect(harness.actions().isEmpty)
        harness.cmdSN = 12
        #expect(harness.command() == nil)
        #expect(harness.session.isClosing)
    }

    @Test func immediateCommandsAreOutsideOfTheWindow() throws {
        let harness = SessionHarness(window: 1)
        _ = try #require(harness.command())
        let urgent = try #require(harness.command { $0.isImmediate = true })
        harness.session.prepare(urgent, wanted: 0)
        harness.session.complete(urgent, .init(status: 0))
        guard case .scsiResponse(let response)? = harness.sent().last else { return #expect(Bool(false), "no response") }
        #expect(response.sequence.expCmdSN == 11)
    }

    @Test func aTagInUseIsRejected() throws {
        let harness = SessionHarness()
        _ = try #require(harness.command { $0.initiatorTaskTag = 7 })
        #expect(harness.command { $0.initiatorTaskTag = 7 } == nil)
        #expect(harness.session.taskCount == 1)
    }

    @Test func tooManyRejectsEndTheSession() {
        let harness = SessionHarness()
        for _ in 0..<5 { harness.session.receive(PDUFrame(header: BasicHeader(opcode: 0x1C))) }
        let actions = harness.actions()
        #expect(actions.count == 5)
        #expect(actions.last == .close(.protocolError("too many PDUs were rejected")))
    }
}

@Suite struct ManagementTests {
    private func request(
        _ function: TaskManagementRequest.Function, lun: UInt64 = 0, task: UInt32 = BasicHeader.reservedTag,
        cmdSN: UInt32 = 0, refCmdSN: UInt32 = 0
    ) -> PDUFrame {
        var request = TaskManagementRequest()
        request.isImmediate = true
        request.functionCode = function.rawValue
        request.lun = lun
        request.initiatorTaskTag = 900
        request.referencedTaskTag = task
        request.cmdSN = cmdSN
        request.refCmdSN = refCmdSN
        return request.frame
    }

    private func response(_ pdus: [TargetPDU]) -> UInt8? {
        for case .taskManagementResponse(let response) in pdus { return response.responseCode }
        return nil
    }

    @Test func anAbortIsAnsweredWhenTheTaskHasEndedAndTheTaskNever() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(reads: 512))
        harness.session.prepare(handle, wanted: 0)
        _ = harness.actions()
        harness.session.receive(request(.abortTask, task: 100))
        #expect(harness.actions() == [.abort(handle)])
        harness.session.complete(handle, .init(status: 0, dataIn: pattern(512)))
        let sent = harness.sent()
        #expect(sent.count == 1)
        #expect(response(sent) == 0)
    }

    @Test func aTaskThatCollectsIsDroppedAtOnce() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(writes: 512))
        harness.session.prepare(handle, wanted: 512)
        _ = harness.actions()
        harness.session.receive(request(.abortTask, task: 100))
        let actions = harness.actions()
        #expect(actions.first == .dropped(handle))
        #expect(actions.count == 2)
        #expect(harness.session.taskCount == 0)
        #expect(harness.session.plainSequence.maxCmdSN == 18, "the window is open again")
    }

    @Test func aTaskSetIsThatOfOneUnit() throws {
        let harness = SessionHarness()
        let mine = try #require(harness.command(lun: 0))
        let other = try #require(harness.command(lun: 1 << 48))
        for handle in [mine, other] { harness.session.prepare(handle, wanted: 0) }
        _ = harness.actions()
        harness.session.receive(request(.abortTaskSet))
        #expect(harness.actions() == [.abort(mine)])
        harness.session.complete(other, .init(status: 0))
        #expect(response(harness.sent()) == nil)
        harness.session.complete(mine, .init(status: 0))
        #expect(response(harness.sent()) == 0)
    }

    @Test func whatIsNotThereOrNotSupportedIsSaid() {
        let harness = SessionHarness()
        harness.session.receive(request(.abortTask, task: 12345))
        #expect(response(harness.sent()) == 1)
        harness.session.receive(request(.taskReassign))
        #expect(response(harness.sent()) == 4)
        harness.session.receive(request(.clearACA))
        #expect(response(harness.sent()) == 5)
        harness.session.receive(request(.logicalUnitReset))
        guard case .taskManagement? = harness.actions().first else { return #expect(Bool(false), "not handed on") }
    }

    @Test func aUnitThatIsNotThereIsSaid() {
        let harness = SessionHarness { $0.protocolLevel = 2 }
        for function in [TaskManagementRequest.Function.abortTaskSet, .clearTaskSet, .logicalUnitReset, .queryTaskSet] {
            harness.session.receive(request(function, lun: 9 << 48))
            #expect(response(harness.sent()) == TaskManagementResponse.Response.lunDoesNotExist.rawValue)
        }
    }

    /// RFC 7143 section 11.6.1: the CmdSN tells a task that has not come from one that has ended.
    @Test func aTaskThatHasNotComeIsAbortedByItsNumber() throws {
        let harness = SessionHarness()
        // 10 and 11 were lost, and the initiator is at 13.
        harness.session.receive(request(.abortTask, task: 77, cmdSN: 13, refCmdSN: 11))
        #expect(response(harness.sent()) == 0)
        #expect(harness.session.nextCmdSN == 10)
        harness.session.receive(request(.abortTask, task: 76, cmdSN: 13, refCmdSN: 10))
        #expect(response(harness.sent()) == 0)
        #expect(harness.session.nextCmdSN == 12, "both count as received")
        // Should they come all the same, they are old.
        #expect(harness.command { $0.cmdSN = 11 } == nil)
        harness.cmdSN = 12
        #expect(harness.command() != nil)
        for number: UInt32 in [9, 13, 14, 400] {
            harness.session.receive(request(.abortTask, task: 75, cmdSN: 13, refCmdSN: number))
            #expect(response(harness.sent()) == 1)
        }
    }

    @Test func aNumberThatWasAbortedIsIgnoredWhenItComes() throws {
        let harness = SessionHarness()
        harness.session.receive(request(.abortTask, task: 77, cmdSN: 13, refCmdSN: 12))
        #expect(response(harness.sent()) == 0)
        #expect(harness.command { $0.cmdSN = 12 } == nil)
        #expect(!harness.session.isClosing)
        for number: UInt32 in 10...11 { #expect(harness.command { $0.cmdSN = number } != nil) }
        #expect(harness.session.nextCmdSN == 13)
    }

    @Test func queriesTellWhetherATaskIsThere() throws {
        let harness = SessionHarness { $0.protocolLevel = 2 }
        _ = try #require(harness.command(lun: 1 << 48) { $0.initiatorTaskTag = 300 })
        let cases: [(TaskManagementRequest.Function, UInt64, UInt8)] = [
            (.queryTask, 1 << 48, 7), (.queryTask, 0, 0), (.queryTaskSet, 1 << 48, 7), (.queryTaskSet, 0, 0),
        ]
        for (function, lun, expected) in cases {
            harness.session.receive(request(function, lun: lun, task: 300))
            #expect(response(harness.sent()) == expected)
        }
        for function in [TaskManagementRequest.Function.nexusReset, .queryAsynchronousEvent] {
            harness.session.receive(request(function))
            guard case .taskManagement(let handed)? = harness.actions().first else { return #expect(Bool(false), "not handed on") }
            harness.session.answerTaskManagement(handed, .functionSucceeded, additionalInformation: 0x163F0E)
            guard case .taskManagementResponse(let answer)? = harness.sent().first else { return #expect(Bool(false), "no answer") }
            #expect(try TargetPDU(answer.frame) == .taskManagementResponse(answer))
            #expect(answer.frame.header.word1 == 0x163F0E << 40)
        }
    }

    @Test func functionsOfALaterStandardNeedItsLevel() {
        let harness = SessionHarness()
        for function in [TaskManagementRequest.Function.queryTask, .queryTaskSet, .nexusReset, .queryAsynchronousEvent] {
            harness.session.receive(request(function))
            #expect(response(harness.sent()) == TaskManagementResponse.Response.functionNotSupported.rawValue)
        }
        var unknown = TaskManagementRequest()
        unknown.isImmediate = true
        unknown.functionCode = 0x70
        harness.session.receive(unknown.frame)
        #expect(response(harness.sent()) == TaskManagementResponse.Response.functionNotSupported.rawValue)
    }

    @Test func requestsThatWaitAreBounded() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(reads: 512))
        harness.session.prepare(handle, wanted: 0)
        _ = harness.actions()
        for _ in 0..<4 { harness.session.receive(request(.abortTask, task: 100)) }
        #expect(harness.sent().isEmpty)
        harness.session.receive(request(.abortTask, task: 100))
        guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
        #expect(reject.reasonCode == Reject.Reason.immediateCommandReject.rawValue)
        harness.session.complete(handle, .init(status: 0, dataIn: pattern(512)))
        #expect(harness.sent().count == 4)
        #expect(harness.session.taskManagementCount == 0)
    }

    private func logout(_ reason: UInt8, connection: UInt16 = 5) -> PDUFrame {
        var logout = LogoutRequest()
        logout.isImmediate = true
        logout.reason = reason
        logout.connectionIdentifier = connection
        logout.initiatorTaskTag = 1
        return logout.frame
    }

    @Test func logoutsHaveTheirReasons() {
        let cases: [(reason: UInt8, connection: UInt16, response: UInt8, closes: Bool)] = [
            (0, 99, 0, true), (1, 5, 0, true), (1, 6, 1, false), (2, 5, 2, false),
        ]
        for item in cases {
            let harness = SessionHarness()
            harness.session.receive(logout(item.reason, connection: item.connection))
            let actions = harness.actions()
            guard case .send(.logoutResponse(let response))? = actions.first else { return #expect(Bool(false), "no response") }
            #expect(response.response == item.response)
            #expect(actions.contains(.close(.logout)) == item.closes)
        }
        let harness = SessionHarness()
        harness.session.receive(logout(3))
        guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
        #expect(reject.reasonCode == Reject.Reason.invalidPDUField.rawValue)
    }

    @Test func afterALogoutNothingIsTaken() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(reads: 512))
        harness.session.prepare(handle, wanted: 0)
        harness.session.receive(logout(0))
        _ = harness.actions()
        var command = SCSICommandPDU()
        command.cmdSN = harness.cmdSN
        command.initiatorTaskTag = 500
        harness.session.receive(command.frame)
        guard case .reject(let reject)? = harness.sent().first else { return #expect(Bool(false), "no Reject") }
        #expect(reject.reasonCode == Reject.Reason.waitingForLogout.rawValue)
    }

    @Test func aSessionThatRetiresBeginsNothingAndStillLogsOut() throws {
        let harness = SessionHarness()
        let running = try #require(harness.command(reads: 512))
        harness.session.prepare(running, wanted: 0)
        _ = harness.actions()
        let collecting = try #require(harness.command(writes: 512))
        harness.session.prepare(collecting, wanted: 512)
        _ = harness.actions()
        harness.session.retire()
        #expect(harness.actions() == [.dropped(collecting)])
        // What it does not begin uses up its number, so that the next one is no gap.
        for _ in 0..<2 { #expect(harness.command() == nil) }
        #expect(harness.actions().isEmpty)
        harness.session.complete(running, .init(status: 0, dataIn: pattern(512)))
        #expect(harness.sent().count == 1)
        harness.session.announce(.requestsLogout, seconds: 3)
        guard case .asyncMessage(let message)? = harness.sent().first else { return #expect(Bool(false), "no message") }
        #expect(message.eventCode == 1 && message.parameter3 == 3)
        harness.session.receive(logout(0))
        #expect(harness.actions().last == .close(.logout))
    }

    @Test func aLogoutWaitsForRunningCommands() throws {
        let harness = SessionHarness()
        let handle = try #require(harness.command(reads: 512))
        harness.session.prepare(handle, wanted: 0)
        _ = harness.actions()
        var logout = LogoutRequest()
        logout.initiatorTaskTag = 1
        logout.isImmediate = true
        harness.session.receive(logout.frame)
        #expect(harness.actions() == [.abort(handle)])
        harness.session.complete(handle, .init(status: 0))
        let actions = harness.actions()
        #expect(actions.last == .close(.logout))
        guard case .send(.logoutResponse(let response))? = actions.first else { return #expect(Bool(false), "no response") }
        #expect(response.response == 0)
    }

    @Test func pingsGoBothWays() {
        let harness = SessionHarness()
        var nop = NOPOut()
        nop.initiatorTaskTag = 4
        nop.cmdSN = 10
        nop.data = pattern(100)
        harness.session.receive(nop.frame)
        guard case .nopIn(let answer)? = harness.sent().first else { return #expect(Bool(false), "no NOP-In") }
        #expect(answer.data == pattern(100))
        #expect(answer.initiatorTaskTag == 4)
        #expect(answer.sequence.expCmdSN == 11)

        harness.session.ping()
        #expect(harness.session.isPingOutstanding)
        guard case .nopIn(let ping)? = harness.sent().first else { return #expect(Bool(false), "no ping") }
        var reply = NOPOut()
        reply.isImmediate = true
        reply.targetTransferTag = ping.targetTransferTag &+ 1
        harness.session.receive(reply.frame)
        #expect(harness.session.isPingOutstanding, "that was the answer to something else")
        reply.targetTransferTag = ping.targetTransferTag
        harness.session.receive(reply.frame)
        #expect(!harness.session.isPingOutstanding)
        #expect(harness.actions().isEmpty)
    }
}

@Suite struct SessionFuzzTests {
    /// Frames with random fields: the session stays consistent, and each command that started ends.
    @Test func randomFramesLeaveNoTaskBehind() {
        var random = SplitMix(seed: 2026)
        var started = 0
        for _ in 0..<300 {
            let harness = SessionHarness(window: 8) { $0.maxOutstandingR2T = 3 }
            var open: Set<TaskHandle> = []
            for _ in 0..<100 {
                var header = BasicHeader(
                    opcode: [0, 1, 1, 1, 2, 4, 5, 5, 6, 16][Int(random.next() % 10)], isImmediate: random.next() % 3 == 0,
                    flags: UInt8(truncatingIfNeeded: random.next()))
                if header.opcode == 6, random.next() % 8 != 0 { continue }
                header.at16 = UInt32(random.next() % 6)
                header.at20 = [BasicHeader.reservedTag, UInt32(random.next() % 20), 4096][Int(random.next() % 3)]
                header.at24 = harness.session.expCmdSN &+ UInt32(random.next() % 12 == 0 ? 1 : 0)
                header.at36 = UInt32(random.next() % 2)
                header.at40 = UInt32(random.next() % 3) * 512
                var frame = PDUFrame(header: header, data: pattern(Int(random.next() % 3) * 512))
                frame.isDataDigestWrong = random.next() % 50 == 0
                harness.session.receive(frame)
                if random.next() % 4 == 0, let handle = open.randomElement(using: &random),
                    harness.session.task(handle)?.phase == .executing
                {
                    harness.session.complete(handle, .init(status: 0, dataIn: pattern(700)))
                    open.remove(handle)
                }
                while let action = harness.session.popAction() {
                    switch action {
                    case .started(let handle):
                        started += 1
                        open.insert(handle)
                        harness.session.prepare(handle, wanted: Int(random.next() % 3000))
                    case .failed(let handle, _):
                        harness.session.complete(handle, .init(status: 2))
                        open.remove(handle)
                    case .dropped(let handle): open.remove(handle)
                    default: break
                    }
                }
                #expect(harness.session.taskCount == open.count)
                #expect(harness.session.windowedCount <= 8)
            }
        }
        #expect(started > 300)
    }
}
