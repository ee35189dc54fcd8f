/// One key of the configuration file. The reader knows keys from this list only, and the reference page is tested against it.
struct ConfigurationKey: Sendable {
    /// The roles that a key belongs to.
    enum Roles: Sendable {
        case both, onprem, cloud

        func contains(_ role: String) -> Bool {
            switch self {
            case .both: true
            case .onprem: role == "onprem"
            case .cloud: role == "cloud"
            }
        }
    }

    /// The section: empty at the top, `disks[]` for an item of `disks`.
    var section: String
    var name: String
    var roles: Roles

    /// The key as the reference page writes it.
    var path: String { section.isEmpty ? name : "\(section).\(name)" }

    static let all: [ConfigurationKey] = [
        .init(section: "", name: "role", roles: .both),
        .init(section: "", name: "name", roles: .both),
        .init(section: "", name: "state", roles: .both),
        .init(section: "", name: "log", roles: .both),
        .init(section: "log", name: "level", roles: .both),
        .init(section: "log", name: "format", roles: .both),
        .init(section: "", name: "api", roles: .both),
        .init(section: "api", name: "listen", roles: .both),
        .init(section: "api", name: "tokenFile", roles: .both),
        .init(section: "api", name: "openMetrics", roles: .both),
        .init(section: "", name: "memoryLimit", roles: .both),
        .init(section: "", name: "link", roles: .both),
        .init(section: "link", name: "congestionControl", roles: .both),
        .init(section: "link", name: "deduplicationMemory", roles: .both),
        .init(section: "link", name: "listen", roles: .both),
        .init(section: "link", name: "connections", roles: .both),
        .init(section: "", name: "readCache", roles: .onprem),
        .init(section: "readCache", name: "memory", roles: .onprem),
        .init(section: "", name: "disks", roles: .onprem),
        .init(section: "disks[]", name: "name", roles: .onprem),
        .init(section: "disks[]", name: "path", roles: .onprem),
        .init(section: "disks[]", name: "readOnly", roles: .onprem),
        .init(section: "link", name: "connect", roles: .cloud),
        .init(section: "", name: "target", roles: .cloud),
        .init(section: "target", name: "listen", roles: .cloud),
        .init(section: "target", name: "discoveryAuthentication", roles: .cloud),
        .init(section: "target", name: "keepProcessorsAwake", roles: .cloud),
        .init(section: "", name: "nbd", roles: .cloud),
        .init(section: "nbd", name: "listen", roles: .cloud),
        .init(section: "nbd", name: "allowPlain", roles: .cloud),
        .init(section: "nbd", name: "tls", roles: .cloud),
        .init(section: "nbd.tls", name: "certificate", roles: .cloud),
        .init(section: "nbd.tls", name: "key", roles: .cloud),
        .init(section: "nbd.tls", name: "clientAuthority", roles: .cloud),
        .init(section: "nbd.tls", name: "required", roles: .cloud),
        .init(section: "nbd.tls", name: "anyClient", roles: .cloud),
        .init(section: "", name: "cache", roles: .cloud),
        .init(section: "cache", name: "path", roles: .cloud),
        .init(section: "cache", name: "size", roles: .cloud),
        .init(section: "cache", name: "sharing", roles: .cloud),
        .init(section: "", name: "writeLog", roles: .cloud),
        .init(section: "writeLog", name: "size", roles: .cloud),
        .init(section: "writeLog", name: "memory", roles: .cloud),
        .init(section: "", name: "points", roles: .cloud),
        .init(section: "points", name: "recoveryPointObjective", roles: .cloud),
        .init(section: "points", name: "sealSize", roles: .cloud),
        .init(section: "", name: "timeouts", roles: .cloud),
        .init(section: "timeouts", name: "read", roles: .cloud),
        .init(section: "timeouts", name: "write", roles: .cloud),
    ]

    /// Keys of earlier versions, by their paths, and what has become of them.
    static let gone = ["target.busyPoll": "this key is gone, because it had no effect: delete the line"]
}

/// Finds the word that somebody meant.
enum Nearest {
    /// The known word nearest to the given one, when it is near enough to be meant.
    static func word(to given: String, in known: [String]) -> String? {
        let flat = flatten(given)
        let limit = max(1, flat.count / 3)
        let ranked = known.map { ($0, distance(flat, flatten($0))) }.filter { $0.1 <= limit }
        return ranked.min { $0.1 < $1.1 }?.0
    }

    /// Lower case without `_` and `-`, so that `token_file` is as good as `tokenFile`. Cut at 64 characters.
    private static func flatten(_ text: String) -> [Character] {
        Array(text.lowercased().filter { $0 != "_" && $0 != "-" }.prefix(64))
    }

    /// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other.
    private static func distance(_ left: [Character], _ right: [Character]) -> Int {
        var before: [Int] = []
        var last = Array(0...right.count)
        for i in left.indices {
            var row = [i + 1]
            for j in right.indices {
                var best = min(last[j + 1] + 1, row[j] + 1, last[j] + (left[i] == right[j] ? 0 : 1))
                if i > 0, j > 0, left[i] == right[j - 1], left[i - 1] == right[j] { best = min(best, before[j - 1] + 1) }
                row.append(best)
            }
            before = last
            last = row
        }
        return last[right.count]
    }
}
