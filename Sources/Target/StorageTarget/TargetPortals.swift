import NIOCore

/// An address that the server listens on.
struct TargetPortal {
    let channel: any Channel
    let address: SocketAddress
    let groupTag: UInt16
}

/// What SendTargets tells of the portals (RFC 7143 appendix C).
enum PortalAddresses {
    /// The addresses by which an initiator finds its targets again, as `host:port,tag`: first the one that it has reached, then
    /// the other portals that it can reach as far as we know. A listener on all addresses is told as the address that was
    /// reached; one on the loopback address is told on this machine only.
    static func list(_ portals: [(address: SocketAddress, groupTag: UInt16)], reached: SocketAddress?, groupTag: UInt16) -> [String] {
        guard let reached, let host = host(of: reached), let port = reached.port else { return [] }
        var found = [text(host, port, groupTag)]
        for portal in portals {
            guard var other = Self.host(of: portal.address), let otherPort = portal.address.port else { continue }
            if isWildcard(other) {
                // A listener on :: takes connections by IPv4 too; one on 0.0.0.0 only those.
                if other == "0.0.0.0", host.contains(":") { continue }
                other = host
            } else if isLoopback(other), !isLoopback(host) {
                continue
            }
            let entry = text(other, otherPort, portal.groupTag)
            if !found.contains(entry) { found.append(entry) }
        }
        return found
    }

    /// The address without its port; an IPv4 address that came by an IPv6 socket is written as what it is.
    private static func host(of address: SocketAddress) -> String? {
        guard let text = address.ipAddress else { return nil }
        let mapped = "::ffff:"
        return text.hasPrefix(mapped) && text.contains(".") ? String(text.dropFirst(mapped.count)) : text
    }

    private static func isWildcard(_ host: String) -> Bool { host == "0.0.0.0" || host == "::" }
    private static func isLoopback(_ host: String) -> Bool { host.hasPrefix("127.") || host == "::1" }

    private static func text(_ host: String, _ port: Int, _ groupTag: UInt16) -> String {
        host.contains(":") ? "[\(host)]:\(port),\(groupTag)" : "\(host):\(port),\(groupTag)"
    }
}
