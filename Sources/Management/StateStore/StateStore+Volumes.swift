import Foundation
import GRDB

extension StateStore {
    /// Adds a disk.
    public func addDisk(_ disk: DiskRecord) throws(StateStoreError) { try insert(disk, kind: "disk", name: disk.name) }

    /// All disks that were added, by name.
    public func disks() throws(StateStoreError) -> [DiskRecord] { try read { try DiskRecord.order(Column("name")).fetchAll($0) } }

    /// Forgets a disk. Its bytes stay where they are; a volume must not need it.
    public func removeDisk(_ name: String) throws(StateStoreError) {
        try write { database in
            if let volume = try VolumeRecord.filter(Column("disk") == name).fetchOne(database) {
                throw StateStoreError.conflict("the disk \"\(name)\" is used by the volume \"\(volume.name)\": delete that first")
            }
            guard try DiskRecord.deleteOne(database, key: name) else { throw StateStoreError.notFound(kind: "disk", name: name) }
        }
    }

    /// Adds a volume, which is detached at first: to a target that is there, or with one of its own. It has no key before it is attached.
    public func addVolume(_ volume: VolumeRecord, target: TargetRecord? = nil) throws(StateStoreError) {
        guard target.map({ $0.name == volume.target }) ?? true else { throw .failed("the volume is of another target") }
        try write { database in
            if try VolumeRecord.exists(database, key: volume.name) { throw StateStoreError.exists(kind: "volume", name: volume.name) }
            if let target { try Self.insert(target, kind: "target", name: target.name, database) }
            let others = VolumeRecord.filter(Column("target") == volume.target && Column("logicalUnit") == volume.logicalUnit)
            if let other = try others.fetchOne(database) {
                throw StateStoreError.conflict(
                    "logical unit \(volume.logicalUnit) of the target \"\(volume.target)\" is the volume \"\(other.name)\": choose "
                        + "another number")
            }
            try Self.insert(volume, kind: "volume", name: volume.name, database)
        }
    }

    /// The target of that name; nil when there is none.
    public func target(_ name: String) throws(StateStoreError) -> TargetRecord? {
        try read { try TargetRecord.fetchOne($0, key: name) }
    }

    /// The volumes of a target by their logical unit numbers.
    public func volumes(ofTarget name: String) throws(StateStoreError) -> [VolumeRecord] {
        try read { try VolumeRecord.filter(Column("target") == name).order(Column("logicalUnit")).fetchAll($0) }
    }

    /// All volumes by name.
    public func volumes() throws(StateStoreError) -> [VolumeRecord] {
        try read { try VolumeRecord.order(Column("name")).fetchAll($0) }
    }

    /// The volume of that name.
    public func volume(_ name: String) throws(StateStoreError) -> VolumeRecord {
        guard let volume = try read({ try VolumeRecord.fetchOne($0, key: name) }) else {
            throw .notFound(kind: "volume", name: name)
        }
        return volume
    }

    /// The volume whose attachment has that identifier.
    public func volume(identifier: String) throws(StateStoreError) -> VolumeRecord {
        let found = try read { try VolumeRecord.filter(Column("identifier") == identifier).fetchOne($0) }
        guard let found else { throw .notFound(kind: "volume", name: identifier) }
        return found
    }

    /// Gives an edge the lease on a volume's disk: a new identifier, a new key that is wrapped for it, the next generation of the
    /// lease. The keys of the attachment before are destroyed.
    public func attachVolume(_ name: String, edge: String, identifier: String, wrappedKey: Data) throws(StateStoreError)
        -> VolumeRecord
    {
        let attached = try updateVolume(name) { database, volume in
            if volume.state == .attached {
                throw StateStoreError.conflict(
                    "the volume \"\(name)\" is attached to the edge \"\(volume.edge ?? "")\": detach it there first")
            }
            guard let record = try EdgeRecord.fetchOne(database, key: edge) else {
                throw StateStoreError.notFound(kind: "edge", name: edge)
            }
            if record.revokedAt != nil { throw StateStoreError.conflict("the edge \"\(edge)\" has been revoked: pair it again") }
            let others = VolumeRecord.filter(Column("disk") == volume.disk && Column("state") == VolumeState.attached.rawValue)
            if let other = try others.fetchOne(database) {
                throw StateStoreError.conflict(
                    "the disk \"\(volume.disk)\" is attached as the volume \"\(other.name)\": detach that first")
            }
            let units = VolumeRecord.filter(Column("target") == volume.target && Column("state") == VolumeState.attached.rawValue)
            if let other = try units.filter(Column("edge") != edge).fetchOne(database) {
                throw StateStoreError.conflict(
                    "the target \"\(volume.target)\" is served at the edge \"\(other.edge ?? "")\", with the volume \"\(other.name)\": "
                        + "the volumes of one target are attached to the same edge")
            }
            if let group = volume.volumeGroup {
                let members = VolumeRecord.filter(Column("volumeGroup") == group && Column("state") == VolumeState.attached.rawValue)
                if let other = try members.filter(Column("edge") != edge).fetchOne(database) {
                    throw StateStoreError.conflict(
                        "the volume \"\(other.name)\" of the group \"\(group)\" is attached to the edge \"\(other.edge ?? "")\": the volumes of "
                            + "a group are attached to the same edge")
                }
            }
            guard Self.wrappedKeyBytes.contains(wrappedKey.count) else {
                throw StateStoreError.failed("the volume's key is not a wrapped one")
            }
            volume.state = .attached
            volume.sectorCount = 0
            volume.edge = edge
            volume.identifier = identifier
            volume.logIdentifier = nil
            volume.generation += 1
            try Self.forgetKeys(ofVolume: name, database)
            try DataKeyRecord(volume: name, identifier: identifier, generation: 1, wrappedKey: wrappedKey, madeAt: Date()).insert(database)
        }
        try emptyWriteAheadLog()
        return attached
    }

