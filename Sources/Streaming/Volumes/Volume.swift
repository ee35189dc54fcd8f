import Blocks
import Ciphers
import CloudOnlyDisk
import LinkProtocol
import NIOCore
import SecureCache
import WriteLog

// A disk as the cloud edge serves it.
//
// Reads:   cloud-only disk -> unsent writes (log) -> cache -> link; Volume+Read.swift. Allocation likewise; Volume+Allocation.swift.
// Writes:  log, acknowledged when its file has them, or when durable for FUA and FLUSH; Volume+Write.swift.
//          What is cloud-only goes to its own disk instead, and may come home later; Volume+Regions.swift, Volume+Imaging.swift.
// Points:  the log's epochs, sealed by time, size or demand, sent in order, released when home has
//          received them and the cache has taken their blocks; Volume+Points.swift, Volume+Sending.swift.
// Link:    sessions come and go, the volume goes on; Volume+Link.swift.
//
//            linkLost                    pointRefused(fenced)
//   serving ----------> linkDown   any ---------------------> fenced
//           <----------            any ---------------------> stopped (log failed, or detached)
//             opened

/// How a volume treats its writes and how long it waits.
public struct VolumePolicy: Equatable, Sendable {
    /// A point is sealed when its oldest write is this old.
    public var recoveryPointObjective: TimeAmount
    /// A point is sealed when it holds this many bytes: the recovery point objective in bytes.
    public var sealBytes: Int
    /// How long a read of missing blocks waits while the link is down. Less than the 30 s after which initiators lose patience:
    /// they try again what is answered in time.
    public var readTimeout: TimeAmount
    /// How long a write waits for room in a full log.
    public var writeTimeout: TimeAmount

    public init(
        recoveryPointObjective: TimeAmount = .seconds(5), sealBytes: Int = 64 << 20, readTimeout: TimeAmount = .seconds(20),
        writeTimeout: TimeAmount = .seconds(20)
    ) {
        self.recoveryPointObjective = recoveryPointObjective
        self.sealBytes = sealBytes
        self.readTimeout = readTimeout
        self.writeTimeout = writeTimeout
    }
}

/// How far a point has come.
public enum PointProgress: Int, Comparable, Sendable {
    /// Durable in the cloud edge's log.
    case sealed
    /// Durable in the journal at home.
    case received
    /// On the disk at home.
    case applied

    public static func < (left: PointProgress, right: PointProgress) -> Bool { left.rawValue < right.rawValue }
}

/// What a volume tells its owner.
public enum VolumeEvent: Equatable, Sendable {
    /// Home does not know this session (any more): open the volume again and call `opened`.
    case needsOpen
    /// A point has come this far.
    case point(PointNumber, PointProgress)
    /// Another writer has the lease; nothing is served any more.
    case fenced
    /// The volume stopped itself, for the reason given.
    case stopped(String)
    /// Home could not take a point, for now; it is tried again.
    case pointDelayed(PointNumber, PointRefusal)
    /// The log has passed 50, 75 or 90 % of its bound on the way to full; from 75 % on writers are slowed.
    case logFilling(LogFill)
    /// The log is well below half again.
    case logEased(LogFill)
    /// The oldest unsent write is this old, much more than the recovery point objective.
    case unsentLate(TimeAmount)
    /// It is not any more.
    case unsentCaughtUp
    /// The log has no room; writers wait.
    case logFull
    /// The file system under the log takes no changes, for this reason; what is ordered is kept in memory, and it is tried again.
    case logObstructed(LogObstacle)
    /// It takes them again, after so long.
    case logUnobstructed(TimeAmount)
    /// The cloud-only writes to a range are in the log now, and go home with the next points.
    case imaged(SectorRange)
    /// The cache can't be made durable; it is tried again with the next point.
    case cacheFailed
}

/// A disk that lives at home and is served here.
public final class Volume<Directory: StorageDirectory>: BlockDevice {
    /// What the volume is doing.
    public enum State: Equatable, Sendable {
        case serving
        case linkDown
        case fenced
        case stopped(String)
    }

