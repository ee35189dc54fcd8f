extension Configuration {
    /// The text of a configuration file that says every value, defaults too. `parse` of it gives the same configuration.
    public static func render(_ configuration: Configuration) -> String {
        var lines = [
            "role: \(configuration.role.name)",
            "name: \(quote(configuration.name))",
            "state: \(quote(configuration.stateDirectory))",
            "memoryLimit: \(ByteSize.text(configuration.memoryLimitBytes))",
            "log:",
            "  level: \(configuration.log.level.rawValue)",
            "  format: \(configuration.log.format.rawValue)",
            "api:",
            "  listen: \(quote(configuration.api.listen.description))",
            "  tokenFile: \(quote(configuration.api.tokenFile))",
            "  openMetrics: \(configuration.api.openMetrics)",
            "link:",
            "  congestionControl: \(configuration.linkCongestionControl)",
            "  deduplicationMemory: \(ByteSize.text(configuration.linkDeduplicationMemoryBytes))",
        ]
        switch configuration.role {
        case .onprem(let onprem): lines += render(onprem)
        case .cloud(let cloud): lines += render(cloud)
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Begins with what only this role says of the link.
    private static func render(_ onprem: OnPrem) -> [String] {
        var lines = [
            "  listen: \(quote(onprem.linkListen.description))", "  connections: \(onprem.linkConnections)",
            "readCache:", "  memory: \(ByteSize.text(onprem.readCacheBytes))",
        ]
        guard !onprem.disks.isEmpty else { return lines + ["disks: []"] }
        lines.append("disks:")
        for disk in onprem.disks {
            lines += ["  - name: \(quote(disk.name))", "    path: \(quote(disk.path))", "    readOnly: \(disk.readOnly)"]
        }
        return lines
    }

    /// Begins with what only this role says of the link.
    private static func render(_ cloud: Cloud) -> [String] {
        var lines: [String] = []
        if let connect = cloud.linkConnect { lines.append("  connect: \(quote(connect.description))") }
        if let listen = cloud.linkListen { lines.append("  listen: \(quote(listen.description))") }
        lines += ["  connections: \(cloud.linkConnections)", "target:", "  listen:"]
        lines += cloud.targetListen.map { "    - \(quote($0.description))" }
        lines += [
            "  discoveryAuthentication: \(cloud.discoveryAuthentication.rawValue)",
            "  keepProcessorsAwake: \(cloud.keepsProcessorsAwake)",
        ]
        if let nbd = cloud.nbd { lines += render(nbd) }
        lines += [
            "cache:",
            "  path: \(quote(cloud.cachePath))",
            "  size: \(ByteSize.text(cloud.cacheSizeBytes))",
            "  sharing: \(cloud.sharesCachedBlocks)",
            "writeLog:",
            "  size: \(ByteSize.text(cloud.writeLogSizeBytes))",
            "  memory: \(ByteSize.text(cloud.writeLogMemoryBytes))",
            "points:",
            "  recoveryPointObjective: \(TimeSpan.text(cloud.recoveryPointObjective))",
            "  sealSize: \(ByteSize.text(cloud.sealSizeBytes))",
            "timeouts:",
            "  read: \(TimeSpan.text(cloud.readTimeout))",
            "  write: \(TimeSpan.text(cloud.writeTimeout))",
        ]
        return lines
    }

    private static func render(_ nbd: NBD) -> [String] {
        var lines = ["nbd:", "  listen:"] + nbd.listen.map { "    - \(quote($0.description))" }
        lines.append("  allowPlain: \(nbd.allowsPlain)")
        guard let tls = nbd.tls else { return lines }
        lines += ["  tls:", "    certificate: \(quote(tls.certificate))", "    key: \(quote(tls.key))"]
        if let authority = tls.clientAuthority { lines.append("    clientAuthority: \(quote(authority))") }
        return lines + ["    required: \(tls.isRequired)", "    anyClient: \(tls.allowsAnyClient)"]
    }

    /// A YAML scalar in double quotes, which can hold any text.
    private static func quote(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case _
            where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || scalar.value == 0xFEFF || scalar.value == 0x2028
                || scalar.value == 0x2029:
                let hex = String(scalar.value, radix: 16, uppercase: true)
                result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
