import APIModels
import ManagementAPI
import StateStore

/// The write policy by region is kept by the cloud edge that serves the volume; it is asked and changed there.
extension OnPremEdge {
    func regions(ofVolume name: String) async throws -> VolumeRegions {
        try await callServingEdge(of: name, ControlMethod.regions, VolumeCall(name: name, force: nil))
    }

    func changeRegions(ofVolume name: String, _ change: RegionChange) async throws -> VolumeRegions {
        try await callServingEdge(of: name, ControlMethod.changeRegions, ChangeRegionsCall(name: name, change: change))
    }

    private func callServingEdge(of name: String, _ method: String, _ body: some Encodable & Sendable) async throws -> VolumeRegions {
        let record = try volumeRecord(name)
        guard let edge = record.edge, record.state == .attached else {
            throw APIError.conflict(
                "volume_detached", "The volume is detached", detail: "volume \(name) has no regions while no edge serves it",
                action: "attach it first")
        }
        return try await call(edge, method, body, timeout: .seconds(30))
    }
}
