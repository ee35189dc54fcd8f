import APIModels
import Blocks
import Ciphers
import Foundation
import ManagementAPI
import StateStore

// The life of a volume's data key:
//
//     attach ──► generation 1 ──rotate──► 1 retiring, 2 active ──► the cloud edge: nothing is sealed under 1 any more ──► 1 destroyed
//                                                                                       shred, deletion, another attach ──► destroyed
//
// A key is durable here before the cloud edge is told of it, and the cloud edge says that it needs one no more only when no crash of its
// own can bring back what is sealed under it. So each step may be repeated, and either side may restart between any two.

extension OnPremEdge {
    // MARK: Looking

    func dataKeys() async throws -> [DataKey] {
        let records = try store.dataKeys()
        let newest = Dictionary(records.map { ($0.volume, $0.generation) }, uniquingKeysWith: max)
        return records.map { record in
            DataKey(
                volume: record.volume, identifier: record.identifier, generation: record.generation,
                state: record.wrappedKey == nil ? .destroyed : newest[record.volume] == record.generation ? .active : .retiring,
                madeAt: record.madeAt, destroyedAt: record.destroyedAt)
        }
    }

    func masterKey() async throws -> MasterKeyInfo {
        MasterKeyInfo(madeAt: try store.masterKeyMadeAt(), wrappedKeys: try store.dataKeys().count { $0.wrappedKey != nil })
    }

    /// The keys of a volume that are not destroyed.
    func liveKeys(of record: VolumeRecord) throws -> [(generation: KeyGeneration, key: SecretKey)] {
        try store.dataKeys(ofVolume: record.name).filter { $0.wrappedKey != nil && $0.identifier == record.identifier }
            .map { ($0.generation, try keys.dataKey($0)) }
    }

    /// The same, as its cloud edge gets them.
    func grantedKeys(of record: VolumeRecord, by sender: KeySender) throws -> [GrantedKey] {
        try liveKeys(of: record).map { generation, key in
            let owner = KeyOwner.volume(identifier: record.identifier, generation: generation)
            return GrantedKey(generation: generation, key: try sender.wrap(key, of: owner))
        }
    }

    // MARK: Rotating

    func rotateMasterKey() async throws -> MasterKeyInfo {
        do {
            let rotated = try EdgeKeys.rotateMasterKey(store: store, directory: environment.directory)
            keys = rotated.keys
            if let failure = rotated.failure { throw failure }
        } catch let failure as EdgeFailure {
            throw APIError.conflict(
                "key_damaged", "The master key can't be rotated", detail: failure.description,
                action: "mend what is named, or shred the volume whose key is damaged; all keys are wrapped as before")
        }
        environment.recorder.record(
            "key.master_rotated", severity: .warning,
            "all keys are wrapped by a new master key: back up \(MasterKeyFile.fileName) and \(StateStore.fileName) together; older backups "
                + "of the database open with the old master key only")
        return try await masterKey()
    }

    /// Makes a new key for a volume that is served. Its cloud edge seals what is written under it at once, and gives up the older ones
    /// when nothing that they seal is left.
    func rotateKey(ofVolume name: String) async throws -> KeyRotation {
        let record = try volumeRecord(name)
        guard record.state == .attached, let edge = record.edge, !detachingVolumes.contains(name) else {
            throw APIError.conflict(
                "volume_detached", "The volume is detached", detail: "volume \(name) is not attached: it gets a new key when it is",
                action: "`causeway volume shred \(name)` destroys the key of its last attachment")
        }
        let key: DataKeyRecord
        do {
            key = try store.addDataKey(ofVolume: name) { [keys] in try keys.newDataKey(identifier: $0, generation: $1) }
        } catch {
            // Not a pattern in the catch clause: Swift 6.3 crashes on one with a payload of a typed error.
            guard case .conflict(let text) = error else { throw error }
            throw APIError.conflict(
                "keys_in_use", "The volume can't have another key now", detail: text,
                action: "see `causeway key list`; `causeway volume seal \(name) --wait` brings home what is unsent")
        }
        environment.recorder.record("key.rotated", subject: name, "volume \(name) has a new data key, generation \(key.generation)")
        try await notifyGrantsChanged(edge)
        return KeyRotation(
            volume: name, generation: key.generation, inForce: try await waitUntilInForce(key.generation, record, edge: edge))
    }

    private func waitUntilInForce(_ generation: UInt64, _ record: VolumeRecord, edge: String) async throws -> Bool {
        let deadline = ContinuousClock.now + .seconds(Self.changeSeconds)
        while ContinuousClock.now < deadline, try await connectedEdges().contains(edge) {
            let statuses: [VolumeStatus]? = try? await call(edge, ControlMethod.status, Empty(), timeout: .seconds(3))
            let status = statuses?.first { $0.identifier == record.identifier }
            if let current = status?.keyGeneration, current >= generation { return true }
            // The cloud edge is another process: its state is asked for until it has the key.
            try await Task.sleep(for: .milliseconds(20))
        }
        return false
    }

    /// The cloud edge has nothing left that is sealed under the keys before a generation, but for those that it names.
    func retireKeys(_ edge: String, _ call: RetireKeysCall) async throws {
        let record = try attachedRecord(call.identifier, edge)
        let destroyed = try store.destroyDataKeys(
            ofVolume: record.name, identifier: record.identifier, before: call.before, except: Set(call.needed))
        for key in destroyed {
            environment.recorder.record(
                "key.destroyed", subject: record.name,
                "generation \(key.generation) of volume \(record.name)'s data key is destroyed: nothing is sealed under it any more")
        }
        try await notifyGrantsChanged(edge)
    }
}
