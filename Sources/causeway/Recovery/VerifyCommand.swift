import ArgumentParser
import OfflineRecovery

/// Scrubs what an edge keeps, without a daemon.
struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Check the files of an edge that is stopped.",
        discussion: "Nothing is written. It ends with status 0 when all is whole, and with 1 when something is damaged.",
        subcommands: [Cache.self, Journal.self])

    struct Journal: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Check the point journals of an on-prem edge: every received point, and the position.",
            discussion: "The daemon brings received points to the disk when it starts: a disk is only complete after that.")

        @Option(help: "The state directory of the on-prem edge: all its journals are checked.", completion: .directory)
        var state: String?

        @Option(help: "The directory of one journal: STATE/journals/DISK.", completion: .directory)
        var directory: String?

        @OptionGroup var outputOptions: OutputOptions

        func validate() throws {
            if (state == nil) == (directory == nil) { throw ValidationError("Give --state or --directory.") }
        }

        func run() async throws {
            let journals = try await CommandFailure.offline {
                if let state { return try await JournalVerifier().verify(state: state) }
                return [try await JournalVerifier().verify(directory: directory ?? "")]
            }
            if outputOptions.output == .json { try Terminal.json(journals) } else { show(journals) }
            let damaged = journals.filter { !$0.damages.isEmpty }
            if !damaged.isEmpty {
                throw CommandFailure(
                    "\(damaged.count) of \(journals.count) journals are damaged",
                    action: "Put them back from a backup, or detach the volume with --force and attach it anew.")
            }
        }

        private func show(_ journals: [OfflineJournal]) {
            var table = Table([
                .init("journal"), .init("volume"), .init("received", isNumber: true), .init("applied", isNumber: true),
                .init("to apply", isNumber: true), .init("held", isNumber: true), .init("state"),
            ])
            for journal in journals {
                let waiting = journal.points.filter { $0.state == .received }
                let held = journal.points.filter { $0.state == .held }
                let newest = max(held.last?.number ?? waiting.last?.number ?? 0, journal.received ?? 0)
                table.add(
                    journal.directory.split(separator: "/").last.map(String.init), journal.volume,
                    journal.received.map { _ in String(newest) }, journal.applied.map { String($0) },
                    "\(waiting.count), \(Human.bytes(waiting.reduce(0) { $0 + $1.bytes }))",
                    "\(held.count), \(Human.bytes(held.reduce(0) { $0 + $1.bytes }))", journal.damages.isEmpty ? "whole" : "damaged")
            }
            Terminal.print(table.text)
            for journal in journals {
                for damage in journal.damages { Terminal.error("\(damage.file) at \(damage.offset): \(damage.message)") }
                if let first = journal.points.first(where: { $0.state == .held }) {
                    Terminal.error(
                        "\(journal.directory): from point \(first.number) on points are held until all volumes of the group have theirs; "
                            + "the disk belongs to the others at \(journal.cut.map { "cut \($0) of the group" } ?? "no cut yet")")
                }
                if !journal.keptFiles.isEmpty {
                    Terminal.error(
                        "\(journal.directory): \(journal.keptFiles.count) points of an attachment that was ended by force are kept as held-*.journal"
                    )
                }
                for point in journal.points where point.state == .incomplete {
                    Terminal.error("\(journal.directory): point \(point.number) was on its way; it is sent again")
                }
            }
        }
    }
}
