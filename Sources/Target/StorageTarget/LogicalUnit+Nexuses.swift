import SCSI

/// What a logical unit remembers about one I_T nexus.
final class LogicalUnitNexus {
    /// The most unit attentions that wait; a new one then takes the place of the last. Each stands once.
    static let maximumAttentions = 8

    let identifier: NexusIdentifier
    let registrant: Registrant
    var attentions: [AdditionalSenseCode] = []
    /// False while a reservation of another shuts it out from reading.
    var mayRead = true
    /// How often another initiator has aborted all its tasks. A task that was admitted before the last time is not executed.
    var abortCount: UInt64 = 0
    /// What RECEIVE COPY RESULTS tells.
    var copyResults = CopyResults()

    init(identifier: NexusIdentifier, registrant: Registrant) {
        self.identifier = identifier
        self.registrant = registrant
    }
}

extension LogicalUnit {
    /// Makes a session known. Its first command is told POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    /// - Parameters:
    ///   - initiatorPortName: `<initiator name>,i,0x<ISID>`, to which persistent registrations belong.
    ///   - relativeTargetPort: The port of the target that the session came by; that of the identity when nil.
    /// - Returns: false when there are as many nexuses as there may be; the login is to be refused.
    public func addNexus(_ identifier: NexusIdentifier, initiatorPortName: String, relativeTargetPort: UInt16? = nil) -> Bool {
        guard nexuses[identifier] == nil, nexuses.count < Self.maximumNexuses else { return false }
        let registrant = Registrant(
            initiatorPortName: initiatorPortName, relativeTargetPort: relativeTargetPort ?? identity.relativeTargetPort)
        let nexus = LogicalUnitNexus(identifier: identifier, registrant: registrant)
        nexuses[identifier] = nexus
        nexus.mayRead = mayRead(nexus)
        establish(.powerOnResetOrBusDeviceReset, for: nexus)
        return true
    }

    /// Forgets a session: its tasks are aborted and its RESERVE (6) is released; persistent registrations stay
    /// (SAM-5, 6.3.4). `completion` runs when none of its tasks can touch the medium any more.
    public func removeNexus(_ identifier: NexusIdentifier, completion: @escaping () -> Void = {}) {
        guard let nexus = nexuses.removeValue(forKey: identifier) else {
            completion()
            return
        }
        if !nexus.attentions.isEmpty { attentiveNexusCount -= 1 }
        removalPreventers.remove(identifier)
        if legacyHolder == identifier { legacyHolder = nil }
        abortTasks(.nexus(identifier), completion: completion)
    }

    /// I_T nexus loss (SAM-5, 6.3.4) of a session that goes on: its tasks are aborted, its RESERVE (6) is released, and it is
    /// told. `completion` runs when none of its tasks can touch the medium any more.
    func loseNexus(_ identifier: NexusIdentifier, completion: @escaping () -> Void) {
        removalPreventers.remove(identifier)
        if legacyHolder == identifier { legacyHolder = nil }
        if let nexus = nexuses[identifier] { establish(.nexusLossOccurred, for: nexus) }
        abortTasks(.nexus(identifier), completion: completion)
    }

    /// Ends the unit's service, as when it is taken away from its target: forgets all sessions, and stops what nobody waits for, a SANITIZE
    /// for example. `completion` runs when nothing of the unit touches its device any more; a target may take it again then.
    func retire(completion: @escaping () -> Void) {
        isRetired = true
        let latch = Countdown(nexuses.count + 1, completion: completion)
        for identifier in Array(nexuses.keys) { removeNexus(identifier) { latch.arrive() } }
        abortTasks(.all) { [self] in
            let background = LogicalUnitAbortion { latch.arrive() }
            for running in runningTasks.values {
                background.remaining += 1
                running.waiters.append(background)
            }
            background.countDown()
        }
    }

    /// Tells every initiator that the disk has another size now.
    public func capacityDidChange() {
        for nexus in nexuses.values { establish(.capacityDataHasChanged, for: nexus) }
    }

    /// Tells every initiator that the disk may, or may no longer, be written: the bit is in the header of the mode parameters.
    public func writeProtectionDidChange() {
        for nexus in nexuses.values { establish(.modeParametersChanged, for: nexus) }
    }

    /// Tells every initiator that the target has other logical units now.
    public func reportedNumbersDidChange() {
        for nexus in nexuses.values { establish(.reportedLUNsDataHasChanged, for: nexus) }
    }

    /// Has the next command of a nexus, but for the few that pass, answered with a unit attention (SAM-5, 5.14).
    func establish(_ code: AdditionalSenseCode, for nexus: LogicalUnitNexus) {
        if nexus.attentions.isEmpty { attentiveNexusCount += 1 }
        // A reset makes everything before it unimportant (SAM-5, Unit attention conditions).
        if code == .busDeviceResetFunctionOccurred { nexus.attentions.removeAll() }
        if nexus.attentions.contains(code) { return }
        if nexus.attentions.count == LogicalUnitNexus.maximumAttentions { nexus.attentions.removeLast() }
        // What tells of a reset is told before all else (SAM-5, precedence of unit attention conditions).
        if code.tellsOfReset { nexus.attentions.insert(code, at: 0) } else { nexus.attentions.append(code) }
    }

    func establish(_ attention: PersistentReservations.Effects.Attention) {
        for nexus in nexuses.values where nexus.registrant == attention.registrant { establish(attention.code, for: nexus) }
    }

    func takeAttention(of nexus: LogicalUnitNexus) -> AdditionalSenseCode? {
        guard !nexus.attentions.isEmpty else { return nil }
        let code = nexus.attentions.removeFirst()
        if nexus.attentions.isEmpty { attentiveNexusCount -= 1 }
        return code
    }

    /// REPORT LUNS tells all about changed units, so it ends that attention and no other (SPC-4, 6.33).
    func clearReportedNumbersAttention(of nexus: LogicalUnitNexus) {
        guard let index = nexus.attentions.firstIndex(of: .reportedLUNsDataHasChanged) else { return }
        nexus.attentions.remove(at: index)
        if nexus.attentions.isEmpty { attentiveNexusCount -= 1 }
    }
}
