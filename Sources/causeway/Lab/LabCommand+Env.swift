import ArgumentParser

extension LabCommand {
    /// Which of the two edges is meant.
    enum Side: String, ExpressibleByArgument, CaseIterable {
        case cloud, onprem
    }

    struct Env: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the shell's assignments that point this tool at the lab: eval \"$(causeway lab env --directory DIR)\".")

        @Option(help: "Where the lab keeps everything.", completion: .directory)
        var directory: String

        @Option(help: "Which edge.")
        var side: Side = .cloud

        func run() async throws {
            let record = try LabDirectory(directory).recordOfLabThatIsUp()
            let edge = side == .cloud ? record.cloud : record.onprem
            Terminal.print("export CAUSEWAY_API=\(edge.api) CAUSEWAY_TOKEN=\(edge.token)")
        }
    }
}
