import APIModels
import Blocks
import Foundation
import ManagementAPI
import NIOCore
import ReadCache
import StateStore
import Volumes

/// Calls between the edges, as the on-prem edge answers and makes them.
extension OnPremEdge {
    func answer(_ edge: String, _ session: UInt64, _ method: String, _ body: ByteBuffer) async -> ControlAnswer {
        switch method {
        case ControlMethod.grants:
            return await .from { try await self.grants(edge, try ControlCoding.decode(GrantsCall.self, from: body)) }
        case ControlMethod.open:
            return await .from { try await self.openInTurn(edge, session, try ControlCoding.decode(VolumeOpenRequest.self, from: body)) }
        case ControlMethod.renew:
            return await .from { try self.renew(edge, try ControlCoding.decode(RenewCall.self, from: body)) }
        case ControlMethod.detachVolume:
            return await .from {
                let call = try self.ownCall(edge, body)
                return try await self.detachVolume(named: call.name, force: call.force ?? false, toPoint: call.toPoint)
            }
        case ControlMethod.retireKeys:
            return await .from {
                try await self.retireKeys(edge, try ControlCoding.decode(RetireKeysCall.self, from: body))
                return Empty()
            }
        default: return await .from { () async throws -> Empty in throw Problem.unknownCall(method) }
        }
    }

    /// A cloud edge may speak of its own volumes and of no others: what it may serve is decided at home.
    private func ownCall(_ edge: String, _ body: ByteBuffer) throws -> VolumeCall {
        let call = try ControlCoding.decode(VolumeCall.self, from: body)
        guard try volumeRecord(call.name).edge == edge else { throw APIError.notFound("volume", call.name) }
        return call
    }

    /// All that the edge needs to serve its volumes.
    private func grants(_ edge: String, _ call: GrantsCall) async throws -> Grants {
        let sender = try KeySender(to: call.publicKey, home: identifier, edge: edge)
        var volumes: [VolumeGrant] = []
        // One whose keys are all destroyed is the edge's no more, though it may still be on its way back.
        let attached = try store.volumes().filter { record in
            try record.edge == edge && record.state == .attached
                && store.dataKeys(ofVolume: record.name).contains { $0.wrappedKey != nil }
        }
        for record in attached {
            guard let identifier = VolumeIdentifier(hexadecimal: record.identifier),
                let progress = try await needPlane().run({ $0.progress(identifier) })
            else { continue }
            // Durable before the edge is told: from then on its machines may write up to there.
            if progress.sectorCount > record.sectorCount { try store.setSectorCount(progress.sectorCount, ofVolume: record.name) }
            do {
                volumes.append(try grant(record, sectorCount: progress.sectorCount, keysBy: sender))
            } catch let failure as EdgeFailure {
                noteUnusableKey(of: record, failure)
            }
        }
        if volumes.contains(where: { $0.isGrouped == true }), try await isTooOldForGroups(edge) {
            // Its points would come home one by one, as if there were no group.
            volumes.removeAll { $0.isGrouped == true }
            environment.recorder.record(
                "group.edge_too_old", subject: edge, severity: .error,
                "edge \(edge) has a version without groups: it is not given the volumes of groups. Upgrade causewayd there, or take them out"
            )
        }
        // A volume whose disk or key can't be opened now is still the edge's: it must not take it for given back.
        let missing = attached.filter { record in !volumes.contains { $0.identifier == record.identifier } }
        let missingKeys = missing.compactMap { record in
            (try? grantedKeys(of: record, by: sender)).map { UnavailableKeys(identifier: record.identifier, keys: $0) }
        }
        return Grants(
            encapsulation: sender.encapsulation,
            cacheKey: try sender.wrap(try keys.cacheKey(ofEdge: edge), of: .cache(edge: edge)), volumes: volumes,
            unavailable: missing.map(\.identifier),
            unavailableKeys: missingKeys, groups: try await groupGrants(edge), tunnels: try tunnelGrants(edge))
    }

