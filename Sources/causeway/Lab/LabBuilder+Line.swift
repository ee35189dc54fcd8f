import EdgeConfiguration
import Foundation
import PacketWAN

extension LabBuilder {
    /// Starts the emulator that works packet by packet, and waits until both of its ends are there.
    func startLine(_ ports: LabPorts, _ started: StartedProcesses) async throws -> LabRecord.Relay {
        let control = "127.0.0.1:\(ports.relayControl)"
        let record = lab.line
        try? FileManager.default.removeItem(atPath: record)
        let log = lab.log("relay")
        let process = try LabProcess.start(
            ownExecutable, ["line", "run", "--control", control, "--record", record] + options.lineArguments, log: log)
        started.add(process)
        let deadline = ContinuousClock.now.advanced(by: options.timeout)
        while ContinuousClock.now < deadline {
            if let data = FileManager.default.contents(atPath: record) {
                let addresses = try JSONDecoder().decode(WANAddresses.self, from: data)
                return .init(
                    pid: process.pid, control: control, listen: "\(addresses.home):\(ports.link)", log: log, addresses: addresses)
            }
            guard process.isAlive else {
                throw CommandFailure(
                    "the WAN by packets could not be made:\n\(lab.tail(ofLog: log))",
                    action: "Without root, leave --wan packets out: the relay emulates a round trip and a rate without loss.")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw CommandFailure("the WAN by packets did not come up: see \(log)", status: .notInTime)
    }
}

extension LabCommand.Up {
    /// The conditions of the line, for the emulator's command line.
    fileprivate var lineArguments: [String] {
        var words: [String] = []
        if let rtt { words += ["--rtt", TimeSpan.text(rtt)] }
        if let rate { words += ["--rate", bits(rate)] }
        return words + line.arguments
    }
}

/// A rate as the command line takes it.
func bits(_ bytesPerSecond: UInt64) -> String { "\(bytesPerSecond.multipliedReportingOverflow(by: 8).partialValue)bit" }
