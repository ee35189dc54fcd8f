import Blocks
import Ciphers
import LinkProtocol
import NIOCore
import SecureCache
import SimulatedStorage
import Testing
import WriteLog

@testable import Volumes

/// A volume over a simulated disk, with a link that takes what it is given and keeps it.
final class VolumeBench {
    let scheduler: Scheduler
    let machine: SimulatedMachine
    let identifier = VolumeIdentifier(high: 5, low: 6)
    let volume: Volume<SimulatedDirectory>
    /// What was handed to the link, in order.
    var sent: [LinkMessage] = []
    /// Hears of each message at once.
    var onSent: (LinkMessage) -> Void = { _ in }
    private(set) var events: [VolumeEvent] = []
    let key: SecretKey

    convenience init(
        seed: UInt64 = 8, sectorCount: UInt64 = 2_048, policy: VolumePolicy = VolumePolicy(), limits: WriteLogLimits = WriteLogLimits()
    ) throws {
        let scheduler = Scheduler(seed: seed)
        try self.init(
            scheduler: scheduler, machine: SimulatedMachine(scheduler: scheduler), sectorCount: sectorCount, policy: policy, limits: limits)
    }

    /// A volume on a machine that is there already, perhaps with the files of another one.
    init(
        scheduler: Scheduler, machine: SimulatedMachine, sectorCount: UInt64 = 2_048, policy: VolumePolicy = VolumePolicy(),
        limits: WriteLogLimits = WriteLogLimits()
    ) throws {
        key = try SecretKey([UInt8](repeating: 3, count: SecretKey.byteCount))
        let key = self.key
        var cache: SecureCache<SimulatedDirectory>?
        machine.directory("state").open("cache", create: true) { opened in
            guard case .success(let file) = opened else { return }
            SecureCache.open(
                file: file, directory: machine.directory("cache"), byteCount: 1 << 20, keys: CacheKeys(cache: key) { _, _ in key },
                limits: CacheLimits(segmentBytes: 64 << 10), random: scheduler.random.source
            ) { if case .success(let opened) = $0 { cache = opened } }
        }
        var log: WriteLog<SimulatedDirectory>?
        WriteLog.open(
            directory: machine.directory("log"), volume: identifier, keys: DataKeys(key), limits: limits, random: scheduler.random.source,
            now: scheduler.now
        ) { if case .success(let opened) = $0 { log = opened } }
        scheduler.runUntilIdle()
        let opened = try #require(cache)
        opened.attach(volume: identifier, key: key, generation: 1)
        (self.scheduler, self.machine) = (scheduler, machine)
        volume = Volume(
            identifier: identifier, routingTag: 1, sectorCount: sectorCount, policy: policy, log: try #require(log), cache: opened,
            clock: { scheduler.now })
        volume.uplink = { [unowned self] message, _, _ in
            sent.append(message)
            onSent(message)
            return true
        }
        volume.onEvent = { [unowned self] in events.append($0) }
    }

    /// The link is up, and home has opened the volume.
    func connect() {
        volume.linkConnectivityChanged(isConnected: true)
        volume.opened(VolumeOpenReply(generation: 1, receivedPoint: 0, appliedPoint: 0))
    }

    /// Lets time pass as the daemon does.
    func pass(_ time: TimeAmount) {
        let end = scheduler.now + time
        while scheduler.now < end {
            _ = scheduler.run(until: min(end, scheduler.now + .milliseconds(50)))
            volume.tick()
        }
        scheduler.runUntilIdle()
    }

    /// Writes one block, and waits for it.
    func write(block: UInt64, fill: UInt8 = 1, durability: WriteDurability = .ordered) {
        let range = SectorRange(block: block)
        volume.write(range, data: ByteBuffer(repeating: fill, count: range.byteCount), durability: durability) { _ in }
        scheduler.runUntilIdle()
    }

    /// Home has received a point, and applied it.
    func home(has point: PointNumber) {
        volume.receive(.pointReceived(volume: identifier, point: point))
        volume.receive(.pointApplied(volume: identifier, point: point))
        scheduler.runUntilIdle()
    }

    /// The numbers of the points whose sending has begun.
    var pointsBegun: [PointNumber] {
        sent.compactMap { if case .pointBegin(_, _, let point) = $0 { point } else { nil } }
    }

    /// Bytes of data that points brought to the link.
    var pointBytes: Int {
        sent.reduce(0) { sum, message in
            if case .pointData(_, _, _, let data) = message { sum + data.readableBytes } else { sum }
        }
    }
}
