import APIModels
import Blocks
import Crypto
import EdgeConfiguration
import Foundation
import LocalFiles
import ManagementAPI
import StateStore
import Volumes

/// Volumes: their records, what is known of them, their points.
extension OnPremEdge {
    /// The shortest and the longest CHAP secret that initiators agree on (RFC 7143 section 12.1.3 wants 96 bits at least).
    static let chapSecretLengths = 12...16

    // MARK: Reading

    func volumes() async throws -> [APIModels.Volume] {
        let records = try store.volumes()
        let statuses = await statuses(ofEdges: Set(records.compactMap(\.edge)))
        let connected = try await connectedEdges()
        var volumes: [APIModels.Volume] = []
        for record in records { volumes.append(try await describe(record, statuses[record.identifier], connected)) }
        return volumes
    }

    func volume(named name: String) async throws -> APIModels.Volume {
        let record = try volumeRecord(name)
        let statuses = await statuses(ofEdges: Set([record.edge].compactMap { $0 }))
        return try await describe(record, statuses[record.identifier], try await connectedEdges())
    }

    func volumeRecord(_ name: String) throws -> VolumeRecord {
        do {
            return try store.volume(name)
        } catch StateStoreError.notFound {
            throw APIError.notFound("volume", name)
        }
    }

    /// The target of a volume, which is there as long as the volume is.
    func targetRecord(of record: VolumeRecord) throws -> TargetRecord {
        guard let target = try store.target(record.target) else { throw APIError.notFound("target", record.target) }
        return target
    }

    /// What the cloud edges say of their volumes; those that can't be asked within a moment are left out.
    private func statuses(ofEdges edges: Set<String>) async -> [String: VolumeStatus] {
        var all: [String: VolumeStatus] = [:]
        for edge in edges {
            let statuses: [VolumeStatus]? = try? await call(edge, ControlMethod.status, Empty(), timeout: .seconds(3))
            for status in statuses ?? [] { all[status.identifier] = status }
        }
        return all
    }

    private func describe(_ record: VolumeRecord, _ status: VolumeStatus?, _ connected: Set<String>) async throws -> APIModels.Volume {
        var mark: PointAttributes?
        var progress: (position: (received: UInt64, applied: UInt64), sectors: UInt64)?
        if record.state == .attached, let identifier = VolumeIdentifier(hexadecimal: record.identifier) {
            let (found, applied) = try await needPlane().run { ($0.progress(identifier), $0.journal(of: identifier)?.appliedAttributes) }
            mark = applied
            progress = found.map { (($0.position.received, $0.position.applied), $0.sectorCount) }
        }
        var sizeBytes = (progress?.sectors ?? 0) * UInt64(BlockGeometry.sectorBytes)
        if progress == nil, let disk = try? knownDisk(record.disk) {
            sizeBytes = Self.look(at: disk.path)?.size ?? 0
        }
        var state: APIModels.Volume.State = record.state == .detached ? .detached : .linkDown
        if record.state == .detached, busyVolumes.contains(record.name) { state = .attaching }
        if detachingVolumes.contains(record.name) { state = .detaching }
        var message = status?.message ?? diskFailures[record.name]
        if let status {
            if state != .detaching { state = status.state }
        } else if state == .linkDown, connected.contains(record.edge ?? "") {
            // Nobody is served by it. Whether that is for a moment the edge knows.
            state = .attaching
            message = message ?? "the cloud edge has not said that it is open: see there"
        }
        let target = try targetRecord(of: record)
        return APIModels.Volume(
            name: record.name, identifier: record.identifier, disk: record.disk, edge: record.edge, state: state,
            message: message, sizeBytes: sizeBytes,
            target: .init(
                name: target.name, iqn: target.iqn, logicalUnit: record.logicalUnit, portals: status?.portals ?? [],
                chapUser: target.chapUser, mutual: target.mutualChapUser != nil),
            url: status?.portals.first.map { "iscsi://\(target.chapUser)@\($0)/\(target.iqn)/\(record.logicalUnit)" },
            nbdURL: status?.nbdURL,
            generation: record.generation,
            points: .init(
                lastSealed: status?.points.lastSealed ?? 0, received: progress?.position.received ?? 0,
                applied: progress?.position.applied ?? 0,
                appliedConsistency: mark.map { $0.consistency == .application ? .application : .crash },
                appliedLabel: mark.flatMap { $0.label.isEmpty ? nil : $0.label }),
            unsent: status?.unsent ?? (record.state == .detached ? .init() : nil), writeLog: status?.writeLog, cache: status?.cache,
            cloudOnlyBytes: status?.cloudOnlyBytes, policy: status?.policy ?? Self.ownPolicy(of: record) ?? .init(),
            keeping: Self.keptPoints(of: record), limits: Self.limits(of: record), throttle: status?.throttle,
            readOnly: isWriteProtected(record), removable: record.isRemovable, io: status?.io ?? .init())
    }

