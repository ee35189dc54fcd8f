import ArgumentParser
import EdgeConfiguration
import Logging
import NIOCore
import NIOPosix
import WANRelay

/// The WAN emulator as a process of its own; the lab starts it.
struct RelayCommandLine: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relay", abstract: "Relay TCP connections over an emulated WAN.",
        discussion: """
            Delays bytes by half of --rtt in each direction, and lets --rate through, behind a queue of one round trip. The control port \
            takes lines: stats, cut, cut blackhole, restore, reset, set rtt=TIME rate=RATE.
            """,
        shouldDisplay: false)

    @Option(help: "Where to listen, host:port.", transform: Quantities.address)
    var listen: NetworkAddress

    @Option(help: "Where to connect, host:port.", transform: Quantities.address)
    var connect: NetworkAddress

    @Option(help: "The round trip, like 40ms.", transform: Quantities.duration)
    var rtt: Duration = .zero

    @Option(help: "The rate in each direction, like 100mbit. (default: no limit)", transform: Quantities.bytesPerSecond)
    var rate: UInt64?

    @Option(help: "Where to listen for control, host:port. (default: nowhere)", transform: Quantities.address)
    var control: NetworkAddress?

    func run() async throws {
        let values = RelayControlValues(
            duration: { try? TimeSpan.parse($0).timeAmount }, bytesPerSecond: { try? Quantities.bytesPerSecond($0) })
        let group = MultiThreadedEventLoopGroup.singleton
        let stop = SignalStream([SIGTERM, SIGINT])
        let relay: WANRelay
        do {
            relay = try await WANRelay.start(
                listen: listen.relayAddress, server: connect.relayAddress,
                conditions: RelayConditions(roundTrip: rtt.timeAmount, bytesPerSecond: rate),
                control: control.map { ($0.relayAddress, values) }, group: group, logger: Logger(label: "relay"))
        } catch {
            throw CommandFailure(
                "the relay cannot listen at \(listen): \(error)", action: "Choose another address with --listen.")
        }
        Terminal.error("relay: \(relay.listenAddress) to \(connect), control \(relay.controlAddress?.description ?? "off")")
        await stop.next()
        try await relay.stop()
    }
}

extension NetworkAddress {
    var relayAddress: RelayAddress { RelayAddress(host: host, port: Int(port)) }
}
