import SCSI
import StorageTarget

extension CloudPlane {
    /// Gives a unit the reservations that were kept, and has it keep what comes.
    func keep(
        _ reservations: (file: ReservationFile, state: PersistentReservations?), of unit: LogicalUnit, grant: VolumeGrant
    ) {
        let (name, identifier) = (grant.name, grant.identifier)
        if let state = reservations.state {
            unit.restoreReservations(state)
            recorder.record(
                "reservations.restored", subject: name, logSubject: identifier,
                "the persistent reservations of before the restart hold: \(state.registrations.count) registrations")
        }
        let file = reservations.file
        file.onFailure = { [unowned self] reason in
            recorder.record(
                "reservations.failed", subject: name, logSubject: identifier, severity: .error,
                "a change of the persistent reservations could not be written, so it was refused: \(reason)")
        }
        unit.reservationStore = { file.store($0, completion: $1) }
    }
}
