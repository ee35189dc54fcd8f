import APIModels
import EdgeConfiguration
import Foundation
import NIOCore

/// Joins the two edges of a lab and has its disks served.
struct LabAttachments {
    let onprem: APIClient
    let cloud: APIClient
    /// For each step.
    let timeout: Duration
    let policy: Volume.Policy?
    /// True while both daemons run.
    let isAlive: @Sendable () -> Bool
    let say: (String) -> Void

    /// Pairs the edges unless they are, waits for the link, and returns the cloud edge's identifier.
    /// - Parameter address: where home dials the cloud edge; nil when the cloud edge dials.
    func pair(dialling address: NetworkAddress?) async throws -> String {
        var edge: EdgeStatus = try await cloud.get("/v1/edge")
        let known: [PeerEdge] = try await onprem.list("/v1/edges")
        if edge.identifier.isEmpty || !known.contains(where: { $0.identifier == edge.identifier && !$0.revoked }) {
            say("pairing them")
            let token: PairingToken = try await onprem.post(
                "/v1/pairing/tokens", PairingTokenCreate(validSeconds: 300, connect: address?.description))
            let _: PeerEdge = try await cloud.post("/v1/pairing/join", JoinRequestBody(token: token.token))
            edge = try await cloud.get("/v1/edge")
        }
        let identifier = edge.identifier
        try await wait(for: "the link to come up") {
            let links: [Link] = try await onprem.list("/v1/links")
            if links.contains(where: { $0.peer == identifier && $0.state == .up }) { return nil }
            return links.first?.lastError ?? "no link"
        }
        return identifier
    }

    /// Has each disk served as a volume of its own name.
    func serve(_ disks: [LabCommand.DiskArgument], at edge: String) async throws -> [LabRecord.Volume] {
        let known: [Volume] = try await onprem.list("/v1/volumes")
        for disk in disks {
            switch known.first(where: { $0.name == disk.name }) {
            case nil:
                say("attaching \(disk.name)")
                let _: Volume = try await onprem.post(
                    "/v1/volumes", VolumeCreate(name: disk.name, disk: disk.name, edge: edge, policy: policy, attach: true),
                    timeout: callTimeout)
            case let volume? where volume.state == .detached:
                say("attaching \(disk.name)")
                let _: Volume = try await onprem.post(
                    "/v1/volumes/\(APIClient.part(disk.name))/attach", AttachRequest(edge: edge), timeout: callTimeout)
            case _?:
                say("going on with \(disk.name)")
            }
        }
        var volumes: [LabRecord.Volume] = []
        for disk in disks {
            try await wait(for: "volume \(disk.name) to be served") {
                let volume = try await onprem.volume(disk.name)
                return volume.state == .serving ? nil : "it is \(volume.state.rawValue)\(volume.message.map { ": \($0)" } ?? "")"
            }
            var url: String?
            try await wait(for: "the address of volume \(disk.name)") {
                url = try await onprem.credentials(disk.name).url
                return url == nil ? "the edge does not tell it" : nil
            }
            let nbd = try await cloud.volume(disk.name).nbdURL
            let portals = try await onprem.volume(disk.name).target?.portals ?? []
            let others = portals.dropFirst().compactMap { portal in
                url?.replacingOccurrences(of: "@\(portals[0])/", with: "@\(portal)/")
            }
            volumes.append(
                .init(name: disk.name, url: url ?? "", otherURLs: others.isEmpty ? nil : others, nbd: nbd, disk: disk.path))
        }
        return volumes
    }

    private var callTimeout: TimeAmount { timeout.timeAmount }

    /// Asks until `reason` is nil; what it says last stands in the failure.
    private func wait(for what: String, until reason: () async throws -> String?) async throws {
        let deadline = ContinuousClock.now.advanced(by: timeout)
        var last = ""
        while ContinuousClock.now < deadline {
            guard isAlive() else { throw CommandFailure("a daemon ended while the lab waited for \(what)") }
            do {
                guard let now = try await reason() else { return }
                last = now
            } catch let failure as CommandFailure where failure.status == .unreachable {
                last = failure.message
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw CommandFailure("the lab waited too long for \(what): \(last)", status: .notInTime)
    }
}
