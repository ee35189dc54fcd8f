import APIModels
import Blocks
import EdgeConfiguration
import Files
import Foundation
import LocalFiles
import ManagementAPI
import StateStore

/// Disks, from the configuration and from the API (D1, D2).
extension OnPremEdge {
    /// A disk by name and path, wherever it was declared.
    struct KnownDisk {
        let name: String
        let path: String
        let isReadOnly: Bool
        let isConfigured: Bool
    }

    func knownDisks() throws -> [KnownDisk] {
        let configured = configuredDisks.map { KnownDisk(name: $0.name, path: $0.path, isReadOnly: $0.readOnly, isConfigured: true) }
        let names = Set(configured.map(\.name))
        let added = try store.disks().filter { !names.contains($0.name) }
            .map { KnownDisk(name: $0.name, path: $0.path, isReadOnly: $0.isReadOnly, isConfigured: false) }
        return (configured + added).sorted { $0.name < $1.name }
    }

    func knownDisk(_ name: String) throws -> KnownDisk {
        guard let disk = try knownDisks().first(where: { $0.name == name }) else { throw APIError.notFound("disk", name) }
        return disk
    }

    func disks() async throws -> [Disk] {
        var disks: [Disk] = []
        for disk in try knownDisks() { disks.append(try await describe(disk)) }
        return disks
    }

    func disk(named name: String) async throws -> Disk { try await describe(try knownDisk(name)) }

    func createDisk(_ request: DiskCreate) async throws -> Disk {
        if let problem = NameRule.problem(request.name) { throw APIError.invalid("name", "\(problem)") }
        guard request.path.hasPrefix("/") else { throw APIError.invalid("path", "the path must be absolute") }
        let (known, path) = (try knownDisks(), request.path)
        if known.contains(where: { $0.name == request.name }) { throw APIError.exists("disk", request.name) }
        if let other = known.first(where: { $0.path == path }) {
            throw APIError.conflict(
                "disk_exists", "The path is a disk already", detail: "\(path) is the disk \(other.name)",
                action: "use that one, or `causeway disk remove \(other.name)` first")
        }
        // Opened for a moment: a path that can't be used is refused now, with the reason, and not at the attach.
        do {
            _ = try await probe(path)
        } catch let error as LocalDiskError {
            throw Problem(describing: error)
        }
        try store.addDisk(DiskRecord(name: request.name, path: path, isReadOnly: request.readOnly ?? false))
        environment.recorder.record("disk.added", subject: request.name, "disk \(request.name) is \(path)")
        return try await disk(named: request.name)
    }

    func deleteDisk(named name: String) async throws {
        let disk = try knownDisk(name)
        if disk.isConfigured {
            throw APIError.conflict(
                "disk_configured", "The disk is in the configuration file", detail: "disk \(name) is declared in the configuration file",
                action: "remove it there and send the daemon SIGHUP")
        }
        if let volume = try store.volumes().first(where: { $0.disk == name }) {
            throw APIError.conflict(
                "disk_in_use", "The disk is in use", detail: "volume \(volume.name) is on disk \(name)",
                action: "detach and delete that volume first")
        }
        try store.removeDisk(name)
        environment.recorder.record("disk.removed", subject: name, "disk \(name) is no longer offered; its bytes were not touched")
    }

    private func describe(_ disk: KnownDisk) async throws -> Disk {
        let volume = try store.volumes().first { $0.disk == disk.name && $0.state == .attached }
        if let volume, let identifier = VolumeIdentifier(hexadecimal: volume.identifier) {
            let progress = try await needPlane().run { $0.progress(identifier) }
            if let progress {
                let sizeBytes = progress.sectorCount * UInt64(BlockGeometry.sectorBytes)
                return Disk(
                    name: disk.name, path: disk.path, kind: Self.kind(ofPath: disk.path), sizeBytes: sizeBytes,
                    state: progress.failure == nil ? .inUse : .failed, readOnly: disk.isReadOnly, usedBy: volume.name,
                    message: progress.failure ?? Self.sizeMessage(disk, served: sizeBytes))
            }
        }
        guard let found = Self.look(at: disk.path) else {
            return Disk(
                name: disk.name, path: disk.path, kind: Self.kind(ofPath: disk.path), sizeBytes: 0, state: .missing,
                readOnly: disk.isReadOnly, usedBy: volume?.name, message: "there is nothing at \(disk.path) that can be read")
        }
        return Disk(
            name: disk.name, path: disk.path, kind: found.kind == .blockDevice ? .blockDevice : .file, sizeBytes: found.size,
            state: volume == nil ? .available : .failed, readOnly: disk.isReadOnly, usedBy: volume?.name,
            message: volume.flatMap { diskFailures[$0.name] })
    }

    /// What is to be said when the disk at its path has another size than the one that is served.
    private static func sizeMessage(_ disk: KnownDisk, served: UInt64) -> String? {
        guard let size = look(at: disk.path)?.size else { return nil }
        if size < served { return "it has shrunk to \(ByteSize.text(size)): make it as large again before a machine needs what is missing" }
        // Less than a sector is not served.
        if size - served < UInt64(BlockGeometry.sectorBytes) { return nil }
        return "it has grown to \(ByteSize.text(size)): `causeway disk rescan \(disk.name)` has them served"
    }

    /// What stands at a path, without taking its lock: a listing must not get into anybody's way.
    static func look(at path: String) -> FileInformation? { try? OpenFile(path).information() }

    func probe(_ path: String) async throws -> (kind: LocalDiskKind, sectorCount: UInt64) {
        try await needPlane().call { plane, completion in plane.probe(path, completion: completion) }
    }

    private static func kind(ofPath path: String) -> Disk.Kind { path.hasPrefix("/dev/") ? .blockDevice : .file }
}
