import APIModels
import Blocks
import Foundation
import StateStore

/// Recovery keys: what opens a cloud edge's state when this edge is not there. They leave only when they are asked for, and never
/// unnoticed.
extension OnPremEdge {
    func exportRecoveryKeys(ofVolume name: String?) async throws -> RecoveryKeys {
        let records = try name.map { [try volumeRecord($0)] } ?? store.volumes()
        var exported = RecoveryKeys(exportedAt: Date(), onPremEdge: identifier, volumes: [])
        for record in records { exported.volumes.append(try await recoveryKey(of: record)) }
        if name == nil {
            for edge in try store.edges() where edge.role == APIModels.EdgeRole.cloud.rawValue {
                exported.caches.append(.init(edge: edge.id, key: try keys.cacheKey(ofEdge: edge.id)))
            }
        }
        environment.recorder.record(
            "keys.exported", subject: name, severity: .warning,
            name.map { "the recovery key of volume \($0) was exported through the API: who has it can read the volume" }
                ?? "the recovery keys of all volumes were exported through the API: who has them can read all of them")
        return exported
    }

    private func recoveryKey(of record: VolumeRecord) async throws -> RecoveryKeys.VolumeKey {
        var sectorCount = record.sectorCount
        if let identifier = VolumeIdentifier(hexadecimal: record.identifier),
            let progress = try await needPlane().run({ $0.progress(identifier) })
        {
            sectorCount = max(sectorCount, progress.sectorCount)
        }
        if sectorCount == 0, let disk = try? knownDisk(record.disk), let found = Self.look(at: disk.path) {
            sectorCount = found.size / UInt64(BlockGeometry.sectorBytes)
        }
        return RecoveryKeys.VolumeKey(
            volume: record.name, identifier: record.identifier, disk: record.disk, sectorCount: sectorCount,
            dataKey: try keys.dataKey(of: record).withUnsafeBytes { Data($0) })
    }
}
