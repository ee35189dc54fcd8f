import APIModels
import EdgeConfiguration
import Files
import Foundation
import ManagementAPI
import NIOPosix

/// What is sent to each peer at most, in a file of its own in the state directory: so it outlives restarts.
///
/// One change is made at a time, in the order in which they came: it is kept, on a thread that may wait for the disk, and then in force.
actor KeptShapings {
    /// So many changes may wait for those before them.
    static let waitingMax = 64
    private static let fileName = "link-shaping"
    private static let fileBytesMax = 4 << 20

    private struct Stored: Codable {
        var version = 1
        var links: [String: LinkShaping]
    }

    private(set) var byPeer: [String: LinkShaping]
    private let directory: OpenDirectory
    private let threadPool: NIOThreadPool
    /// Puts the limits in force. It is called in the order of the changes.
    private let enforce: @Sendable ([String: LinkShaping]) -> Void
    private var unfinished = 0
    private var last: Task<Void, Never>?

    /// Takes over what was kept, and puts it in force.
    init(
        _ byPeer: [String: LinkShaping], directory: OpenDirectory, threadPool: NIOThreadPool,
        enforce: @escaping @Sendable ([String: LinkShaping]) -> Void
    ) {
        self.byPeer = byPeer
        self.directory = directory
        self.threadPool = threadPool
        self.enforce = enforce
        enforce(byPeer)
    }

    /// What was kept; nothing when there is no such file. It blocks.
    /// - Throws: when it can't be read. Then there are no limits.
    static func read(in directory: OpenDirectory) throws -> [String: LinkShaping] {
        guard try directory.list().contains(fileName) else { return [:] }
        let bytes = try directory.readFile(fileName, byteCountMax: fileBytesMax)
        let stored = try JSONDecoder().decode(Stored.self, from: Data(bytes))
        guard stored.version == 1 else { throw Problem.shapingOfAnotherVersion(stored.version) }
        for shaping in stored.links.values { try shaping.check() }
        return stored.links
    }

    /// Changes the limits for a peer, durably.
    /// - Returns: the limits as they are then.
    @discardableResult
    func change(_ peer: String, _ change: LinkChange) async throws -> LinkShaping {
        try await inTurn { links in
            let shaping = try (links[peer] ?? LinkShaping()).changed(by: change)
            links[peer] = shaping == LinkShaping() ? nil : shaping
            return shaping
        }
    }

    /// Gives the limits of a peer to another one, or to nobody, durably.
    func move(from peer: String, to heir: String?) async throws {
        try await inTurn { links in
            guard let shaping = links.removeValue(forKey: peer), let heir else { return }
            links[heir] = shaping
        }
    }

    /// Forgets limits that nobody can ask for any more.
    func keepOnly(_ peers: Set<String>) async throws {
        try await inTurn { links in links = links.filter { peers.contains($0.key) } }
    }

    private func inTurn<Answer: Sendable>(
        _ change: @escaping @Sendable (inout [String: LinkShaping]) throws -> Answer
    ) async throws -> Answer {
        guard unfinished <= Self.waitingMax else { throw Problem.tooManyShapings }
        unfinished += 1
        defer { unfinished -= 1 }
        let task = Task { [last] in
            await last?.value
            return try await make(change)
        }
        last = Task { _ = await task.result }
        return try await task.value
    }

    private func make<Answer: Sendable>(_ change: (inout [String: LinkShaping]) throws -> Answer) async throws -> Answer {
        var links = byPeer
        let answer = try change(&links)
        if links == byPeer { return answer }
        let kept = links
        do {
            try await threadPool.runIfActive { [directory] in try Self.keep(kept, in: directory) }
        } catch {
            throw Problem(
                status: 507, code: "state_directory", title: "The limits can't be kept", detail: "\(error)",
                action: "make room in the state directory, or mend its file system")
        }
        byPeer = kept
        enforce(kept)
        return answer
    }

    private static func keep(_ links: [String: LinkShaping], in directory: OpenDirectory) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let bytes = try encoder.encode(Stored(links: links))
        if bytes.count > fileBytesMax { throw Problem.tooManyLinks(fileBytesMax) }
        try directory.replaceFile(fileName, with: Array(bytes))
    }
}

extension Problem {
    fileprivate static func shapingOfAnotherVersion(_ version: Int) -> Problem {
        Problem(
            status: 500, code: "state_version", title: "The limits of links are of another version",
            detail: "version \(version); this edge reads version 1")
    }

    fileprivate static func tooManyLinks(_ byteCount: Int) -> Problem {
        Problem(
            status: 507, code: "state_directory", title: "The limits of links take too much room",
            detail: "schedules of all links would take more than \(ByteSize.text(UInt64(byteCount)))")
    }

    fileprivate static var tooManyShapings: Problem {
        Problem(
            status: 503, code: "busy", title: "Limits are being changed",
            detail: "\(KeptShapings.waitingMax) changes wait for one another already", action: "Try again.")
    }
}
