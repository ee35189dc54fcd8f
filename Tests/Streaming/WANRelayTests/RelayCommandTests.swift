import NIOCore
import Testing

@testable import WANRelay

struct RelayCommandTests {
    private let current = RelayConditions(roundTrip: .milliseconds(10), bytesPerSecond: 1_000)
    private let values = RelayControlValues(
        duration: { $0 == "40ms" ? .milliseconds(40) : nil }, bytesPerSecond: { $0 == "100mbit" ? 12_500_000 : nil })

    private func parse(_ line: String) throws -> RelayCommand {
        try RelayCommand(line: line, current: current, values: values)
    }

    @Test func readsEveryCommand() throws {
        #expect(try parse("stats") == .statistics)
        #expect(try parse(" cut\r") == .setLineState(.cut))
        #expect(try parse("cut blackhole") == .setLineState(.blackhole))
        #expect(try parse("restore") == .setLineState(.up))
        #expect(try parse("reset") == .reset)
    }

    @Test func setKeepsWhatIsNotNamed() throws {
        #expect(try parse("set rtt=40ms") == .setConditions(.init(roundTrip: .milliseconds(40), bytesPerSecond: 1_000)))
        #expect(try parse("set rate=100mbit") == .setConditions(.init(roundTrip: .milliseconds(10), bytesPerSecond: 12_500_000)))
        #expect(
            try parse("set rate=unlimited rtt=40ms") == .setConditions(.init(roundTrip: .milliseconds(40), bytesPerSecond: nil)))
    }

    @Test(arguments: ["", "set", "set rtt", "set rtt=", "set rate=fast", "set loss=1", "cut everything", "stats now", "\u{0}"])
    func refusesEverythingElse(line: String) {
        #expect(throws: RelayCommand.ParseError.self) { try parse(line) }
    }
}
