import Yams

/// Turns the nodes of a file into a `Configuration`: which keys there are, what they must be, what they are when left out.
struct ConfigurationBuilder {
    /// Limits of the values, named for their keys.
    enum Limit {
        static let portals = 16
        static let disks = 1_024
        static let cacheSize = Configuration.Cloud.cacheSizes
        static let writeLogSize = Configuration.Cloud.writeLogSizes
        static let writeLogMemory: ClosedRange<UInt64> = (1 << 20)...(16 << 30)
        static let memoryLimit: ClosedRange<UInt64> = (128 << 20)...(1 << 40)
        /// A sixteenth of the limit, when nothing is said.
        static let memoryPerDeduplicationMemory: UInt64 = 16
        static let readCache: ClosedRange<UInt64> = 0...64 << 30
        static let recoveryPointObjective: ClosedRange<Duration> = .milliseconds(50)...(.seconds(86_400))
        static let timeout: ClosedRange<Duration> = .seconds(1)...(.seconds(86_400))
        static let sealSize: ClosedRange<UInt64> = (1 << 20)...(1 << 30)
        static let congestionControlName = 15
        static let path = 4_000
    }

    let reader: ConfigurationReader
    /// The directory that relative paths start from.
    let directory: String

    func build(_ root: Node) -> Configuration? {
        // The role decides which keys are known, so it is looked at before the others are.
        let roleText = root.mapping?["role"]?.scalar?.string
        let role = roleText.flatMap { ["onprem", "cloud"].contains($0) ? $0 : nil }
        guard let top = reader.section(root, "", role: role) else { return nil }
        if let given = top.required(
            "role", hint: "write role: onprem where the disks are, or role: cloud where the machines run"), role == nil
        {
            top.fail("role", "“\(given)” is not a role", hint: "use onprem or cloud")
        }
        let name = name(top)
        let state = path(top, "state", required: "name the directory where the edge keeps its state") ?? directory
        let log = log(top, role)
        let api = api(top, role, state: state)
        let memoryLimit = top.size("memoryLimit", default: 512 << 20, in: Limit.memoryLimit)
        let link = top.values["link"].flatMap { reader.section($0, "link", role: role) }
        let part: Configuration.Role?
        switch role {
        case "onprem"?: part = .onprem(onprem(top, link))
        case "cloud"?: part = .cloud(cloud(top, link, state: state, memoryLimit: memoryLimit))
        default: part = nil
        }
        let usual = memoryLimit / Limit.memoryPerDeduplicationMemory
        let deduplicationMemory = link?.size("deduplicationMemory", default: usual, in: 0...memoryLimit / 4) ?? usual
        guard let part, let name else { return nil }
        let configuration = Configuration(
            role: part, name: name, stateDirectory: state, log: log, api: api, memoryLimitBytes: memoryLimit,
            linkCongestionControl: congestionControl(link), linkDeduplicationMemoryBytes: deduplicationMemory)
        checkListeners(configuration, top)
        return configuration
    }

    private func name(_ section: Section) -> String? {
        guard let name = section.required("name", hint: "give it a name, for example the site's") else { return nil }
        if let problem = NameRule.problem(name) {
            section.fail("name", problem.message, hint: problem.hint)
            return nil
        }
        return name
    }

    /// A path, absolute; nil when it is missing or wrong. `..` stays, because what it means depends on symbolic links.
    func path(_ section: Section, _ key: String, required hint: String? = nil) -> String? {
        guard let text = hint.map({ section.required(key, hint: $0) }) ?? section.text(key) else { return nil }
        guard !text.isEmpty, !text.utf8.contains(0), text.utf8.count <= Limit.path else {
            section.fail(key, "this is not a path", hint: "write the path of a file or directory")
            return nil
        }
        let whole = text.hasPrefix("/") ? text : directory + "/" + text
        return "/" + whole.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
    }

    private func log(_ top: Section, _ role: String?) -> Configuration.Log {
        guard let node = top.values["log"], let section = reader.section(node, "log", role: role) else { return .init() }
        return .init(level: section.choice("level", default: .info), format: section.choice("format", default: .text))
    }

    private func api(_ top: Section, _ role: String?, state: String) -> Configuration.API {
        var api = Configuration.API(tokenFile: state + "/" + Configuration.defaultTokenFile)
        guard let node = top.values["api"], let section = reader.section(node, "api", role: role) else { return api }
        api.listen = section.address("listen", default: api.listen)
        api.tokenFile = path(section, "tokenFile") ?? api.tokenFile
        api.openMetrics = section.flag("openMetrics", default: false)
        return api
    }

