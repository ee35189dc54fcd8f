import APIModels
import Blocks
import Disks
import EdgeConfiguration
import Foundation
import LinkProtocol
import ManagementAPI
import NIOCore
import StateStore
import Volumes

/// Groups of volumes: the records, and where their disks are (W4).
extension OnPremEdge {
    func groups() async throws -> [APIModels.VolumeGroup] {
        var groups: [APIModels.VolumeGroup] = []
        for record in try store.groups() { groups.append(try await describe(record)) }
        return groups
    }

    func group(named name: String) async throws -> APIModels.VolumeGroup { try await describe(try groupRecord(name)) }

    private func groupRecord(_ name: String) throws -> GroupRecord {
        do {
            return try store.group(name)
        } catch StateStoreError.notFound {
            throw APIError.notFound("group", name)
        }
    }

    func createGroup(_ request: GroupCreate) async throws -> APIModels.VolumeGroup {
        if let problem = NameRule.problem(request.name) { throw APIError.invalid("name", "\(problem)") }
        if (try? store.group(request.name)) != nil { throw APIError.exists("group", request.name) }
        let policy = try Self.checkedPolicy(request.policy ?? .init())
        let record = GroupRecord(
            name: request.name, identifier: VolumeIdentifier.random().description,
            recoveryPointObjectiveSeconds: policy.recoveryPointObjectiveSeconds, sealBytes: Int64(clamping: policy.sealBytes))
        try check(request.volumes)
        try await checkVersion(ofEdges: edges(of: request.volumes))
        try conflicting { try store.addGroup(record, volumes: request.volumes) }
        environment.recorder.record(
            "group.created", subject: record.name, "group \(record.name): \(request.volumes.joined(separator: ", "))")
        try await tellMembership()
        try await notifyEdges(ofVolumes: request.volumes)
        return try await group(named: request.name)
    }

    func changeGroup(named name: String, _ change: GroupChange) async throws -> APIModels.VolumeGroup {
        let earlier = try groupRecord(name)
        let before = try volumes(ofGroup: earlier.name).map(\.name)
        let policy = try change.policy.map { try Self.checkedPolicy($0) }
        // The points of other volumes are counted from there on.
        try await noteLastPoint(ofGroup: earlier.name)
        if let volumes = change.volumes {
            try check(volumes)
            try await checkVersion(ofEdges: edges(of: volumes))
        }
        try conflicting {
            try store.changeGroup(name, volumes: change.volumes) { record in
                if change.volumes != nil {
                    record.lastPoint = Int64(clamping: GroupPoint.numberBeforeNextTerm(after: UInt64(clamping: record.lastPoint)))
                }
                guard let policy else { return }
                record.recoveryPointObjectiveSeconds = policy.recoveryPointObjectiveSeconds
                record.sealBytes = Int64(clamping: policy.sealBytes)
            }
        }
        environment.recorder.record(
            "group.changed", subject: name, change.volumes.map { "group \(name): \($0.joined(separator: ", "))" } ?? "group \(name)")
        try await tellMembership()
        try await notifyEdges(ofVolumes: before + (change.volumes ?? []))
        return try await group(named: name)
    }

    func deleteGroup(named name: String) async throws {
        let volumes = try volumes(ofGroup: try groupRecord(name).name).map(\.name)
        try store.deleteGroup(name)
        environment.recorder.record("group.deleted", subject: name, "group \(name) is gone; its volumes have points of their own again")
        try await tellMembership()
        try await notifyEdges(ofVolumes: volumes)
    }

