import APIModels
import Blocks
import Ciphers
import EdgeConfiguration
import Files
import Foundation
import LocalFiles
import ManagementAPI
import NIOCore
import Volumes
import WriteLog

/// The volumes of a cloud edge follow the grants of home.
extension CloudEdge {
    static var volumesDirectory: String { "volumes" }
    private static var retiredDirectory: String { "retired" }

    // MARK: Grants

    /// Asks home for the grants and brings the volumes in line. Calls that come meanwhile make one more round.
    func refreshGrants() async {
        if isRefreshing {
            mustRefreshAgain = true
            return
        }
        isRefreshing = true
        repeat {
            mustRefreshAgain = false
            do {
                let (number, grants, secrets) = try await askForGrants()
                try await apply(grants, secrets, number)
                Task { await self.renewIfNeeded() }
            } catch {
                environment.recorder.record(
                    "grants.failed", severity: .warning,
                    "the grants of home could not be taken over: \(Problem(describing: error).detail ?? "")")
                scheduleRefresh()
            }
        } while mustRefreshAgain
        isRefreshing = false
    }

    /// The pair that the secrets are wrapped for lasts no longer than this.
    /// - Returns: also which they are of all that were asked for: what has happened since they were is not in them.
    private func askForGrants() async throws -> (number: UInt64, grants: Grants, secrets: ReceivedSecrets) {
        guard let identity else { throw APIError.linkDown(peer: "(not paired)") }
        let number = try await needPlane().run { plane in
            plane.grantsAsked += 1
            return plane.grantsAsked
        }
        let recipient = try KeyRecipient(home: identity.onPremEdge, edge: identity.edge)
        let grants: Grants = try await call(
            ControlMethod.grants, GrantsCall(publicKey: recipient.publicKey), timeout: .seconds(30))
        if grants.encapsulation == nil, !arePlainKeysTold {
            arePlainKeysTold = true
            environment.recorder.record(
                "key.plain", severity: .warning,
                "home has a version that sends keys unwrapped: copies of them stay in ordinary memory of this edge. Upgrade causewayd at "
                    + "home, and restart this edge")
        }
        return (number, grants, try recipient.open(grants))
    }

    /// Tries again in a while: home may have been starting, or this disk full.
    private func scheduleRefresh() {
        if isRefreshScheduled { return }
        isRefreshScheduled = true
        Task { [weak self] in
            try? await Task.sleep(for: .seconds(5))
            await self?.scheduledRefresh()
        }
    }

    private func scheduledRefresh() async {
        isRefreshScheduled = false
        await refreshGrants()
    }

    private func apply(_ grants: Grants, _ secrets: ReceivedSecrets, _ number: UInt64) async throws {
        let plane = try needPlane()
        self.grants = grants.volumes
        self.secrets = secrets
        released.forgetServed(grants.volumes, from: number)
        await setTunnels(grants.tunnels ?? [])
        let granted = Set(grants.volumes.map(\.identifier)).union(grants.unavailable)
        let (identifiers, logBytes) = (Set(granted.compactMap { VolumeIdentifier(hexadecimal: $0) }), cloud.writeLogSizeBytes)
        try await plane.run { $0.setGranted(identifiers, edgeLogBytes: logBytes) }
        openFailures = openFailures.filter { granted.contains($0.key) }
        try await openCache(secrets.cache)
        for identifier in try await plane.run({ Array($0.served.keys) }) where !granted.contains(identifier.description) {
            try await letGo(identifier)
        }
        for target in Set(grants.volumes.map(\.target)).sorted() {
            try await plane.run { $0.holdTarget(target) }
            for grant in grants.volumes where grant.target == target { await serve(grant, secrets, number) }
            try await plane.run { $0.letTarget(target) }
        }
        let groups = grants.groups ?? []
        try await plane.run { $0.setGroups(groups) }
        if !grants.unavailable.isEmpty { scheduleRefresh() }
        try await plane.run { $0.forgetShares() }
        try retireUnknownLogs(granted)
        released.keep(granted)
        // While a volume can't be opened its name is unknown to the front ends: then they say that it may come, and not that it
        // is none.
        let isWhole = openFailures.isEmpty && grants.unavailable.isEmpty
        try await plane.run { $0.setReady(isWhole) }
    }