    /// Whether the kernel has it is known when the edge starts.
    private func congestionControl(_ link: Section?) -> String {
        guard let link else { return Configuration.defaultCongestionControl }
        return link.value("congestionControl", default: Configuration.defaultCongestionControl) { text throws(ValueError) in
            let isName = text.utf8.allSatisfy { (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x5f }
            guard isName, 1...Limit.congestionControlName ~= text.utf8.count else {
                throw ValueError(
                    "“\(text)” is no name of a congestion control",
                    hint: "write automatic, system, or a name that net.ipv4.tcp_available_congestion_control lists, such as bbr")
            }
            return text
        }
    }

    private func onprem(_ top: Section, _ link: Section?) -> Configuration.OnPrem {
        var onprem = Configuration.OnPrem()
        if let cache = top.values["readCache"].flatMap({ reader.section($0, "readCache", role: "onprem") }) {
            onprem.readCacheBytes = cache.size("memory", default: onprem.readCacheBytes, in: Limit.readCache)
        }
        if let link {
            onprem.linkListen = link.address("listen", default: onprem.linkListen)
            onprem.linkConnections = link.integer("connections", default: onprem.linkConnections, in: Configuration.connectionsRange)
        }
        guard let node = top.values["disks"], !reader.isNull(node) else { return onprem }
        guard let sequence = node.sequence else {
            reader.fail(node, "disks: expected a list, found \(reader.describe(node))", hint: "begin each disk with “- name: …”")
            return onprem
        }
        if sequence.count > Limit.disks {
            reader.fail(node, "disks: \(sequence.count) disks are more than the \(Limit.disks) that an edge serves")
        }
        for item in sequence.prefix(Limit.disks) {
            guard let section = reader.section(item, "disks[]", role: "onprem") else { continue }
            let name = name(section)
            let path = path(section, "path", required: "name the file or block device")
            let readOnly = section.flag("readOnly", default: false)
            guard let name, let path else { continue }
            if onprem.disks.contains(where: { $0.name == name }) {
                section.fail("name", "“\(name)” is there twice", hint: "give each disk its own name")
            }
            if let other = onprem.disks.first(where: { $0.path == path }) {
                section.fail("path", "disk “\(other.name)” has the same path", hint: "name each file or block device once")
            }
            onprem.disks.append(.init(name: name, path: path, readOnly: readOnly))
        }
        return onprem
    }

    private func cloud(_ top: Section, _ link: Section?, state: String, memoryLimit: UInt64) -> Configuration.Cloud {
        var cloud = Configuration.Cloud(cachePath: state + "/" + Configuration.defaultCacheFile)
        func section(_ name: String) -> Section? { top.values[name].flatMap { reader.section($0, name, role: "cloud") } }
        if let link {
            cloud.linkConnect = link.value("connect", default: nil) { text throws(ValueError) in try NetworkAddress(dialling: text) }
            if link.values["listen"] != nil {
                cloud.linkListen = link.value("listen", default: nil) { text throws(ValueError) in try NetworkAddress(parsing: text) }
                if link.values["connect"] != nil {
                    link.fail(
                        "listen", "link.connect is there too",
                        hint: "keep connect where this edge dials, listen where the on-prem edge does")
                }
            }
            cloud.linkConnections = link.integer("connections", default: cloud.linkConnections, in: Configuration.connectionsRange)
        }
        if let target = section("target") {
            if let node = target.values["listen"] { cloud.targetListen = addresses(node, key: "target.listen") ?? cloud.targetListen }
            cloud.discoveryAuthentication = target.choice("discoveryAuthentication", default: cloud.discoveryAuthentication)
            cloud.keepsProcessorsAwake = target.flag("keepProcessorsAwake", default: cloud.keepsProcessorsAwake)
        }
        cloud.nbd = section("nbd").map { nbd($0) }
        if let cache = section("cache") {
            cloud.cachePath = path(cache, "path") ?? cloud.cachePath
            cloud.sharesCachedBlocks = cache.flag("sharing", default: cloud.sharesCachedBlocks)
            cloud.cacheSizeBytes = cache.size("size", default: cloud.cacheSizeBytes, in: Limit.cacheSize)
        }
        let writeLog = section("writeLog")
        cloud.writeLogSizeBytes =
            writeLog?.size("size", default: cloud.writeLogSizeBytes, in: Limit.writeLogSize) ?? cloud.writeLogSizeBytes
        cloud.writeLogMemoryBytes =
            writeLog?.size("memory", default: cloud.writeLogMemoryBytes, in: Limit.writeLogMemory) ?? cloud.writeLogMemoryBytes
        let points = section("points")
        cloud.recoveryPointObjective =
            points?.duration("recoveryPointObjective", default: cloud.recoveryPointObjective, in: Limit.recoveryPointObjective)
            ?? cloud.recoveryPointObjective
        cloud.sealSizeBytes = points?.size("sealSize", default: cloud.sealSizeBytes, in: Limit.sealSize) ?? cloud.sealSizeBytes
        if let timeouts = section("timeouts") {
            cloud.readTimeout = timeouts.duration("read", default: cloud.readTimeout, in: Limit.timeout)
            cloud.writeTimeout = timeouts.duration("write", default: cloud.writeTimeout, in: Limit.timeout)
        }
        checkSizes(cloud, memoryLimit: memoryLimit, writeLog ?? top, points ?? top)
        return cloud
    }

    /// One address, or a list of them.
    func addresses(_ node: Node, key: String) -> [NetworkAddress]? {
        let items = node.sequence.map { Array($0) } ?? [node]
        guard (1...Limit.portals).contains(items.count) else {
            reader.fail(node, "\(key): expected 1 to \(Limit.portals) addresses, found \(items.count)")
            return nil
        }
        var found: [NetworkAddress] = []
        for item in items {
            guard let text = item.scalar?.string, !reader.isNull(item) else {
                reader.fail(
                    item, "\(key): expected an address, found \(reader.describe(item))",
                    hint: "write host:port, for example 127.0.0.1:3260")
                continue
            }
            do {
                let address = try NetworkAddress(parsing: text)
                if found.contains(address), address.port != 0 { reader.fail(item, "\(key): \(address) is there twice") }
                found.append(address)
            } catch {
                reader.fail(item, key: key, error)
            }
        }
        return found.count == items.count ? found : nil
    }

    /// What single values cannot show: the log must take two points, and memory what is kept there.
    private func checkSizes(_ cloud: Configuration.Cloud, memoryLimit: UInt64, _ writeLog: Section, _ points: Section) {
        func text(_ bytes: UInt64) -> String { ByteSize.text(bytes) }
        if cloud.sealSizeBytes > cloud.writeLogSizeBytes / 2 {
            reader.fail(
                points.values["sealSize"] ?? writeLog.values["size"] ?? points.node,
                "points.sealSize: \(text(cloud.sealSizeBytes)) is more than half of writeLog.size, \(text(cloud.writeLogSizeBytes))",
                hint:
                    "one point is sent while the next is written, so the log must hold two: make sealSize smaller or the log larger"
            )
        }
        if cloud.writeLogMemoryBytes > memoryLimit / 2 {
            reader.fail(
                writeLog.values["memory"] ?? writeLog.node,
                "writeLog.memory: \(text(cloud.writeLogMemoryBytes)) is more than half of memoryLimit, \(text(memoryLimit))",
                hint: "the cache and the link need memory too: make it smaller or memoryLimit larger")
        }
    }

    /// Two listeners on one address cannot both start.
    private func checkListeners(_ configuration: Configuration, _ top: Section) {
        guard configuration.api.listen.port != 0 else { return }
        let api = configuration.api.listen
        switch configuration.role {
        case .onprem(let onprem) where onprem.linkListen == api:
            reader.fail(
                top.values["link"] ?? top.values["api"], "link.listen: \(api) is the address of api.listen",
                hint: "give each its own port")
        case .cloud(let cloud) where cloud.targetListen.contains(api):
            reader.fail(
                top.values["target"] ?? top.values["api"], "target.listen: \(api) is the address of api.listen",
                hint: "give each its own port")
        case .cloud(let cloud) where cloud.linkListen.map { $0.port != 0 && ($0 == api || cloud.targetListen.contains($0)) } == true:
            reader.fail(
                top.values["link"] ?? top.values["api"], "link.listen: this is the address of another listener",
                hint: "give each its own port")
        case .cloud(let cloud):
            for address in cloud.nbd?.listen ?? [] where address.port != 0 && (address == api || cloud.targetListen.contains(address)) {
                reader.fail(
                    top.values["nbd"], "nbd.listen: \(address) is the address of another listener", hint: "give each its own port")
            }
        default:
            break
        }
    }
}
