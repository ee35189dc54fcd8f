/// What one edge process is told by its configuration file.
///
/// Paths are absolute after `load`: relative ones in the file are taken from the directory of the file.
public struct Configuration: Sendable, Equatable {
    /// How much is logged.
    public enum LogLevel: String, Sendable, CaseIterable {
        case trace, debug, info, notice, warning, error, critical
    }

    /// How a log line looks.
    public enum LogFormat: String, Sendable, CaseIterable {
        case text, json
    }

    /// `log`: the lines on standard error.
    public struct Log: Sendable, Equatable {
        public var level: LogLevel
        public var format: LogFormat

        public init(level: LogLevel = .info, format: LogFormat = .text) {
            self.level = level
            self.format = format
        }
    }

    /// `api`: the management API.
    public struct API: Sendable, Equatable {
        public var listen: NetworkAddress
        /// The file of the bearer token; made with mode 0600 at the first start when it is missing.
        public var tokenFile: String
        /// Serve `/metrics` to anyone who can connect.
        public var openMetrics: Bool

        public init(listen: NetworkAddress = .init(host: "127.0.0.1", port: 7480), tokenFile: String, openMetrics: Bool = false) {
            self.listen = listen
            self.tokenFile = tokenFile
            self.openMetrics = openMetrics
        }
    }

    /// One item of `disks`.
    public struct Disk: Sendable, Equatable {
        public var name: String
        public var path: String
        public var readOnly: Bool

        public init(name: String, path: String, readOnly: Bool = false) {
            self.name = name
            self.path = path
            self.readOnly = readOnly
        }
    }

    /// The keys of an on-prem edge.
    public struct OnPrem: Sendable, Equatable {
        /// `link.listen`: where cloud edges connect.
        public var linkListen: NetworkAddress
        /// `link.connections`: how many connections the links open that this edge dials.
        public var linkConnections: Int
        /// `readCache.memory`: what is kept of the disks because it was read more than once takes so much; 0 for nothing.
        public var readCacheBytes: UInt64
        public var disks: [Disk]

        public init(
            linkListen: NetworkAddress = .init(host: "127.0.0.1", port: 7481), linkConnections: Int = defaultConnections,
            readCacheBytes: UInt64 = 128 << 20, disks: [Disk] = []
        ) {
            self.linkListen = linkListen
            self.linkConnections = linkConnections
            self.readCacheBytes = readCacheBytes
            self.disks = disks
        }
    }

    /// Whether initiators must prove by CHAP who they are before SendTargets shows them what they may use.
    public enum DiscoveryAuthentication: String, Sendable, CaseIterable {
        case optional, required, none
    }

    /// The keys of a cloud edge.
    public struct Cloud: Sendable, Equatable {
        /// `link.connect`: the on-prem edge; nil when pairing says it.
        public var linkConnect: NetworkAddress?
        /// `link.listen`: where this edge waits for the on-prem edge, which dials it; nil when this one dials.
        public var linkListen: NetworkAddress?
        /// `link.connections`: how many connections the link opens.
        public var linkConnections: Int
        /// `target.listen`: the iSCSI portals.
        public var targetListen: [NetworkAddress]
        /// `target.discoveryAuthentication`: what discovery asks for.
        public var discoveryAuthentication: DiscoveryAuthentication
        /// `target.keepProcessorsAwake`: processors don't halt while initiators wait for one answer after the other.
        public var keepsProcessorsAwake: Bool
        /// `nbd`: the NBD listeners; nil when there is no such section.
        public var nbd: NBD?
        /// `cache.path`: the file or block device of the cache.
        public var cachePath: String
        public var cacheSizeBytes: UInt64
        /// `cache.sharing`: equal blocks are stored once.
        public var sharesCachedBlocks: Bool
        /// The sizes that a cache may have.
        public static let cacheSizes: ClosedRange<UInt64> = (16 << 20)...(4 << 40)
        /// `writeLog.size`: how much of unsent writes the edge keeps on disk.
        public var writeLogSizeBytes: UInt64
        /// The sizes that a write log may have.
        public static let writeLogSizes: ClosedRange<UInt64> = (16 << 20)...(16 << 40)
        /// `writeLog.memory`: how much of them may wait for the disk.
        public var writeLogMemoryBytes: UInt64
        /// `points.recoveryPointObjective`: the longest time between points while there are writes.
        public var recoveryPointObjective: Duration
        /// `points.sealSize`: a point is sealed as soon as this much was written.
        public var sealSizeBytes: UInt64
        /// `timeouts.read`: how long a read of what is not in the cache waits while the link is down.
        public var readTimeout: Duration
        /// `timeouts.write`: how long a write waits for room in a full write log.
        public var writeTimeout: Duration