    func credentials(ofVolume name: String) async throws -> VolumeCredentials {
        let record = try volumeRecord(name)
        let target = try targetRecord(of: record)
        let volume = try await volume(named: name)
        return VolumeCredentials(
            user: target.chapUser, secret: target.chapSecret, mutualUser: target.mutualChapUser, mutualSecret: target.mutualChapSecret,
            url: volume.target?.portals.first.map {
                "iscsi://\(target.chapUser)%\(target.chapSecret)@\($0)/\(target.iqn)/\(record.logicalUnit)"
            })
    }

    // MARK: Creating and deleting

    func createVolume(_ request: VolumeCreate) async throws -> APIModels.Volume {
        if let problem = NameRule.problem(request.name) { throw APIError.invalid("name", "\(problem)") }
        let disk = try knownDisk(request.disk)
        if disk.isReadOnly, request.readOnly == false { throw Self.diskReadOnly(disk) }
        if (try? store.volume(request.name)) != nil { throw APIError.exists("volume", request.name) }
        let edge = request.attach == false ? nil : try chooseEdge(request.edge)
        let policy = try request.policy.map { try Self.checkedPolicy($0) }
        let place = try place(for: request)
        let identifier = VolumeIdentifier.random().description
        var record = VolumeRecord(
            name: request.name, identifier: identifier, disk: disk.name, target: place.target,
            logicalUnit: place.logicalUnit, recoveryPointObjectiveSeconds: policy?.recoveryPointObjectiveSeconds ?? 0,
            sealBytes: Int64(clamping: policy?.sealBytes ?? 0))
        record.isReadOnly = request.readOnly ?? disk.isReadOnly
        record.isRemovable = request.removable ?? false
        Self.set(request.limits ?? .init(), in: &record)
        if let keeping = request.keeping { Self.set(keeping, in: &record) }
        do {
            try store.addVolume(record, target: place.newTarget)
        } catch {
            // Not a pattern in the catch clause: Swift 6.3 crashes on one with a payload of a typed error.
            if case .conflict(let text) = error { throw Self.unitInUse(text) }
            throw error
        }
        let isCreated = { [recorder = environment.recorder] in
            recorder.record("volume.created", subject: request.name, "volume \(request.name) is on disk \(disk.name)")
        }
        guard let edge else {
            isCreated()
            return try await volume(named: request.name)
        }
        do {
            return try await attach(request.name, to: edge, willAttach: isCreated)
        } catch {
            // A volume whose first attach is refused was not created.
            if (try? store.volume(request.name).state) == .detached { try? store.deleteVolume(request.name) }
            throw error
        }
    }

    func deleteVolume(named name: String) async throws {
        let record = try volumeRecord(name)
        if record.state == .attached || busyVolumes.contains(name) {
            throw APIError.conflict(
                "volume_attached", "The volume is attached", detail: "volume \(name) is attached to edge \(record.edge ?? "")",
                action: "detach it first: `causeway volume detach \(name)`")
        }
        try store.deleteVolume(name)
        environment.recorder.record("volume.deleted", subject: name, "volume \(name) and its keys are gone; the disk was not touched")
    }

