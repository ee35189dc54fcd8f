import APIModels
import Foundation
import Testing

/// Writes to a volume whose every sealed point is remembered by its signature; see `Tests/EndToEnd/point-ledger`.
struct PointLedger {
    private static let program = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("point-ledger").path

    let lab: Lab
    let volume: String
    /// The point that the disk at home was at when it was looked at last, by its line in the ledger.
    private(set) var line = 0

    init(_ lab: Lab, _ volume: String) {
        self.lab = lab
        self.volume = volume
    }

    private var path: String { lab.directory.appendingPathComponent("\(volume).points").path }

    /// Begins to write, by an NBD URL, until SIGTERM. Only the ledger may seal points of the volume, so the lab must not by time.
    func start(_ url: String, seconds: Int, losesUnflushed: Bool = false, reads: Int = 20, seed: Int = 1) throws -> RunningCommand {
        let edge = lab.edge(.cloud)
        return try Command.start(
            Self.program,
            ["run", url, path, "--volume", volume, "--seconds", "\(seconds)", "--rate", "300", "--reads", "\(reads)", "--seed", "\(seed)"]
                + (losesUnflushed ? ["--loses-unflushed"] : []),
            environment: ["CAUSEWAY_API": edge.api, "CAUSEWAY_TOKEN": edge.token])
    }

    /// The disk at home has applied what home has received, that which the cloud edge was told of too, and nothing more can come: it equals a
    /// sealed point, none before the one that it was at before.
    mutating func matchHome(havingReceived received: UInt64 = 1) async throws {
        try await Lab.untilTrue(seconds: 60, "home to have applied what it has received of \(volume)") {
            guard let points = try await points() else { return false }
            return points.received >= max(1, received) && points.applied == points.received
        }
        line = try await match(lab.disk(volume), "--not-before", "\(line)")
    }

    /// Waits until home has a point of it: from then on there is something to match, whatever is cut.
    func untilReceived() async throws {
        try await Lab.untilTrue(seconds: 60, "home to have received a point of \(volume)") {
            try await points().map { $0.received > 0 } ?? false
        }
    }

    /// What home says of its points; nil while it does not answer.
    private func points() async throws -> APIModels.Volume.Points? {
        let shown = try await lab.causeway(.onprem, "volume", "show", volume, "--output", "json")
        guard shown.isSuccess else { return nil }
        return try APICoding.decoder().decode(APIModels.Volume.self, from: Data(shown.output.utf8)).points
    }

    /// What is at a path holds all that was written.
    func matchLast(_ path: String) async throws { _ = try await match(path, "--last") }

    private func match(_ image: String, _ arguments: String...) async throws -> Int {
        let result = try await Command.run(Self.program, ["match", image, path] + arguments, seconds: 120)
        #expect(result.isSuccess, "\(volume): \(result)")
        return Int(result.output.trimmingCharacters(in: .whitespacesAndNewlines)) ?? line
    }
}
