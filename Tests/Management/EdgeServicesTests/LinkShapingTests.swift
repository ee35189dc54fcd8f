import APIModels
import Files
import Foundation
import LinkProtocol
import ManagementAPI
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

    private func withDirectory(_ body: (OpenDirectory) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("causeway-shaping-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(try OpenDirectory(path, create: true))
    }

    @Test func whatWasSetComesBackAndWhatIsNotNamedStays() throws {
        try withDirectory { directory in
            var kept = try KeptShapings.read(in: directory)
            #expect(kept.byPeer.isEmpty)
            _ = try kept.change("a", LinkChange(rates: Self.shaping.rates), in: directory)
            _ = try kept.change("b", LinkChange(rates: LinkRates(totalBytesPerSecond: 8192)), in: directory)
            #expect(try kept.change("a", LinkChange(schedule: Self.shaping.schedule), in: directory) == Self.shaping)
            #expect(throws: APIError.self) {
                try kept.change("a", LinkChange(rates: LinkRates(totalBytesPerSecond: 1)), in: directory)
            }
            #expect(kept.byPeer["a"] == Self.shaping)
            #expect(try KeptShapings.read(in: directory).byPeer == kept.byPeer)
            _ = try kept.change("b", LinkChange(rates: LinkRates()), in: directory)
            #expect(try KeptShapings.read(in: directory).byPeer == ["a": Self.shaping])
            try kept.move(from: "a", to: "c", in: directory)
            #expect(try KeptShapings.read(in: directory).byPeer == ["c": Self.shaping])
            try kept.move(from: "c", to: nil, in: directory)
            #expect(try KeptShapings.read(in: directory).byPeer.isEmpty)
        }
    }

    @Test(arguments: [
        "", "{}", #"{"version":2,"links":{}}"#, #"{"version":1,"links":{"a":{"rates":{"totalBytesPerSecond":5},"schedule":[]}}}"#,
    ])
    func damageIsTold(text: String) throws {
        try withDirectory { directory in
            try directory.replaceFile("link-shaping", with: Array(text.utf8))
            #expect(throws: (any Error).self) { try KeptShapings.read(in: directory) }
        }
    }
}
