import APIModels
import Ciphers
import EdgeConfiguration
import Files
import Foundation
import Link
import Logging
import ManagementAPI
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import ServiceLifecycle

/// One edge from its start to its end: state directory, data plane, control plane, API, signals.
public struct EdgeProcess: Sendable {
    private let configuration: Configuration
    private let configurationPath: String

    /// - Parameter configurationPath: the file to read again on SIGHUP.
    public init(configuration: Configuration, configurationPath: String) {
        self.configuration = configuration
        self.configurationPath = configurationPath
    }

    /// Runs until SIGTERM or SIGINT, then stops gracefully. Throws `EdgeFailure` when the edge can't start.
    public func run() async throws {
        let level = NIOLockedValueBox(Self.level(configuration.log.level))
        let format = configuration.log.format
        LoggingSystem.bootstrap { StructuredLog(label: $0, format: format, level: level) }
        let logger = Logger(label: "causewayd")
        logger.info("data at rest is encrypted with AES-256-GCM by \(BlockCipher.library)")

        let directory: OpenDirectory
        do { directory = try OpenDirectory(configuration.stateDirectory, create: true) } catch {
            throw EdgeFailure(.state, "the state directory can't be used: \(error)")
        }
        // Held until the process ends.
        let lock = try await Self.lock(directory)
        defer { withExtendedLifetime(lock) {} }

        let tokens: TokenFile.Contents
        do { tokens = try TokenFile.loadOrCreate(configuration.api.tokenFile) } catch {
            throw EdgeFailure(.state, "\(error)")
        }
        if let obstacle = CongestionControl(configuration.linkCongestionControl).obstacle {
            throw EdgeFailure(
                .configuration,
                "link.congestionControl: this edge can't have “\(configuration.linkCongestionControl)”: \(obstacle); write automatic or system, "
                    + "or a name that net.ipv4.tcp_available_congestion_control lists")
        }
        let loopTurns = LoopTurns()
        let dataLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: loopTurns)
        let threadPool = NIOThreadPool(numberOfThreads: EdgeEnvironment.threadCount)
        let cacheThreadPool = NIOThreadPool(numberOfThreads: EdgeEnvironment.cacheThreadCount)
        threadPool.start()
        if case .cloud = configuration.role { cacheThreadPool.start() }
        let environment = EdgeEnvironment(
            configuration: configuration, directory: directory, eventLoop: dataLoop.next(), loopTurns: loopTurns, threadPool: threadPool,
            cacheThreadPool: cacheThreadPool, logger: logger,
            recorder: EventRecorder(log: EventLog(), logger: logger))
        for warning in tokens.warnings + configuration.exposedListeners.map({ "\($0) is not a loopback address" }) {
            environment.recorder.record("edge.warning", severity: .warning, warning)
        }
        let signals = SignalStream([SIGTERM, SIGINT, SIGHUP])
        // The edge outlives the loop's last turn: what lives on the loop must not be taken down beside it.
        let controller: any EdgeController
        switch configuration.role {
        case .onprem(let onPrem):
            let edge = try OnPremEdge(environment: environment, onPrem: onPrem)
            controller = edge
            try await serve(
                edge, tokens: tokens.tokens, logger: logger, signals: signals, start: { try await edge.start(onPrem) },
                bound: { await edge.setAPIAddress($0) }, stop: { await edge.stop() },
                reload: { configuration in
                    level.withLockedValue { $0 = Self.level(configuration.log.level) }
                    if case .onprem(let onPrem) = configuration.role { await edge.reload(onPrem) }
                })
        case .cloud(let cloud):
            let edge = try CloudEdge(environment: environment, cloud: cloud)
            controller = edge
            try await serve(
                edge, tokens: tokens.tokens, logger: logger, signals: signals, start: { try await edge.start() },
                bound: { await edge.setAPIAddress($0) }, stop: { await edge.stop() },
                reload: { configuration in
                    level.withLockedValue { $0 = Self.level(configuration.log.level) }
                    if case .cloud(let cloud) = configuration.role { await edge.reload(cloud) }
                })
        }
        logger.info("stopped")
        // Everything is flushed and closed. Timers and connections that are left end with the process; taking the loop down under
        // them would be a race with nothing to win.
        withExtendedLifetime((controller, dataLoop, threadPool, cacheThreadPool)) { _exit(ExitStatus.stopped.rawValue) }
    }

    /// How long the lock of another process is waited for: a killed daemon holds it until its memory is torn down.
    private static let lockTime = Duration.seconds(2)

    private static func lock(_ directory: OpenDirectory) async throws -> StateDirectoryLock {
        let deadline = ContinuousClock.now + lockTime
        while true {
            do { return try StateDirectoryLock(directory: directory) } catch {
                guard case .inUse = error else { throw EdgeFailure(.state, "\(error)") }
                if ContinuousClock.now >= deadline { throw EdgeFailure(.inUse, "\(error)") }
            }
            // The end of a process that is not our child has no event.
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// Starts the edge and its API, and lives through the signals until one of them says stop.
    private func serve(
        _ controller: any EdgeController, tokens: [String], logger: Logger, signals: SignalStream,
        start: @escaping @Sendable () async throws -> Void, bound: @escaping @Sendable (String) async -> Void,
        stop: @escaping @Sendable () async -> Void, reload: @escaping @Sendable (Configuration) async -> Void
    ) async throws {
        let listen = configuration.api.listen
        let server = ManagementServer(
            options: .init(host: listen.host, port: Int(listen.port), version: edgeVersion, openMetrics: configuration.api.openMetrics),
            controller: controller,
            tokens: BearerTokens(tokens), logger: logger,
            onListening: { host, port in
                await bound("\(host.contains(":") ? "[\(host)]" : host):\(port)")
                logger.info("the API listens at \(host):\(port)")
            })
        do {
            try await start()
            var options = ServiceGroupConfiguration(services: [.init(service: server)], logger: Self.quiet)
            // An event stream whose client does not read must not hold the stop.
            options.maximumGracefulShutdownDuration = .seconds(5)
            try await run(ServiceGroup(configuration: options), signals, reload, logger)
        } catch let error as ManagementServer.ListenError {
            await finish(stop, logger)
            throw EdgeFailure(.unavailable, "api.listen: \(error)")
        } catch is CancellationError {
            // The API took too long to stop.
        } catch {
            await finish(stop, logger)
            throw error
        }
        await finish(stop, logger)
    }

    /// Runs the API until a signal says stop and it has stopped, or some time after that: a call that waits, for points to come home or for a log
    /// that is full, can't be ended, and the edge does not wait for it.
    private func run(
        _ services: ServiceGroup, _ signals: SignalStream, _ reload: @escaping @Sendable (Configuration) async -> Void, _ logger: Logger
    ) async throws {
        let (ends, end) = AsyncStream.makeStream(of: Result<Void, any Error>.self)
        let listening = Task {
            for await signal in signals.stream {
                if signal == SIGHUP {
                    await self.reload(logger: logger, reload)
                    continue
                }
                logger.notice("stopping: signal \(signal)")
                await services.triggerGracefulShutdown()
                try? await Task.sleep(for: Self.callsTime)
                return _ = end.yield(.failure(CancellationError()))
            }
        }
        defer { listening.cancel() }
        Task {
            do {
                try await services.run()
                end.yield(.success(()))
            } catch {
                end.yield(.failure(error))
            }
        }
        for await result in ends { return try result.get() }
    }

    /// How long calls have after a signal, those included that are cancelled after five seconds.
    private static let callsTime = Duration.seconds(8)
    /// How long a graceful stop may take. A log whose file system is full can't be flushed, however long one waits.
    private static let stopTime = Duration.seconds(60)

    /// Stops within the time, or ends the process with what it could not flush: that is as after a kill, and said.
    private func finish(_ stop: @escaping @Sendable () async -> Void, _ logger: Logger) async {
        let deadline = Task {
            try await Task.sleep(for: Self.stopTime)
            logger.critical(
                "could not flush and close within \(Self.stopTime.components.seconds) s: what was acknowledged is in the log's file, but may not survive a power cut"
            )
            _exit(ExitStatus.state.rawValue)
        }
        await stop()
        deadline.cancel()
    }

    private func reload(logger: Logger, _ body: @Sendable (Configuration) async -> Void) async {
        do {
            let fresh = try Configuration.load(configurationPath)
            guard fresh.role.name == configuration.role.name, fresh.stateDirectory == configuration.stateDirectory else {
                return logger.error("reload refused: role and state directory can't change while running; restart the daemon")
            }
            await body(fresh)
            logger.notice(
                "the configuration was read again: the log level, the disks of an on-prem edge and the sizes of a cloud edge's cache and write logs are taken over, the rest needs a restart"
            )
        } catch {
            logger.error("reload refused: \(error)")
        }
    }

    /// For what the service group says of itself.
    private static var quiet: Logger { Logger(label: "services") { _ in SwiftLogNoOpLogHandler() } }

    private static func level(_ level: Configuration.LogLevel) -> Logger.Level { Logger.Level(rawValue: level.rawValue) ?? .info }
}
