import APIModels
import Blocks
import EdgeConfiguration
import Foundation
import ManagementAPI
import StateStore

/// What may change while a volume is served: policy, limits, write protection, and the size of its disk (T4, T6).
extension OnPremEdge {
    /// How long a change waits for the cloud edge to have it in force before it is answered.
    static let changeSeconds = 5

    // MARK: Volumes

    func changeVolume(named name: String, _ change: VolumeChange) async throws -> APIModels.Volume {
        let known = try volumeRecord(name)
        let disk = try? knownDisk(known.disk)
        if change.readOnly == false, let disk, disk.isReadOnly { throw Self.diskReadOnly(disk) }
        let policy = try change.policy.map { try Self.checkedPolicy($0) }
        if let size = change.writeLogSizeBytes { try await resizeLog(of: known, to: size) }
        let record = try store.changeVolume(name) { record in
            if let policy {
                record.recoveryPointObjectiveSeconds = policy.recoveryPointObjectiveSeconds
                record.sealBytes = Int64(clamping: policy.sealBytes)
            }
            if let limits = change.limits { Self.set(limits, in: &record) }
            if let keeping = change.keeping { Self.set(keeping, in: &record) }
            if let readOnly = change.readOnly { record.isReadOnly = readOnly }
        }
        if change.keeping != nil { try await keepPoints(of: record) }
        environment.recorder.record("volume.changed", subject: name, "volume \(name): \(Self.text(of: change))")
        guard let edge = record.edge else { return try await volume(named: name) }
        try await notifyGrantsChanged(edge)
        return try await waitUntilInForce(record, edge: edge)
    }

    /// The write log is the cloud edge's, and so is its size: it is asked there, and kept there.
    private func resizeLog(of record: VolumeRecord, to byteCount: UInt64) async throws {
        guard let edge = record.edge, record.state == .attached else {
            throw APIError.conflict(
                "volume_detached", "The volume is detached", detail: "volume \(record.name) has no write log while no edge serves it",
                action: "attach it first")
        }
        let call = ResizeLogCall(name: record.name, sizeBytes: byteCount)
        let _: Empty = try await self.call(edge, ControlMethod.resizeLog, call, timeout: .seconds(10))
    }

    /// Waits until the edge says that it serves the volume as its record is; an edge that can't be reached does so later.
    private func waitUntilInForce(_ record: VolumeRecord, edge: String) async throws -> APIModels.Volume {
        let deadline = ContinuousClock.now + .seconds(Self.changeSeconds)
        while ContinuousClock.now < deadline, try await connectedEdges().contains(edge) {
            let statuses: [VolumeStatus]? = try? await call(edge, ControlMethod.status, Empty(), timeout: .seconds(3))
            let status = statuses?.first { $0.identifier == record.identifier }
            if let status, status.limits == Self.limits(of: record), status.isReadOnly == isWriteProtected(record),
                Self.ownPolicy(of: record).map({ $0 == status.policy }) ?? true
            {
                break
            }
            // The cloud edge is another process: its state is asked for until it has the change.
            try await Task.sleep(for: .milliseconds(20))
        }
        return try await volume(named: record.name)
    }

    private static func text(of change: VolumeChange) -> String {
        var parts: [String] = []
        if let policy = change.policy {
            parts.append("a point each \(policy.recoveryPointObjectiveSeconds) s or \(ByteSize.text(policy.sealBytes))")
        }
        if let limits = change.limits {
            let rates = [
                limits.operationsPerSecond.map { rate("\($0) operations", burst: limits.burstOperations.map { "\($0)" }) },
                limits.bytesPerSecond.map { rate(ByteSize.text($0), burst: limits.burstBytes.map(ByteSize.text)) },
            ].compactMap { $0 }
            parts.append(rates.isEmpty ? "no limits" : "at most \(rates.joined(separator: " and "))")
        }
        if let keeping = change.keeping {
            parts.append(keeping.points == 0 ? "no past points are kept" : "\(keeping.points) past points are kept")
        }
        if let readOnly = change.readOnly { parts.append(readOnly ? "read-only" : "may be written") }
        if let size = change.writeLogSizeBytes {
            parts.append(size == 0 ? "the edge's write log size" : "a write log of \(ByteSize.text(size))")
        }
        return parts.isEmpty ? "nothing changed" : parts.joined(separator: "; ")
    }

    private static func rate(_ amount: String, burst: String?) -> String {
        "\(amount) a second" + (burst.map { " (\($0) at once)" } ?? "")
    }

    /// The limits of a volume; nil when nothing is limited.
    static func limits(of record: VolumeRecord) -> APIModels.Volume.Limits? {
        let limits = APIModels.Volume.Limits(
            operationsPerSecond: record.operationsPerSecond, burstOperations: record.burstOperations,
            bytesPerSecond: record.bytesPerSecond, burstBytes: record.burstBytes)
        return limits.isEmpty ? nil : limits
    }

    static func set(_ limits: APIModels.Volume.Limits, in record: inout VolumeRecord) {
        record.operationsPerSecond = limits.operationsPerSecond
        record.burstOperations = limits.burstOperations
        record.bytesPerSecond = limits.bytesPerSecond
        record.burstBytes = limits.burstBytes
    }

    // MARK: Disks

    func changeDisk(named name: String, _ change: DiskChange) async throws -> Disk {
        let disk = try knownDisk(name)
        if disk.isReadOnly {
            throw APIError.conflict(
                "disk_read_only", "The disk is read-only", detail: "disk \(name) is declared read-only",
                action: "make it larger yourself, then run `causeway disk rescan \(name)`")
        }
        try await changeSize(of: disk, to: change.sizeBytes)
        return try await self.disk(named: name)
    }

    func rescanDisk(named name: String) async throws -> Disk {
        try await changeSize(of: try knownDisk(name), to: nil)
        return try await disk(named: name)
    }

    /// Looks at the size again, or makes the disk larger, and tells the edge that serves it. The order is that of who must know
    /// first: disk, journal, state store (with the grants), edge, machine.
    private func changeSize(of disk: KnownDisk, to byteCount: UInt64?) async throws {
        let attached = try store.volumes().first { $0.disk == disk.name && $0.state == .attached }
        guard let attached, let identifier = VolumeIdentifier(hexadecimal: attached.identifier) else {
            guard let byteCount else { return }
            let path = disk.path
            let grew = try await needPlane().call { plane, completion in plane.grow(path, to: byteCount, completion: completion) }
            if grew { recordGrowth(of: disk.name, to: byteCount) }
            return
        }
        let grew = try await needPlane().call { plane, completion in
            plane.changeSize(identifier, to: byteCount, completion: completion)
        }
        guard grew, let edge = attached.edge else { return }
        let sectors = try await needPlane().run { $0.progress(identifier)?.sectorCount } ?? 0
        recordGrowth(of: disk.name, to: sectors * UInt64(BlockGeometry.sectorBytes))
        try await notifyGrantsChanged(edge)
    }

    private func recordGrowth(of disk: String, to byteCount: UInt64) {
        environment.recorder.record("disk.grown", subject: disk, "disk \(disk) has \(ByteSize.rounded(byteCount)) now")
    }

    /// Looks at the sizes of all disks that are served.
    func rescanServedDisks() async {
        for record in (try? store.volumes()) ?? [] where record.state == .attached {
            do {
                try await changeSize(of: try knownDisk(record.disk), to: nil)
            } catch {
                environment.recorder.record(
                    "disk.rescan_failed", subject: record.disk, severity: .warning,
                    "the size of disk \(record.disk) can't be taken over: \(Problem(describing: error).detail ?? "")")
            }
        }
    }
}
