import APIModels
import Blocks
import Foundation
import ManagementAPI
import StateStore

/// Recovery keys: what opens a cloud edge's state when this edge is not there. They leave only when they are asked for, and never
/// unnoticed.
extension OnPremEdge {
    func exportRecoveryKeys(ofVolume name: String?) async throws -> RecoveryKeys {
        let records = try name.map { [try volumeRecord($0)] } ?? store.volumes()
        var exported = RecoveryKeys(exportedAt: Date(), onPremEdge: identifier, volumes: [])
        for record in records { exported.volumes += try await recoveryKeys(of: record) }
        if let name, exported.volumes.isEmpty {
            throw APIError.conflict(
                "no_key", "The volume has no key", detail: "volume \(name) was never attached, or its keys are destroyed",
                action: "see `causeway key list`: what was sealed under a key that is destroyed can't be read")
        }
        if name == nil {
            for edge in try store.edges() where edge.role == APIModels.EdgeRole.cloud.rawValue {
                exported.caches.append(.init(edge: edge.id, key: try keys.cacheKey(ofEdge: edge.id).withUnsafeBytes { Data($0) }))
            }
        }
        environment.recorder.record(
            "keys.exported", subject: name, severity: .warning,
            name.map { "the recovery key of volume \($0) was exported through the API: who has it can read the volume" }
                ?? "the recovery keys of all volumes were exported through the API: who has them can read all of them")
        return exported
    }

    /// One for each generation of the key that is not destroyed.
    private func recoveryKeys(of record: VolumeRecord) async throws -> [RecoveryKeys.VolumeKey] {
        var sectorCount = record.sectorCount
        if let identifier = VolumeIdentifier(hexadecimal: record.identifier),
            let progress = try await needPlane().run({ $0.progress(identifier) })
        {
            sectorCount = max(sectorCount, progress.sectorCount)
        }
        if sectorCount == 0, let disk = try? knownDisk(record.disk), let found = Self.look(at: disk.path) {
            sectorCount = found.size / UInt64(BlockGeometry.sectorBytes)
        }
        return try liveKeys(of: record).map { key in
            RecoveryKeys.VolumeKey(
                volume: record.name, identifier: record.identifier, disk: record.disk, sectorCount: sectorCount,
                generation: key.generation, dataKey: key.key.withUnsafeBytes { Data($0) })
        }
    }
}
