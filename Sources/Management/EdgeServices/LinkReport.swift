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
    /// - Parameter isDialled: this edge dials the other; else a link that is not up is down until the other one dials.
    static func link(of link: PeerLink, lastError: String?, isDialled: Bool = true) -> APIModels.Link {
        let endpoint = link.endpoint
        let statistics = endpoint.statistics
        return APIModels.Link(
            peer: link.peer, state: endpoint.isConnected ? .up : isDialled && lastError == nil ? .connecting : .down,
            connections: statistics.connections,
            roundTripMilliseconds: statistics.roundTripMilliseconds, baseRoundTripMilliseconds: statistics.baseRoundTripMilliseconds,
            lastError: lastError ?? (endpoint.isConnected ? nil : endpoint.lastCloseReason.map { "\($0)" }),
            traffic: traffic(statistics),
            reconnects: max(0, link.timesUp - 1), connectionsLost: Int(clamping: statistics.connectionsLost),
            line: line(of: endpoint, statistics), since: link.since, shaping: link.shaping,
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

    private static func line(of endpoint: LinkEndpoint, _ statistics: LinkStatistics) -> APIModels.Link.Line {
        .init(
            lossShare: endpoint.lossShare, lossy: endpoint.isLossy,
            bytesPerSecond: statistics.lineBytesPerSecond > 0 ? UInt64(exactly: statistics.lineBytesPerSecond.rounded()) : nil,
            windowBytes: statistics.windowBytes, inFlightBytes: statistics.inFlightBytes,
            queuedBytes: statistics.classes.reduce(0) { $0 + $1.queuedBytes }, retransmittedBytes: endpoint.retransmittedBytes,
            copiedFrames: statistics.classes.reduce(0) { $0 &+ $1.framesCopied })
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
                    labels: [("peer", link.peer)], value: Double(link.connectionsLost ?? 0)),
                MetricSample(
                    "causeway_link_reconnects_total", help: "How many times the link came up again.", kind: .counter,
                    labels: [("peer", link.peer)], value: Double(link.reconnects)),
            ]
            if let line = link.line { samples += metrics(of: line, peer: link.peer) }
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

    private static func metrics(of line: APIModels.Link.Line, peer: String) -> [MetricSample] {
        let labels = [("peer", peer)]
        var samples = [
            MetricSample(
                "causeway_link_loss_ratio", help: "The share of bytes that TCP has sent again in the last ten seconds or so.", kind: .gauge,
                labels: labels, value: line.lossShare),
            MetricSample(
                "causeway_link_lossy", help: "1 while the line counts as one that loses packets.", kind: .gauge, labels: labels,
                value: line.lossy ? 1 : 0),
            MetricSample(
                "causeway_link_window_bytes", help: "What may be on its way.", kind: .gauge, labels: labels, value: Double(line.windowBytes)
            ),
            MetricSample(
                "causeway_link_in_flight_bytes", help: "What is on its way.", kind: .gauge, labels: labels,
                value: Double(line.inFlightBytes)),
            MetricSample(
                "causeway_link_queued_bytes", help: "What waits to be sent.", kind: .gauge, labels: labels, value: Double(line.queuedBytes)),
            MetricSample(
                "causeway_link_retransmitted_bytes_total", help: "Bytes that TCP has sent again.", kind: .counter, labels: labels,
                value: Double(line.retransmittedBytes)),
            MetricSample(
                "causeway_link_copied_frames_total", help: "Frames that were sent on a second connection, too.", kind: .counter,
                labels: labels,
                value: Double(line.copiedFrames)),
        ]
        if let bytesPerSecond = line.bytesPerSecond {
            samples.append(
                MetricSample(
                    "causeway_link_line_bytes_per_second", help: "What the line carries, as far as there was enough to send.", kind: .gauge,
                    labels: labels, value: Double(bytesPerSecond)))
        }
        return samples
    }
}
