import Foundation

/// The ports of a lab, fixed from `lab up` on, so that a daemon that is started again is where it was.
struct LabPorts: Codable, Sendable {
    var onpremAPI: UInt16
    var link: UInt16
    var cloudAPI: UInt16
    /// The portals of the target.
    var portals: [UInt16]
    var nbd: UInt16
    var relay: UInt16
    var relayControl: UInt16

    private var all: [UInt16] { [onpremAPI, link, cloudAPI, nbd, relay, relayControl] + portals }

    /// The ports of the last time when they are as many and free, else new ones.
    static func choose(previous: LabPorts?, portals: Int) throws -> LabPorts {
        if let previous, previous.portals.count == portals, Set(previous.all).count == previous.all.count,
            previous.all.allSatisfy(isFree)
        {
            return previous
        }
        // Not from the range of outgoing connections: while a daemon is down, one of those could take its
        // port, and a peer that tries to reconnect could even connect to itself there.
        let candidates = outsideOfOutgoingPorts()
        var chosen: [UInt16] = []
        let count = 6 + portals
        for _ in 0..<10_000 where chosen.count < count {
            guard let port = candidates.randomElement() else { break }
            if !chosen.contains(port) && isFree(port) { chosen.append(port) }
        }
        guard chosen.count == count else { throw CommandFailure("no \(count) free ports were found on 127.0.0.1") }
        return LabPorts(
            onpremAPI: chosen[0], link: chosen[1], cloudAPI: chosen[2], portals: Array(chosen[6...]), nbd: chosen[3],
            relay: chosen[4], relayControl: chosen[5])
    }

    private static func outsideOfOutgoingPorts() -> ClosedRange<UInt16> {
        let text = FileManager.default.contents(atPath: "/proc/sys/net/ipv4/ip_local_port_range").map {
            String(decoding: $0, as: UTF8.self)
        }
        let bounds = (text ?? "32768 60999").split { $0.isWhitespace }.compactMap { UInt16($0) }
        guard bounds.count == 2 else { return 20_000...32_767 }
        if bounds[0] > 12_000 { return 10_000...(bounds[0] - 1) }
        if bounds[1] < 64_000 { return (bounds[1] + 1)...65_535 }
        return 10_000...65_535
    }

    private static func isFree(_ port: UInt16) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // As the daemons bind, so that the remains of old connections do not count.
        var one: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 && listen(descriptor, 1) == 0
            }
        }
    }
}
