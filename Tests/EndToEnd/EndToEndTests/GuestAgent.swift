import Foundation

/// What a command in a guest left behind.
struct GuestResult: CustomStringConvertible {
    let status: Int
    /// The end of what it wrote to both of its outputs.
    let output: String

    var isSuccess: Bool { status == 0 }
    var description: String { "status \(status)\n\(output)" }
}

/// The test's end of the line to the agent in a guest (`Tests/EndToEnd/TestGuest/agent` has the protocol): puts together the lines
/// that come and gives each answer to whoever waits for it.
actor GuestAgent {
    /// The number under which the machine's being up is waited for.
    static let readiness = 0

    private var line: [UInt8] = []
    private var results: [Int: Result<GuestResult, CommandFailure>] = [:]
    private var waiters: [Int: CheckedContinuation<GuestResult, any Error>] = [:]
    private var ending: CommandFailure?

    /// Takes bytes from the guest.
    func receive(_ bytes: [UInt8]) {
        for byte in bytes {
            if byte != UInt8(ascii: "\n") {
                line.append(byte)
            } else {
                take(String(decoding: line, as: UTF8.self))
                line.removeAll()
            }
        }
    }

    /// The guest has ended: nothing more will come.
    func end(_ failure: CommandFailure) {
        ending = failure
        for waiter in waiters.values { waiter.resume(throwing: failure) }
        waiters.removeAll()
    }

    /// Waits for an answer at most `seconds`.
    func result(of identifier: Int, seconds: Double) async throws -> GuestResult {
        let limit = Task {
            try await Task.sleep(for: .seconds(seconds))
            settle(identifier, .failure(CommandFailure(description: "the guest did not answer within \(seconds) s")))
        }
        defer { limit.cancel() }
        return try await withCheckedThrowingContinuation { continuation in
            if let result = results.removeValue(forKey: identifier) {
                continuation.resume(with: result)
            } else if let ending {
                continuation.resume(throwing: ending)
            } else {
                waiters[identifier] = continuation
            }
        }
    }

    private func take(_ line: String) {
        let words = line.split(separator: " ", omittingEmptySubsequences: false)
        if words.first == "ready" {
            settle(Self.readiness, .success(GuestResult(status: 0, output: "")))
        } else if words.count == 4, words[0] == "done", let identifier = Int(words[1]), let status = Int(words[2]),
            let output = Data(base64Encoded: String(words[3]))
        {
            settle(identifier, .success(GuestResult(status: status, output: String(decoding: output, as: UTF8.self))))
        }
    }

    private func settle(_ identifier: Int, _ result: Result<GuestResult, CommandFailure>) {
        if let waiter = waiters.removeValue(forKey: identifier) {
            waiter.resume(with: result)
        } else {
            results[identifier] = result
        }
    }
}
