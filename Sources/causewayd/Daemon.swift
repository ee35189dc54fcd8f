import ArgumentParser
import CPlatform
import EdgeConfiguration
import EdgeServices
import Foundation

/// The daemon: one process, two roles, one configuration file.
@main
struct Daemon: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "causewayd",
        abstract: "An edge of Causeway: serves disks in a cloud (role cloud), or owns them at home (role onprem).",
        discussion: """
            SIGTERM and SIGINT stop it gracefully: front ends are closed, logs flushed. SIGHUP reads the configuration \
            again and takes over what may change while running: log.level, the on-prem disks, and the sizes of a cloud \
            edge's cache and write logs.

            Exit status: 0 stopped as asked, 64 wrong options, 69 an address is not to be had, 70 a fault of our own, \
            73 the state directory is not usable, 75 it is in use by another process, 78 the configuration is wrong.
            """,
        version: edgeVersion)

    @Option(name: .long, help: "The configuration file (YAML).")
    var config: String

    @Flag(name: .long, help: "Check the configuration file, say what is wrong with it, and end.")
    var checkConfig = false

    func run() async throws {
        let configuration: Configuration
        do {
            configuration = try Configuration.load(config)
        } catch {
            Self.fail(.configuration, "\(error)")
        }
        if checkConfig {
            print("\(config): the configuration is right (role \(configuration.role.name), state in \(configuration.stateDirectory))")
            return
        }
        causeway_forbid_core_dumps()
        causeway_keep_freed_memory()
        causeway_raise_file_limit()
        do {
            try await EdgeProcess(configuration: configuration, configurationPath: config).run()
        } catch let failure as EdgeFailure {
            Self.fail(failure.status, failure.description)
        } catch {
            Self.fail(.fault, "\(error)")
        }
    }

    private static func fail(_ status: ExitStatus, _ message: String) -> Never {
        for line in message.split(separator: "\n") { try? FileHandle.standardError.write(contentsOf: Data("causewayd: \(line)\n".utf8)) }
        Foundation.exit(status.rawValue)
    }
}
