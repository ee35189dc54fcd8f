import NIOCore
import Testing

@testable import PacketWAN

struct LineCommandTests {
    private let values = LineValues(
        duration: { $0 == "40ms" ? .milliseconds(40) : $0 == "2ms" ? .milliseconds(2) : nil },
        bytesPerSecond: { $0 == "100mbit" ? 12_500_000 : nil }, size: { $0 == "256KiB" ? 262_144 : nil })

    private func parse(_ line: String, current: LineConditions = .init()) throws -> LineCommand {
        try LineCommand(line: line, current: current, values: values)
    }

    @Test func readsEveryCommand() throws {
        #expect(try parse("stats") == .statistics)
        #expect(try parse(" cut\r") == .setState(.cut))
        #expect(try parse("hold") == .setState(.hold))
        #expect(try parse("restore") == .setState(.up))
        var all = LineConditions()
        all.roundTrip = .milliseconds(40)
        all.bytesPerSecond = 12_500_000
        all.jitter = .milliseconds(2)
        all.queueBytes = 262_144
        all.loss = .bursts(0.01, meanLength: 8)
        all.reorder = 0.001
        all.reorderDelay = .milliseconds(2)
        let line = "set rtt=40ms rate=100mbit jitter=2ms queue=256KiB loss=1%/8 reorder=0.001 reorder-delay=2ms"
        #expect(try parse(line) == .setConditions(all))
        #expect(
            try parse("set rate=unlimited queue=auto loss=0 reorder=0%", current: all)
                == .setConditions(
                    {
                        var changed = all
                        changed.bytesPerSecond = nil
                        changed.queueBytes = nil
                        changed.loss = .none
                        changed.reorder = 0
                        return changed
                    }()))
    }

    @Test(arguments: [
        "", "set", "set rtt", "set rtt=", "set rate=fast", "set loss=101%", "set loss=1", "set reorder=1.0", "set loss=-1%",
        "set loss=1%/0", "set loss=1%/", "set loss=nan",
        "set queue=-1", "set reorder=2", "set colour=red", "cut everything", "cut blackhole", "stats now", "reset", "\u{0}",
    ])
    func refusesEverythingElse(line: String) {
        #expect(throws: LineCommand.ParseError.self) { try parse(line) }
    }

    @Test func addressesOfTwoNumbersDoNotMeet() {
        let first = WANAddresses(number: 0, namespace: "n")
        #expect(first.cloud == "198.18.0.1" && first.home == "198.18.0.2" && first.homeBesideLine == "198.18.0.3")
        #expect(WANAddresses(number: 32, namespace: "n").cloud == "198.18.1.1")
        #expect(WANAddresses(number: WANAddresses.numberLimit - 1, namespace: "n").homeBesideLine == "198.18.255.251")
    }
}
