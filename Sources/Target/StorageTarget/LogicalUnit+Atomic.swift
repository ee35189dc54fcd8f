import Blocks
import NIOCore
import SCSI

extension LogicalUnit {
    /// COMPARE AND WRITE (SBC-3, 5.2): the range is held alone from the read to the end of the write, so no other command
    /// comes between.
    func compareAndWrite(_ task: SCSITask, _ transfer: BlockTransfer, _ completion: @escaping (SCSIResponse) -> Void) {
        guard let range = sectorRange(of: transfer) else { return completion(formatted(.checkCondition(.outOfRange))) }
        if range.isEmpty { return completion(.good) }
        guard var data = task.dataOut, data.readableBytes == 2 * range.byteCount,
            let expected = data.readSlice(length: range.byteCount)
        else { return completion(formatted(.checkCondition(transfer.invalidLength))) }
        let replacement = data
        runOnMedium(task, range, .exclusive, completion: completion) { running in
            self.compare(running, range, with: expected, .everyBlock) {
                let durability = self.durability(forceUnitAccess: transfer.forceUnitAccess)
                self.device.write(range, data: replacement, durability: durability) { result in
                    self.finish(running, self.responseToReplacement(result))
                }
            }
        }
    }

    /// A write that has waited too long for room may take effect yet. Another write may simply be sent again when it is told
    /// BUSY; this one would then compare with what it has written itself, so its initiator is not told that nothing happened.
    private func responseToReplacement(_ result: Result<Void, BlockDeviceError>) -> SCSIResponse {
        guard case .failure(.noSpace) = result else { return response(to: result) }
        return .checkCondition(SenseData(.abortedCommand, .writeError))
    }

    /// ORWRITE (SBC-3, 5.5): every bit that is set on the medium or in the data is set afterwards.
    func orWrite(_ task: SCSITask, _ transfer: BlockTransfer, _ completion: @escaping (SCSIResponse) -> Void) {
        guard let range = sectorRange(of: transfer) else { return completion(formatted(.checkCondition(.outOfRange))) }
        if range.isEmpty { return completion(.good) }
        guard let data = task.dataOut, data.readableBytes == range.byteCount else {
            return completion(formatted(.checkCondition(transfer.invalidLength)))
        }
        runOnMedium(task, range, .exclusive, completion: completion) { running in
            self.device.read(range) { result in
                if running.isAborted { return self.finish(running, SCSIResponse(status: .taskAborted)) }
                switch result {
                case .failure(let error): self.finish(running, self.response(to: error, isWrite: false))
                case .success(var medium):
                    medium.formUnion(data)
                    let durability = self.durability(forceUnitAccess: transfer.forceUnitAccess)
                    self.device.write(range, data: medium, durability: durability) { result in
                        self.finish(running, self.response(to: result))
                    }
                }
            }
        }
    }
}
