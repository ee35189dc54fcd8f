import APIModels
import ArgumentParser
import EdgeConfiguration
import Foundation

extension LinkCommand {
    struct History: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "What passed over a link, and how the line was.",
            discussion:
                "Each edge keeps the last hour by the second, from its start on, and a month by the minute. Rates are those on the line.")

        @Option(help: "How far back, like 90s or 7d; at most 31d. (default: 1h)", transform: Self.seconds)
        var last: Int?

        @Option(help: "How many rows at most.")
        var samples: Int = 30

        @OptionGroup var peer: PeerOptions
        @OptionGroup var connection: ConnectionOptions

        /// A duration in whole seconds; days are written as `7d`.
        static func seconds(_ text: String) throws -> Int {
            if text.hasSuffix("d"), let days = Int(text.dropLast()), (1...31).contains(days) { return days * 86_400 }
            let seconds = try Quantities.duration(text).components.seconds
            guard (1...31 * 86_400).contains(seconds) else { throw ValidationError("“\(text)” is not from 1s to 31d") }
            return Int(seconds)
        }

        func validate() throws {
            guard (1...3_600).contains(samples) else { throw ValidationError("--samples is from 1 to 3600, and not \(samples).") }
        }

        func run() async throws {
            let client = try connection.client()
            let peer = try await peer.find(client)
            let history: LinkHistory = try await client.get(
                "/v1/links/\(APIClient.part(peer))/history", query: ["lastSeconds": String(last ?? 3_600), "samples": String(samples)])
            if connection.output == .json { return try Terminal.json(history) }
            Terminal.print(Self.table(history))
        }

        static func table(_ history: LinkHistory) -> String {
            var table = Table([
                .init("from"), .init("up", isNumber: true), .init("round trip", isNumber: true), .init("longest", isNumber: true),
                .init("sent", isNumber: true), .init("received", isNumber: true), .init("ratio", isNumber: true),
                .init("sent again", isNumber: true), .init("lost", isNumber: true),
            ])
            let format = DateFormatter()
            format.locale = Locale(identifier: "en_US_POSIX")
            format.dateFormat = history.stepSeconds % 60 == 0 ? "yyyy-MM-dd HH:mm" : "yyyy-MM-dd HH:mm:ss"
            for sample in history.samples {
                let rate = { (count: UInt64) in Human.bitRate(UInt64(Double(count) / max(sample.seconds, 1))) }
                let (sent, received) = (
                    sample.traffic.reduce(0) { $0 &+ $1.sentWireBytes }, sample.traffic.reduce(0) { $0 &+ $1.receivedWireBytes }
                )
                let plain = sample.traffic.reduce(0) { $0 &+ $1.sentBytes &+ $1.receivedBytes }
                let wire = sent &+ received
                table.add(
                    format.string(from: sample.time), "\(Int((sample.upSeconds / max(sample.seconds, 1) * 100).rounded())) %",
                    Human.milliseconds(sample.roundTripMilliseconds), Human.milliseconds(sample.longestRoundTripMilliseconds), rate(sent),
                    rate(received), wire == 0 ? nil : String(format: "%.2f", Double(plain) / Double(wire)),
                    Human.bytes(sample.retransmittedBytes), String(sample.connectionsLost))
            }
            return table.text
        }
    }
}
