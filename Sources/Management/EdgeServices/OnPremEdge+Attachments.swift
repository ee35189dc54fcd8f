import APIModels
import Blocks
import Foundation
import LocalFiles
import ManagementAPI
import StateStore
import Volumes

/// Attachments: who may serve which disk, from the lock of the disk to its return.
extension OnPremEdge {
    /// How long an attach waits for the cloud edge before it answers `attaching`.
    static let attachSeconds = 30
    /// How long a detach waits without anything coming home meanwhile.
    static let detachSeconds = 600

    // MARK: Attaching

    func attachVolume(named name: String, _ request: AttachRequest) async throws -> APIModels.Volume {
        _ = try volumeRecord(name)
        return try await attach(name, to: try chooseEdge(request.edge))
    }

    /// Locks and opens the disk, gives the edge a lease with a new identifier and key, and waits for it to serve.
    /// - Parameter willAttach: runs when the attachment is durable and before it is told.
    func attach(_ name: String, to edge: String, willAttach: () -> Void = {}) async throws -> APIModels.Volume {
        let record = try volumeRecord(name)
        guard record.state == .detached, busyVolumes.insert(name).inserted else {
            throw APIError.conflict(
                "volume_attached", "The volume is attached", detail: "volume \(name) is attached, or being attached",
                action: "see `causeway volume show \(name)`")
        }
        let identifier = VolumeIdentifier.random()
        do {
            defer { busyVolumes.remove(name) }
            // Before the disk's journal is touched: it may hold points of another attachment.
            let others = try store.volumes().filter { $0.disk == record.disk && $0.name != name }
            if let other = others.first(where: { $0.state == .attached || busyVolumes.contains($0.name) }) {
                throw APIError.conflict(
                    "disk_in_use", "The disk is in use", detail: "volume \(other.name) is attached to disk \(record.disk)",
                    action: "detach volume \(other.name) first")
            }
            try checkTarget(of: record, at: edge)
            try await checkGroup(of: record, at: edge)
            try await openDisk(of: record, identifier: identifier, edge: edge)
            do {
                let attached = try store.attachVolume(
                    name, edge: edge, identifier: identifier.description,
                    wrappedKey: try keys.newDataKey(identifier: identifier.description))
                try store.setLogIdentifier(nil, ofVolume: name)
                leases[attached.identifier] = VolumeLease(generation: attached.generation)
            } catch {
                _ = try? await closeDisk(identifier, givesUp: true)
                throw error
            }
        }
        diskFailures[name] = nil
        diskRetries[name] = nil
        try await tellMembership()
        willAttach()
        environment.recorder.record("volume.attached", subject: name, "volume \(name) is attached to edge \(edge)")
        try await notifyGrantsChanged(edge)
        return try await waitUntilServing(name)
    }

    /// The volumes of a target are one machine's, and an initiator finds them at one place.
    private func checkTarget(of record: VolumeRecord, at edge: String) throws {
        let others = try store.volumes(ofTarget: record.target).filter { $0.state == .attached && $0.edge != edge }
        guard let other = others.first else { return }
        throw APIError.conflict(
            "target_elsewhere", "The target is served at another edge",
            detail: "volume \(other.name) of the target \(record.target) is attached to edge \(other.edge ?? "")",
            action: "attach volume \(record.name) there, or detach volume \(other.name) first")
    }

