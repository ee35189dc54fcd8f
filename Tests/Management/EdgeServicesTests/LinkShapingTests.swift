import APIModels
import Files
import Foundation
import LinkProtocol
import ManagementAPI
import NIOPosix
import Synchronization
import Testing

@testable import EdgeServices

/// When which limits of a link are in force, and how they are kept.
@Suite struct LinkShapingTests {
    private static let office = LinkShaping.Entry(
        days: [.monday, .friday], from: "08:00", until: "18:30", rates: LinkRates(totalBytesPerSecond: 1_000_000))
    private static let night = LinkShaping.Entry(from: "22:00", until: "06:00", rates: LinkRates())
    private static let shaping = LinkShaping(rates: LinkRates(writeBehindBytesPerSecond: 50_000), schedule: [office, night])

    private static func minute(_ day: LinkShaping.Day, _ hour: Int, _ minute: Int = 0) -> Int {
        (LinkShaping.Day.allCases.firstIndex(of: day) ?? 0) * 1440 + hour * 60 + minute
    }

    @Test(arguments: [
        (minute(.monday, 8), office.rates), (minute(.monday, 18, 29), office.rates), (minute(.monday, 18, 30), shaping.rates),
        (minute(.tuesday, 8), shaping.rates), (minute(.friday, 12), office.rates), (minute(.monday, 7, 59), shaping.rates),
        // Over midnight, and over the end of the week.
        (minute(.wednesday, 22), night.rates), (minute(.thursday, 5, 59), night.rates), (minute(.thursday, 6), shaping.rates),
        (minute(.sunday, 23, 59), night.rates), (minute(.monday, 0), night.rates), (minute(.monday, 5, 59), night.rates),
    ])
    func theFirstEntryWhoseTimeItIsCounts(minute: Int, expected: LinkRates) {
        #expect(Self.shaping.rates(atMinuteOfWeek: minute) == expected)
    }

    @Test func aDayFromATimeToTheSameIsWhole() {
        let shaping = LinkShaping(
            schedule: [.init(days: [.sunday], from: "12:00", until: "12:00", rates: LinkRates(totalBytesPerSecond: 9_000))])
        let inForce = (0..<7 * 1440).filter { shaping.rates(atMinuteOfWeek: $0).totalBytesPerSecond == 9_000 }
        #expect(inForce.count == 1440)
        #expect(inForce.contains(Self.minute(.sunday, 12)) && inForce.contains(Self.minute(.monday, 11, 59)))
    }

    @Test func timesAreLocal() throws {
        // 2026-11-27 is a Friday.
        let date = try Date("2026-11-27T23:30:00Z", strategy: .iso8601)
        #expect(LinkShaping.minuteOfWeek(date, in: try #require(TimeZone(secondsFromGMT: 0))) == Self.minute(.friday, 23, 30))
        #expect(LinkShaping.minuteOfWeek(date, in: try #require(TimeZone(secondsFromGMT: 3600))) == Self.minute(.saturday, 0, 30))
        #expect(
            LinkShaping.minuteOfWeek(date - 5 * 86_400, in: try #require(TimeZone(secondsFromGMT: 3600))) == Self.minute(.monday, 0, 30))
    }

    @Test(arguments: ["8:00", "24:00", "12:60", "1200", "", "12:0O", "-1:00", "12:00 ", "٠٨:٠٠"])
    func whatIsNoTimeIsRefused(text: String) {
        for entry in [
            LinkShaping.Entry(from: text, until: "10:00", rates: LinkRates()),
            LinkShaping.Entry(from: "10:00", until: text, rates: LinkRates()),
        ] {
            #expect(throws: APIError.self) { try LinkShaping(schedule: [entry]).check() }
        }
    }

    @Test func ratesThatAreTooLowAndSchedulesThatAreTooLongAreRefused() throws {
        try Self.shaping.check()
        let low = LinkRates(demandBytesPerSecond: LinkShape.bytesPerSecondMin - 1)
        #expect(throws: APIError.self) { try LinkShaping(rates: low).check() }
        #expect(throws: APIError.self) { try LinkShaping(schedule: [.init(from: "08:00", until: "09:00", rates: low)]).check() }
        #expect(throws: APIError.self) { try LinkShaping(schedule: Array(repeating: Self.office, count: 33)).check() }
        try LinkShaping(schedule: Array(repeating: Self.office, count: 32)).check()
    }

    @Test func eachClassHasItsLimit() {
        let rates = LinkRates(
            totalBytesPerSecond: 10_001, demandBytesPerSecond: 10_002, writeBehindBytesPerSecond: 10_003)
        #expect(
            rates.shape
                == LinkShape(
                    bytesPerSecond: 10_001,
                    classes: [.demand: 10_002, .writeBehind: 10_003]))
        #expect(LinkRates().shape == LinkShape())
    }

    // MARK: Kept

