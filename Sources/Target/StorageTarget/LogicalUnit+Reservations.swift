import NIOCore
import SCSI

extension LogicalUnit {
    /// PERSISTENT RESERVE OUT. The answer to PREEMPT AND ABORT waits until no task of a victim can touch the medium any
    /// more: a cluster takes it as the moment from which the disk is its own.
    func persistentReserveOut(
        _ task: SCSITask, _ command: PersistentReserveOut, completion: @escaping (SCSIResponse) -> Void
    ) {
        guard let nexus = nexuses[task.nexus] else {
            return completion(formatted(.checkCondition(SenseData(.abortedCommand, .nexusLossOccurred))))
        }
        let effects: PersistentReservations.Effects
        do throws(PersistentReservations.Refusal) {
            let parameters = try reserveParameters(of: task, command)
            effects = try reservations.perform(command, parameters, by: nexus.registrant)
        } catch {
            switch error {
            case .conflict: return completion(SCSIResponse(status: .reservationConflict))
            case .sense(let sense): return completion(formatted(.checkCondition(sense)))
            }
        }
        for attention in effects.attentions { establish(attention) }
        let victims = nexuses.values.filter { $0 !== nexus && effects.aborted.contains($0.registrant) }
        let abortion = LogicalUnitAbortion { completion(.good) }
        abortion.remaining += victims.count
        for victim in victims { abortTasks(.nexus(victim.identifier)) { abortion.countDown() } }
        abortion.countDown()
    }

    private func reserveParameters(of task: SCSITask, _ command: PersistentReserveOut)
        throws(PersistentReservations.Refusal) -> PersistentReserveParameters
    {
        do throws(SenseData) {
            return try PersistentReserveParameters.parse(task.dataOut ?? ByteBuffer(), for: command)
        } catch {
            throw .sense(error)
        }
    }
}
