import Blocks
import Foundation
import NIOCore

extension VolumeIdentifier {
    /// Sixteen bytes of the system's generator.
    static func random() -> VolumeIdentifier {
        VolumeIdentifier(high: .random(in: .min ... .max), low: .random(in: .min ... .max))
    }
}

extension SocketAddress {
    /// `host:port`, with brackets around an IPv6 address.
    var hostAndPort: String {
        let host = ipAddress ?? "?"
        return (host.contains(":") ? "[\(host)]" : host) + ":\(port ?? 0)"
    }
}