    /// Takes the lease back; what comes with the old generation is fenced from then on. Detaching again changes nothing.
    /// - Parameter closedPoint: the last point on the disk; 0 when that is not known.
    public func detachVolume(_ name: String, closedPoint: UInt64 = 0) throws(StateStoreError) -> VolumeRecord {
        try updateVolume(name) { _, volume in
            if volume.state == .detached { return }
            volume.state = .detached
            volume.closedPoint = closedPoint
            volume.edge = nil
            volume.sectorCount = 0
            volume.generation += 1
        }
    }

    /// Gives the lease a new generation without moving it, as when an attached edge opens its volume anew.
    public func renewLease(_ name: String) throws(StateStoreError) -> VolumeRecord {
        try updateVolume(name) { _, volume in
            if volume.state != .attached { throw StateStoreError.conflict("the volume \"\(name)\" is not attached") }
            volume.generation += 1
        }
    }

    /// Notes which write log at the cloud edge belongs to the attachment.
    public func setLogIdentifier(_ identifier: String?, ofVolume name: String) throws(StateStoreError) {
        _ = try updateVolume(name) { _, volume in volume.logIdentifier = identifier }
    }

    /// Notes that the disk of an attached volume is larger now. A smaller size changes nothing.
    public func setSectorCount(_ sectorCount: UInt64, ofVolume name: String) throws(StateStoreError) {
        _ = try updateVolume(name) { _, volume in
            if volume.state == .attached { volume.sectorCount = max(volume.sectorCount, sectorCount) }
        }
    }

    /// Changes how a volume is served: its policy, its limits, its write protection. What is between it and its edge, its disk
    /// and its target stays as it is, whatever `change` does.
    public func changeVolume(_ name: String, _ change: (inout VolumeRecord) -> Void) throws(StateStoreError) -> VolumeRecord {
        try updateVolume(name) { _, volume in
            var changed = volume
            change(&changed)
            volume.recoveryPointObjectiveSeconds = changed.recoveryPointObjectiveSeconds
            volume.sealBytes = changed.sealBytes
            volume.keptPoints = changed.keptPoints
            volume.keptBytes = changed.keptBytes
            volume.isReadOnly = changed.isReadOnly
            volume.operationsPerSecond = changed.operationsPerSecond
            volume.burstOperations = changed.burstOperations
            volume.bytesPerSecond = changed.bytesPerSecond
            volume.burstBytes = changed.burstBytes
        }
    }

    /// Deletes a volume that is detached, and its key with it, beyond recovery from the database's files; with the last volume of
    /// a target the target too, and its secrets.
    public func deleteVolume(_ name: String) throws(StateStoreError) {
        try write { database in
            guard let volume = try VolumeRecord.fetchOne(database, key: name) else {
                throw StateStoreError.notFound(kind: "volume", name: name)
            }
            if volume.state == .attached {
                throw StateStoreError.conflict(
                    "the volume \"\(name)\" is attached: detach it first, so that its writes come home")
            }
            try Self.forgetKeys(ofVolume: name, database)
            try volume.delete(database)
            guard try VolumeRecord.filter(Column("target") == volume.target).isEmpty(database),
                var target = try TargetRecord.fetchOne(database, key: volume.target)
            else { return }
            target.chapSecret = ""
            target.mutualChapSecret = nil
            try target.update(database)
            try target.delete(database)
        }
        try emptyWriteAheadLog()
    }

    private func updateVolume(
        _ name: String, _ change: (Database, inout VolumeRecord) throws -> Void
    ) throws(StateStoreError) -> VolumeRecord {
        try write { database in
            guard var volume = try VolumeRecord.fetchOne(database, key: name) else {
                throw StateStoreError.notFound(kind: "volume", name: name)
            }
            try change(database, &volume)
            do {
                try volume.update(database)
            } catch let error as DatabaseError where error.resultCode == .SQLITE_CONSTRAINT {
                throw StateStoreError.conflict(
                    "the volume \"\(name)\" can't be changed so: \(error.message ?? "a constraint forbids it")")
            }
            return volume
        }
    }
}
