import Foundation
import Testing

extension EndToEndFaults {
    /// The power of one machine goes, again and again, while the other one stays: of what real daemons have written to a real file system
    /// only that is there which a sync was for, and some of the rest.
    @Suite(.serialized, .enabled(EndToEndShortage.FullDisks.withoutFileSystem, LabFileSystem.isPossible))
    struct PowerCuts {
        /// `make soak-kills` sets more kills; each cut takes as long as three.
        static let rounds = max(3, Crashes.rounds / 3)

        private func points(_ place: LabFileSystem.Place, _ body: (Lab) async throws -> Void) async throws {
            // Only a ledger seals.
            let options = ["--nbd", "--rtt", "2ms", "--rate", "1gbit", "--recovery-point-objective", "1h", "--cache-size", "16MiB"]
            let disks = [("first", 16 << 20), ("second", 8 << 20)]
            try await Lab.with(disks: disks, options: options, stateMebibytes: 192, under: place, body)
        }

        @Test("the cloud edge's power is cut: each volume is what it was behind one of its last writes, none of them flushed and gone")
        func cloud() async throws {
            try await points(.cloud) { lab in
                try await cut(lab, losesUnflushed: true)
            }
        }

        @Test("home's power is cut: each disk equals a sealed point, none older than it was before, and no received point is lost")
        func home() async throws {
            try await points(.home) { lab in
                try await cut(lab, losesUnflushed: false)
            }
        }

        private func cut(_ lab: Lab, losesUnflushed: Bool) async throws {
            var ledgers = [PointLedger(lab, "first"), PointLedger(lab, "second")]
            // Long enough on a slow machine: they are told to end.
            let seconds = Self.rounds * 60
            let writers = try ledgers.enumerated().map { index, ledger in
                try ledger.start(lab.nbd(ledger.volume), seconds: seconds, losesUnflushed: losesUnflushed, seed: index + 1)
            }
            for round in 0..<Self.rounds {
                // Anywhere between two seals.
                try await Task.sleep(for: .milliseconds(900 + 37 * (round % 10)))
                for writer in writers where !writer.isRunning { Issue.record("a writer ended early: \(try await writer.wait(seconds: 1))") }
                var received: [UInt64] = []
                for ledger in ledgers {
                    // After the cut before.
                    try await lab.untilServing(ledger.volume)
                    received.append(try await lab.status(ledger.volume).points.received)
                }
                try await lab.losePower(seed: round)
                try await lab.relay("cut")
                try await lab.regainPower()
                for index in ledgers.indices { try await ledgers[index].matchHome(havingReceived: received[index]) }
                try await lab.relay("restore")
            }
            for writer in writers { writer.signal(SIGTERM) }
            for (ledger, writer) in zip(ledgers, writers) {
                let result = try await writer.wait(seconds: 120)
                #expect(result.isSuccess, "\(result)")
                try await lab.untilServing(ledger.volume)
                try await lab.seal(ledger.volume)
                try await ledger.matchLast(lab.disk(ledger.volume))
            }
        }
    }
}