    /// One damaged row keeps its own volume from being served, and no other.
    private func noteUnusableKey(of record: VolumeRecord, _ failure: EdgeFailure) {
        if diskFailures.updateValue(failure.description, forKey: record.name) != nil { return }
        environment.recorder.record("key.damaged", subject: record.name, severity: .error, failure.description)
    }

    private func grant(_ record: VolumeRecord, sectorCount: UInt64, keysBy sender: KeySender) throws -> VolumeGrant {
        let target = try targetRecord(of: record)
        return VolumeGrant(
            identifier: record.identifier, name: record.name, disk: record.disk, sectorCount: sectorCount, target: target.iqn,
            targetName: target.name, logicalUnit: record.logicalUnit,
            chap: .init(
                user: target.chapUser,
                secret: try sender.wrap(target.chapSecret, of: .initiators(identifier: record.identifier, isMutual: false)),
                mutualUser: target.mutualChapUser,
                mutualSecret: try target.mutualChapSecret.map {
                    try sender.wrap($0, of: .initiators(identifier: record.identifier, isMutual: true))
                }),
            allowedInitiators: target.allowedInitiators.split(separator: "\n").map(String.init),
            identity: try keys.identity(ofDisk: record.disk), keys: try grantedKeys(of: record, by: sender),
            policy: Self.ownPolicy(of: record),
            limits: Self.limits(of: record), isReadOnly: isWriteProtected(record), isRemovable: record.isRemovable,
            isGrouped: record.volumeGroup == nil ? nil : true, isDetaching: detachingVolumes.contains(record.name))
    }

    /// Opens of one volume come one after the other, so that a late one of a dead process can't overtake that of a living one.
    private func openInTurn(_ edge: String, _ session: UInt64, _ request: VolumeOpenRequest) async throws -> VolumeOpenReply {
        let previous = opening[request.volume]
        let turn = Task {
            _ = await previous?.result
            return try await self.open(edge, session, request)
        }
        opening[request.volume] = turn
        defer { if opening[request.volume] == turn { opening[request.volume] = nil } }
        return try await turn.value
    }

    func attachedRecord(_ identifier: String, _ edge: String) throws -> VolumeRecord {
        do {
            let record = try store.volume(identifier: identifier)
            if record.edge == edge, record.state == .attached { return record }
        } catch StateStoreError.notFound {
            // The answer is the same.
        }
        throw Problem(
            status: 409, code: "not_attached", title: "The volume is not attached to this edge",
            detail: "volume \(identifier) is not, or no longer, attached to this edge", action: "attach it again at home")
    }

    /// Opens a volume for the process that asks: judges its history, renews the lease, and only then takes points.
    private func open(_ edge: String, _ session: UInt64, _ request: VolumeOpenRequest) async throws -> VolumeOpenReply {
        guard let identifier = VolumeIdentifier(hexadecimal: request.volume) else {
            throw APIError.invalid("volume", "“\(request.volume)” is not an identifier")
        }
        _ = try attachedRecord(request.volume, edge)
        let plane = try needPlane()
        let position = try await plane.call { plane, completion in plane.prepareOpen(identifier, completion: completion) }
        guard try await plane.run({ $0.peers[edge]?.session }) == session else { throw APIError.linkDown(peer: edge) }
        // Looked up again: it may have been detached while its last point was committed.
        let record = try attachedRecord(request.volume, edge)
        if endingVolumes.contains(request.volume) { throw Problem.notServed }
        var lease = leases[request.volume] ?? VolumeLease(generation: record.generation, logIdentifier: record.logIdentifier)
        do {
            if try lease.open(request, receivedPoint: position.received) {
                if record.logIdentifier != request.logIdentifier {
                    try store.setLogIdentifier(request.logIdentifier, ofVolume: record.name)
                }
                let renewed = try store.renewLease(record.name)
                lease = VolumeLease(
                    generation: renewed.generation, logIdentifier: request.logIdentifier, incarnation: request.incarnation)
            }
        } catch let refusal as VolumeOpenRefusal {
            environment.recorder.record("volume.refused", subject: record.name, severity: .error, refusal.explanation)
            throw Problem(
                status: 409, code: "history_split", title: "The volume was not opened", detail: refusal.explanation,
                action: "see the message")
        }
        leases[request.volume] = lease
        let generation = lease.generation
        let final = try await plane.call { plane, completion in plane.open(identifier, generation: generation, completion: completion) }
        return VolumeOpenReply(generation: generation, receivedPoint: final.received, appliedPoint: final.applied)
    }

