import APIModels
import LinkProtocol
import NIOCore

/// The calls of one edge to its peer that wait for their answers. Lives on the data loop.
final class ControlCalls {
    /// How many calls may wait; one more fails at once.
    static let callsMax = 1_000
    /// How long a call waits for its answer.
    static let timeout: TimeAmount = .seconds(60)

    private struct Waiting {
        let method: String
        let deadline: NIODeadline
        let completion: (Result<ByteBuffer, any Error>) -> Void
    }

    private var waiting: [UInt64: Waiting] = [:]
    private var nextCall: UInt64 = 1

    /// Makes a call. `send` hands the message to the link and says whether it was taken.
    func call(
        _ method: String, body: ByteBuffer, timeout: TimeAmount = ControlCalls.timeout, send: (LinkMessage) -> Bool,
        completion: @escaping (Result<ByteBuffer, any Error>) -> Void
    ) {
        guard waiting.count < Self.callsMax, send(.request(call: nextCall, method: method, body: body)) else {
            return completion(.failure(Self.linkProblem("the link to the other edge is down or busy")))
        }
        waiting[nextCall] = Waiting(method: method, deadline: .now() + timeout, completion: completion)
        nextCall &+= 1
    }

    /// The answer to a call has come. An answer to nothing is ignored: the call has timed out.
    func receive(call: UInt64, status: UInt16, body: ByteBuffer) {
        guard let waiting = waiting.removeValue(forKey: call) else { return }
        if (200..<300).contains(status) { return waiting.completion(.success(body)) }
        let problem = try? ControlCoding.decode(Problem.self, from: body)
        waiting.completion(
            .failure(
                problem
                    ?? Problem(
                        status: Int(status), code: "peer_error", title: "The other edge refused",
                        detail: "the call \(waiting.method) was answered with status \(status)")))
    }

    /// No call of the session that was lost will be answered.
    func sessionLost() {
        let lost = waiting.sorted { $0.key < $1.key }
        waiting = [:]
        for (_, call) in lost {
            call.completion(.failure(Self.linkProblem("the session with the other edge was lost before it answered \(call.method)")))
        }
    }

    /// Fails the calls whose time is over.
    func tick(now: NIODeadline) {
        for (identifier, call) in waiting where call.deadline <= now {
            waiting[identifier] = nil
            call.completion(
                .failure(
                    Problem(
                        status: 503, code: Problem.noAnswerCode, title: "The other edge has not answered in time",
                        detail: "\(call.method) takes the other edge longer than it was given, or the link is slow",
                        action: "look at that edge, then try again")))
        }
    }

    private static func linkProblem(_ detail: String) -> Problem {
        Problem(
            status: 503, code: "link_down", title: "The other edge can't be reached", detail: detail,
            action: "look at `causeway link list` on both edges, then try again")
    }
}