    /// The edge that is meant, or the only one there is.
    func chooseEdge(_ wanted: String?) throws -> String {
        let edges = try store.edges().filter { $0.revokedAt == nil && $0.role == APIModels.EdgeRole.cloud.rawValue }
        if let wanted {
            guard let edge = edges.first(where: { $0.id == wanted || $0.name == wanted }) else { throw APIError.notFound("edge", wanted) }
            return edge.id
        }
        guard let only = edges.first else {
            throw APIError.conflict(
                "no_edge", "No cloud edge is paired", detail: "there is no cloud edge that could serve the volume",
                action: "pair one: `causeway pair` here, `causeway join TOKEN` there")
        }
        guard edges.count == 1 else {
            throw APIError.invalid("edge", "there are \(edges.count) cloud edges; say which: \(edges.map(\.name).joined(separator: ", "))")
        }
        return only.id
    }

    static func checkedCredentials(_ request: VolumeCreate, target: String) throws -> VolumeCreate.Chap {
        guard let chap = request.chap else {
            return VolumeCreate.Chap(user: target, secret: randomSecret(length: chapSecretLengths.upperBound))
        }
        for (field, secret) in [("chap.secret", chap.secret), ("chap.mutualSecret", chap.mutualSecret)] {
            guard let secret else { continue }
            guard (chapSecretLengths.lowerBound...255).contains(secret.utf8.count) else {
                throw APIError.invalid(
                    field, "a CHAP secret has at least \(chapSecretLengths.lowerBound) characters; some initiators take no more than 16")
            }
        }
        if chap.mutualSecret == chap.secret { throw APIError.invalid("chap.mutualSecret", "both secrets are the same; they must differ") }
        if (chap.mutualUser == nil) != (chap.mutualSecret == nil) {
            throw APIError.invalid("chap.mutualUser", "mutual CHAP needs both mutualUser and mutualSecret")
        }
        return chap
    }

    /// True when machines may only read the volume: it says so, or its disk does.
    func isWriteProtected(_ record: VolumeRecord) -> Bool {
        record.isReadOnly || (try? knownDisk(record.disk).isReadOnly) ?? false
    }

    static func diskReadOnly(_ disk: KnownDisk) -> APIError {
        .conflict(
            "disk_read_only", "The disk is read-only", detail: "disk \(disk.name) is declared read-only: its volumes can't be written",
            action: "use a disk that may be written, or make the volume read-only too")
    }

    /// The policy that the volume was given; nil when it follows its cloud edge's.
    static func ownPolicy(of record: VolumeRecord) -> APIModels.Volume.Policy? {
        if record.recoveryPointObjectiveSeconds <= 0 { return nil }
        return .init(
            recoveryPointObjectiveSeconds: record.recoveryPointObjectiveSeconds, sealBytes: UInt64(clamping: record.sealBytes))
    }

    static func checkedPolicy(_ policy: APIModels.Volume.Policy) throws -> APIModels.Volume.Policy {
        guard (0.05...86_400).contains(policy.recoveryPointObjectiveSeconds) else {
            throw APIError.invalid("policy.recoveryPointObjectiveSeconds", "it is between 0.05 and 86400 seconds")
        }
        guard (UInt64(1 << 20)...(1 << 30)).contains(policy.sealBytes) else {
            throw APIError.invalid("policy.sealBytes", "it is between 1 MiB and 1 GiB")
        }
        return policy
    }

    /// The iSCSI name of a target. Names have lower-case letters, digits, dots and hyphens only; where that
    /// changes the target's name, a piece of its hash keeps the result unique.
    static func targetName(_ target: String) -> String {
        let plain = String(target.lowercased().map { $0 == "_" ? "-" : $0 })
        if plain == target { return "iqn.2026-11.io.causeway:\(plain)" }
        let hash = SHA256.hash(data: Data(target.utf8)).prefix(4).map { String($0, radix: 16) }.joined()
        return "iqn.2026-11.io.causeway:\(plain).\(hash)"
    }

    // MARK: Sealing

    func sealVolume(named name: String, wait: SealResult.State, timeout: Duration) async throws -> SealResult {
        let record = try volumeRecord(name)
        guard let edge = record.edge, record.state == .attached else {
            throw APIError.conflict(
                "volume_detached", "The volume is detached", detail: "volume \(name) is not attached: all of it is at home",
                action: "there is nothing to seal")
        }
        let seconds = max(1, timeout.components.seconds)
        return try await call(edge, ControlMethod.seal, SealCall(name: name, until: wait, seconds: seconds), timeout: .seconds(seconds + 5))
    }
}
