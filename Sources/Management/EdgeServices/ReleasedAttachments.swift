/// Attachments that this process has given back with nothing left to bring home: what is left of them here may be removed once home grants them no
/// more. A log that is not named here may hold the only copy of writes.
struct ReleasedAttachments {
    /// And the number of the grants that were asked for last before each was given back.
    private var identifiers: [String: UInt64] = [:]

    /// Everything of it is home.
    mutating func insert(_ identifier: String, after grants: UInt64) { identifiers[identifier] = grants }

    /// Not everything of it is home after all.
    mutating func remove(_ identifier: String) { identifiers[identifier] = nil }

    /// Home may keep an attachment that was given back: the answer was lost, a disk did not close, another one of its group refused. It is served on
    /// then, and what is written from then on is not home. Grants that were asked for before it was given back say nothing of that.
    mutating func forgetServed(_ grants: [VolumeGrant], from number: UInt64) {
        for grant in grants where !grant.isDetaching {
            if let release = identifiers[grant.identifier], number > release { identifiers[grant.identifier] = nil }
        }
    }

    /// Forgets those that are gone: nothing of them is left here.
    mutating func keep(_ granted: Set<String>) { identifiers = identifiers.filter { granted.contains($0.key) } }

    func contains(_ identifier: String) -> Bool { identifiers[identifier] != nil }
}
