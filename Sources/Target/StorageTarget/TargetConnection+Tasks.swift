import Blocks
import ISCSI
import SCSI

// Task management that reaches beyond one session (SAM-5, clause 7; RFC 7143 section 4.2.3.3).
extension TargetConnection {
    func manage(_ request: TaskManagementRequest) {
        guard let target, let function = request.function else { return }
        switch function {
        case .queryAsynchronousEvent: queryAsynchronousEvent(request)
        case .nexusReset: resetNexus(request)
        case .clearTaskSet: clearTaskSet(request)
        case .logicalUnitReset: reset(request, target.unit(request.lun).map { [$0] } ?? [], onLUN: request.lun)
        default: reset(request, Array(target.units.values), onLUN: nil)
        }
    }

    /// The connections whose sessions are with the same target.
    private var peers: [TargetConnection] { server.connections.values.filter { $0.target === target && $0.session != nil } }

    /// LOGICAL UNIT RESET, TARGET WARM RESET and TARGET COLD RESET.
    private func reset(_ request: TaskManagementRequest, _ units: [LogicalUnit], onLUN lun: UInt64?) {
        let peers = peers
        let latch = Countdown(units.count + peers.count) { [self] in
            finish(request, .functionComplete)
            guard request.function == .targetColdReset else { return }
            // A cold reset ends every connection (section 11.5.1), without a word about it.
            for peer in peers where peer !== self { peer.closeAfterFlush() }
            closeSoon()
        }
        for unit in units { unit.reset { latch.arrive() } }
        for peer in peers { peer.abortTasks(onLUN: lun) { latch.arrive() } }
    }

    /// CLEAR TASK SET (SAM-5, 7.4): the one task set of the unit. The control mode page says TAS, so that the commands of other sessions
    /// end with TASK ABORTED and no unit attention (SAM-5, 5.6).
    private func clearTaskSet(_ request: TaskManagementRequest) {
        guard let unit = target?.unit(request.lun) else { return finish(request, .lunDoesNotExist) }
        let latch = Countdown(2) { [self] in finish(request, .functionComplete) }
        for peer in peers where peer !== self { peer.answerAborted(on: unit) }
        // Those that the unit has end by its answer.
        unit.abortTasks(.all) { latch.arrive() }
        abortTasks(onLUN: request.lun) { latch.arrive() }
    }

    /// Ends commands that no unit has executed yet, because another session aborts them.
    private func answerAborted(on unit: LogicalUnit) {
        // An answer may give others their turn.
        for (handle, command) in commands where command.unit === unit && commands[handle]?.isRunning == false {
            answer(handle, SCSIResponse(status: .taskAborted), transferByteCount: 0)
        }
        drain()
    }

    /// I_T NEXUS RESET (SAM-5, 7.6; RFC 7144): the session's tasks end, and its units treat it as a loss of the nexus.
    private func resetNexus(_ request: TaskManagementRequest) {
        guard let target else { return }
        let latch = Countdown(target.units.count + 1) { [self] in finish(request, .functionComplete) }
        for unit in target.units.values { unit.loseNexus(nexus) { latch.arrive() } }
        abortTasks(onLUN: nil) { latch.arrive() }
    }

    /// QUERY ASYNCHRONOUS EVENT (SAM-5, 7.8; RFC 7144): whether a unit attention is pending, and which.
    private func queryAsynchronousEvent(_ request: TaskManagementRequest) {
        guard let attentions = target?.unit(request.lun)?.nexuses[nexus]?.attentions, let first = attentions.first else {
            return finish(request, .functionComplete)
        }
        // UADE DEPTH, SENSE KEY, ADDITIONAL SENSE CODE and its qualifier.
        let depth: UInt32 = attentions.count == 1 ? 1 : 2
        let information = depth << 20 | 0x6 << 16 | UInt32(first.code) << 8 | UInt32(first.qualifier)
        session?.answerTaskManagement(request, .functionSucceeded, additionalInformation: information)
        drain()
    }

    private func finish(_ request: TaskManagementRequest, _ response: TaskManagementResponse.Response) {
        session?.answerTaskManagement(request, response)
        drain()
    }

    /// Aborts tasks of this session for another; `completion` runs when the last of them is gone.
    func abortTasks(onLUN lun: UInt64?, completion: @escaping () -> Void) {
        guard let token = session?.abortTasks(onLUN: lun) else {
            drain()
            return completion()
        }
        abortWaiters[token] = completion
        drain()
    }
}
