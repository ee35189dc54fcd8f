import APIModels
import Blocks
import EdgeConfiguration
import Foundation
import ManagementAPI
import NIOCore
import StateStore

/// Shredding: all keys of a volume are destroyed, so that nobody can read what a cloud edge has, or ever had, of it: neither its write
/// log nor its blocks in the cache nor its cloud-only writes. What is at home stays.
extension OnPremEdge {
    func shredVolume(named name: String, force: Bool) async throws -> ShredResult {
        let record = try volumeRecord(name)
        guard record.state == .attached, let edge = record.edge, let identifier = VolumeIdentifier(hexadecimal: record.identifier) else {
            if busyVolumes.contains(name) { throw Self.volumeBusy(name) }
            let destroyed = try store.destroyAllDataKeys(ofVolume: name)
            recordShred(of: name, destroyed, isForced: false)
            return ShredResult(volume: name, destroyedGenerations: destroyed.map(\.generation), edgeTold: nil, unsentBytes: 0)
        }
        if !force { try await checkNothingIsUnsent(record, edge: edge) }
        guard busyVolumes.insert(name).inserted else { throw Self.volumeBusy(name) }
        detachingVolumes.insert(name)
        defer {
            busyVolumes.remove(name)
            detachingVolumes.remove(name)
        }
        var (unsent, destroyed): (UInt64?, [DataKeyRecord]) = (0, [])
        if force {
            // The keys go before anything else does: whether the edge answers must not matter, nor a crash on the way. From then on the
            // volume is in no grant.
            unsent = try? await status(of: record, at: edge, timeout: .seconds(3)).bytesNotHome
            destroyed = try store.destroyAllDataKeys(ofVolume: name)
            recordShred(of: name, destroyed, isForced: true)
        }
        do {
            // What was written since the look above comes home while the volume is taken back, unless it is given up.
            _ = try await takeBack(record, identifier: identifier, edge: edge, force: force)
        } catch {
            try? await notifyGrantsChanged(edge)
            throw error
        }
        if !force {
            destroyed = try store.destroyAllDataKeys(ofVolume: name)
            recordShred(of: name, destroyed, isForced: false)
        }
        leases[record.identifier] = nil
        diskFailures[name] = nil
        diskRetries[name] = nil
        let answer: Empty? = try? await call(
            edge, ControlMethod.shred, ShredCall(identifier: record.identifier), timeout: .seconds(10))
        try? await notifyGrantsChanged(edge)
        return ShredResult(
            volume: name, destroyedGenerations: destroyed.map(\.generation), edgeTold: answer != nil, unsentBytes: unsent)
    }

    /// A shred does not wait for a long way home: what it would lose is to be brought home or given up in so many words first.
    private func checkNothingIsUnsent(_ record: VolumeRecord, edge: String) async throws {
        let status: VolumeStatus
        do {
            status = try await self.status(of: record, at: edge, timeout: .seconds(10))
        } catch {
            throw APIError.conflict(
                "unsent_unknown", "Nobody knows what is unsent",
                detail: "edge \(edge), which serves volume \(record.name), can't be asked; it may hold writes that are not home yet, and "
                    + "without the keys nobody could read them",
                action: "bring the edge or the link up again; or give those writes up with `causeway volume shred \(record.name) --force`")
        }
        guard status.bytesNotHome > 0 || status.unsent.points > 0 else { return }
        throw APIError.conflict(
            "unsent_writes", "The volume has writes that are not home",
            detail:
                "volume \(record.name) has \(ByteSize.rounded(status.unsent.bytes)) of unsent writes, in \(status.unsent.points) sealed points and "
                + "the open one, and \(ByteSize.rounded(status.cloudOnlyBytes ?? 0)) of cloud-only writes: without its keys nobody could read them",
            action: "bring them home with `causeway volume detach \(record.name)` and shred then; or give them up with "
                + "`causeway volume shred \(record.name) --force`")
    }

    private func status(of record: VolumeRecord, at edge: String, timeout: TimeAmount) async throws -> VolumeStatus {
        let statuses: [VolumeStatus] = try await call(edge, ControlMethod.status, Empty(), timeout: timeout)
        guard let status = statuses.first(where: { $0.identifier == record.identifier }) else { throw Problem.notOpenHere }
        return status
    }

    private func recordShred(of name: String, _ destroyed: [DataKeyRecord], isForced: Bool) {
        environment.recorder.record(
            "volume.shredded", subject: name, severity: .warning,
            "the keys of volume \(name) are destroyed (\(destroyed.count)): what cloud edges have of it can't be read any more, but with "
                + "recovery keys that were exported before" + (isForced ? "; writes that were not home are given up" : ""))
    }

    static func volumeBusy(_ name: String) -> APIError {
        APIError.conflict(
            "volume_busy", "The volume is busy", detail: "volume \(name) is being attached or detached",
            action: "wait until `causeway volume show \(name)` says that it is done")
    }
}

extension VolumeStatus {
    /// What would be lost with the cloud edge.
    fileprivate var bytesNotHome: UInt64 { unsent.bytes + (cloudOnlyBytes ?? 0) }
}
