import APIModels
import EdgeConfiguration
import Link
import ManagementAPI
import NIOCore
import Tunnels

/// Tunnels as the API and the metrics show them, and as their ends have to know them.
enum TunnelReport {
    /// What an end knows of a tunnel, put into its item. Called on the link's event loop.
    static func fill(_ tunnel: inout Tunnel, listensHere: Bool, from end: TunnelEnd?) {
        guard let report = end?.report(of: tunnel.name) else { return }
        tunnel.state = !listensHere ? .connecting : report.address == nil ? .failed : .listening
        tunnel.message = report.problem
        if listensHere, let address = report.address { tunnel.listen = address.hostAndPort }
        tunnel.connections = report.statistics.connections
        tunnel.connectionsTotal = report.statistics.connectionsTotal
        tunnel.refusedTotal = report.statistics.refusedTotal
        tunnel.sentBytes = report.statistics.sentBytes
        tunnel.receivedBytes = report.statistics.receivedBytes
    }

    static func metrics(of tunnels: [Tunnel]) -> [MetricSample] {
        tunnels.flatMap { tunnel in
            let labels = [("tunnel", tunnel.name)]
            return [
                MetricSample(
                    "causeway_tunnel_connections", help: "TCP connections through a tunnel.", kind: .gauge, labels: labels,
                    value: Double(tunnel.connections)),
                MetricSample(
                    "causeway_tunnel_connections_total", help: "TCP connections that were made through a tunnel.", kind: .counter,
                    labels: labels, value: Double(tunnel.connectionsTotal)),
                MetricSample(
                    "causeway_tunnel_refused_total", help: "TCP connections that were turned away at a tunnel.", kind: .counter,
                    labels: labels, value: Double(tunnel.refusedTotal)),
                MetricSample(
                    "causeway_tunnel_sent_bytes_total", help: "Bytes that this edge has sent through a tunnel.", kind: .counter,
                    labels: labels, value: Double(tunnel.sentBytes)),
                MetricSample(
                    "causeway_tunnel_received_bytes_total", help: "Bytes that came out of a tunnel at this edge.", kind: .counter,
                    labels: labels, value: Double(tunnel.receivedBytes)),
            ]
        }
    }
}

extension TunnelSettings {
    /// The part of an edge in a tunnel; nil when an address or a network makes no sense.
    init?(name: String, precedence: Tunnel.Precedence, listensAt address: String?, allow: [String], connectsTo service: String?) {
        let order: Precedence = precedence == .bulk ? .bulk : .interactive
        if let address {
            guard let place = try? NetworkAddress(parsing: address) else { return nil }
            let rules = allow.compactMap { NetworkRule($0) }
            guard rules.count == allow.count else { return nil }
            self.init(name: name, precedence: order, part: .listens(host: place.host, port: Int(place.port), allowed: rules))
        } else {
            guard let place = service.flatMap({ try? NetworkAddress(dialling: $0) }) else { return nil }
            self.init(name: name, precedence: order, part: .connects(host: place.host, port: Int(place.port)))
        }
    }
}