    private func serve(_ grant: VolumeGrant, _ received: ReceivedSecrets, _ number: UInt64) async {
        guard let identifier = VolumeIdentifier(hexadecimal: grant.identifier) else { return }
        do {
            let plane = try needPlane()
            let (policy, secrets) = (policy(grant), received.secrets(of: identifier))
            let isOpened: Bool? = try await plane.run { plane in
                guard let entry = plane.served[identifier] else { return nil }
                try plane.update(entry, to: grant, from: number, secrets: secrets, policy: policy)
                return entry.wasOpened || !entry.volume.isServable
            }
            if let isOpened {
                // One that home could not open yet has no target: it asks again by itself, and is looked at again here.
                if isOpened { openFailures[grant.identifier] = nil } else { scheduleRefresh() }
                return
            }
            guard let secrets else { throw Problem(status: 500, code: "no_key", title: "Home has sent no key of the volume") }
            let directory = try environment.subdirectory("\(Self.volumesDirectory)/\(identifier)")
            let environment = environment
            let logSize = try LogSize(
                in: directory, edgeBytes: cloud.writeLogSizeBytes,
                memoryBytes: environment.memory.logBytes(configured: cloud.writeLogMemoryBytes, volumes: grants.count))
            let regions = try StoredRegions(in: directory)
            _ = try await plane.call { (plane: CloudPlane, completion: @escaping (Result<Bool, any Error>) -> Void) in
                plane.open(
                    grant, identifier: identifier, secrets: secrets, directory: directory, logSize: logSize, regions: regions,
                    policy: policy
                ) {
                    completion($0.map { true })
                }
            }
            openFailures[grant.identifier] = nil
        } catch {
            let text = Problem(describing: error).detail ?? "\(error)"
            if openFailures.updateValue(text, forKey: grant.identifier) != text {
                environment.recorder.record(
                    "volume.failed", subject: grant.name, logSubject: grant.identifier, severity: .error,
                    "the volume can't be served: \(text)")
            }
            scheduleRefresh()
        }
    }

    /// The volume's own policy, or this edge's.
    private func policy(_ grant: VolumeGrant) -> VolumePolicy {
        let own = grant.policy
        return VolumePolicy(
            recoveryPointObjective: own.map { .milliseconds(Int64($0.recoveryPointObjectiveSeconds * 1_000)) }
                ?? TimeAmount(cloud.recoveryPointObjective),
            sealBytes: Int(clamping: own?.sealBytes ?? cloud.sealSizeBytes), readTimeout: TimeAmount(cloud.readTimeout),
            writeTimeout: TimeAmount(cloud.writeTimeout))
    }

