import APIModels
import Foundation
import Testing

@testable import LinkHistory

@Suite struct LinkRecorderTests {
    private static let start = Date(timeIntervalSince1970: 1_700_000_040)

    /// A link over which 1,000 bytes a second are sent and 400 arrive, as its counters are after some seconds.
    private static func reading(_ seconds: Int, roundTrip: Double? = 40, isConnected: Bool = true) -> LinkReading {
        let count = UInt64(seconds)
        return LinkReading(
            isConnected: isConnected, connections: 4, connectionsLost: count / 50, roundTripMilliseconds: roundTrip,
            retransmittedBytes: count * 10,
            traffic: [
                .init(
                    trafficClass: "demand", sentBytes: count * 2_000, sentWireBytes: count * 1_000, receivedBytes: count * 400,
                    receivedWireBytes: count * 400), .init(trafficClass: "control"),
            ])
    }

    @Test("each second has what came in it, and an hour of them is kept")
    func seconds() {
        var recorder = LinkRecorder()
        for second in 1...4_000 { _ = recorder.record(Self.reading(second), at: Self.start + Double(second) + 0.3) }
        let all = recorder.seconds(from: .distantPast)
        #expect(all.count == LinkRecorder.secondsMax)
        #expect(all.first?.time == Self.start + 401 && all.last?.time == Self.start + 4_000)
        #expect(zip(all, all.dropFirst()).allSatisfy { $1.time == $0.time + 1 })
        #expect(
            all.allSatisfy {
                $0.traffic == [
                    .init(trafficClass: "demand", sentBytes: 2_000, sentWireBytes: 1_000, receivedBytes: 400, receivedWireBytes: 400)
                ] && $0.retransmittedBytes == 10 && $0.seconds == 1 && $0.upSeconds == 1
            })
        #expect(recorder.seconds(from: Self.start + 3_990).map(\.time) == (3_990...4_000).map { Self.start + Double($0) })
    }

    @Test("minutes have the sum of their seconds")
    func minutes() throws {
        var recorder = LinkRecorder()
        var minutes: [LinkHistory.Sample] = []
        for second in 1...150 {
            let reading = Self.reading(second, roundTrip: second == 70 ? 340 : 40, isConnected: second > 30)
            if let minute = recorder.record(reading, at: Self.start + Double(second)) { minutes.append(minute) }
        }
        // The clock stands at the beginning of a minute at first.
        #expect(minutes.map(\.time) == [Self.start, Self.start + 60])
        let second = try #require(minutes.dropFirst().first)
        #expect(second.seconds == 60 && second.upSeconds == 60)
        #expect(second.traffic.map(\.sentWireBytes) == [60_000] && second.retransmittedBytes == 600)
        #expect(second.longestRoundTripMilliseconds == 340)
        #expect(abs((second.roundTripMilliseconds ?? 0) - 45) < 0.001)
        #expect(minutes.first?.upSeconds == 29 && minutes.first?.seconds == 59)
        #expect(recorder.minute?.time == Self.start + 120)
        #expect(recorder.finish()?.seconds == 31 && recorder.minute == nil)
    }

    @Test("counters that begin anew, readings that come late or twice, and gaps")
    func irregular() {
        var recorder = LinkRecorder()
        _ = recorder.record(Self.reading(100), at: Self.start)
        _ = recorder.record(Self.reading(2), at: Self.start + 1)
        #expect(recorder.seconds(from: Self.start + 1).first?.traffic.first?.sentWireBytes == 2_000, "another link, from zero")
        _ = recorder.record(Self.reading(3), at: Self.start + 1.5)
        #expect(recorder.seconds(from: Self.start + 1).map(\.seconds) == [1])
        #expect(recorder.seconds(from: Self.start + 1).first?.traffic.first?.sentWireBytes == 3_000)
        _ = recorder.record(Self.reading(6), at: Self.start + 4)
        #expect(recorder.seconds(from: Self.start + 2).map(\.seconds) == [3], "it stands for three seconds")
        _ = recorder.record(Self.reading(60), at: Self.start + 600)
        #expect(recorder.seconds(from: Self.start + 5).map(\.seconds) == [5], "nobody knows what was in the gap")
    }

    @Test("a clock that is set back leaves the seconds in order")
    func clockBack() {
        var recorder = LinkRecorder()
        for second in 0..<5_000 { _ = recorder.record(Self.reading(second), at: Self.start + Double(second)) }
        let minute = recorder.record(Self.reading(5_000), at: Self.start + 4_000.2)
        #expect(minute?.time ?? .distantPast > Self.start + 4_900, "the minute that ran is over")
        let all = recorder.seconds(from: .distantPast)
        #expect(zip(all, all.dropFirst()).allSatisfy { $0.time < $1.time })
        #expect(all.last?.time == Self.start + 4_000 && all.first?.time == Self.start + 1_400)
        for second in 4_001..<9_000 { _ = recorder.record(Self.reading(second), at: Self.start + Double(second)) }
        #expect(recorder.seconds(from: .distantPast).count == LinkRecorder.secondsMax)
    }

    @Test("steps begin at multiples of their length, and hold all that was in them")
    func gathering() {
        var recorder = LinkRecorder()
        for second in 0..<1_000 { _ = recorder.record(Self.reading(second), at: Self.start + Double(second)) }
        let steps = LinkHistory.gathered(recorder.seconds(from: .distantPast), stepSeconds: 300)
        #expect(steps.allSatisfy { $0.time.timeIntervalSince1970.truncatingRemainder(dividingBy: 300) == 0 })
        #expect(steps.reduce(0) { $0 + $1.seconds } == 1_000)
        #expect(steps.reduce(0) { $0 + ($1.traffic.first?.sentWireBytes ?? 0) } == 999_000)
    }
}
