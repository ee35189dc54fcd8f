import Blocks
import Ciphers
import LinkProtocol
import NIOCore
import SecureCache
import SimulatedStorage
import Volumes
import WriteLog

/// The cloud edge's process in a simulated world: its log, its cache, its end of the link, one volume.
final class CloudProcess {
    typealias Served = Volume<SimulatedDirectory>

    private unowned let world: World
    let end: LinkEnd
    private let incarnation: UInt64
    private var cache: SecureCache<SimulatedFile>?
    private var log: WriteLog<SimulatedDirectory>?
    private(set) var volume: Served?
    private(set) var isOpen = false
    private(set) var isDead = false
    private var openCall: UInt64 = 0
    /// Called when the volume is open at home for the first time.
    var onOpen: (Served) -> Void = { _ in }

    init(world: World) {
        self.world = world
        incarnation = world.scheduler.random.next()
        end = LinkEnd(role: .initiator, scheduler: world.scheduler)
        world.cloudMachine.directory("state").open("cache", create: true) { [weak self] result in
            guard let self, !isDead, case .success(let file) = result else { return }
            openCache(file)
        }
    }

    func die() {
        isDead = true
        end.die()
    }

    /// The file system is full: the daemon tries again until it is not.
    private func retry(_ open: @escaping () -> Void) {
        world.scheduler.schedule(after: .milliseconds(100)) { [weak self] in
            if self?.isDead == false { open() }
        }
    }

    private func openCache(_ file: SimulatedFile) {
        SecureCache.open(
            file: file, byteCount: world.cacheBytes, key: world.cacheKey, limits: world.cacheLimits, random: world.scheduler.random.source
        ) { [weak self] result in
            guard let self, !isDead else { return }
            switch result {
            case .success(let cache):
                self.cache = cache
                cache.attach(volume: world.volumeIdentifier, key: world.volumeKey)
                openLog()
            case .failure(let error): world.fail("the cache did not open: \(error)")
            }
        }
    }

    private func openLog() {
        WriteLog.open(
            directory: world.cloudMachine.directory("log"), volume: world.volumeIdentifier, key: world.volumeKey,
            limits: world.logLimits, random: world.scheduler.random.source, now: world.scheduler.now
        ) { [weak self] result in
            guard let self, !isDead else { return }
            switch result {
            case .success(let log):
                self.log = log
                start()
            case .failure(.file(.noSpace)): retry { [self] in openLog() }
            case .failure(let error): world.fail("the log did not open: \(error)")
            }
        }
    }

    private func start() {
        guard let log, let cache else { return }
        let volume = Served(
            identifier: world.volumeIdentifier, routingTag: 1, sectorCount: world.diskSectorCount, policy: world.policy, log: log,
            cache: cache, clock: { [scheduler = world.scheduler] in scheduler.now })
        volume.uplink = { [end] message, trafficClass, isBulk in end.send(message, trafficClass, isBulk: isBulk) }
        volume.gatherTurns { [weak volume, scheduler = world.scheduler] in
            scheduler.schedule(microseconds: 0...200) { volume?.writeGathered() }
        }
        volume.onEvent = { [weak self] event in self?.handle(event) }
        self.volume = volume
        end.onAction = { [weak self] action in self?.handle(action) }
        world.line.cloudStarted(end)
        tick()
    }

    private func tick() {
        if isDead { return }
        volume?.tick()
        world.scheduler.schedule(after: .milliseconds(50)) { [weak self] in self?.tick() }
    }

    private func handle(_ action: LinkAction) {
        switch action {
        case .sessionStarted: volume?.linkSessionStarted()
        case .connectivityChanged(let isConnected): volume?.linkConnectivityChanged(isConnected: isConnected)
        case .becameWritable: volume?.linkWritable()
        case .deliver(.reply(let call, _, let body), _): opened(call, body)
        case .deliver(let message, _): volume?.receive(message)
        case .closeConnection: break
        }
    }

    private func handle(_ event: VolumeEvent) {
        switch event {
        case .needsOpen: open()
        case .fenced: world.fail("the volume was fenced, and nobody else has it")
        case .stopped(let reason): world.fail("the volume stopped: \(reason)")
        case .point, .pointDelayed, .logFull, .cacheFailed, .fileSystemFull: break
        }
    }

    private func open() {
        guard let volume, !isDead else { return }
        openCall += 1
        let body = OpenCoding.encode(volume.openRequest(incarnation: incarnation))
        _ = end.send(.request(call: openCall, method: "open", body: body), .control, isBulk: false)
    }

    private func opened(_ call: UInt64, _ body: ByteBuffer) {
        guard call == openCall, let volume, let reply = OpenCoding.reply(from: body) else { return }
        volume.opened(reply)
        if isOpen { return }
        isOpen = true
        onOpen(volume)
    }
}
