import Blocks
import SCSI

// A unit whose medium can be taken out (RMB of INQUIRY data): PREVENT ALLOW MEDIUM REMOVAL of SBC-3, 5.10, and START STOP UNIT
// with LOEJ. To eject is to stop serving what is on the disk until it is loaded again; nothing happens to the data.
extension LogicalUnit {
    /// PREVENT of each nexus counts until it allows, logs out, or the unit is reset.
    func preventRemoval(_ isPrevented: Bool, by nexus: LogicalUnitNexus) -> SCSIResponse {
        if isPrevented { removalPreventers.insert(nexus.identifier) } else { removalPreventers.remove(nexus.identifier) }
        return .good
    }

    /// START STOP UNIT: there is no motor. To stop is to be told that the power may go, so it flushes unless told not to.
    func startStop(_ task: SCSITask, _ request: StartStopUnit, _ completion: @escaping (SCSIResponse) -> Void) {
        // With a power condition, START and LOEJ mean nothing (SBC-3, START STOP UNIT); there is none to change to.
        if request.powerCondition != 0 { return completion(.good) }
        if request.loadEject {
            guard identity.isRemovable else { return completion(formatted(.checkCondition(.invalidFieldInCDB(byte: 4, bit: 1)))) }
            // A medium that may not be moved stays where it is, inside or outside.
            if request.start != isMediumLoaded && !removalPreventers.isEmpty {
                return completion(formatted(.checkCondition(SenseData(.illegalRequest, .mediumRemovalPrevented))))
            }
        }
        let moves = request.loadEject && request.start != isMediumLoaded
        if request.start || request.noFlush || device.isWriteProtected || !isMediumLoaded {
            if moves { moveMedium(isLoaded: request.start, by: task.nexus) }
            return completion(.good)
        }
        synchronizeCache(task, isImmediate: request.isImmediate && !moves) { response in
            if moves && response.status == .good { self.moveMedium(isLoaded: false, by: task.nexus) }
            completion(response)
        }
    }

    private func moveMedium(isLoaded: Bool, by identifier: NexusIdentifier) {
        isMediumLoaded = isLoaded
        guard isLoaded else { return }
        for nexus in nexuses.values where nexus.identifier != identifier { establish(.mediumMayHaveChanged, for: nexus) }
    }
}
