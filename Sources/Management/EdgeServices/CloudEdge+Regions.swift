import APIModels
import Blocks
import EdgeConfiguration
import ManagementAPI
import NIOCore
import Volumes

/// The write policy of a volume by region (W1, W2, W9): this edge's own matter, because it is needed most while home can't be reached.
extension CloudEdge {
    func regions(ofVolume name: String) async throws -> VolumeRegions {
        let regions = try await needPlane().run { plane in
            plane.entry(named: name).map { VolumeRegions(name, $0.volume) }
        }
        guard let regions else { throw APIError.notFound("volume", name) }
        return regions
    }

    func changeRegions(ofVolume name: String, _ change: RegionChange) async throws -> VolumeRegions {
        let identifier = try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<String, any Error>) -> Void) in
            guard let entry = plane.entry(named: name) else { return completion(.failure(APIError.notFound("volume", name))) }
            plane.changeRegions(entry, change) { completion($0.map { entry.grant.identifier }) }
        }
        let place = change.startBytes.map { "\(ByteSize.text(change.sizeBytes ?? 0)) from \(ByteSize.text($0)) on" } ?? "the whole volume"
        environment.recorder.record(
            "region.changed", subject: name, logSubject: identifier,
            "\(place): policy \(change.policy?.rawValue ?? "as it was"), cloud-only writes: \(change.writes?.rawValue ?? "as usual")")
        return try await regions(ofVolume: name)
    }
}

extension VolumeRegions {
    /// The regions of a volume as the API shows them.
    init(_ name: String, _ volume: CloudPlane.ServedVolume) {
        let table = volume.regions
        let sectorBytes = UInt64(BlockGeometry.sectorBytes)
        self.init(
            volume: name, defaultPolicy: Policy(table.defaultPolicy),
            regions: table.regions.map { region in
                Region(
                    startBytes: region.range.byteOffset, sizeBytes: region.range.count * sectorBytes, policy: Policy(region.policy),
                    origin: region.origin == .found ? .found : .operator, cloudOnlyBytes: volume.cloudOnlyBytes(in: region.range))
            }, regionsMax: RegionTable.regionsMax,
            cloudOnlyBytes: volume.cloudOnlyBytes(in: SectorRange(from: 0, to: volume.sectorCount)), imaging: !table.imaging.isEmpty)
    }
}

extension VolumeRegions.Policy {
    init(_ policy: WritePolicy) { self = policy == .cloudOnly ? .cloudOnly : .onPrem }
}
