import LinkProtocol
import NIOCore
import NIOPosix
import Testing

@testable import Link

@Suite(.timeLimit(.minutes(1)))
struct CongestionControlTests {
    @Test func wordsAndNames() {
        #expect(CongestionControl("automatic") == .automatic)
        #expect(CongestionControl("system") == .system)
        #expect(CongestionControl("bbr") == .named("bbr"))
    }

    @Test(arguments: ["", "a", "bbr", "westwood", "illinois9", "123456789012345"])
    func aNameIsWhatItWas(text: String) { #expect(CongestionName(text).text == text) }

    @Test func theSystemsUntilTheLineLoses() {
        var chooser = CongestionChooser(.automatic)
        #expect(chooser.name() == nil)
        #expect(changes(&chooser, isLossy: false, times: 1_000) == 0)
        #expect(changes(&chooser, isLossy: true, times: 1) == 1)
        #expect(chooser.name() == "bbr")
        #expect(changes(&chooser, isLossy: true, times: 3) == 0)
        // It comes back when the line has been clean for so long without a break.
        #expect(changes(&chooser, isLossy: false, times: CongestionChooser.cleanNotesMin - 1) == 0)
        #expect(changes(&chooser, isLossy: true, times: 1) == 0)
        #expect(changes(&chooser, isLossy: false, times: CongestionChooser.cleanNotesMin - 1) == 0)
        #expect(chooser.name() == "bbr")
        #expect(changes(&chooser, isLossy: false, times: 1) == 1)
        #expect(chooser.name() == nil)
    }

    @Test func thePromptConnectionIsNotPaced() {
        var chooser = CongestionChooser(.automatic)
        for isLossy in [false, true] {
            _ = chooser.note(isLossy: isLossy)
            #expect(chooser.name(isPrompt: true) == "reno")
        }
        #expect(CongestionChooser(.named("bbr")).name(isPrompt: true) == "bbr")
        #expect(CongestionChooser(.system).name(isPrompt: true) == nil)
        #expect([.automatic, .system, .named("bbr")].map { (control: CongestionControl) in control.beginning } == ["reno", nil, nil])
    }

    @Test func whatIsNamedStays() {
        for (control, name) in [(CongestionControl.system, nil), (.named("cubic"), "cubic")] {
            var chooser = CongestionChooser(control)
            for isLossy in [false, true, true, false] { #expect(changes(&chooser, isLossy: isLossy, times: 1) == 0) }
            #expect(chooser.name() == name)
        }
    }

    /// How often the name changes while the same is told again and again.
    private func changes(_ chooser: inout CongestionChooser, isLossy: Bool, times: Int) -> Int {
        var changes = 0
        for _ in 0..<times where chooser.note(isLossy: isLossy) { changes += 1 }
        return changes
    }

    @Test func theKernelIsAsked() {
        #expect(CongestionControl.automatic.obstacle == nil)
        // Reno is in every kernel, and everybody may use it.
        #expect(CongestionControl.named("reno").obstacle == nil)
        for text in ["no_such_thing", "", "sixteen_letters_", "reno_and_more_letters", "RENO", "b\u{e9}"] {
            #expect(CongestionControl(text).obstacle != nil, "\(text)")
        }
    }

    @Test func aConnectionHasWhatItIsGiven() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let server = try await ServerBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        let client = try await ClientBootstrap(group: group).connect(to: try #require(server.localAddress)).get()
        let found = try await client.eventLoop.submit {
            let system = LinkChannel.congestionControl(of: client)
            let isReno = LinkChannel.setCongestionControl("reno", of: client)
            let reno = LinkChannel.congestionControl(of: client)
            let isNothing = LinkChannel.setCongestionControl("no_such_thing", of: client)
            return [system ?? "", "\(isReno)", reno ?? "", "\(isNothing)", LinkChannel.congestionControl(of: client) ?? ""]
        }.get()
        #expect(!found[0].isEmpty)
        #expect(found.dropFirst() == ["true", "reno", "false", "reno"])
        try await client.close()
        try await server.close()
    }
}
