import ArgumentParser
import EdgeConfiguration
import Foundation
import Logging
import NIOCore
import NIOPosix
import PacketWAN
import WANRelay

/// The WAN emulator that works packet by packet, as a process of its own; the lab starts it.
struct LineCommandLine: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "line", abstract: "Emulate a WAN, packet by packet, between this machine and a network namespace.",
        discussion: """
            Makes a device here and one in a new network namespace, and carries packets between them. The control port takes \
            lines: stats, cut, hold, restore, set rtt=TIME rate=RATE … . Needs root.
            """,
        shouldDisplay: false, subcommands: [Run.self, Enter.self], defaultSubcommand: Run.self)

    static let values = LineValues(
        duration: { try? TimeSpan.parse($0).timeAmount }, bytesPerSecond: { try? Quantities.bytesPerSecond($0) },
        size: { try? Quantities.size($0) })

    /// What the line is like, on the command line, in the words of the control port: also the lab's.
    struct Conditions: ParsableArguments {
        @Option(help: "How much earlier or later than half of it a packet may arrive, like 2ms.", transform: { try check("jitter", $0) })
        var jitter: String?

        @Option(
            help: "The room in the router's queue, like 256KiB. (default: one round trip of the line)",
            transform: { try check("queue", $0) })
        var queue: String?

        @Option(help: "The share of packets that is lost, like 1%; 1%/8 in bursts of 8.", transform: { try check("loss", $0) })
        var loss: String?

        @Option(help: "The share of packets that arrive 5 ms late and are overtaken, like 0.1%.", transform: { try check("reorder", $0) })
        var reorder: String?

        private var all: [(name: String, value: String)] {
            [("jitter", jitter), ("queue", queue), ("loss", loss), ("reorder", reorder)].compactMap { pair in pair.1.map { (pair.0, $0) } }
        }

        /// True when one of them was given.
        var isAny: Bool { !all.isEmpty }

        /// The same, for a command line.
        var arguments: [String] { all.flatMap { ["--\($0.name)", $0.value] } }

        func conditions(rtt: Duration?, rate: UInt64?) throws -> LineConditions {
            var conditions = LineConditions()
            conditions.roundTrip = rtt?.timeAmount ?? .zero
            conditions.bytesPerSecond = rate
            for (name, value) in all { try conditions.set("\(name)=\(value)", values: LineCommandLine.values) }
            return conditions
        }

        private static func check(_ name: String, _ value: String) throws -> String {
            var conditions = LineConditions()
            do { try conditions.set("\(name)=\(value)", values: LineCommandLine.values) } catch { throw ValidationError(error.description) }
            return value
        }
    }

    struct Run: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Carry packets until a signal comes.")

        @Option(help: "The round trip, like 40ms.", transform: Quantities.duration)
        var rtt: Duration?

        @Option(help: "The rate in each direction, like 100mbit. (default: no limit)", transform: Quantities.bytesPerSecond)
        var rate: UInt64?

        @OptionGroup var conditions: Conditions

        @Option(help: "What chance starts from.")
        var seed: UInt64 = 1

        @Option(help: "Where to listen for control, host:port. (default: nowhere)", transform: Quantities.address)
        var control: NetworkAddress?

        @Option(help: "A file that tells the addresses of both ends as JSON, once they are there.", completion: .file())
        var record: String?

        func run() async throws {
            let stop = SignalStream([SIGTERM, SIGINT])
            let outcome = AsyncStream<Result<PacketWAN?, any Error>>.makeStream()
            let line = try conditions.conditions(rtt: rtt, rate: rate)
            let thread = Thread { [seed] in
                outcome.continuation.yield(
                    Result {
                        let wan = try PacketWAN(conditions: line, seed: seed)
                        outcome.continuation.yield(.success(wan))
                        try wan.run()
                        return nil
                    })
            }
            thread.start()
            var results = outcome.stream.makeAsyncIterator()
            do {
                guard let wan = try await results.next()?.get() else { return }
                try await serve(wan)
                Task {
                    await stop.next()
                    wan.stop()
                }
                _ = try await results.next()?.get()
            } catch let error as PacketWANError {
                throw CommandFailure(error.description, action: error.action)
            }
        }

        private func serve(_ wan: PacketWAN) async throws {
            if let control {
                let loop = MultiThreadedEventLoopGroup.singleton.next()
                do {
                    _ = try await ControlPort.bind(control.relayAddress, on: loop) {
                        wan.answer($0, values: LineCommandLine.values)
                    }
                } catch {
                    throw CommandFailure("the emulator cannot listen at \(control): \(error)")
                }
            }
            let addresses = wan.addresses
            if let record {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
                try encoder.encode(addresses).write(to: URL(fileURLWithPath: record), options: .atomic)
            }
            Terminal.error(
                "line: \(addresses.cloud) here, \(addresses.home) in \(addresses.namespace), control \(control?.description ?? "off")")
        }
    }

    struct Enter: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Run a program in home's network namespace.")

        @Argument(help: "The namespace, as the emulator tells it.")
        var namespace: String

        @Argument(parsing: .captureForPassthrough, help: "The program and its arguments.")
        var program: [String] = []

        func validate() throws {
            if program.isEmpty { throw ValidationError("There is no program to run.") }
        }

        func run() throws {
            do { try LineNamespace.execute(program, in: namespace) } catch {
                throw CommandFailure(error.description, action: error.action)
            }
        }
    }
}
