import APIModels
import Blocks
import Foundation
import Link
import LinkHistory
import LinkProtocol
import ManagementAPI
import Volumes

/// A link as the API and the metrics show it (X8).
enum LinkReport {
    /// Called on the link's event loop.
    static func link(of link: PeerLink, lastError: String?) -> APIModels.Link {
        let endpoint = link.endpoint
        let statistics = endpoint.statistics
        return APIModels.Link(
            peer: link.peer, state: endpoint.isConnected ? .up : lastError == nil ? .connecting : .down,
            connections: statistics.connections,
            roundTripMilliseconds: statistics.roundTripMilliseconds, baseRoundTripMilliseconds: statistics.baseRoundTripMilliseconds,
            lastError: lastError ?? (endpoint.isConnected ? nil : endpoint.lastCloseReason.map { "\($0)" }),
            traffic: traffic(statistics),
            reconnects: Int(clamping: statistics.connectionsLost), since: link.since, shaping: link.shaping,
            ratesInForce: link.ratesInForce, congestionControls: endpoint.congestionControls,
            deduplication: link.blocks.map { deduplication($0.statistics) })
    }

    /// What the counters of a link say now, for its history. Called on the link's event loop.
    static func reading(of link: PeerLink) -> LinkReading {
        let statistics = link.endpoint.statistics
        return LinkReading(
            isConnected: link.endpoint.isConnected, connections: statistics.connections, connectionsLost: statistics.connectionsLost,
            roundTripMilliseconds: statistics.roundTripMilliseconds, retransmittedBytes: link.endpoint.retransmittedBytes,
            traffic: traffic(statistics))
    }

    private static func deduplication(_ statistics: SentBlocks.Statistics) -> APIModels.Link.Deduplication {
        .init(
            referredBytes: statistics.referredBlocks &* UInt64(BlockGeometry.blockBytes),
            wrongBytes: statistics.wrongBlocks &* UInt64(BlockGeometry.blockBytes))
    }

    private static func traffic(_ statistics: LinkStatistics) -> [APIModels.Link.Traffic] {
        TrafficClass.allCases.map { trafficClass in
            let counts = statistics[trafficClass]
            return .init(
                trafficClass: "\(trafficClass)", sentBytes: counts.plainBytesSent, sentWireBytes: counts.wireBytesSent,
                receivedBytes: counts.plainBytesReceived, receivedWireBytes: counts.wireBytesReceived)
        }
    }

    static func metrics(of links: [APIModels.Link]) -> [MetricSample] {
        links.flatMap { link in
            var samples = [
                MetricSample(
                    "causeway_link_up", help: "1 while the link has a connection.", kind: .gauge, labels: [("peer", link.peer)],
                    value: link.state == .up ? 1 : 0),
                MetricSample(
                    "causeway_link_connections", help: "Established connections.", kind: .gauge, labels: [("peer", link.peer)],
                    value: Double(link.connections)),
                MetricSample(
                    "causeway_link_connections_lost_total", help: "Connections that were lost.", kind: .counter,
                    labels: [("peer", link.peer)], value: Double(link.reconnects)),
            ]
            if let milliseconds = link.roundTripMilliseconds {
                samples.append(
                    MetricSample(
                        "causeway_link_round_trip_seconds", help: "The newest measured round trip.", kind: .gauge,
                        labels: [("peer", link.peer)], value: milliseconds / 1_000))
            }
            if let deduplication = link.deduplication {
                samples += [
                    MetricSample(
                        "causeway_link_referred_bytes_total", help: "Bytes that were not sent, because the peer has equal blocks.",
                        kind: .counter, labels: [("peer", link.peer)], value: Double(deduplication.referredBytes)),
                    MetricSample(
                        "causeway_link_wrong_references_bytes_total", help: "Bytes of those that the peer had no more, and asked for.",
                        kind: .counter, labels: [("peer", link.peer)], value: Double(deduplication.wrongBytes)),
                ]
            }
            for traffic in link.traffic {
                let labels = [("peer", link.peer), ("class", traffic.trafficClass)]
                samples += [
                    MetricSample(
                        "causeway_link_sent_bytes_total", help: "Bytes sent, before compression.", kind: .counter, labels: labels,
                        value: Double(traffic.sentBytes)),
                    MetricSample(
                        "causeway_link_sent_wire_bytes_total", help: "Bytes sent, on the line.", kind: .counter, labels: labels,
                        value: Double(traffic.sentWireBytes)),
                    MetricSample(
                        "causeway_link_received_bytes_total", help: "Bytes received, after decompression.", kind: .counter, labels: labels,
                        value: Double(traffic.receivedBytes)),
                    MetricSample(
                        "causeway_link_received_wire_bytes_total", help: "Bytes received, on the line.", kind: .counter, labels: labels,
                        value: Double(traffic.receivedWireBytes)),
                ]
            }
            return samples
        }
    }
}
