import APIModels
import Blocks
import ManagementAPI
import NIOCore

/// Groups in the API of a cloud edge: it shows and seals those of its volumes. What is in a group is decided at home.
extension CloudEdge {
    func groups() async throws -> [APIModels.VolumeGroup] {
        try await needPlane().run { plane in plane.groups.values.map { plane.describe($0) } }
    }

    func group(named name: String) async throws -> APIModels.VolumeGroup {
        guard let group = try await groups().first(where: { $0.name == name }) else { throw APIError.notFound("group", name) }
        return group
    }

    /// Seals, and waits until all of the point has come as far as `wait`, or until the time is over; then says how far it is.
    func sealGroup(named name: String, wait: SealResult.State, timeout: Duration) async throws -> GroupSealResult {
        try await sealGroup(named: name, carrying: nil, wait: wait, timeout: timeout)
    }

    func sealGroup(
        named name: String, carrying attributes: PointAttributes?, wait: SealResult.State, timeout: Duration
    ) async throws -> GroupSealResult {
        let plane = try needPlane()
        let cut: GroupPoint = try await plane.call { plane, completion in
            guard let entry = plane.group(named: name) else { return completion(.failure(APIError.notFound("group", name))) }
            entry.group.seal(attributes: attributes) { completion($0.mapError { Problem(describing: $0, volume: name) }) }
        }
        let deadline = ContinuousClock.now + timeout
        var state = try await plane.run { $0.reached(cut) }
        // A waiter in the volumes could not be cancelled with its caller.
        while state < wait, ContinuousClock.now < deadline, !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(10))
            state = try await plane.run { $0.reached(cut) }
        }
        let members = try await plane.run { plane in
            cut.members.map { GroupSealResult.Member(volume: plane.served[$0.volume]?.grant.name ?? "\($0.volume)", point: $0.point) }
        }
        return GroupSealResult(group: name, point: cut.number, members: members.sorted { $0.volume < $1.volume }, state: state)
    }
}