    private func letGo(_ identifier: VolumeIdentifier) async throws {
        let name = try await needPlane().run { $0.served[identifier]?.grant.name }
        let isAllHome = try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<Bool, any Error>) -> Void) in
            plane.close(identifier) { completion(.success($0)) }
        }
        // Whatever was said before: what is not at home is kept.
        if !isAllHome { released.remove(identifier.description) }
        openFailures[identifier.description] = nil
        environment.recorder.record("volume.withdrawn", subject: name, logSubject: identifier.description, "home has taken the volume back")
    }

    /// Logs of volumes that are not granted any more: those that were given back cleanly are removed, all others are kept
    /// aside, because they may hold writes that never came home.
    private func retireUnknownLogs(_ granted: Set<String>) throws {
        let volumes = try environment.subdirectory(Self.volumesDirectory)
        for name in try volumes.list() where !granted.contains(name) && VolumeIdentifier(hexadecimal: name) != nil {
            let path = "\(volumes.path)/\(name)"
            if released.contains(name) {
                try FileManager.default.removeItem(atPath: path)
                continue
            }
            let retired = try environment.subdirectory(Self.retiredDirectory)
            let place = "\(retired.path)/\(try Self.freeName(name, in: retired))"
            try FileManager.default.moveItem(atPath: path, toPath: place)
            environment.recorder.record(
                "log.retired", logSubject: name, severity: .warning,
                "the write log of a volume that is not this edge's any more was moved to \(place); remove it when it is not needed")
        }
    }

    /// The first of `name`, `name.1`, `name.2` and so on that a directory has not got: a state directory that was copied back brings
    /// what was retired already once more, and neither may be lost.
    private static func freeName(_ name: String, in directory: OpenDirectory) throws -> String {
        let taken = Set(try directory.list())
        var (candidate, number) = (name, 0)
        while taken.contains(candidate) {
            number += 1
            candidate = "\(name).\(number)"
        }
        return candidate
    }

    // MARK: Calls

    /// Calls home.
    func call<Answer: Decodable & Sendable>(_ method: String, _ body: some Encodable, timeout: TimeAmount) async throws -> Answer {
        let encoded = try ControlCoding.encode(body)
        let peer = identity?.onPremEdge ?? "(not paired)"
        let buffer = try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<ByteBuffer, any Error>) -> Void) in
            guard let link = plane.link, link.endpoint.isConnected else { return completion(.failure(APIError.linkDown(peer: peer))) }
            link.call(method, body: encoded, timeout: timeout, completion: completion)
        }
        return try ControlCoding.decode(Answer.self, from: buffer)
    }

    /// Answers a call of home.
    func answer(_ method: String, _ body: ByteBuffer) async -> ControlAnswer {
        switch method {
        case ControlMethod.status: return await .from { try await self.statuses() }
        case ControlMethod.seal:
            return await .from {
                let call = try ControlCoding.decode(SealCall.self, from: body)
                return try await self.sealVolume(named: call.name, wait: call.until, timeout: .seconds(call.seconds))
            }
        case ControlMethod.bracket:
            return await .from { try await self.answer(try ControlCoding.decode(BracketCall.self, from: body)) }
        case ControlMethod.sealGroup:
            return await .from {
                let call = try ControlCoding.decode(SealCall.self, from: body)
                return try await self.sealGroup(named: call.name, wait: call.until, timeout: .seconds(call.seconds))
            }
        case ControlMethod.resizeLog:
            return await .from {
                let call = try ControlCoding.decode(ResizeLogCall.self, from: body)
                try await self.resizeLog(ofVolume: call.name, to: call.sizeBytes)
                return Empty()
            }
        case ControlMethod.regions:
            return await .from { try await self.regions(ofVolume: try ControlCoding.decode(VolumeCall.self, from: body).name) }
        case ControlMethod.changeRegions:
            return await .from {
                let call = try ControlCoding.decode(ChangeRegionsCall.self, from: body)
                return try await self.changeRegions(ofVolume: call.name, call.change)
            }
        case ControlMethod.shred:
            return await .from {
                try await self.shred(try ControlCoding.decode(ShredCall.self, from: body).identifier)
                return Empty()
            }
        case ControlMethod.release:
            return await .from { try await self.release(try ControlCoding.decode(ReleaseCall.self, from: body)) }
        default: return await .from { () async throws -> Empty in throw Problem.unknownCall(method) }
        }
    }

    func statuses() async throws -> [VolumeStatus] {
        let (portals, networkBlock, failures) = (targetAddresses, networkBlockAddresses.first, openFailures)
        return try await needPlane().run { plane in
            plane.served.values.map {
                VolumeReport.status(
                    of: $0, cache: plane.cache, portals: portals, networkBlock: networkBlock, failure: failures[$0.grant.identifier])
            }
        }
    }

    /// Lets go of an attachment whose keys home has destroyed: of the keys in memory, and of what they would open.
    private func shred(_ identifier: String) async throws {
        guard let volume = VolumeIdentifier(hexadecimal: identifier) else { throw APIError.invalid("identifier", "not an identifier") }
        grants.removeAll { $0.identifier == identifier }
        secrets?.forget(volume)
        try await letGo(volume)
        // Where it was when home told of it; and it may have been moved aside since its grant was gone.
        for place in [Self.volumesDirectory, Self.retiredDirectory] {
            let directory = try environment.subdirectory(place)
            for name in try directory.list() where name == identifier || name.hasPrefix(identifier + ".") {
                try FileManager.default.removeItem(atPath: "\(directory.path)/\(name)")
            }
        }
    }

    /// Gives a volume back to home: stops serving, and brings everything home first unless forced.
    ///
    /// Says that nothing is left only of a volume that is open here and has been seen to be empty: one that this process has
    /// not opened yet may have writes in its log.
    private func release(_ call: ReleaseCall) async throws -> DetachResult {
        guard let identifier = VolumeIdentifier(hexadecimal: call.identifier) else {
            throw APIError.invalid("identifier", "not an identifier")
        }
        let isForced = call.force
        let left = try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<UInt64?, any Error>) -> Void) in
            guard let entry = plane.served[identifier] else {
                if isForced { return completion(.success(nil)) }
                return completion(.failure(Problem.notOpenHere))
            }
            if isForced {
                entry.releasedAfterGrants = plane.grantsAsked
                plane.withdraw(entry) { completion(.success(entry.volume.isAllHome ? 0 : entry.volume.bytesNotHome)) }
            } else {
                plane.release(entry) { completion($0.map { 0 }) }
            }
        }
        if !isForced, let release = try await needPlane().run({ $0.served[identifier]?.releasedAfterGrants }) {
            released.insert(call.identifier, after: release)
        }
        return DetachResult(volume: call.identifier, unsentBytes: left, forced: isForced)
    }
}
