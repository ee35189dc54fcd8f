import APIModels
import Foundation

/// What `causeway lab` prints.
enum LabReport {
    static func up(_ record: LabRecord, directory: LabDirectory) {
        Terminal.print("The lab is up in \(directory.path).\n")
        Terminal.print(processes(record).text)
        if !record.volumes.isEmpty {
            var table = Table([.init("volume"), .init("disk"), .init("url")])
            for volume in record.volumes {
                table.add(volume.name, volume.disk, volume.url)
                for url in volume.otherURLs ?? [] { table.add("", "", url) }
                if let nbd = volume.nbd { table.add("", "", nbd) }
            }
            Terminal.print("\n" + table.text)
        }
        Terminal.print(
            """

            To ask the on-prem edge:
              export CAUSEWAY_API=\(record.onprem.api) CAUSEWAY_TOKEN=\(record.onprem.token)
              causeway status
            To take the lab down:
              causeway lab down --directory \(directory.path)
            """)
    }

    private static func processes(_ record: LabRecord) -> Table {
        var table = Table([.init("process"), .init("pid", isNumber: true), .init("running"), .init("address"), .init("log")])
        let onprem = record.onprem.daemon
        let cloud = record.cloud.daemon
        table.add(
            "onprem", String(onprem?.pid ?? record.onprem.pid), onprem == nil ? "no" : "yes", record.onprem.api, record.onprem.log
        )
        table.add(
            "cloud", String(cloud?.pid ?? record.cloud.pid), cloud == nil ? "no" : "yes", record.cloud.api, record.cloud.log)
        if let relay = record.relay {
            let runs = LabProcess.find(pid: relay.pid, argument: relay.control) != nil
            table.add("relay", String(relay.pid), runs ? "yes" : "no", relay.control, relay.log)
        }
        return table
    }

    static func down(_ outcome: LabDownOutcome, to output: OutputFormat) {
        if output == .json {
            try? Terminal.json(outcome)
            return
        }
        for note in outcome.notes { Terminal.print("note: \(note)") }
        for volume in outcome.unsent {
            let amount = volume.bytes.map { "\(Human.bytes($0)) of writes are" } ?? "an unknown amount of writes is"
            Terminal.print(
                "\(volume.name): \(amount) not at home; they stay in the cloud edge's write log until the lab is up again")
        }
        Terminal.print(outcome.unsent.isEmpty ? "The lab is down; everything is at home." : "The lab is down.")
    }

    private struct StatusDocument: Encodable {
        struct Process: Encodable {
            var pid: Int32?
            var running: Bool
        }

        var onprem: Process
        var cloud: Process
        var relay: Process?
        var links: [Link]?
        var volumes: [Volume]?
    }

    /// Prints the state of each part; fails when a process does not run.
    static func status(_ record: LabRecord, to output: OutputFormat) async throws {
        let onprem = record.onprem.daemon
        let cloud = record.cloud.daemon
        let relay = record.relay.map { LabProcess.find(pid: $0.pid, argument: $0.control) }
        let client = try APIClient(base: record.onprem.api, token: record.onprem.token)
        let links = onprem == nil ? nil : try? await client.list("/v1/links", of: Link.self)
        let volumes = onprem == nil ? nil : try? await client.list("/v1/volumes", of: Volume.self)
        if output == .json {
            try Terminal.json(
                StatusDocument(
                    onprem: .init(pid: onprem?.pid, running: onprem != nil), cloud: .init(pid: cloud?.pid, running: cloud != nil),
                    relay: relay.map { .init(pid: $0?.pid, running: $0 != nil) }, links: links, volumes: volumes))
        } else {
            Terminal.print(processes(record).text)
            if let links { Terminal.print("\n" + LinkCommand.table(links)) }
            if let volumes { Terminal.print("\n" + VolumeCommand.table(volumes)) }
        }
        var missing: [String] = []
        // Home's namespace is where it has to be, when there is one.
        let inside = record.relay?.addresses.map { "causeway line enter \($0.namespace) " } ?? ""
        if onprem == nil { missing.append("the on-prem edge (start it with: \(inside)causewayd --config \(record.onprem.config))") }
        if cloud == nil { missing.append("the cloud edge (start it with: causewayd --config \(record.cloud.config))") }
        if case .some(.none) = relay { missing.append("the relay") }
        if !missing.isEmpty { throw CommandFailure("not running: \(missing.joined(separator: ", "))") }
    }
}