    /// Counters since the volume was opened here.
    public struct Statistics: Equatable, Sendable {
        public var reads: UInt64 = 0
        public var writes: UInt64 = 0
        public var flushes: UInt64 = 0
        public var readBytes: UInt64 = 0
        public var writtenBytes: UInt64 = 0
        /// Blocks that a read found in the cache or the log, and those that it had to fetch.
        public var hitBlocks: UInt64 = 0
        public var missedBlocks: UInt64 = 0
        public var fetches: UInt64 = 0
        /// Blocks that did not cross the link because an equal one was in the cache.
        public var referredBlocks: UInt64 = 0
        public var pointsSent: UInt64 = 0
        public var pointBytesSent: UInt64 = 0
    }

    public let identifier: VolumeIdentifier
    public private(set) var sectorCount: UInt64
    /// True when the volume is to be read only; may be changed while serving.
    public var isWriteProtected = false
    /// Policy in force; may be changed while serving.
    public var policy: VolumePolicy
    public internal(set) var state: State = .linkDown
    public internal(set) var statistics = Statistics()
    /// A point is sealed when it is as large as this, whatever the policy says; nil for as large as that lets it become.
    public var pointBytesMax: UInt64?
    /// Hands a message to the link; false when its class takes no more, then `linkWritable` will be called.
    public var uplink: (LinkMessage, TrafficClass, Bool) -> Bool = { _, _, _ in false }
    /// How long a piece of a point should be on this line: at most what one frame carries, less where a frame takes long.
    public var preferredPieceBytes: () -> Int = { 16 << 10 }
    /// The version of the link's protocol that both edges speak.
    public var linkVersion: () -> UInt16 = { LinkVersion.newest }
    /// The group that the volume has its points with; nil for none.
    public internal(set) weak var group: VolumeGroup<Directory>?
    /// The volume is to be in a group that is not there yet: until then nothing is sealed, whoever asks, and no point is sent.
    public var isAwaitingGroup = false
    /// What the owner hears.
    public var onEvent: (VolumeEvent) -> Void = { _ in }

    let log: WriteLog<Directory>
    private(set) var cache: SecureCache<Directory>
    /// What never goes home; nil for a volume that has no such writes.
    var cloudOnly: CloudOnlyLayer<Directory>?
    /// What `gatherTurns` was told, for a cloud-only disk that comes later.
    var onGathering: (() -> Void)?
    var onAdmissionDue: ((NIODeadline) -> Void)?
    let clock: () -> NIODeadline
    var fetches: FetchTable
    var allocationQueries: AllocationQueryTable
    /// Home's last answer about what has storage, as long as it is true, and how often there was a reason to forget it.
    var rememberedAllocation: [AllocationExtent] = []
    var allocationEpoch: UInt64 = 0
    var points = PointState()
    /// What home has of what points bring it; nil to send all of it.
    public var homeBlocks: PeerBlocks?
    /// Compares blocks with what home says of them; nil when the library refuses, then all cross.
    let blockHasher = BlockHasher()
    var isOpenAtHome = false
    var isConnected = false
    /// When home was last asked to open the volume.
    var openAskedAt: NIODeadline?
    var isLogFullTold = false
    var logFillWatch = FillWatch()
    var unsentAgeWatch = AgeWatch()
    var logFillEstimate = FillEstimate()
    /// What the owner was told last of the file system under the log, and since when it has been in the way.
    var logObstacleTold: (obstacle: LogObstacle, since: NIODeadline)?
    /// When the obstacle last made waiting writes and flushes fail.
    var logWaitersFailedAt: NIODeadline?
    var logRetriedAt: NIODeadline?

    /// A volume over its log, which has been opened, and the edge's cache, to which its key is attached.
    ///
    /// `routingTag` is what the owner routes answers by: it stands in the upper 16 bits of each read's number.
    public init(
        identifier: VolumeIdentifier, routingTag: UInt16, sectorCount: UInt64, policy: VolumePolicy, log: WriteLog<Directory>,
        cache: SecureCache<Directory>, clock: @escaping () -> NIODeadline
    ) {
        fetches = FetchTable(firstIdentifier: UInt64(routingTag) << 48)
        // The upper half of the tag's numbers: neither half is ever counted through.
        allocationQueries = AllocationQueryTable(firstIdentifier: UInt64(routingTag) << 48 | 1 << 47)
        self.identifier = identifier
        self.sectorCount = sectorCount
        self.policy = policy
        self.log = log
        self.cache = cache
        self.clock = clock
        // The log has let go of what was before its oldest epoch. A cache that does not say that it has all of that may show what
        // was there before.
        cache.require(identifier, through: log.oldestEpoch - min(log.oldestEpoch, 1))
    }