    /// Detaches all volumes of a group together. By force the disks go to the last point that they have in common and no further: what
    /// home has received beyond it is kept, and on no disk.
    func detachGroup(named name: String, force: Bool) async throws -> GroupDetachResult {
        let record = try groupRecord(name)
        let members = try volumes(ofGroup: record.name).filter { $0.state == .attached }
        let identifiers = members.compactMap { VolumeIdentifier(hexadecimal: $0.identifier) }
        // The edge stops serving all of them before the first is gone.
        endingVolumes.formUnion(force ? members.map(\.identifier) : [])
        detachingVolumes.formUnion(members.map(\.name))
        defer {
            endingVolumes.subtract(members.map(\.identifier))
            detachingVolumes.subtract(members.map(\.name))
        }
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for member in members {
                    group.addTask {
                        let edge = member.edge ?? ""
                        _ = try await self.releaseAtEdge(member.name, identifier: member.identifier, edge: edge, force: force)
                    }
                }
                try await group.waitForAll()
            }
        } catch {
            detachingVolumes.subtract(members.map(\.name))
            try? await notifyEdges(ofVolumes: members.map(\.name))
            throw error
        }
        if force {
            _ = try await needPlane().call { (plane: HomePlane, completion: @escaping (Result<Bool, any Error>) -> Void) in
                plane.endSessions(identifiers) { completion(.success(true)) }
            }
        }
        var results: [DetachResult] = []
        for member in members { results.append(try await detachVolume(named: member.name, force: force, toPoint: nil)) }
        environment.recorder.record(
            "group.detached", subject: name, severity: force ? .warning : .info,
            force
                ? "group \(name) was detached by force: its disks are at the last point that they have in common"
                : "group \(name) is detached")
        return GroupDetachResult(group: name, volumes: results, forced: force)
    }

    func sealGroup(named name: String, wait: SealResult.State, timeout: Duration) async throws -> GroupSealResult {
        let record = try groupRecord(name)
        guard let edge = try volumes(ofGroup: record.name).compactMap(\.edge).first else {
            throw APIError.conflict(
                "group_detached", "No volume of the group is attached", detail: "all of group \(name) is at home",
                action: "there is nothing to seal")
        }
        let seconds = max(1, timeout.components.seconds)
        return try await call(
            edge, ControlMethod.sealGroup, SealCall(name: name, until: wait, seconds: seconds), timeout: .seconds(seconds + 5))
    }

    // MARK: Brackets, which the cloud edge keeps

    func beginBracket(_ subject: BracketSubject, _ request: BracketCreate) async throws -> Bracket {
        try await call(BracketCall(subject: subject, action: .begin, request: request))
    }

    func bracket(_ subject: BracketSubject) async throws -> Bracket { try await call(BracketCall(subject: subject, action: .show)) }
    func sealBracket(_ subject: BracketSubject) async throws -> Bracket { try await call(BracketCall(subject: subject, action: .seal)) }
    func endBracket(_ subject: BracketSubject) async throws -> Bracket { try await call(BracketCall(subject: subject, action: .end)) }

    private func call(_ call: BracketCall) async throws -> Bracket {
        let (kind, name) = (call.subject.kind, call.subject.name)
        let volumes = kind == .volume ? [try volumeRecord(name)] : try volumes(ofGroup: try groupRecord(name).name)
        guard let edge = volumes.first(where: { $0.state == .attached })?.edge else {
            throw APIError.conflict(
                "\(kind.rawValue)_detached", "The \(kind.rawValue) is detached", detail: "all of \(kind.rawValue) \(name) is at home",
                action: "there is nothing to seal")
        }
        return try await self.call(edge, ControlMethod.bracket, call, timeout: .seconds(60))
    }

    private func check(_ volumes: [String]) throws {
        if volumes.count > GroupPoint.membersMax {
            throw APIError.invalid("volumes", "a group has at most \(GroupPoint.membersMax) volumes")
        }
        if Set(volumes).count < volumes.count { throw APIError.invalid("volumes", "a volume stands there twice") }
        for name in volumes { _ = try volumeRecord(name) }
    }

    private func conflicting(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch let error as StateStoreError {
            guard case .conflict(let text) = error else { throw error }
            throw APIError.conflict("group_conflict", "The group can't be so", detail: text, action: "choose other volumes")
        }
    }

    private func edges(of names: [String]) throws -> Set<String> {
        Set(try store.volumes().filter { names.contains($0.name) }.compactMap(\.edge))
    }

    private func notifyEdges(ofVolumes names: [String]) async throws {
        for edge in try edges(of: names) { try await notifyGrantsChanged(edge) }
    }

    /// True when the edge is connected and of a version that knows no groups: its volumes would come home one by one.
    func isTooOldForGroups(_ edge: String) async throws -> Bool {
        try await needPlane().run { plane in
            plane.peers[edge].map { $0.endpoint.isConnected && $0.endpoint.version < LinkVersion.pointAttributes } ?? false
        }
    }

    private func checkVersion(ofEdges edges: Set<String>) async throws {
        for edge in edges where try await isTooOldForGroups(edge) {
            throw APIError.conflict(
                "edge_too_old", "The cloud edge knows no groups", detail: "edge \(edge) has a version without groups",
                action: "upgrade causewayd there, then try again")
        }
    }

    func volumes(ofGroup name: String) throws -> [VolumeRecord] { try store.volumes().filter { $0.volumeGroup == name } }

    /// The volumes of a group are one machine's, and a cut is made at one edge.
    func checkGroup(of record: VolumeRecord, at edge: String) async throws {
        guard let group = record.volumeGroup else { return }
        try await checkVersion(ofEdges: [edge])
        guard let other = try volumes(ofGroup: group).first(where: { $0.state == .attached && $0.edge != edge }) else { return }
        throw APIError.conflict(
            "group_elsewhere", "The group is at another edge",
            detail: "volume \(other.name) of the group \(group) is attached to edge \(other.edge ?? "")",
            action: "attach volume \(record.name) there, or take it out of the group first")
    }

    // MARK: What the disks say

    private func describe(_ record: GroupRecord) async throws -> APIModels.VolumeGroup {
        let volumes = try volumes(ofGroup: record.name)
        let identifiers = volumes.compactMap { $0.state == .attached ? VolumeIdentifier(hexadecimal: $0.identifier) : nil }
        let places = try await needPlane().run { plane in
            Dictionary(identifiers.compactMap { id in plane.groupPlace(id).map { (id.description, $0) } }, uniquingKeysWith: { $1 })
        }
        let last = places.values.compactMap(\.cut).filter { $0.group.description == record.identifier }.max { $0.number < $1.number }
        let members = volumes.map { volume in
            let place = places[volume.identifier]
            return APIModels.VolumeGroup.Member(
                volume: volume.name, point: VolumeIdentifier(hexadecimal: volume.identifier).flatMap { last?.point(of: $0) },
                received: place?.position.received ?? 0, applied: place?.position.applied ?? 0)
        }
        return APIModels.VolumeGroup(
            name: record.name, identifier: record.identifier, point: last?.number ?? 0,
            applied: identifiers.isEmpty || last != nil && members.allSatisfy { $0.applied >= $0.point ?? 0 }, members: members,
            policy: .init(
                recoveryPointObjectiveSeconds: record.recoveryPointObjectiveSeconds, sealBytes: UInt64(clamping: record.sealBytes)))
    }

    /// What a cloud edge is told of its groups. Each has the number of the last point that home knows of: the next one is larger.
    ///
    /// The volumes and the number are of one instant, for whoever changes the volumes of a group begins a term of numbers (`changeGroup`): with
    /// those of before and the number of after it, two cuts could have the same. So nothing is waited for between reading them. A volume that is
    /// attached or detached begins none: each attachment has an identifier and a log of its own.
    func groupGrants(_ edge: String) async throws -> [GroupGrant] {
        let known = try await needPlane().run { $0.lastPoints }
        let volumes = try store.volumes().filter { $0.edge == edge && $0.state == .attached }
        let grants: [GroupGrant] = try store.groups().compactMap { record in
            let members = volumes.filter { $0.volumeGroup == record.name }
            if members.isEmpty { return nil }
            return GroupGrant(
                identifier: record.identifier, name: record.name, volumes: members.map(\.identifier),
                policy: .init(
                    recoveryPointObjectiveSeconds: record.recoveryPointObjectiveSeconds, sealBytes: UInt64(clamping: record.sealBytes)),
                lastPoint: try noteLastPoint(of: record, known))
        }
        // The disks know of a change before the edge makes a cut of it.
        try await tellMembership()
        return grants
    }

    /// Keeps the number of a group's last point when the journals that know it may go.
    func noteLastPoint(ofGroup name: String) async throws {
        let known = try await needPlane().run { $0.lastPoints }
        // It may be gone by now.
        if let record = try store.groups().first(where: { $0.name == name }) { _ = try noteLastPoint(of: record, known) }
    }

    /// - Parameter known: the last points that the journals know of.
    /// - Returns: the number of the last point that is known of.
    private func noteLastPoint(of record: GroupRecord, _ known: [GroupIdentifier: UInt64]) throws -> UInt64 {
        let last = GroupIdentifier(hexadecimal: record.identifier).flatMap { known[$0] }.map { Int64(clamping: $0) } ?? 0
        if last > record.lastPoint { try store.changeGroup(record.name) { $0.lastPoint = last } }
        return UInt64(clamping: max(last, record.lastPoint))
    }

    /// Tells the data plane which volumes are in which group, and where the disks of those stand that are attached no more.
    func tellMembership() async throws {
        let groups = Dictionary(
            try store.groups().compactMap { record in GroupIdentifier(hexadecimal: record.identifier).map { (record.name, $0) } },
            uniquingKeysWith: { $1 })
        var members: [VolumeIdentifier: GroupMembership.Member] = [:]
        for record in try store.volumes() {
            guard let identifier = VolumeIdentifier(hexadecimal: record.identifier) else { continue }
            members[identifier] = .init(
                group: record.volumeGroup.flatMap { groups[$0] }, closedAt: record.state == .attached ? nil : record.closedPoint)
        }
        let membership = GroupMembership(members: members)
        membershipsTold += 1
        let number = membershipsTold
        try await needPlane().run { $0.setMembership(membership, number: number) }
    }
}
