import Ciphers
import NIOCore
import Volumes

// The rotation of a volume's key, at the edge that serves it:
//
//     grant with a new generation ──► log: a new file; cache: forgets the volume; reservations: sealed anew; the open point is sealed
//         ──► what the old key sealed goes home and is removed ──► home is told that the key is not needed ──► grant without it
//
// A restart at any step finds all keys in its grant that anything here is sealed under, and goes on.

extension CloudPlane {
    /// How often it is looked which keys are still needed, and how often home is told until it has taken one back.
    private static let keyRetireInterval: TimeAmount = .seconds(1)

    /// Keys lie in locked memory as far as the system lets us.
    func watchLockedMemory() {
        let count = SecretKey.unlockedPageCount
        guard count > unlockedPagesTold else { return }
        unlockedPagesTold = count
        recorder.record(
            "key.unlocked", severity: .warning,
            "\(count) pages of keys are not locked in memory and may reach swap: raise RLIMIT_MEMLOCK (LimitMEMLOCK of the systemd unit, 64M) and "
                + "restart this edge")
    }

    /// Takes over the keys that home grants now.
    func take(_ keys: DataKeys, for entry: Served) {
        let isRotated = keys.newest != entry.keys.newest
        if !isRotated, keys.generations == entry.keys.generations { return }
        // A home that has gone back to an old copy of its state gives the same numbers again, for other keys.
        let isOther = keys.generations.contains { generation in
            keys[generation].map { key in entry.keys[generation].map { !$0.hasSameBytes(as: key) } ?? false } ?? false
        }
        guard keys.newest >= entry.keys.newest, !isOther else {
            // An old copy of home's state: what is sealed here since then would be lost with the newer key.
            if !entry.isOlderKeyTold {
                recorder.record(
                    "key.older", subject: entry.grant.name, logSubject: entry.grant.identifier, severity: .error,
                    (isOther
                        ? "home has another key of a generation that is in use here: its state went back to an old "
                        : "home knows generation \(keys.newest) of the volume's key, and \(entry.keys.newest) is in use here: its state is an old ")
                        + "copy; the newer key is kept until this edge is restarted. Put the newest copy of home's state back before that")
            }
            entry.isOlderKeyTold = true
            return
        }
        entry.isOlderKeyTold = false
        entry.keys = keys
        entry.reservations.use(keys)
        guard isRotated else { return entry.volume.use(keys) }
        entry.volume.use(keys)
        recorder.record(
            "key.rotated", subject: entry.grant.name, logSubject: entry.grant.identifier,
            "the volume is sealed under generation \(keys.newest) of its key now; what the cache had of it is fetched anew")
        // What is older than the new key need not wait for the age of its point; should this fail, it does.
        entry.volume.seal(until: .sealed) { _ in }
    }

    /// Tells home of the keys that nothing is sealed under any more.
    func retireKeys() {
        guard NIODeadline.now() - keysLookedAt >= Self.keyRetireInterval else { return }
        keysLookedAt = .now()
        // A volume that has failed may need any of them; and a cloud-only disk that is being made has its key already.
        for entry in served.values
        where entry.keys.generations.count > 1 && !entry.isRetiringKeys && entry.volume.isServable && !entry.isChangingRegions {
            entry.reservations.use(entry.keys)
            guard let needed = entry.keyGenerations, !entry.keys.generations.allSatisfy(needed.contains),
                let link, link.endpoint.isConnected,
                let body = try? ControlCoding.encode(
                    RetireKeysCall(identifier: entry.grant.identifier, before: entry.keys.newest, needed: needed.sorted()))
            else { continue }
            entry.isRetiringKeys = true
            link.call(ControlMethod.retireKeys, body: body, timeout: .seconds(30)) { [weak entry] _ in entry?.isRetiringKeys = false }
        }
    }
}

extension CloudPlane.Served {
    /// The generations under which anything is sealed that this edge keeps of the volume; nil when that can't be said. The cache
    /// needs none but the newest.
    fileprivate var keyGenerations: Set<KeyGeneration>? {
        guard let inLog = volume.logKeyGenerations else { return nil }
        var generations = inLog.union([keys.newest]).union(reservations.keyGenerations)
        if let generation = cloudOnlyKeyGeneration { generations.insert(generation) }
        return generations
    }
}
