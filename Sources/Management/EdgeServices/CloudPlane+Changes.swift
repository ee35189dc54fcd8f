import APIModels
import Blocks
import EdgeConfiguration
import RateLimits
import Volumes

/// What changes of a volume while machines use it.
extension CloudPlane {
    /// Takes over what home grants now: policy, limits, write protection, size.
    /// - Parameter grants: the number of the grants that it is from. What was answered before the volume was given back says nothing of that.
    func update(_ entry: Served, to grant: VolumeGrant, from grants: UInt64, secrets: VolumeSecrets?, policy: VolumePolicy) throws {
        let volume = entry.volume
        guard grant.sectorCount >= volume.sectorCount else {
            let sectorBytes = UInt64(BlockGeometry.sectorBytes)
            throw Problem.shrunk("behind the volume", from: volume.sectorCount * sectorBytes, to: grant.sectorCount * sectorBytes)
        }
        entry.grant = grant
        if let secrets {
            entry.credentials = secrets.credentials
            take(secrets.keys, for: entry)
        }
        volume.policy = policy
        protect(entry)
        if grant.sectorCount > volume.sectorCount { grow(entry, to: grant.sectorCount) }
        if entry.isExported { limit(entry) }
        if !grant.isDetaching, let release = entry.releasedAfterGrants, grants > release { resume(entry) }
    }

    private func grow(_ entry: Served, to sectorCount: UInt64) {
        entry.volume.grow(to: sectorCount)
        entry.unit.capacityDidChange()
        recorder.record(
            "volume.grown", subject: entry.grant.name, logSubject: entry.grant.identifier,
            "the volume has \(ByteSize.rounded(sectorCount * UInt64(BlockGeometry.sectorBytes))) now")
    }

    private func protect(_ entry: Served) {
        let isReadOnly = entry.grant.isReadOnly ?? false
        guard isReadOnly != entry.volume.isWriteProtected else { return }
        entry.volume.isWriteProtected = isReadOnly
        entry.unit.writeProtectionDidChange()
    }

    /// Puts the granted limits in force.
    func limit(_ entry: Served) { entry.device.limit(entry.grant.limits.map { RateLimits($0) }) }
}

extension RateLimits {
    /// The limits as the API has them.
    init(_ limits: APIModels.Volume.Limits) {
        self.init(
            operationsPerSecond: limits.operationsPerSecond, burstOperations: limits.burstOperations,
            bytesPerSecond: limits.bytesPerSecond, burstBytes: limits.burstBytes)
    }
}
