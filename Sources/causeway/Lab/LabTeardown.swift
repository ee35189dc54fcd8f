import APIModels
import Foundation

/// How a lab went down.
struct LabDownOutcome: Encodable, Sendable {
    struct Unsent: Encodable, Sendable {
        var name: String
        /// Bytes of acknowledged writes that are not at home; nil when nobody could be asked.
        var bytes: UInt64?
    }

    /// Volumes whose writes are not all at home; the cloud edge's write log keeps them.
    var unsent: [Unsent]
    /// What was out of the ordinary, one sentence each.
    var notes: [String]
}

/// Takes a lab down: seal, wait for home, stop the daemons, then the relay.
struct LabTeardown {
    let lab: LabDirectory
    let record: LabRecord
    /// How long to wait for home.
    let timeout: Duration
    let force: Bool

    /// How long a daemon may take to stop; its flush is part of it.
    static let stopTimeout = Duration.seconds(30)

    func run() async throws -> LabDownOutcome {
        try await lab.locked {
            var outcome = LabDownOutcome(unsent: [], notes: [])
            let (cloud, onprem) = (record.cloud.daemon, record.onprem.daemon)
            let edges = [("cloud", record.cloud), ("on-prem", record.onprem)]
            let wrappers = edges.compactMap { $0.1.wrapper }
            for (name, edge) in edges { outcome.notes += note(name, edge).map { [$0] } ?? [] }
            if force {
                outcome.unsent = await unsent(askCloud: cloud != nil)
            } else if cloud != nil && onprem != nil {
                outcome.unsent = await bringHome(&outcome.notes)
            } else {
                outcome.unsent = await unsent(askCloud: cloud != nil)
            }
            try await stop([cloud, onprem].compactMap { $0 })
            // What the lab started around a daemon ends with it, or is ended.
            for wrapper in wrappers { _ = await wrapper.waitForExit(deadline: .now.advanced(by: .seconds(2))) }
            try await stop(wrappers.filter(\.isAlive))
            for (name, edge) in edges {
                guard let again = edge.daemon else { continue }
                throw CommandFailure(
                    "the \(name) edge was stopped, and runs again as process \(again.pid): somebody starts it anew",
                    action: "End what starts it, which is not the lab's, and take the lab down again.")
            }
            if let relay = record.relay, let process = LabProcess.find(pid: relay.pid, argument: relay.control) {
                try await stop([process])
            }
            try? FileManager.default.removeItem(atPath: lab.record)
            return outcome
        }
    }

    /// What is to be said of an edge that is not as the lab started it.
    private func note(_ name: String, _ edge: LabRecord.Edge) -> String? {
        guard let daemon = edge.daemon else { return "the \(name) edge was not running: see \(edge.log)" }
        if daemon.pid == edge.pid || edge.wrapper != nil { return nil }
        return "the \(name) edge is process \(daemon.pid), which the lab had not started: it is stopped, and what started it is left alone"
    }

    // MARK: Home

    /// Seals every volume, waits until each point is applied at home, and returns what is left when the time is over.
    private func bringHome(_ notes: inout [String]) async -> [LabDownOutcome.Unsent] {
        let deadline = ContinuousClock.now.advanced(by: timeout)
        guard let client = try? APIClient(base: record.onprem.api, token: record.onprem.token) else { return [] }
        var left: [LabDownOutcome.Unsent] = []
        var sealed: [SealResult] = []
        let names =
            await (try? client.list("/v1/volumes", of: Volume.self))?.filter { $0.state != .detached }.map(\.name)
            ?? record.volumes.map(\.name)
        for name in names {
            do {
                sealed.append(try await client.seal(name))
            } catch {
                notes.append("\(name) could not be sealed: \((error as? CommandFailure)?.message ?? "\(error)")")
                left += await unsent(askCloud: true).filter { $0.name == name }
            }
        }
        for point in sealed {
            var progress = ProgressLine("sending \(point.volume)", output: .table)
            let state = try? await client.waitUntilHome(point, deadline: deadline) {
                progress.update(remainingBytes: $0.unsent?.bytes ?? 0)
            }
            progress.finish()
            if state != .applied {
                let bytes = try? await client.volume(point.volume).unsent?.bytes
                left.append(.init(name: point.volume, bytes: bytes))
            }
        }
        return left
    }

    /// What the cloud edge says is unsent; all volumes, with an unknown amount, when it cannot be asked.
    private func unsent(askCloud: Bool) async -> [LabDownOutcome.Unsent] {
        let unknown = record.volumes.map { LabDownOutcome.Unsent(name: $0.name, bytes: nil) }
        guard askCloud, let client = try? APIClient(base: record.cloud.api, token: record.cloud.token),
            let volumes = try? await client.list("/v1/volumes", of: Volume.self)
        else { return unknown }
        return volumes.filter { ($0.unsent?.bytes ?? 1) > 0 }.map { .init(name: $0.name, bytes: $0.unsent?.bytes) }
    }

    // MARK: Processes

    private func stop(_ processes: [LabProcess]) async throws {
        for process in processes { process.signal(SIGTERM) }
        let deadline = ContinuousClock.now.advanced(by: force ? .seconds(10) : Self.stopTimeout)
        for process in processes where await !process.waitForExit(deadline: deadline) {
            guard force else {
                throw CommandFailure(
                    "process \(process.pid) has not stopped within \(Self.stopTimeout.components.seconds) s",
                    action: "See its log in \(lab.path), or kill it with causeway lab down --force.", status: .notInTime)
            }
            process.signal(SIGKILL)
            _ = await process.waitForExit(deadline: .now.advanced(by: .seconds(5)))
        }
    }
}
