import APIModels
import Files
import Foundation
import ManagementAPI

/// What is sent to each peer at most, in a file of its own in the state directory: so it outlives restarts.
struct KeptShapings {
    private static let fileName = "link-shaping"
    private static let fileBytesMax = 4 << 20

    private struct Stored: Codable {
        var version = 1
        var links: [String: LinkShaping]
    }

    private(set) var byPeer: [String: LinkShaping] = [:]

    /// What was kept; nothing when there is no such file.
    /// - Throws: when it can't be read. Then there are no limits.
    static func read(in directory: OpenDirectory) throws -> KeptShapings {
        guard try directory.list().contains(fileName) else { return KeptShapings() }
        let bytes = try directory.readFile(fileName, byteCountMax: fileBytesMax)
        let stored = try JSONDecoder().decode(Stored.self, from: Data(bytes))
        guard stored.version == 1 else { throw Problem.shapingOfAnotherVersion(stored.version) }
        for shaping in stored.links.values { try shaping.check() }
        return KeptShapings(byPeer: stored.links)
    }

    /// Changes the limits for a peer, and keeps them durably. It blocks.
    /// - Returns: the limits as they are now.
    mutating func change(_ peer: String, _ change: LinkChange, in directory: OpenDirectory) throws -> LinkShaping {
        var shaping = byPeer[peer] ?? LinkShaping()
        shaping.rates = change.rates ?? shaping.rates
        shaping.schedule = change.schedule ?? shaping.schedule
        try shaping.check()
        var links = byPeer
        links[peer] = shaping == LinkShaping() ? nil : shaping
        try keep(links, in: directory)
        return shaping
    }

    /// Gives the limits of a peer to another one, or to nobody, and keeps that durably. It blocks.
    mutating func move(from peer: String, to heir: String?, in directory: OpenDirectory) throws {
        var links = byPeer
        let shaping = links.removeValue(forKey: peer)
        if let heir { links[heir] = shaping }
        try keep(links, in: directory)
    }

    private mutating func keep(_ links: [String: LinkShaping], in directory: OpenDirectory) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        do {
            try directory.replaceFile(Self.fileName, with: Array(encoder.encode(Stored(links: links))))
        } catch {
            throw Problem(
                status: 507, code: "state_directory", title: "The limits can't be kept", detail: "\(error)",
                action: "make room in the state directory, or mend its file system")
        }
        byPeer = links
    }
}

extension Problem {
    fileprivate static func shapingOfAnotherVersion(_ version: Int) -> Problem {
        Problem(
            status: 500, code: "state_version", title: "The limits of links are of another version",
            detail: "version \(version); this edge reads version 1")
    }
}