    private func waitUntilServing(_ name: String) async throws -> APIModels.Volume {
        let deadline = ContinuousClock.now + .seconds(Self.attachSeconds)
        while true {
            let volume = try await volume(named: name)
            let isConnected = try await connectedEdges().contains(volume.edge ?? "")
            if volume.state != .attaching && volume.state != .linkDown || !isConnected || ContinuousClock.now >= deadline { return volume }
            // The cloud edge is another process: its state is asked for until it serves.
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    private func openDisk(of record: VolumeRecord, identifier: VolumeIdentifier, edge: String) async throws {
        let disk = try knownDisk(record.disk)
        let directory = try environment.subdirectory("journals/\(disk.name)")
        let environment = environment
        let (path, sectorCountMin, keeping) = (disk.path, record.sectorCount, Self.keeping(of: record))
        _ = try await needPlane().call { (plane: HomePlane, completion: @escaping (Result<UInt64, any Error>) -> Void) in
            let journal = LocalDirectory(directory, eventLoop: environment.eventLoop, threadPool: environment.threadPool)
            plane.serve(
                identifier, path: path, sectorCountMin: sectorCountMin, journal: journal, keeping: keeping, edge: edge,
                completion: completion)
        }
    }

    private func closeDisk(
        _ identifier: VolumeIdentifier, givesUp: Bool, rollingBackTo point: UInt64? = nil
    ) async throws -> (applied: UInt64, held: Int) {
        try await needPlane().call { plane, completion in
            plane.close(identifier, givesUp: givesUp, rollingBackTo: point, completion: completion)
        }
    }

    /// Opens the disks of attached volumes that are not open: after a start, and when one was missing. Each by itself: one may have much to
    /// apply or to undo first, or hang.
    /// - Returns: what opens them.
    @discardableResult
    func openAttachedDisks() async -> [Task<Void, Never>] {
        // Before the first is open: what is held for a group is not to be taken for what may be applied.
        guard (try? await tellMembership()) != nil, let records = try? store.volumes() else { return [] }
        let now = ContinuousClock.now
        return records.map(\.name).filter { diskRetries[$0]?.isDue(now: now) != false && busyVolumes.insert($0).inserted }
            .map { name in Task { await openAttachedDisk(of: name) } }
    }

    /// What a start waits for the disks before it lets cloud edges in. Volumes whose disks take longer come later.
    private static let openSeconds = 3

    /// Opens them at a start, and waits for that, but no longer than `openSeconds`.
    func openAttachedDisksFirst() async {
        let opening = await openAttachedDisks()
        let (ends, end) = AsyncStream.makeStream(of: Bool.self)
        for task in opening {
            Task {
                await task.value
                end.yield(true)
            }
        }
        let patience = Task {
            try? await Task.sleep(for: .seconds(Self.openSeconds))
            end.yield(false)
        }
        defer { patience.cancel() }
        var left = opening.count
        if left == 0 { return }
        for await isOpened in ends {
            left -= 1
            if !isOpened || left == 0 { return }
        }
    }

    /// `name` is among the busy volumes, and leaves them.
    private func openAttachedDisk(of name: String) async {
        defer { busyVolumes.remove(name) }
        // Read again: it may have been detached meanwhile.
        guard let record = try? store.volume(name), record.state == .attached, let edge = record.edge,
            let identifier = VolumeIdentifier(hexadecimal: record.identifier), let plane,
            let progress = try? await plane.run({ Optional($0.progress(identifier)) }), progress?.failure != nil || progress == nil
        else { return }
        do {
            try await openDiskAgainIfFailed(record, identifier: identifier, edge: edge)
            diskRetries[name] = nil
            if diskFailures.removeValue(forKey: record.name) != nil {
                environment.recorder.record("disk.opened", subject: record.disk, "the disk of volume \(record.name) is available again")
            }
        } catch {
            let problem = Problem(describing: error)
            let text = problem.detail ?? "\(error)"
            let isWrong = problem.code == Problem.diskChangedCode
            if isWrong { diskRetries[name, default: DiskRetry()].refused(now: .now) } else { diskRetries[name] = nil }
            if diskFailures.updateValue(text, forKey: record.name) == nil {
                environment.recorder.record(
                    "disk.unavailable", subject: record.disk, severity: .error,
                    "the disk of volume \(record.name) can't be opened: \(text); it is tried again \(isWrong ? "each minute" : "every 5 seconds")"
                )
            }
        }
    }

    // MARK: Detaching

    func detachVolume(named name: String, force: Bool, toPoint point: UInt64?) async throws -> DetachResult {
        let record = try volumeRecord(name)
        guard record.state == .attached, let edge = record.edge, let identifier = VolumeIdentifier(hexadecimal: record.identifier) else {
            if point != nil { throw Problem.nothingKept(of: name) }
            return DetachResult(volume: name, unsentBytes: 0)
        }
        guard busyVolumes.insert(name).inserted else {
            throw Self.volumeBusy(name)
        }
        detachingVolumes.insert(name)
        let result: DetachResult
        do {
            defer {
                busyVolumes.remove(name)
                detachingVolumes.remove(name)
            }
            // Said before anything is given up for it.
            if let point { try await pinKept(point, record, identifier) }
            result = try await takeBack(record, identifier: identifier, edge: edge, force: force, toPoint: point)
        } catch {
            if point != nil { try? await unpin(identifier) }
            // The edge keeps the volume: the next look at its grants tells it so.
            try? await notifyGrantsChanged(edge)
            throw error
        }
        leases[record.identifier] = nil
        diskFailures[name] = nil
        diskRetries[name] = nil
        try? await notifyGrantsChanged(edge)
        environment.recorder.record(
            "volume.detached", subject: name, severity: force ? .warning : .info,
            force
                ? "volume \(name) was detached by force; writes that were not home are given up, and what opens them in the cloud edge's log goes "
                    + "with the next attach: `causeway volume recovery-key \(name)` exports it before"
                    + (result.heldPoints.map { "; \($0) points that were held for its group are kept and are not on the disk" } ?? "")
                : "volume \(name) is detached; all of it is at home")
        if let point {
            environment.recorder.record(
                "disk.rolled_back", subject: record.disk, severity: .warning,
                "the disk of volume \(name) is at point \(point) again; what came later is gone")
        }
        return result
    }

    /// Brings everything home, applies it, closes the disk, and only then forgets the attachment: a crash before that leaves it attached.
    func takeBack(
        _ record: VolumeRecord, identifier: VolumeIdentifier, edge: String, force: Bool, toPoint point: UInt64? = nil
    ) async throws -> DetachResult {
        let unsent = try await releaseAtEdge(record.name, identifier: record.identifier, edge: edge, force: force)
        var (closedPoint, heldCount): (UInt64, Int) = (0, 0)
        do {
            try await openDiskAgainIfFailed(record, identifier: identifier, edge: edge)
            // It may be in another group by now than it was when this began.
            if let group = try store.volume(record.name).volumeGroup { try await noteLastPoint(ofGroup: group) }
            (closedPoint, heldCount) = try await closeDisk(identifier, givesUp: force, rollingBackTo: point)
        } catch {
            guard force, point == nil else { throw error }
            try await needPlane().run { $0.abandon(identifier) }
            environment.recorder.record(
                "disk.inconsistent", subject: record.disk, severity: .error,
                "disk \(record.disk) was detached by force while points could not be applied to it: it may be between two points; "
                    + "they stay in the journal and are applied when the disk is attached again")
        }
        _ = try store.detachVolume(record.name, closedPoint: closedPoint)
        try await tellMembership()
        return DetachResult(
            volume: record.name, unsentBytes: unsent, forced: force, heldPoints: heldCount > 0 ? UInt64(heldCount) : nil,
            point: point ?? (closedPoint > 0 ? closedPoint : nil))
    }

    /// A journal that has stopped is opened anew, which applies what it has received.
    private func openDiskAgainIfFailed(_ record: VolumeRecord, identifier: VolumeIdentifier, edge: String) async throws {
        let progress = try await needPlane().run { $0.progress(identifier) }
        if let progress, progress.failure == nil { return }
        try await needPlane().run { $0.abandon(identifier) }
        try await openDisk(of: record, identifier: identifier, edge: edge)
    }

    /// Waits until everything is home, for as long as it takes while it becomes less: the log of a slow line takes hours.
    private func bringHome(_ name: String, identifier: String, edge: String) async throws {
        var progress = ReleaseProgress()
        _ = progress.goesOn(unsentBytes: try await unsentBytes(of: identifier, edge: edge), applied: try await appliedPoint(of: identifier))
        while true {
            do {
                let result: DetachResult = try await call(
                    edge, ControlMethod.release, ReleaseCall(identifier: identifier, force: false),
                    timeout: .seconds(Int64(Self.detachSeconds)))
                guard result.unsentBytes == 0 else { throw Problem.notOpenHere }
                return
            } catch let problem as Problem where problem.code == Problem.noAnswerCode {
                // One of a group is not waited for when another has failed.
                try Task.checkCancellation()
                let left = try await unsentBytes(of: identifier, edge: edge)
                guard progress.goesOn(unsentBytes: left, applied: try await appliedPoint(of: identifier)) else {
                    throw Problem.notHomeYet(name, unsentBytes: left)
                }
            }
        }
    }

    private func unsentBytes(of identifier: String, edge: String) async throws -> UInt64? {
        let statuses: [VolumeStatus] = try await call(edge, ControlMethod.status, Empty(), timeout: .seconds(30))
        return statuses.first { $0.identifier == identifier }?.unsent.bytes
    }

    private func appliedPoint(of identifier: String) async throws -> UInt64 {
        guard let identifier = VolumeIdentifier(hexadecimal: identifier) else { return 0 }
        return try await needPlane().run { $0.progress(identifier)?.position.applied ?? 0 }
    }

    /// Asks the edge to bring everything home. Returns what was given up: nothing, or with force perhaps unknown.
    func releaseAtEdge(_ name: String, identifier: String, edge: String, force: Bool) async throws -> UInt64? {
        if try await connectedEdges().contains(edge) {
            if force {
                try? await notifyGrantsChanged(edge)
                let result: DetachResult? = try? await call(
                    edge, ControlMethod.release, ReleaseCall(identifier: identifier, force: true), timeout: .seconds(10))
                return result?.unsentBytes
            }
            try await notifyGrantsChanged(edge)
            try await bringHome(name, identifier: identifier, edge: edge)
            return 0
        }
        if force { return nil }
        throw APIError.conflict(
            "edge_unreachable", "The cloud edge is not connected",
            detail: "edge \(edge) serves volume \(name) and is not connected; it may hold writes that are not home yet",
            action: "bring the edge or the link up again; or give those writes up with `causeway volume detach \(name) --force`")
    }
}
