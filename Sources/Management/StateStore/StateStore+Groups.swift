import Foundation
import GRDB

extension StateStore {
    /// All groups by name.
    public func groups() throws(StateStoreError) -> [GroupRecord] { try read { try GroupRecord.order(Column("name")).fetchAll($0) } }

    /// The group of that name.
    public func group(_ name: String) throws(StateStoreError) -> GroupRecord {
        guard let group = try read({ try GroupRecord.fetchOne($0, key: name) }) else { throw .notFound(kind: "group", name: name) }
        return group
    }

    /// Makes a group of volumes that are in none.
    public func addGroup(_ group: GroupRecord, volumes: [String]) throws(StateStoreError) {
        try write { database in
            try Self.insert(group, kind: "group", name: group.name, database)
            try Self.setVolumes(volumes, of: group.name, database)
        }
    }

    /// Changes the policy of a group, the number of its last point, which never falls, and its volumes if some are given.
    public func changeGroup(
        _ name: String, volumes: [String]? = nil, _ change: (inout GroupRecord) -> Void
    ) throws(StateStoreError) {
        try write { database in
            guard let old = try GroupRecord.fetchOne(database, key: name) else { throw StateStoreError.notFound(kind: "group", name: name) }
            var group = old
            change(&group)
            group.name = old.name
            group.identifier = old.identifier
            group.lastPoint = max(old.lastPoint, group.lastPoint)
            try group.update(database)
            if let volumes { try Self.setVolumes(volumes, of: name, database) }
        }
    }

    /// Deletes a group; its volumes stay.
    public func deleteGroup(_ name: String) throws(StateStoreError) {
        try write { database in
            try Self.setVolumes([], of: name, database)
            guard try GroupRecord.deleteOne(database, key: name) else { throw StateStoreError.notFound(kind: "group", name: name) }
        }
    }

    private static func setVolumes(_ names: [String], of group: String, _ database: Database) throws {
        try database.execute(sql: "UPDATE volume SET volumeGroup = NULL WHERE volumeGroup = ?", arguments: [group])
        var edges = Set<String>()
        for name in names {
            guard var volume = try VolumeRecord.fetchOne(database, key: name) else {
                throw StateStoreError.notFound(kind: "volume", name: name)
            }
            if let other = volume.volumeGroup {
                throw StateStoreError.conflict("the volume \"\(name)\" is in the group \"\(other)\": take it out there first")
            }
            if let edge = volume.edge { edges.insert(edge) }
            volume.volumeGroup = group
            try volume.update(database)
        }
        if edges.count > 1 {
            throw StateStoreError.conflict("the volumes are attached to \(edges.count) edges: a group is of one machine, at one edge")
        }
    }
}
