import APIModels
import Foundation
import Testing

// Debian's iscsi-test-cu against a pair of real daemons. Its families SCSI, iSCSI and LINUX are parts of ALL, so one run of ALL is
// all of them. What asks for another kind of logical unit is run against one of that kind in the same
// lab: one to sanitize, a read-only one, and one whose medium can be ejected. A test counts as passed when it has passed
// in one of the runs without leaving anything out; what is left out in all of them must stand in `ConformanceSkips`.

/// Runs beside the other end-to-end tests, for it measures no time and sleeps for a minute of its own.
@Suite(.serialized)
struct Conformance {
    /// One call of the suite.
    struct Run: Sendable {
        let volume: String
        let tests: String
        var options: [String] = []
        var usesSecondPortal = false
    }

    static let runs = [
        Run(volume: "plain", tests: "ALL", usesSecondPortal: true),
        Run(volume: "erased", tests: "ALL.Sanitize", options: ["--allow-sanitize"]),
        Run(volume: "locked", tests: "ALL.ReadOnly"),
        Run(volume: "tray", tests: "ALL.PreventAllow"),
        Run(volume: "tray", tests: "ALL.NoMedia"),
        Run(volume: "tray", tests: "ALL.StartStopUnit"),
    ]

    /// For one call. Sanitize.Reset sleeps for a minute once it has seen what it wants.
    static let seconds: Double = 420

    @Test("libiscsi's suite passes, and leaves out only what is written down", .timeLimit(.minutes(15)))
    func suite() async throws {
        let listed = try await Self.listedTests()
        // An overwrite of `erased` takes longer than the suite needs to look at it under way.
        try await Lab.with(disks: [("plain", 64 << 20), ("erased", 192 << 20)], options: ["--portals", "2"]) { lab in
            try await Self.make("locked", "--read-only", in: lab)
            try await Self.make("tray", "--removable", in: lab)
            let reports = try await Self.run(in: lab)
            Self.check(reports, listed: listed)
        }
    }

    private static func check(_ reports: [(Run, SuiteReport)], listed: Set<String>) {
        var passed: Set<String> = []
        var skips: [String: [String]] = [:]
        for (run, report) in reports {
            #expect(report.countInSummary == report.entries.count, "\(run.tests) on \(run.volume) did not come to its end")
            for entry in report.entries {
                #expect(entry.hasPassed, "\(entry.name) on \(run.volume): \(entry.failures.joined(separator: "\n"))")
                if entry.skips.isEmpty { passed.insert(entry.name) } else { skips[entry.name] = entry.skips }
            }
        }
        #expect(Set(reports.flatMap { $0.1.entries.map(\.name) }) == listed)
        for (name, said) in skips where !passed.contains(name) {
            #expect(ConformanceSkips.reasons[name] != nil, "\(name) is skipped: \(said.joined(separator: "\n"))")
        }
        for name in ConformanceSkips.reasons.keys {
            #expect(skips[name] != nil && !passed.contains(name), "\(name) is not skipped any more: take it off the list")
        }
    }

    /// Makes a small volume of its own kind, beside those of the lab.
    private static func make(_ name: String, _ kind: String, in lab: Lab) async throws {
        guard FileManager.default.createFile(atPath: lab.disk(name), contents: nil), truncate(lab.disk(name), 16 << 20) == 0 else {
            throw CommandFailure(description: "can't make \(lab.disk(name))")
        }
        for result in [
            try await lab.causeway(.onprem, "disk", "add", name, lab.disk(name)),
            try await lab.causeway(.onprem, "volume", "create", name, kind),
        ] where !result.isSuccess { throw CommandFailure(description: result.description) }
        try await lab.untilServing(name)
    }

    /// The URL of a volume at each portal.
    private static func urls(_ volume: String, in lab: Lab) async throws -> [String] {
        let result = try await lab.causeway(.onprem, "volume", "credentials", volume, "--output", "json")
        guard result.isSuccess else { throw CommandFailure(description: result.description) }
        let credentials = try APICoding.decoder().decode(VolumeCredentials.self, from: Data(result.output.utf8))
        let portals = try await lab.status(volume).target?.portals ?? []
        guard let url = credentials.url, let first = portals.first else {
            throw CommandFailure(description: "volume \(volume) has no portal")
        }
        return portals.map { url.replacingOccurrences(of: "@\(first)/", with: "@\($0)/") }
    }

    /// One after the other: a debug build that sanitizes one volume leaves little time to another.
    private static func run(in lab: Lab) async throws -> [(Run, SuiteReport)] {
        var urls: [String: [String]] = [:]
        for volume in Set(runs.map(\.volume)) { urls[volume] = try await Self.urls(volume, in: lab) }
        var reports: [(Run, SuiteReport)] = []
        for run in runs {
            // --Verbose-scsi, because the suite tells of most skips only then.
            let arguments =
                ["--dataloss", "--verbose", "--Verbose-scsi", "--test=\(run.tests)"] + run.options
                + (urls[run.volume] ?? []).prefix(run.usesSecondPortal ? 2 : 1)
            let result = try await Command.run("iscsi-test-cu", arguments, seconds: seconds)
            reports.append((run, SuiteReport(result.output)))
        }
        return reports
    }

    /// The tests of the family ALL; those of the others must be among them.
    private static func listedTests() async throws -> Set<String> {
        var families: [Substring: Set<String>] = [:]
        for line in try await Command.check("iscsi-test-cu", ["--list"]).split(separator: "\n") {
            let parts = line.split(separator: ".", maxSplits: 2)
            if parts.count == 3 { families[parts[0], default: []].insert("\(parts[1]).\(parts[2])") }
        }
        let all = families["ALL"] ?? []
        for family in ["SCSI", "iSCSI", "LINUX"] {
            let tests = families[Substring(family)] ?? []
            #expect(!tests.isEmpty && tests.isSubset(of: all), "\(family) is no part of ALL any more")
        }
        return all
    }
}
