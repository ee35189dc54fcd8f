import NIOCore
import Testing

@testable import ISCSI

/// A session with an initiator that counts.
final class SessionHarness {
    var session: TargetSession
    var cmdSN: UInt32 = 10
    var tag: UInt32 = 100

    init(window: UInt32 = 8, type: SessionType = .normal, _ change: (inout SessionParameters) -> Void = { _ in }) {
        var parameters = SessionParameters()
        parameters.initialR2T = false
        change(&parameters)
        var limits = SessionLimits()
        limits.commandWindow = window
        limits.rejects = 4
        limits.taskManagementRequests = 4
        let identity = LoginIdentity(
            initiatorName: "iqn.2026-11.test:i", targetName: type == .normal ? "iqn.2026-11.test:t" : nil, sessionType: type,
            isid: InitiatorSessionIdentifier(1))
        let login = LoginResult(
            identity: identity, parameters: parameters, tsih: 1, connectionIdentifier: 5, cmdSN: 10, statSN: 50)
        session = TargetSession(
            login, limits: limits, unitNumber: { lun in (0..<4).first { lun == UInt64($0) << 48 || lun == UInt64(0x4000 | $0) << 48 } }
        ) { name in
            (0..<3).map { "iqn.2026-11.test:t\($0 == 0 ? "" : String($0))" }.filter { name == nil || name == $0 }
                .map { DiscoveredTarget(name: $0, addresses: ["127.0.0.1:3260,1"]) }
        }
    }

    func actions() -> [SessionAction] {
        var all: [SessionAction] = []
        while let action = session.popAction() { all.append(action) }
        return all
    }

    func sent() -> [TargetPDU] {
        actions().compactMap { if case .send(let pdu) = $0 { pdu } else { nil } }
    }

    /// Sends a command and returns its handle when the session took it.
    func command(
        reads: Int = 0, writes: Int = 0, immediate: ByteBuffer = ByteBuffer(), isFinal: Bool = true, lun: UInt64 = 0,
        change: (inout SCSICommandPDU) -> Void = { _ in }
    ) -> TaskHandle? {
        var command = SCSICommandPDU()
        command.reads = reads > 0
        command.writes = writes > 0
        command.expectedDataTransferLength = UInt32(max(reads, writes))
        command.isFinal = isFinal
        command.data = immediate
        command.lun = lun
        command.initiatorTaskTag = tag
        command.cmdSN = cmdSN
        tag += 1
        change(&command)
        if !command.isImmediate { cmdSN &+= 1 }
        session.receive(InitiatorPDU.scsiCommand(command).frame)
        guard case .started(let handle)? = session.popAction() else { return nil }
        return handle
    }

    func data(
        _ handle: TaskHandle, _ bytes: ByteBuffer, at offset: Int, ttt: UInt32 = BasicHeader.reservedTag, dataSN: UInt32 = 0,
        isFinal: Bool = true, isDamaged: Bool = false
    ) {
        guard let task = session.task(handle) else { return }
        var pdu = DataOut()
        pdu.initiatorTaskTag = task.initiatorTaskTag
        pdu.targetTransferTag = ttt
        pdu.bufferOffset = UInt32(offset)
        pdu.dataSN = dataSN
        pdu.isFinal = isFinal
        pdu.data = bytes
        var frame = pdu.frame
        frame.isDataDigestWrong = isDamaged
        session.receive(frame)
    }
}

func pattern(_ count: Int, from start: Int = 0) -> ByteBuffer {
    ByteBuffer(bytes: (start..<start + count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
}
