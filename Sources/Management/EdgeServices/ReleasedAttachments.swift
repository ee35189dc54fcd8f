/// Attachments that this process has given back with nothing left to bring home: what is left of them here may be removed once home grants them no
/// more. A log that is not named here may hold the only copy of writes.
struct ReleasedAttachments {
    private var identifiers: Set<String> = []

    /// Everything of it is home, or its keys are destroyed.
    mutating func insert(_ identifier: String) { identifiers.insert(identifier) }

    /// Home may keep an attachment that was given back: the answer was lost, a disk did not close, another one of its group refused. It is served on
    /// then, and what is written from then on is not home.
    mutating func forgetServed(_ grants: [VolumeGrant]) {
        for grant in grants where !grant.isDetaching { identifiers.remove(grant.identifier) }
    }

    func contains(_ identifier: String) -> Bool { identifiers.contains(identifier) }
}