    private func withDirectory(_ body: (OpenDirectory) async throws -> Void) async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-shaping-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try await body(try OpenDirectory(path, create: true))
    }

    /// What was put in force, in its order.
    private final class Enforced: Sendable {
        let all = Mutex<[[String: LinkShaping]]>([])
    }

    private func kept(in directory: OpenDirectory, _ enforced: Enforced = Enforced()) throws -> KeptShapings {
        KeptShapings(try KeptShapings.read(in: directory), directory: directory, threadPool: .singleton) { links in
            enforced.all.withLock { $0.append(links) }
        }
    }

    @Test func whatWasSetComesBackAndWhatIsNotNamedStays() async throws {
        try await withDirectory { directory in
            let kept = try kept(in: directory)
            #expect(await kept.byPeer.isEmpty)
            try await kept.change("a", LinkChange(rates: Self.shaping.rates))
            try await kept.change("b", LinkChange(rates: LinkRates(totalBytesPerSecond: 8192)))
            #expect(try await kept.change("a", LinkChange(schedule: Self.shaping.schedule)) == Self.shaping)
            await #expect(throws: APIError.self) {
                try await kept.change("a", LinkChange(rates: LinkRates(totalBytesPerSecond: 1)))
            }
            let byPeer = await kept.byPeer
            #expect(byPeer["a"] == Self.shaping)
            #expect(try KeptShapings.read(in: directory) == byPeer)
            try await kept.change("b", LinkChange(rates: LinkRates()))
            #expect(try KeptShapings.read(in: directory) == ["a": Self.shaping])
            try await kept.move(from: "a", to: "c")
            #expect(try KeptShapings.read(in: directory) == ["c": Self.shaping])
            try await kept.keepOnly(["c", "d"])
            #expect(try KeptShapings.read(in: directory) == ["c": Self.shaping])
            try await kept.move(from: "c", to: nil)
            #expect(try KeptShapings.read(in: directory).isEmpty)
            try await kept.change("e", LinkChange(rates: Self.shaping.rates))
            try await kept.keepOnly(["d"])
            #expect(try KeptShapings.read(in: directory).isEmpty)
        }
    }

    /// Of many changes at once none is lost, and the last that was kept is the last in force.
    @Test func changesAreMadeOneAtATime() async throws {
        try await withDirectory { directory in
            let enforced = Enforced()
            let kept = try kept(in: directory, enforced)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for minute in 10..<40 {
                    group.addTask {
                        let entry = LinkShaping.Entry(from: "08:\(minute)", until: "09:00", rates: LinkRates())
                        try await kept.change("a", LinkChange(append: [entry]))
                    }
                }
                try await group.waitForAll()
            }
            let all = enforced.all.withLock { $0 }
            #expect(all.map { $0["a"]?.schedule.count ?? 0 } == Array(0...30))
            #expect(try KeptShapings.read(in: directory) == all.last)
        }
    }

    @Test func whatCannotBeKeptIsNotInForceAndTheNextChangeIsMade() async throws {
        try await withDirectory { directory in
            let enforced = Enforced()
            let kept = try kept(in: directory, enforced)
            try FileManager.default.removeItem(atPath: directory.path)
            await #expect(throws: Problem.self) { try await kept.change("a", LinkChange(rates: Self.shaping.rates)) }
            await #expect(throws: Problem.self) { try await kept.change("a", LinkChange(rates: Self.shaping.rates)) }
            #expect(await kept.byPeer.isEmpty && enforced.all.withLock { $0 } == [[:]])
        }
    }

    @Test func entriesAreAddedAndTakenOut() throws {
        var shaping = try Self.shaping.changed(by: LinkChange(append: [Self.office]))
        #expect(shaping.schedule == [Self.office, Self.night, Self.office])
        // Days are a set, and none are all; the rates are not looked at.
        shaping = try shaping.changed(
            by: LinkChange(remove: [.init(days: [.friday, .monday], from: "08:00", until: "18:30")], append: [Self.night]))
        #expect(shaping.schedule == [Self.night, Self.night])
        shaping = try shaping.changed(
            by: LinkChange(remove: [.init(days: LinkShaping.Day.allCases, from: "22:00", until: "06:00")], append: [Self.office]))
        #expect(shaping.schedule == [Self.office] && shaping.rates == Self.shaping.rates)
        for period in [LinkShaping.Period(from: "08:00", until: "18:30"), .init(days: Self.office.days, from: "08:00", until: "18:00")] {
            #expect(throws: APIError.self) { try shaping.changed(by: LinkChange(remove: [period])) }
        }
        #expect(throws: APIError.self) {
            try shaping.changed(by: LinkChange(append: Array(repeating: Self.office, count: LinkShaping.entriesMax)))
        }
    }

    @Test(arguments: [
        "", "{}", #"{"version":2,"links":{}}"#, #"{"version":1,"links":{"a":{"rates":{"totalBytesPerSecond":5},"schedule":[]}}}"#,
    ])
    func damageIsTold(text: String) async throws {
        try await withDirectory { directory in
            try directory.replaceFile("link-shaping", with: Array(text.utf8))
            #expect(throws: (any Error).self) { try KeptShapings.read(in: directory) }
        }
    }
}
