import GRDB

extension StateStore {
    /// All tunnels by name.
    public func tunnels() throws(StateStoreError) -> [TunnelRecord] { try read { try TunnelRecord.order(Column("name")).fetchAll($0) } }

    /// Adds a tunnel of a new name, of an edge that is there.
    public func addTunnel(_ tunnel: TunnelRecord) throws(StateStoreError) { try insert(tunnel, kind: "tunnel", name: tunnel.name) }

    /// Removes a tunnel.
    public func removeTunnel(_ name: String) throws(StateStoreError) {
        guard try write({ try TunnelRecord.deleteOne($0, key: name) }) else { throw .notFound(kind: "tunnel", name: name) }
    }
}