    /// Makes a call to a cloud edge.
    func call<Answer: Decodable & Sendable>(
        _ edge: String, _ method: String, _ body: some Encodable, timeout: TimeAmount
    ) async throws -> Answer {
        let encoded = try ControlCoding.encode(body)
        let buffer = try await needPlane().call { (plane: HomePlane, completion: @escaping (Result<ByteBuffer, any Error>) -> Void) in
            guard let peer = plane.peers[edge], peer.endpoint.isConnected else {
                return completion(.failure(APIError.linkDown(peer: edge)))
            }
            peer.call(method, body: encoded, timeout: timeout, completion: completion)
        }
        return try ControlCoding.decode(Answer.self, from: buffer)
    }

    func notifyGrantsChanged(_ edge: String) async throws {
        try await needPlane().run { $0.peers[edge]?.notify(ControlMethod.grantsChanged) }
    }

    // MARK: Metrics

    private static func metrics(of statistics: ReadCache.Statistics) -> [MetricSample] {
        let counter = { (name: String, help: String, value: UInt64) in
            MetricSample("causeway_read_cache_\(name)_total", help: help, kind: .counter, value: Double(value))
        }
        let gauge = { (name: String, help: String, value: Int) in
            MetricSample("causeway_read_cache_\(name)_bytes", help: help, kind: .gauge, value: Double(value))
        }
        return [
            counter("found_blocks", "Blocks of reads that were answered from memory.", statistics.foundBlocks),
            counter("missed_blocks", "Blocks of reads that went to a disk.", statistics.missedBlocks),
            counter("shared_blocks", "Blocks that came in and took no room, because others had them.", statistics.sharedBlocks),
            counter("evicted_blocks", "Blocks that left for want of room.", statistics.evictedBlocks),
            gauge("used", "The blocks that are kept, equal ones once.", statistics.usedBytes),
            gauge("stand_for", "The blocks that are kept, equal ones each time.", statistics.standForBytes),
        ]
    }

    func metrics() async -> [MetricSample] {
        var samples = LinkReport.metrics(of: (try? await links()) ?? [])
        samples += TunnelReport.metrics(of: (try? await tunnels()) ?? [])
        samples.append(
            MetricSample(
                "causeway_info", help: "The version of this edge.", kind: .gauge, labels: [("version", edgeVersion), ("role", "onprem")],
                value: 1))
        for record in (try? store.volumes()) ?? [] {
            guard record.state == .attached, let identifier = VolumeIdentifier(hexadecimal: record.identifier),
                let progress = try? await plane?.run({ $0.progress(identifier) })
            else { continue }
            let labels = [("volume", record.name)]
            samples += [
                MetricSample(
                    "causeway_volume_point_received", help: "The last point that is durable at home.", kind: .gauge, labels: labels,
                    value: Double(progress.position.received)),
                MetricSample(
                    "causeway_volume_point_applied", help: "The last point that is on the disk at home.", kind: .gauge, labels: labels,
                    value: Double(progress.position.applied)),
            ]
        }
        if let statistics = try? await plane?.run({ $0.readCache?.statistics }) { samples += Self.metrics(of: statistics) }
        samples.append(
            MetricSample(
                "causeway_disks_unavailable", help: "Disks of attached volumes that can't be opened.", kind: .gauge,
                value: Double(diskFailures.count)))
        return samples
    }
}
