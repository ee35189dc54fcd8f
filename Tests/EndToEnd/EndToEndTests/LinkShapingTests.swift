import APIModels
import Foundation
import Testing

extension EndToEnd {
    /// Limits on what an edge sends over the link, as an operator sets them.
    @Suite(.serialized)
    struct LinkShapes {
        private func link(_ lab: Lab, _ arguments: [String]) async throws -> Link {
            let result = try await lab.causeway(.cloud, arguments: ["link"] + arguments + ["--output", "json"])
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(Link.self, from: Data(result.output.utf8))
        }

        private func history(_ lab: Lab, _ side: Lab.Side, _ last: String) async throws -> LinkHistory {
            let result = try await lab.causeway(side, "link", "history", "--last", last, "--samples", "3600", "--output", "json")
            guard result.isSuccess else { throw CommandFailure(description: result.description) }
            return try APICoding.decoder().decode(LinkHistory.self, from: Data(result.output.utf8))
        }

        private func sentWireBytes(_ lab: Lab) async throws -> UInt64 {
            try #require(await lab.links(.cloud).first?.traffic.first { $0.trafficClass == "writeBehind" }).sentWireBytes
        }

        @Test("what goes home is limited while it goes, over a restart, and until the limit is lifted")
        func limits() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--recovery-point-objective", "300ms"]) { lab in
                let rate: UInt64 = 100_000
                let limited = try await link(lab, ["limit", "--write-behind", "800kbit"])
                #expect(limited.ratesInForce == LinkRates(writeBehindBytesPerSecond: rate))
                let noise = try Lab.makeNoise(in: lab.directory, mebibytes: 8)
                try await Command.check(
                    "qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", noise, lab.url("data")], seconds: 60)

                // It sends, and no more than the limit: a line that is slower for other reasons is no fault.
                let (before, start) = (try await sentWireBytes(lab), ContinuousClock.now)
                var after = before
                while after < before + 200_000 {
                    after = try await sentWireBytes(lab)
                    try #require(ContinuousClock.now - start < .seconds(60), "nothing goes home")
                }
                let seconds = Double((ContinuousClock.now - start).components.seconds + 1)
                #expect(Double(after - before) <= Double(rate) * seconds + 64_000)

                let seen = try await history(lab, .onprem, "5m")
                #expect(seen.stepSeconds == 1 && seen.samples.allSatisfy { $0.seconds >= 1 && $0.upSeconds <= $0.seconds })
                #expect(seen.received("writeBehind") > 100_000 && seen.samples.contains { ($0.roundTripMilliseconds ?? 0) > 0 })

                try await lab.kill(.cloud, by: SIGKILL)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                let kept = try #require(await lab.links(.cloud).first)
                #expect(kept.ratesInForce.writeBehindBytesPerSecond == rate && kept.shaping == limited.shaping)

                // A schedule that is always in force takes the limit's place.
                let scheduled = try await link(lab, ["schedule", "--from", "00:00", "--until", "00:00", "--total", "80mbit"])
                #expect(scheduled.ratesInForce == LinkRates(totalBytesPerSecond: 10_000_000))
                let night = try await link(lab, ["schedule", "--days", "monday", "--from", "22:00", "--until", "06:00"])
                #expect(night.shaping.schedule.count == 2 && night.ratesInForce == scheduled.ratesInForce)
                let without = try await link(lab, ["unschedule", "--days", "monday", "--from", "22:00", "--until", "06:00"])
                #expect(without.shaping == scheduled.shaping)
                try await lab.seal("data")
                #expect(try await link(lab, ["unschedule"]).ratesInForce.writeBehindBytesPerSecond == rate)
                #expect(try await link(lab, ["limit"]).shaping == LinkShaping())

                // The seconds of a process end with it; its minutes do not, nor the one that ran.
                try await lab.kill(.onprem, by: SIGTERM)
                try await lab.restart(.onprem)
                let minutes = try await history(lab, .onprem, "2h")
                #expect(minutes.stepSeconds == 60 && minutes.received("writeBehind") >= seen.received("writeBehind"))
                #expect(try await history(lab, .onprem, "5m").received("writeBehind") < minutes.received("writeBehind"))

                for (arguments, reason) in [
                    (["limit", "--total", "1kbit"], "must be from 8192"), (["limit", "--total", "fast"], "fast"),
                    (["limit", "--total", "1mbit", "--peer", "nobody"], "nobody"),
                    (["history", "--last", "32d"], "1s to 31d"), (["history", "--samples", "0"], "1 to 3600"),
                    (["history", "--peer", "nobody"], "nobody"),
                    (["unschedule", "--from", "08:00"], "--until"),
                    (["schedule", "--from", "8", "--until", "09:00"], "from"),
                    (["schedule", "--from", "08:00", "--until", "09:00", "--days", "someday"], "is not a day"),
                ] {
                    let result = try await lab.causeway(.cloud, arguments: ["link"] + arguments)
                    #expect(!result.isSuccess && result.errors.contains(reason), "\(arguments): \(result)")
                }
            }
        }
    }
}

extension LinkHistory {
    /// Bytes of a class that arrived in all steps together.
    fileprivate func received(_ trafficClass: String) -> UInt64 {
        samples.flatMap(\.traffic).filter { $0.trafficClass == trafficClass }.reduce(0) { $0 + $1.receivedWireBytes }
    }
}
