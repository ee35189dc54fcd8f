import Blocks
import SCSI

extension LogicalUnit {
    /// What the initiator is told when the device could not do it.
    ///
    /// Three errors pass: the other site cannot be reached, there is no room until points have gone home, or the volume's
    /// limits leave none for now. All are told by a status rather than by sense data, because initiators try again on a status
    /// and mostly not on sense:
    /// - Linux requeues on BUSY and TASK SET FULL (`scsi_decide_disposition`), without counting against the retries of the
    ///   command, until its time is up: (retries + 1) x timeout, 180 s for a disk. NOT READY 04h/01h has the same bound but
    ///   is reported to the block layer first in some versions.
    /// - QEMU and other users of libiscsi retry BUSY and TASK SET FULL with growing pauses, and fail the request on NOT READY.
    /// - Windows and ESXi treat BUSY as transient.
    ///
    /// TASK SET FULL means that other tasks of ours are under way (SAM-5, 5.3.1), and makes Linux shorten its queue, which
    /// is what a full write log and a limit need; a lone task is told BUSY.
    func response(to error: BlockDeviceError, isWrite: Bool) -> SCSIResponse {
        switch error {
        case .outOfRange: .checkCondition(.outOfRange)
        case .writeProtected: .checkCondition(SenseData(.dataProtect, .writeProtected))
        case .unreachable: SCSIResponse(status: .busy)
        case .noSpace, .busy: SCSIResponse(status: runningTasks.count > 1 ? .taskSetFull : .busy)
        case .medium: .checkCondition(SenseData(.mediumError, isWrite ? .writeError : .unrecoveredReadError))
        case .stopped: .checkCondition(SenseData(.notReady, .logicalUnitNotReadyManualInterventionRequired))
        }
    }

    func response(to result: Result<Void, BlockDeviceError>) -> SCSIResponse {
        switch result {
        case .success: .good
        case .failure(let error): response(to: error, isWrite: true)
        }
    }
}

/// What a target answers for a number behind which it has no logical unit (SAM-5, Incorrect logical unit numbers; SPC-4, 6.6.1).
public enum AbsentLogicalUnit {
    public static func response(
        to block: CommandDescriptorBlock, identity: LogicalUnitIdentity, reportedNumbers: [LogicalUnitNumber]
    ) -> SCSIResponse {
        do throws(SenseData) {
            switch try block.parse().get() {
            case .inquiry(nil, let count):
                return .good(InquiryData.standard(identity, isPresent: false).truncated(to: Int(count)))
            case .reportLUNs(let select, let count):
                return .good(try LogicalUnitList.report(reportedNumbers, selectReport: select).truncated(to: Int(count)))
            case .requestSense(let format, let count):
                var data = noUnit
                data.format = format
                return .good(data.dataIn(allocationByteCount: Int(count)))
            default: return .checkCondition(noUnit)
            }
        } catch {
            return .checkCondition(noUnit)
        }
    }

    private static let noUnit = SenseData(.illegalRequest, .logicalUnitNotSupported)
}