    /// What `opened` is called with comes from home's answer to this.
    public func openRequest(incarnation: UInt64) -> VolumeOpenRequest {
        // What home has received is not sent again, though the log may hold it until the cache has it too.
        VolumeOpenRequest(
            volume: identifier.description, logIdentifier: log.logIdentifier.description, incarnation: incarnation,
            oldestPoint: max(log.oldestEpoch, points.received + 1), lastSealedPoint: log.lastSealedPoint)
    }

    /// Goes on with another cache, which has taken over from the one so far in this turn of the event loop.
    public func replaceCache(_ fresh: SecureCache<Directory>) { cache = fresh }

    /// Work that falls due with time: seals by age, expiry of reads, retries. Called every 100 ms or sooner.
    public func tick() {
        let now = clock()
        expireReads(now: now)
        expireWrites(now: now)
        retryLog(now: now)
        watchLog(now: now)
        sealIfDue(now: now)
        retryPoints(now: now)
        retryOpen(now: now)
        tickCloudOnly(now: now)
    }

    /// The disk at home has become larger: requests may reach the new end from now on. A volume never shrinks.
    public func grow(to sectorCount: UInt64) {
        guard sectorCount > self.sectorCount else { return }
        // A fetch of the block that the old end cut brings it only up to there: nobody behind that end may join it. The cache
        // never has that block, see `receiveRead`.
        fetches.close(overlapping: SectorRange(from: self.sectorCount, to: self.sectorCount + 1))
        forgetAllocation()
        self.sectorCount = sectorCount
    }

    /// Takes no more requests and lets go of the log; what is unsent stays in it.
    public func close(reason: String, completion: @escaping () -> Void) {
        onEvent = { _ in }
        stop(.stopped(reason), error: .stopped(reason))
        log.close { [self] _ in
            guard let cloudOnly else { return completion() }
            cloudOnly.disk.close { _ in completion() }
        }
    }

    /// The error that a request gets in a state in which nothing is served.
    var refusal: BlockDeviceError? {
        switch state {
        case .serving, .linkDown: return nil
        case .fenced: return .stopped("another edge holds the lease on volume \(identifier); this one must not serve it")
        case .stopped(let reason): return .stopped(reason)
        }
    }

    func stop(_ newState: State, error: BlockDeviceError) {
        if refusal != nil { return }
        state = newState
        isOpenAtHome = false
        for fetch in fetches.removeAll(startedBefore: .distantFuture) {
            for waiter in fetch.waiters { waiter.operation.fail(error) }
        }
        for query in allocationQueries.removeAll(startedBefore: .distantFuture) { query.completion(.failure(error)) }
        log.failWaiting(.closed)
        cloudOnly?.failKeptBack(since: .distantFuture, error)
        cloudOnly?.retryRemovalIfDue()
        cloudOnly?.disk.failWaiting(.closed)
        failSealWaiters(error)
    }

    /// The range as the device takes it, or the reason why not.
    func check(_ range: SectorRange) -> BlockDeviceError? {
        if let refusal { return refusal }
        return range.end > sectorCount ? .outOfRange : nil
    }
}

extension Volume {
    /// True when everything that was ever written is on the disk at home.
    public var isAllHome: Bool { log.currentEpochStartedAt == nil && points.applied >= log.lastSealedPoint && !hasCloudOnlyWrites }

    /// Bytes that would be lost with this edge: unsent ones, and those that are cloud-only.
    public var bytesNotHome: UInt64 { unsent.bytes + cloudOnlyBytes(in: SectorRange(from: 0, to: sectorCount)) }

    /// True while requests are taken, whether or not the link is up.
    public var isServable: Bool { refusal == nil }
}

extension Volume {
    /// What keeps the file system under the log and the cloud-only disk from taking changes; nil while nothing does.
    public var logObstacle: LogObstacle? { log.obstacle ?? cloudOnly?.disk.obstacle }

    /// True while writers wait for room in the log.
    public var isLogFull: Bool { log.isWaitingForSpace }
}
