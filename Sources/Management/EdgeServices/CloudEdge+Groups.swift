import APIModels
import Blocks
import ManagementAPI
import NIOCore

/// Brackets in the API of a cloud edge.
extension CloudEdge {
    func beginBracket(_ subject: BracketSubject, _ request: BracketCreate) async throws -> Bracket {
        try await needPlane().run { try $0.beginBracket(subject, request) }
    }

    func bracket(_ subject: BracketSubject) async throws -> Bracket { try await needPlane().run { try $0.bracket(subject) } }

    func sealBracket(_ subject: BracketSubject) async throws -> Bracket {
        try await needPlane().call { plane, completion in plane.sealBracket(subject, completion: completion) }
    }

    func endBracket(_ subject: BracketSubject) async throws -> Bracket { try await needPlane().run { try $0.endBracket(subject) } }

    func answer(_ call: BracketCall) async throws -> Bracket {
        switch call.action {
        case .begin: try await beginBracket(call.subject, call.request ?? BracketCreate())
        case .show: try await bracket(call.subject)
        case .seal: try await sealBracket(call.subject)
        case .end: try await endBracket(call.subject)
        }
    }
}

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
        let plane = try needPlane()
        let cut: GroupPoint = try await plane.call { plane, completion in
            guard let entry = plane.group(named: name) else { return completion(.failure(APIError.notFound("group", name))) }
            entry.group.seal { completion($0.mapError { Problem(describing: $0, volume: name) }) }
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
