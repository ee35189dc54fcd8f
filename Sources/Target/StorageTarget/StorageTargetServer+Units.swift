import Blocks
import SCSI

// Logical units that come and go while initiators are logged in (SAM-5, 5.14 and SPC-4, 6.33).
extension StorageTargetServer {
    /// Puts one more logical unit behind a target that is being served. Each initiator finds REPORTED LUNS DATA HAS CHANGED
    /// at its next command, and the unit at once if it does not wait for that.
    ///
    /// - Parameters:
    ///   - unit: A unit that no other target has, on the server's event loop.
    ///   - number: Its number, which is free.
    ///   - name: The name of the target.
    public func addUnit(_ unit: LogicalUnit, number: Int, toTarget name: String) throws(StorageTargetError) {
        eventLoop.preconditionInEventLoop()
        guard !isStopped else { throw .stopped }
        guard let target = targets[name.lowercased()] else { throw .noSuchTarget }
        guard target.units.count < limits.unitsPerTarget else { throw .tooManyUnits }
        let others = Array(target.units.values)
        try target.insert(unit, number: number)
        for connection in connections.values where connection.target === target {
            // A unit that is full of nexuses ends the session, which logs in again and is told so.
            if !connection.join(unit) { connection.retire {} }
        }
        for other in others { other.reportedNumbersDidChange() }
    }

    /// Takes a logical unit away from a target that is being served. Commands that are on the medium finish and are answered;
    /// those that still wait for data or memory, and all that come later, are answered with LOGICAL UNIT NOT SUPPORTED. On the
    /// target's other units each initiator finds REPORTED LUNS DATA HAS CHANGED.
    ///
    /// - Parameter completion: Runs when no command can touch the unit's device any more; at once when there is no such unit.
    public func removeUnit(number: Int, ofTarget name: String, completion: @escaping () -> Void = {}) {
        eventLoop.preconditionInEventLoop()
        guard let target = targets[name.lowercased()], let unit = target.remove(number: number) else { return completion() }
        for other in target.units.values { other.reportedNumbersDidChange() }
        let affected = connections.values.filter { $0.target === target }
        let latch = Countdown(affected.count + 1) { unit.retire(completion: completion) }
        for connection in affected { connection.leave(unit) { latch.arrive() } }
        latch.arrive()
    }

    /// Tells the initiators of a unit that its disk has another size now: CAPACITY DATA HAS CHANGED.
    public func capacityDidChange(number: Int, ofTarget name: String) {
        eventLoop.preconditionInEventLoop()
        targets[name.lowercased()]?.units[number]?.capacityDidChange()
    }
}
