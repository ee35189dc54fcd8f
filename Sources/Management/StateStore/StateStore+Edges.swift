import Foundation
import GRDB

extension StateStore {
    /// Adds an edge.
    public func addEdge(_ edge: EdgeRecord) throws(StateStoreError) { try insert(edge, kind: "edge", name: edge.name) }

    /// All edges by name, the revoked ones too.
    public func edges() throws(StateStoreError) -> [EdgeRecord] {
        try read { try EdgeRecord.order(Column("name")).fetchAll($0) }
    }

    /// The edge of that identifier, or of that name.
    public func edge(_ idOrName: String) throws(StateStoreError) -> EdgeRecord {
        let found = try read { database in
            try EdgeRecord.fetchOne(database, key: idOrName) ?? EdgeRecord.filter(Column("name") == idOrName).fetchOne(database)
        }
        guard let found else { throw .notFound(kind: "edge", name: idOrName) }
        return found
    }

    /// Lets an edge in no more. One that is revoked stays so, with its first date.
    public func revokeEdge(_ id: String, at date: Date = Date()) throws(StateStoreError) {
        try updateEdge(id) { $0.revokedAt = $0.revokedAt ?? date }
    }

    /// Notes that an edge has been seen.
    public func markEdgeSeen(_ id: String, at date: Date = Date()) throws(StateStoreError) {
        try updateEdge(id) { $0.lastSeen = date }
    }

    /// Notes the serial number of an edge's new certificate; the old one ends by itself.
    public func setCertificateSerial(_ serial: String, ofEdge id: String) throws(StateStoreError) {
        try updateEdge(id) { $0.certificateSerial = serial }
    }

    /// Where an edge is dialled from now on, as HOST:PORT; nil when it dials.
    public func setAddress(_ address: String?, ofEdge id: String) throws(StateStoreError) {
        try updateEdge(id) { $0.address = address }
    }

    private func updateEdge(_ id: String, _ change: (inout EdgeRecord) -> Void) throws(StateStoreError) {
        try write { database in
            guard var edge = try EdgeRecord.fetchOne(database, key: id) else {
                throw StateStoreError.notFound(kind: "edge", name: id)
            }
            change(&edge)
            try edge.update(database)
        }
    }

    /// Remembers a pairing token by the hash of its secret, and forgets those that can't be used any more.
    /// - Parameter address: where the edge that it is for is dialled; nil when that edge dials.
    public func addPairingToken(hash: String, expires: Date, address: String? = nil, now: Date = Date()) throws(StateStoreError) {
        _ = try write { database in
            try PairingTokenRecord.filter(Column("used") == true || Column("expires") <= now).deleteAll(database)
        }
        try insert(PairingTokenRecord(hash: hash, expires: expires, address: address), kind: "pairing token", name: hash)
    }

    /// The tokens that can still be used, of edges that are dialled.
    public func dialledPairingTokens(now: Date = Date()) throws(StateStoreError) -> [PairingTokenRecord] {
        try read { database in
            try PairingTokenRecord.filter(Column("used") == false && Column("expires") > now && Column("address") != nil).fetchAll(database)
        }
    }

    /// Uses up a pairing token and adds the edge that showed it, in one step: of two that show the same token, one gets in.
    ///
    /// The name of an edge that was revoked, or that never came after its join and has no volume, is free: it is revoked and keeps
    /// its identifier only.
    /// - Returns: the identifier of the edge that gave its name up, if one did, and where the token says that the new one is dialled.
    public func redeemPairingToken(
        hash: String, edge: EdgeRecord, now: Date = Date()
    ) throws(StateStoreError) -> (replaced: String?, address: String?) {
        try write { database in
            guard var token = try PairingTokenRecord.fetchOne(database, key: hash) else {
                throw StateStoreError.conflict("the pairing token is not known here: make a new one with `causeway pair`")
            }
            if token.used {
                throw StateStoreError.conflict("the pairing token has been used: make a new one with `causeway pair`")
            }
            if token.expires <= now {
                throw StateStoreError.conflict("the pairing token has expired: make a new one with `causeway pair`")
            }
            var replaced = try EdgeRecord.filter(Column("name") == edge.name).fetchOne(database)
            if let other = replaced {
                let isUsed = try VolumeRecord.filter(Column("edge") == other.id).fetchCount(database) > 0
                guard other.revokedAt != nil || other.lastSeen == nil && !isUsed else {
                    throw StateStoreError.exists(kind: "edge", name: edge.name)
                }
                replaced?.name = other.id
                replaced?.revokedAt = other.revokedAt ?? now
                try replaced?.update(database)
            }
            token.used = true
            try token.update(database)
            var edge = edge
            edge.address = token.address
            try edge.insert(database)
            if let replaced {
                try database.execute(sql: "UPDATE tunnel SET edge = ? WHERE edge = ?", arguments: [edge.id, replaced.id])
            }
            return (replaced?.id, token.address)
        }
    }
}
