import APIModels
import Blocks
import Foundation
import ManagementAPI
import NIOCore
import Volumes

/// The API of a cloud edge. It shows and seals its own volumes, link or no link, and can give one back. What it may serve is
/// decided at home: disks, and the creation and attachment of volumes, are asked there.
extension CloudEdge {
    /// How long home may take to bring a volume home: it gives up by itself when nothing comes any more.
    private static var detachTime: TimeAmount { .hours(24) }

    func volumes() async throws -> [APIModels.Volume] {
        let statuses = Dictionary(try await statuses().map { ($0.identifier, $0) }, uniquingKeysWith: { first, _ in first })
        let generations = try await needPlane().run { plane in
            Dictionary(plane.served.map { ($0.key.description, $0.value.volume.generation) }, uniquingKeysWith: { first, _ in first })
        }
        return grants.map { grant in
            VolumeReport.volume(
                grant, statuses[grant.identifier], edge: identity?.edge, generation: generations[grant.identifier] ?? 0,
                failure: openFailures[grant.identifier])
        }.sorted { $0.name < $1.name }
    }

    func volume(named name: String) async throws -> APIModels.Volume {
        guard let volume = try await volumes().first(where: { $0.name == name }) else { throw APIError.notFound("volume", name) }
        return volume
    }

    func detachVolume(named name: String, force: Bool, toPoint point: UInt64?) async throws -> DetachResult {
        try await call(ControlMethod.detachVolume, VolumeCall(name: name, force: force, toPoint: point), timeout: Self.detachTime)
    }

    func credentials(ofVolume name: String) async throws -> VolumeCredentials {
        guard let grant = grants.first(where: { $0.name == name }), let volume = VolumeIdentifier(hexadecimal: grant.identifier),
            let credentials = secrets?.credentials[volume]
        else { throw APIError.notFound("volume", name) }
        return VolumeCredentials(
            user: credentials.user, secret: credentials.secret.text, mutualUser: credentials.mutualUser,
            mutualSecret: credentials.mutualSecret?.text,
            url: targetAddresses.first.map {
                "iscsi://\(credentials.user)%\(credentials.secret.text)@\($0)/\(grant.target)/\(grant.logicalUnit ?? 0)"
            })
    }

    /// Seals, and waits until the point has come as far as `wait`, or until the time is over; then says how far it is.
    func sealVolume(named name: String, wait: SealResult.State, timeout: Duration) async throws -> SealResult {
        let plane = try needPlane()
        guard try await plane.run({ $0.entry(named: name) != nil }) else { throw APIError.notFound("volume", name) }
        let point: UInt64 = try await plane.call { plane, completion in
            guard let entry = plane.entry(named: name) else { return completion(.failure(APIError.notFound("volume", name))) }
            entry.volume.seal(until: .sealed) { completion($0.mapError { Problem(describing: $0, volume: name) }) }
        }
        let deadline = ContinuousClock.now + timeout
        let state = await withTaskGroup(of: SealResult.State?.self) { group in
            group.addTask { await self.waitForPoint(point, of: name, until: wait) }
            group.addTask {
                try? await Task.sleep(until: deadline)
                return nil
            }
            let first = await group.next() ?? nil
            group.cancelAll()
            return first
        }
        if let state { return SealResult(volume: name, point: point, state: state) }
        return SealResult(volume: name, point: point, state: try await reached(point, name))
    }

    private func reached(_ point: UInt64, _ name: String) async throws -> SealResult.State {
        try await needPlane().run { plane in
            guard let numbers = plane.entry(named: name)?.volume.pointNumbers else { return .sealed }
            return point <= numbers.applied ? .applied : point <= numbers.received ? .received : .sealed
        }
    }

    /// Looks at the numbers until the point is there. A waiter in the volume could not be cancelled with its caller.
    private func waitForPoint(_ point: UInt64, of name: String, until wait: SealResult.State) async -> SealResult.State? {
        while !Task.isCancelled {
            if let state = try? await reached(point, name), state >= wait { return state }
            try? await Task.sleep(for: .milliseconds(10))
        }
        return nil
    }

    func metrics() async -> [MetricSample] {
        var samples = LinkReport.metrics(of: (try? await links()) ?? [])
        samples += TunnelReport.metrics(of: (try? await tunnels()) ?? [])
        samples.append(
            MetricSample(
                "causeway_info", help: "The version of this edge.", kind: .gauge, labels: [("version", edgeVersion), ("role", "cloud")],
                value: 1))
        guard let statuses = try? await statuses() else { return samples }
        let known = Dictionary(statuses.map { ($0.identifier, $0) }, uniquingKeysWith: { first, _ in first })
        samples += VolumeReport.metrics(
            of: grants.map { VolumeReport.volume($0, known[$0.identifier], edge: nil, generation: 0, failure: nil) })
        if let disks = try? await plane?.run({ $0.served.values.map { ($0.grant.name, $0.volume.cloudOnlyStatistics) } }) {
            for case (let name, let statistics?) in disks { samples += VolumeReport.metrics(ofVolume: name, statistics) }
        }
        if let cache = try? await plane?.run({ $0.cacheMetrics() }) { samples += cache.samples }
        if let sessions = try? await plane?.run({ $0.target.sessionCount }) {
            samples.append(MetricSample("causeway_target_sessions", help: "iSCSI sessions.", kind: .gauge, value: Double(sessions)))
        }
        return samples
    }
}
