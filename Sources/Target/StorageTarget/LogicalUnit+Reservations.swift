import Blocks
import NIOCore
import SCSI

// PERSISTENT RESERVE OUT, one command after the other:
//
//   queue --turn--> perform on a copy --APTPL--> store --durable--> take the copy over --> attentions, abortions --> answer
//                        |                         |
//                        +-- refusal: answer       +-- failed: HARDWARE ERROR, the old state stays
//
// While the copy is being stored, other commands are judged by the old state: the command has not completed yet.

/// Keeps the state of persistent reservations where a loss of power does not reach it. It gets the encoded state, or nil when
/// there is none to keep, and says whether that is durable now; the last call counts.
public typealias ReservationStore = (ByteBuffer?, @escaping (Bool) -> Void) -> Void

/// A PERSISTENT RESERVE OUT that waits for its turn.
struct LogicalUnitReservationUpdate {
    let running: LogicalUnitRunningTask
    let command: PersistentReserveOut
    let parameters: PersistentReserveParameters
}

extension LogicalUnit {
    /// The most commands that wait for the store; one more is answered with BUSY.
    static var maximumReservationUpdates: Int { 64 }

    /// Brings back the state that was stored; for the time before there are sessions.
    public func restoreReservations(_ state: PersistentReservations) { reservations = state }

    func persistentReserveOut(
        _ task: SCSITask, _ command: PersistentReserveOut, completion: @escaping (SCSIResponse) -> Void
    ) {
        let parameters: PersistentReserveParameters
        do throws(SenseData) {
            parameters = try PersistentReserveParameters.parse(task.dataOut ?? ByteBuffer(), for: command)
        } catch {
            return completion(formatted(.checkCondition(error)))
        }
        guard reservationUpdates.count < Self.maximumReservationUpdates else { return completion(SCSIResponse(status: .busy)) }
        // It touches no block, so it waits for nobody's range, and a task set that a victim has filled does not keep it out.
        runOnMedium(task, SectorRange(from: 0, to: 0), .shared, isLimited: false, completion: completion) { running in
            self.reservationUpdates.append(
                LogicalUnitReservationUpdate(running: running, command: command, parameters: parameters))
            self.startReservationUpdates()
        }
    }

    /// Carries out what waits, until one has to wait for the store.
    private func startReservationUpdates() {
        while !isUpdatingReservations, let update = reservationUpdates.first {
            reservationUpdates.removeFirst()
            isUpdatingReservations = true
            carryOut(update)
        }
    }

    private func carryOut(_ update: LogicalUnitReservationUpdate) {
        let running = update.running
        guard !running.isAborted, let nexus = nexuses[running.nexus] else {
            isUpdatingReservations = false
            return finish(running, SCSIResponse(status: .taskAborted))
        }
        var next = reservations
        let effects: PersistentReservations.Effects
        do throws(PersistentReservations.Refusal) {
            effects = try next.perform(update.command, update.parameters, by: nexus.registrant, in: reservationSurroundings)
        } catch {
            isUpdatingReservations = false
            switch error {
            case .conflict: return finish(running, SCSIResponse(status: .reservationConflict))
            case .sense(let sense): return finish(running, .checkCondition(sense))
            }
        }
        guard let store = reservationStore, isReservationStoreInDoubt || !next.isKeptAs(reservations) else {
            return adopt(next, effects, running)
        }
        store(next.isPersistent ? next.encoded() : nil) { isDurable in
            self.isReservationStoreInDoubt = !isDurable
            if isDurable {
                self.adopt(next, effects, running)
            } else {
                self.isUpdatingReservations = false
                self.finish(running, .checkCondition(SenseData(.hardwareError, .internalTargetFailure)))
            }
            self.startReservationUpdates()
        }
    }

    private var reservationSurroundings: PersistentReservations.Surroundings {
        PersistentReservations.Surroundings(
            targetPorts: relativeTargetPorts(), initiatorPorts: nexuses.values.map(\.registrant.initiatorPortName),
            canPersist: reservationStore != nil)
    }

    /// The new state holds from here on. The answer to PREEMPT AND ABORT waits until no task of a victim can touch the medium
    /// any more: a cluster takes it as the moment from which the disk is its own.
    private func adopt(
        _ state: PersistentReservations, _ effects: PersistentReservations.Effects, _ running: LogicalUnitRunningTask
    ) {
        reservations = state
        isUpdatingReservations = false
        for attention in effects.attentions { establish(attention) }
        let abortion = LogicalUnitAbortion { self.finish(running, .good) }
        for victim in nexuses.values where effects.aborted.contains(victim.registrant) {
            // What still waits for its Data-Out is not here yet; it ends when it comes.
            victim.abortCount += 1
            abortion.remaining += 1
            abortTasks(.nexus(victim.identifier), except: running.identifier) { abortion.countDown() }
        }
        abortion.countDown()
    }

    /// Notes who may read without further questions, so that a cached read asks one flag, or one of its nexus.
    func accessDidChange() {
        restrictsReads = legacyHolder != nil || !(reservations.reservation?.type.admitsReads ?? true)
        for nexus in nexuses.values { nexus.mayRead = mayRead(nexus) }
    }

    func mayRead(_ nexus: LogicalUnitNexus) -> Bool {
        (legacyHolder ?? nexus.identifier) == nexus.identifier && !reservations.conflicts(.read, by: nexus.registrant)
    }

    /// Why RESERVE (6) or RELEASE (6) may not be carried out; nil when it may, perhaps without doing anything.
    func legacyRefusal(by nexus: LogicalUnitNexus) -> SCSIResponse? {
        // A registration that is being stored would not see the RESERVE.
        if isUpdatingReservations { return SCSIResponse(status: .busy) }
        return reservations.compatibleHandling(of: nexus.registrant) == .conflict
            ? SCSIResponse(status: .reservationConflict) : nil
    }

    /// RESERVE (6) and RELEASE (6), once admitted.
    func legacyReserve(_ nexus: LogicalUnitNexus, isRelease: Bool) {
        guard reservations.compatibleHandling(of: nexus.registrant) == .legacy else { return }
        if !isRelease {
            // Another holder was a conflict already.
            legacyHolder = nexus.identifier
        } else if legacyHolder == nexus.identifier {
            legacyHolder = nil
        }
    }
}
