import APIModels
import Files
import Foundation
import Testing

@testable import LinkHistory

@Suite struct HistoryStoreTests {
    private static let start = Date(timeIntervalSince1970: 1_700_000_040)

    private static func with<Result>(_ body: (OpenDirectory) throws -> Result) throws -> Result {
        let path = FileManager.default.temporaryDirectory.path + "/link-history-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try body(try OpenDirectory(path, create: true))
    }

    private static func minute(_ number: Int, sent: UInt64 = 1, seconds: Double = 60) -> LinkHistory.Sample {
        LinkHistory.Sample(
            time: start + Double(number) * 60, seconds: seconds, upSeconds: seconds, roundTripMilliseconds: 40,
            longestRoundTripMilliseconds: 50, connections: 4, traffic: [.init(trafficClass: "demand", sentBytes: sent, sentWireBytes: sent)]
        )
    }

    @Test("minutes outlive a restart, each link's apart, and a part of one is added to it")
    func keeps() throws {
        try Self.with { directory in
            var store = try HistoryStore.open(directory: directory).store
            for number in 0..<10 { try store.keep(Self.minute(number), peer: "a") }
            try store.keep(Self.minute(3, sent: 7), peer: "b")
            try store.keep(Self.minute(9, sent: 5, seconds: 12), peer: "a")
            try store.close()
            store = try HistoryStore.open(directory: directory).store
            let minutes = try store.minutes(peer: "a", from: Self.start + 420)
            #expect(minutes.prefix(2) == [Self.minute(7), Self.minute(8)])
            #expect(minutes.last?.seconds == 72 && minutes.last?.traffic.first?.sentBytes == 6)
            #expect(try store.minutes(peer: "b", from: .distantPast) == [Self.minute(3, sent: 7)])
            try store.keepOnly(["b"])
            #expect(try store.minutes(peer: "a", from: .distantPast).isEmpty)
            #expect(try store.minutes(peer: "b", from: .distantPast).count == 1)
        }
    }

    @Test("with too many minutes the oldest go; a clock that is wrong once costs no others")
    func forgets() throws {
        try Self.with { directory in
            let store = try HistoryStore.open(directory: directory, minutesMax: 4).store
            try store.keep(Self.minute(0), peer: "b")
            for number in 0..<6 { try store.keep(Self.minute(number), peer: "a") }
            #expect(try store.minutes(peer: "a", from: .distantPast).map(\.time) == (2..<6).map { Self.minute($0).time })
            try store.keep(Self.minute(10_000_000), peer: "a")
            for number in [6, 7] { try store.keep(Self.minute(number), peer: "a") }
            #expect(try store.minutes(peer: "a", from: .distantPast).map(\.time) == [5, 6, 7, 10_000_000].map { Self.minute($0).time })
            #expect(try store.minutes(peer: "b", from: .distantPast).count == 1)
        }
    }

    @Test("a damaged file begins anew, and says so")
    func damaged() throws {
        try Self.with { directory in
            let store = try HistoryStore.open(directory: directory).store
            try store.keep(Self.minute(1), peer: "a")
            try store.close()
            try directory.replaceFile(HistoryStore.fileName, with: Array("this is no database, and never was one".utf8))
            let (other, wasDamaged) = try HistoryStore.open(directory: directory)
            #expect(wasDamaged)
            #expect(try other.minutes(peer: "a", from: .distantPast).isEmpty)
            try other.keep(Self.minute(2), peer: "a")
            #expect(try other.minutes(peer: "a", from: .distantPast).count == 1)
            #expect(try HistoryStore.open(directory: directory).wasDamaged == false)
        }
    }
}
