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

    /// What the line is like, on the command line: also the lab's.
    struct Conditions: ParsableArguments {
        @Option(help: "How much earlier or later than half of it a packet may arrive, like 2ms.", transform: Quantities.duration)
        var jitter: Duration?

        @Option(help: "The room in the router's queue, like 256KiB. (default: one round trip of the line)", transform: Quantities.size)
        var queue: UInt64?

        @Option(help: "The share of packets that is lost, like 1%; 1%/8 in bursts of 8.", transform: Conditions.lossModel)
        var loss: LossModel?

        @Option(help: "The share of packets that arrive 5 ms late and are overtaken, like 0.1%.", transform: Conditions.checkedShare)
        var reorder: String?

        /// True when one of them was given.
        var isAny: Bool { jitter != nil || queue != nil || loss != nil || reorder != nil }

        func conditions(rtt: Duration?, rate: UInt64?) -> LineConditions {
            var conditions = LineConditions()
            conditions.roundTrip = rtt?.timeAmount ?? .zero
            conditions.bytesPerSecond = rate
            conditions.jitter = jitter?.timeAmount ?? .zero
            conditions.queueBytes = queue.map { Int(clamping: $0) }
            conditions.loss = loss ?? .none
            if let reorder { try? conditions.set("reorder=\(reorder)", values: LineCommandLine.values) }
            return conditions
        }

        @Sendable private static func lossModel(_ text: String) throws -> LossModel {
            guard let model = LossModel(text) else { throw ValidationError("write it like 1%, or 1%/8 for bursts of 8") }
            return model
        }

        @Sendable private static func checkedShare(_ text: String) throws -> String {
            var conditions = LineConditions()
            do { try conditions.set("reorder=\(text)", values: LineCommandLine.values) } catch {
                throw ValidationError("write it like 0.1%")
            }
            return text
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
            let thread = Thread { [line = conditions.conditions(rtt: rtt, rate: rate), seed] in
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
