import APIModels
import Blocks
import ManagementAPI
import NIOCore
import Volumes

/// Brackets round seals (W6): one at a time for each volume and group.
extension CloudPlane {
    func beginBracket(_ subject: BracketSubject, _ request: BracketCreate) throws -> Bracket {
        try checkSubject(subject)
        if let state = brackets[subject]?.state, state == .open || state == .sealing {
            throw APIError.conflict(
                "bracket_open", "There is a bracket", detail: "the last bracket of \(subject.kind.rawValue) \(subject.name) has not ended",
                action: "seal or end it, or wait until it ends by itself")
        }
        let seconds = min(max(1, request.timeoutSeconds ?? BracketCreate.usualTimeoutSeconds), BracketCreate.longestTimeoutSeconds)
        brackets[subject] = PointBracket(label: request.label ?? "", deadline: .now() + .seconds(Int64(seconds)))
        return try bracket(subject)
    }

    func bracket(_ subject: BracketSubject) throws -> Bracket {
        try checkSubject(subject)
        guard let bracket = brackets[subject] else { throw APIError.notFound("bracket", subject.name) }
        var answer = Bracket(name: subject.name, state: .open, label: bracket.label)
        switch bracket.state {
        case .open: answer.remainingSeconds = max(0, Double((bracket.deadline - .now()).nanoseconds) / 1e9)
        case .sealing: answer.state = .sealing
        case .sealed(let point, let consistency):
            answer.state = .sealed
            answer.point = point
            answer.consistency = consistency == .application ? .application : .crash
        case .ended(let message):
            answer.state = .ended
            answer.message = message
        }
        return answer
    }

    /// Seals, and answers when the point is durable here.
    func sealBracket(_ subject: BracketSubject, completion: @escaping (Result<Bracket, any Error>) -> Void) {
        do {
            try checkSubject(subject)
            guard let seal = brackets[subject]?.seal(now: .now()) else { throw notOpen(subject) }
            sealPoint(of: subject, seal) { [self] in completion(Result { try bracket(subject) }) }
        } catch {
            completion(.failure(error))
        }
    }

    func endBracket(_ subject: BracketSubject) throws -> Bracket {
        try checkSubject(subject)
        guard brackets[subject]?.end() == true else { throw notOpen(subject) }
        return try bracket(subject)
    }

    /// Ends brackets whose time is over, and forgets those of what is not served any more.
    func expireBrackets() {
        for subject in Array(brackets.keys) {
            if (try? checkSubject(subject)) == nil {
                brackets[subject] = nil
            } else if let seal = brackets[subject]?.expire(now: .now()) {
                recorder.record(
                    "bracket.expired", subject: subject.name, logSubject: identifier(of: subject), severity: .warning,
                    "nobody sealed the bracket of the \(subject.kind.rawValue) in time: its point is crash-consistent")
                sealPoint(of: subject, seal) {}
            }
        }
    }

    private func sealPoint(of subject: BracketSubject, _ seal: PointSeal, then done: @escaping () -> Void) {
        let finished = { [self] (result: Result<(point: PointNumber, consistency: PointConsistency), BlockDeviceError>) in
            brackets[subject]?.finished(result)
            done()
        }
        switch subject.kind {
        case .volume:
            guard let volume = entry(named: subject.name)?.volume else { return finished(.failure(.stopped("it is not served"))) }
            volume.seal(carrying: seal, until: .sealed) { result in
                finished(result.map { ($0, volume.attributes(of: $0)?.consistency ?? .crash) })
            }
        case .group:
            guard let group = group(named: subject.name)?.group else { return finished(.failure(.stopped("it is not served"))) }
            group.seal(carrying: seal) { result in finished(result.map { ($0.number, group.attributes(of: $0)?.consistency ?? .crash) }) }
        }
    }

    private func checkSubject(_ subject: BracketSubject) throws {
        let isServed = subject.kind == .volume ? entry(named: subject.name) != nil : group(named: subject.name) != nil
        if !isServed { throw APIError.notFound(subject.kind.rawValue, subject.name) }
    }

    /// How the log calls it.
    private func identifier(of subject: BracketSubject) -> String {
        switch subject.kind {
        case .volume: entry(named: subject.name)?.grant.identifier ?? ""
        case .group: group(named: subject.name)?.grant.identifier ?? ""
        }
    }

    private func notOpen(_ subject: BracketSubject) -> APIError {
        .conflict(
            "bracket_not_open", "No bracket is open",
            detail: "\(subject.kind.rawValue) \(subject.name) has no open bracket: none was begun, or it has ended by itself",
            action: "see what came of the last one, and begin another")
    }
}