        public init(
            linkConnect: NetworkAddress? = nil, linkListen: NetworkAddress? = nil, linkConnections: Int = defaultConnections,
            targetListen: [NetworkAddress] = [.init(host: "127.0.0.1", port: 3260)],
            discoveryAuthentication: DiscoveryAuthentication = .optional, keepsProcessorsAwake: Bool = true, nbd: NBD? = nil,
            cachePath: String,
            cacheSizeBytes: UInt64 = 10 << 30, sharesCachedBlocks: Bool = true,
            writeLogSizeBytes: UInt64 = 4 << 30, writeLogMemoryBytes: UInt64 = 32 << 20,
            recoveryPointObjective: Duration = .seconds(5),
            sealSizeBytes: UInt64 = 64 << 20, readTimeout: Duration = .seconds(20), writeTimeout: Duration = .seconds(20)
        ) {
            self.linkConnect = linkConnect
            self.linkListen = linkListen
            self.linkConnections = linkConnections
            self.targetListen = targetListen
            self.discoveryAuthentication = discoveryAuthentication
            self.keepsProcessorsAwake = keepsProcessorsAwake
            self.nbd = nbd
            self.cachePath = cachePath
            self.cacheSizeBytes = cacheSizeBytes
            self.sharesCachedBlocks = sharesCachedBlocks
            self.writeLogSizeBytes = writeLogSizeBytes
            self.writeLogMemoryBytes = writeLogMemoryBytes
            self.recoveryPointObjective = recoveryPointObjective
            self.sealSizeBytes = sealSizeBytes
            self.readTimeout = readTimeout
            self.writeTimeout = writeTimeout
        }
    }

    /// `role`, with the keys that only that role has.
    public enum Role: Sendable, Equatable {
        case onprem(OnPrem)
        case cloud(Cloud)

        /// The word in the file.
        public var name: String {
            switch self {
            case .onprem: "onprem"
            case .cloud: "cloud"
            }
        }
    }

    public var role: Role
    /// How the edge is called in the API, in logs and by its peers.
    public var name: String
    /// `state`: the directory that the edge owns.
    public var stateDirectory: String
    public var log: Log
    public var api: API
    /// `memoryLimit`: the bound of what the edge keeps in memory at any load.
    public var memoryLimitBytes: UInt64
    /// `link.congestionControl`: what decides how fast the link's connections may send: `automatic`, `system`, or an algorithm's name.
    public var linkCongestionControl: String
    /// `link.deduplicationMemory`: what the edge remembers of the blocks that the other one has takes so much; 0 for nothing, then equal blocks
    /// cross again.
    public var linkDeduplicationMemoryBytes: UInt64

    public init(
        role: Role, name: String, stateDirectory: String, log: Log = Log(), api: API, memoryLimitBytes: UInt64 = 512 << 20,
        linkCongestionControl: String = defaultCongestionControl, linkDeduplicationMemoryBytes: UInt64 = 32 << 20
    ) {
        self.role = role
        self.name = name
        self.stateDirectory = stateDirectory
        self.log = log
        self.api = api
        self.memoryLimitBytes = memoryLimitBytes
        self.linkCongestionControl = linkCongestionControl
        self.linkDeduplicationMemoryBytes = linkDeduplicationMemoryBytes
    }

    /// A configuration with every default, for programs that make one.
    public static func onprem(name: String, stateDirectory: String, disks: [Disk] = []) -> Configuration {
        Configuration(
            role: .onprem(OnPrem(disks: disks)), name: name, stateDirectory: stateDirectory,
            api: API(tokenFile: stateDirectory + "/" + defaultTokenFile))
    }

    /// A configuration with every default, for programs that make one.
    public static func cloud(name: String, stateDirectory: String, connect: NetworkAddress? = nil) -> Configuration {
        Configuration(
            role: .cloud(Cloud(linkConnect: connect, cachePath: stateDirectory + "/" + defaultCacheFile)), name: name,
            stateDirectory: stateDirectory, api: API(tokenFile: stateDirectory + "/" + defaultTokenFile))
    }

    /// `link.congestionControl` when it is left out.
    public static let defaultCongestionControl = "automatic"
    /// `link.connections` when it is left out.
    public static let defaultConnections = 8
    /// What `link.connections` may be.
    public static let connectionsRange = 1...16
    /// The name of the token file in the state directory, when `api.tokenFile` is left out.
    public static let defaultTokenFile = "api-token"
    /// The name of the cache file in the state directory, when `cache.path` is left out.
    public static let defaultCacheFile = "cache"

    /// The listeners that other machines can reach, as `key address`, for the log line at start: everything is on loopback unless
    /// the file says otherwise.
    public var exposedListeners: [String] {
        var listeners: [(String, NetworkAddress)] = [("api.listen", api.listen)]
        switch role {
        case .onprem(let onprem): listeners.append(("link.listen", onprem.linkListen))
        case .cloud(let cloud):
            listeners += (cloud.linkListen.map { [("link.listen", $0)] } ?? []) + cloud.targetListen.map { ("target.listen", $0) }
            listeners += (cloud.nbd?.listen ?? []).map { ("nbd.listen", $0) }
        }
        return listeners.filter { !$0.1.isLoopback }.map { "\($0.0) \($0.1)" }
    }
}
