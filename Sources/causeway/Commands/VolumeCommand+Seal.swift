import APIModels
import ArgumentParser
import EdgeConfiguration
import NIOCore

extension VolumeCommand {
    struct Seal: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Close a consistency point of what was written so far.",
            discussion:
                "With --wait it returns when the point is applied to the disk at home, and fails with status 3 when that takes too long."
        )

        @Argument(help: "The name of the volume.")
        var name: String

        @Flag(help: "Wait until the point is applied at home.")
        var wait = false

        @Option(help: "How long to wait. (default: 10m)", transform: Quantities.duration)
        var timeout: Duration = .seconds(600)

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            var result = try await client.seal(name)
            if wait {
                var progress = ProgressLine("sending \(name)", output: connection.output)
                result.state = try await client.waitUntilHome(result, deadline: .now.advanced(by: timeout)) {
                    progress.update(remainingBytes: $0.unsent?.bytes ?? 0)
                }
                progress.finish()
            }
            if connection.output == .json {
                try Terminal.json(result)
            } else if !wait || result.state == .applied {
                Terminal.print("\(result.volume): point \(result.point) is \(result.state.rawValue)")
            }
            if wait && result.state != .applied {
                throw CommandFailure(
                    "point \(result.point) of \(name) is \(result.state.rawValue), not applied at home after \(TimeSpan.text(timeout))",
                    action: "It goes on by itself. See causeway link list, and causeway volume show \(name).", status: .notInTime)
            }
        }
    }

    struct Detach: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Stop serving a volume, once all its writes are at home.",
            discussion: """
                With --force it does not wait for the writes: what is unsent then is lost. With --to-point the disk goes back to a point \
                that is kept (causeway volume point list), and all that came later is gone.
                """)

        @Argument(help: "The name of the volume.")
        var name: String

        @Flag(help: "Detach now, and give up writes that are not at home.")
        var force = false

        @Option(help: "The past point that the disk goes back to then.")
        var toPoint: UInt64?

        @Option(help: "How long to wait. (default: 1h)", transform: Quantities.duration)
        var timeout: Duration = .seconds(3600)

        @OptionGroup var connection: ConnectionOptions

        func run() async throws {
            let client = try connection.client()
            let result = try await detach(client)
            if connection.output == .json { return try Terminal.json(result) }
            Self.show(result)
            if let toPoint { Terminal.print("\(result.volume): the disk is at point \(toPoint) again") }
        }

        static func show(_ result: DetachResult) {
            switch result.unsentBytes {
            case 0?: Terminal.print("detached \(result.volume): everything is at home")
            case let bytes?: Terminal.print("detached \(result.volume): \(Human.bytes(bytes)) of writes were given up")
            case nil:
                Terminal.print("detached \(result.volume): what the cloud edge had not sent was given up; how much is not known")
            }
            if let held = result.heldPoints {
                Terminal.print("\(result.volume): \(held) points beyond the last common one of its group are kept, and are not on the disk")
            }
        }

        /// Asks once, and shows what is left while the answer is on its way.
        private func detach(_ client: APIClient) async throws -> DetachResult {
            try await withThrowingTaskGroup(of: DetachResult?.self) { group in
                group.addTask {
                    try await client.post(
                        "/v1/volumes/\(APIClient.part(name))/detach", DetachRequest(force: force, toPoint: toPoint),
                        timeout: timeout.timeAmount)
                }
                group.addTask {
                    var progress = ProgressLine("detaching \(name)", output: connection.output)
                    defer { progress.finish() }
                    while !Task.isCancelled {
                        if let volume = try? await client.volume(name) { progress.update(remainingBytes: volume.unsent?.bytes ?? 0) }
                        try? await Task.sleep(for: .milliseconds(500))
                    }
                    return nil
                }
                defer { group.cancelAll() }
                while let answer = try await group.next() {
                    if let answer { return answer }
                }
                throw CommandFailure("the edge gave no answer")
            }
        }
    }
}
