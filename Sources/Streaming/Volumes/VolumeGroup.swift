import Blocks
import DequeModule
import NIOCore
import WriteLog

// Volumes of one machine that have their points together (W4).
//
// A cut is made in one turn of the event loop on which all volumes of an edge live: each log closes its epoch when it is asked to,
// so no write can be ordered between the first and the last. What was acknowledged before the turn is in the cut. What is ordered
// behind it is acknowledged after it, and whatever somebody writes because of that comes later still. So there is nobody to hold
// back, and `GroupPoint.membersMax` bounds how long the turn takes.
//
//   seal ─> [epochs of all members closed] ─> [all of them durable] ─> sent, each volume's points in order ─> received by all
//
// No point of a cut is sent before all of them are durable, and each says which points make up the cut. A crash before that leaves
// some that are durable and some that are not: then it is no cut, and those that are go home as part of the next one. Which
// it is the logs themselves tell (`isWhole`): the seal of each point has the whole cut with it.
//
// A cut has every volume of the group. While one is not served here, or has stopped, there is none: the others go on being written
// and wait, for a cut without it would take the disks at home apart. It is home that says when a volume is in the group no more; what
// remains of the cuts that had it are cuts of the others.

/// How a group treats the writes of its volumes.
public struct GroupPolicy: Equatable, Sendable {
    /// A point is sealed when the oldest write to any volume is this old.
    public var recoveryPointObjective: TimeAmount
    /// A point is sealed when all volumes together hold this many bytes.
    public var sealBytes: Int

    public init(recoveryPointObjective: TimeAmount = .seconds(5), sealBytes: Int = 64 << 20) {
        self.recoveryPointObjective = recoveryPointObjective
        self.sealBytes = sealBytes
    }
}

/// Volumes that have their points together. Lives on the event loop of its volumes.
public final class VolumeGroup<Directory: StorageDirectory> {
    /// What a caller of `seal` hears.
    public typealias Completion = (Result<GroupPoint, BlockDeviceError>) -> Void

    /// What the group has done.
    public struct Statistics: Equatable, Sendable {
        public var cuts: UInt64 = 0
        /// Cuts that did not come about, because a volume's log failed meanwhile.
        public var failedCuts: UInt64 = 0
        /// How long the turn took that made the last cut, and the longest one.
        public var lastCutTime = TimeAmount.zero
        public var longestCutTime = TimeAmount.zero
    }

    /// Cuts that may be on their way home at once: a volume whose points are small does not run ahead of the others by more.
    static var cutsInFlightMax: Int { 4 }
    /// How many callers of `seal` may wait for the cut before theirs.
    static var sealsWaitingMax: Int { 64 }

    public let identifier: GroupIdentifier
    /// Policy in force; may be changed while serving.
    public var policy: GroupPolicy
    public private(set) var members: [Volume<Directory>] = []
    /// Volumes of the group that are not served here now.
    public private(set) var missing: Set<VolumeIdentifier> = []
    /// The number of the last cut.
    public private(set) var lastNumber: UInt64
    /// The last cut that is durable; nil when this process has made none.
    public private(set) var lastCut: GroupPoint?
    public private(set) var statistics = Statistics()

    private let clock: () -> NIODeadline
    /// The cut whose seals are not all durable yet.
    private var sealing: GroupPoint?
    private var waitingSeals = Deque<(seal: PointSeal?, completion: Completion)>()
    /// A cut is to be made, whether anything was written or not: home may hold points of one that never came about.
    private var needsCut = false
    /// Durable cuts that not all volumes have at home.
    private var unfinished = Deque<GroupPoint>()

    /// A group whose last cut was `lastNumber`, as far as home knows; the logs of its members may know of later ones.
    public init(identifier: GroupIdentifier, policy: GroupPolicy, lastNumber: UInt64, clock: @escaping () -> NIODeadline) {
        self.identifier = identifier
        self.policy = policy
        self.lastNumber = lastNumber
        self.clock = clock
    }

    /// Home has told the number of the last cut that it knows of. It is a larger one, too, when the volumes of the group have changed: what
    /// is in the log of a volume that was not here meanwhile counts as older than any cut from now on.
    public func noteLastNumber(_ number: UInt64) { lastNumber = max(lastNumber, number) }

    // MARK: Members

    /// The group has these volumes from now on. Those that leave have points of their own again, and so have all when it is given none.
    /// - Parameter missing: others that are in it and are not served here now. There is no cut before they are, or have left.
    public func setMembers(_ volumes: [Volume<Directory>], missing: Set<VolumeIdentifier> = []) {
        self.missing = missing
        for volume in members where !volumes.contains(where: { $0 === volume }) && volume.group === self { volume.leaveGroup() }
        members = Array(volumes.prefix(GroupPoint.membersMax))
        lastNumber = cutsInLogs.reduce(lastNumber) { max($0, $1.number) }
        for volume in members { volume.join(self) }
        needsCut = true
        // Once all of them have joined: the first of these cuts takes them all.
        for volume in members { volume.sealAwaited() }
        // A group that is given none is gone, and nobody ticks it any more.
        if members.isEmpty { answerWaitingSeals() }
    }

    /// The volumes for which the next cut waits: those that are not served here, and those that have stopped.
    public var awaited: [VolumeIdentifier] {
        if isPlanted(.cutsWithoutStoppedVolume) { return [] }
        return (missing + members.filter { $0.refusal != nil }.map { $0.identifier }).sorted { $0.description < $1.description }
    }

    /// Those that can be sealed. Before a cut these are all.
    private var usable: [Volume<Directory>] { members.filter { $0.refusal == nil } }

    // MARK: Sealing
    // Asked at each tick: a key path of a generic class would be made anew each time, so closures stand here.

    /// True while the points of a cut are being made durable.
    public var isSealing: Bool { sealing != nil }

    /// Seals when the oldest write is old enough, the volumes hold enough, or a log wants room; and lets go of cuts that are home.
    public func tick() {
        memberProgressed()
        answerWaitingSeals()
        sealIfDue(now: clock())
    }

    /// False while a cut is under way, or a volume has not made durable yet what it sealed before it joined: a cut counts on that.
    private var mayCut: Bool { sealing == nil && usable.allSatisfy { $0.log.isSealingDone } }

    private func answerWaitingSeals() {
        while mayCut, let next = waitingSeals.popFirst() { seal(carrying: next.seal, completion: next.completion) }
    }

    private func sealIfDue(now: NIODeadline) {
        guard mayCut, awaited.isEmpty else { return }
        let volumes = usable
        // All gather on while one of them waits to be sent, so that their points merge in step.
        let factor = volumes.contains { $0.hasPointWaiting } ? Volume<Directory>.mergeFactor : 1
        let oldest = volumes.compactMap { $0.log.currentEpochStartedAt }.min()
        let isOld = oldest.map { now - $0 >= policy.recoveryPointObjective * factor } ?? false
        let byteCount = volumes.reduce(0) { $0 + $1.log.currentEpochBytes }
        let byteCountMax = volumes.compactMap { $0.pointBytesMax }.min() ?? .max
        let isLarge = byteCount >= min(Volume<Directory>.mergedBytes(policy.sealBytes, factor: factor), byteCountMax)
        let maySealByTime = volumes.allSatisfy { $0.log.sealedPoints.count < Volume<Directory>.pointsSealedByTimeMax }
        let isWanted = volumes.contains { $0.log.wantsSeal || $0.log.currentEpochExtents >= Volume<Directory>.extentsPerPointMax }
        if isOld && maySealByTime || isLarge || isWanted || needsCut && !volumes.isEmpty { cut(carrying: nil) { _ in } }
    }

    /// Makes a cut, and completes when it is durable. With nothing written since the last one, and nothing to say of it, the
    /// answer is that one. Fails while a volume of the group is not served here or has stopped.
    public func seal(carrying seal: PointSeal? = nil, completion: @escaping Completion) {
        let awaited = awaited
        guard awaited.isEmpty else {
            return completion(.failure(.unreachable("the group waits for \(awaited.map(\.description).joined(separator: ", "))")))
        }
        if !mayCut {
            guard waitingSeals.count < Self.sealsWaitingMax else {
                return completion(.failure(.unreachable("too many points of this group wait to be sealed; try again later")))
            }
            return waitingSeals.append((seal, completion))
        }
        if seal == nil, let lastCut, isNow(lastCut) { return completion(.success(lastCut)) }
        cut(carrying: seal, completion: completion)
    }

    /// True when nothing was written since the cut, and it has every volume.
    private func isNow(_ cut: GroupPoint) -> Bool {
        usable.allSatisfy { !$0.log.hasUnsealedWrites && cut.point(of: $0.identifier) == $0.log.currentEpoch - 1 }
    }

    private func cut(carrying seal: PointSeal?, completion: @escaping Completion) {
        let volumes = usable
        if volumes.isEmpty { return completion(.failure(.stopped("no volume of the group is served"))) }
        // The cut that ends what one before left open is made at the limit too: what is sent before it waits for it at home.
        let pointsMax = Volume<Directory>.pointsSealedMax + (needsCut ? Volume<Directory>.pointsSealedByTimeMax : 0)
        if volumes.contains(where: { $0.log.sealedPoints.count >= pointsMax }) {
            return completion(.failure(.unreachable("too many points of this group wait to go home; try again later")))
        }
        let (number, isTooLarge) = lastNumber.addingReportingOverflow(1)
        if isTooLarge {
            return completion(.failure(.stopped("the numbers of this group's points have run out; make another group of its volumes")))
        }
        let start = clock()
        // Without a single write the first volume has an empty point, which carries the cut. What there is to say of a point is said
        // of each disk.
        let isForced = !volumes.contains { $0.log.hasUnsealedWrites }
        let broken = needsCut ? brokenCuts : []
        let parts = volumes.enumerated().map { index, volume in
            let hasBrokenCut = !broken.isEmpty && cuts(in: volume.log).contains { broken.contains($0) }
            let isSealed = volume.log.hasUnsealedWrites || seal != nil || isForced && index == 0 || hasBrokenCut
            return GroupPoint.Member(
                volume: volume.identifier, point: isSealed ? volume.log.currentEpoch : volume.log.currentEpoch - 1, isSealed: isSealed)
        }
        lastNumber = number
        let cut = GroupPoint(group: identifier, number: lastNumber, members: parts)
        sealing = cut
        needsCut = false
        var carried = seal?.attributes(at: start) ?? PointAttributes()
        carried.group = cut
        var left = volumes.count
        var failure: BlockDeviceError?
        let sealed = { [self] (volume: Volume<Directory>, result: Result<PointNumber, WriteLogError>) in
            if case .failure(let error) = result { failure = failure ?? volume.deviceError(error) }
            left -= 1
            if left == 0 { finish(cut, of: volumes, failure, completion) }
        }
        if isPlanted(.sealsGroupOneByOne) { return sealOneByOne(volumes[...], carried, isForced, sealed) }
        for (volume, part) in zip(volumes, parts) {
            // One that was not written to makes no point, and says when the one before is durable.
            volume.log.seal(now: start, attributes: carried, isForced: part.isSealed) { sealed(volume, $0) }
        }
        statistics.lastCutTime = clock() - start
        statistics.longestCutTime = max(statistics.longestCutTime, statistics.lastCutTime)
    }

    /// The planted bug.
    private func sealOneByOne(
        _ volumes: ArraySlice<Volume<Directory>>, _ carried: PointAttributes, _ isForced: Bool,
        _ sealed: @escaping (Volume<Directory>, Result<PointNumber, WriteLogError>) -> Void
    ) {
        guard let volume = volumes.first else { return }
        volume.log.seal(now: clock(), attributes: carried, isForced: isForced) { [self] result in
            sealed(volume, result)
            sealOneByOne(volumes.dropFirst(), carried, false, sealed)
        }
    }

    private func finish(_ cut: GroupPoint, of volumes: [Volume<Directory>], _ failure: BlockDeviceError?, _ completion: Completion) {
        sealing = nil
        if let failure {
            statistics.failedCuts &+= 1
            needsCut = true
            completion(.failure(failure))
        } else {
            statistics.cuts &+= 1
            lastCut = cut
            unfinished.append(cut)
            completion(.success(cut))
        }
        // Also one that has left meanwhile: its point goes home as one of its own.
        for volume in volumes where volume.refusal == nil { volume.pointWasSealed(volume.log.lastSealedPoint) }
        answerWaitingSeals()
    }

    /// What the points of a cut carry, as long as one of them is here.
    public func attributes(of cut: GroupPoint) -> PointAttributes? {
        let parts = cut.members.lazy.filter(\.isSealed)
        return parts.compactMap { part in self.members.first { $0.identifier == part.volume }?.attributes(of: part.point) }.first
    }

    // MARK: Sending

    /// What home is told of a cut: those of its volumes that are in the group still; or that the point waits for a later cut.
    func told(of cut: GroupPoint) -> GroupPoint {
        guard isWhole(cut) else { return .partOfLater(identifier) }
        return GroupPoint(
            group: identifier, number: cut.number, members: cut.members.filter { part in members.contains { $0.identifier == part.volume } }
        )
    }

    /// True when every volume that is in the group still has its part of the cut, durable: then it is one, of these volumes.
    ///
    /// A later cut that contradicts this one is in every log that has a part of the broken one (`brokenCuts`), unless another crash has broken
    /// that one too. Then only the point tells that was sealed again, and when its log has let go of it home still holds it (`GroupAgreement`).
    private func isWhole(_ cut: GroupPoint) -> Bool {
        guard isHeld(cut) else { return false }
        if isPlanted(.trustsPartOfCut) { return true }
        let parts = cut.members.filter { part in members.contains { $0.identifier == part.volume } }
        return !members.contains { member in
            cuts(in: member.log).contains { later in later.number > cut.number && parts.contains { later.contradicts($0, of: cut) } }
        }
    }

    /// True when no log of a volume that is in the group still lacks its part of the cut.
    private func isHeld(_ cut: GroupPoint) -> Bool {
        cut.members.allSatisfy { part in
            guard let volume = members.first(where: { $0.identifier == part.volume }) else { return !missing.contains(part.volume) }
            return isPlanted(.trustsPartOfCut) || cut.isHeld(part, by: volume.log)
        }
    }

    /// The cuts in the logs that never came about. There may be as many as points wait to go home, so each is looked at once.
    private var brokenCuts: Set<GroupPoint> {
        let cuts = Set(cutsInLogs)
        let contradicted =
            isPlanted(.trustsPartOfCut) ? [] : GroupPoint.contradicted(among: cuts, volumes: Set(members.lazy.map(\.identifier)))
        return cuts.filter { contradicted.contains($0) || !isHeld($0) }
    }

    private func cuts(in log: WriteLog<Directory>) -> [GroupPoint] { log.cuts.filter { $0.group == identifier } }

    private var cutsInLogs: [GroupPoint] { members.flatMap { cuts(in: $0.log) } }

    /// True when a volume's log may let go of a point that is home. By that it vouches for every cut that names the point (`CutEvidence`); so
    /// a point that was sealed again after a crash stays until the points of the other volumes are gone that were sealed for the cut of the first.
    /// They are older, and wait for none that was sealed later. While a volume is not served nobody knows what its log has.
    func mayForget(_ point: PointNumber, of volume: Volume<Directory>) -> Bool {
        if isPlanted(.trustsPartOfCut) { return true }
        guard missing.isEmpty || isPlanted(.cutsWithoutStoppedVolume) else { return false }
        return members.allSatisfy { other in
            other === volume
                || (other.log.cuts + [other.points.cutLeavingLog].compactMap { $0 }).allSatisfy { cut in
                    let part = cut.members.first { $0.volume == volume.identifier && $0.point == point && $0.isSealed }
                    return part.map { cut.isHeld($0, by: volume.log) } ?? true
                }
        }
    }

    /// The last point of a volume that may be sent now. While one of the others is not served nobody knows which cuts are whole, and
    /// home has room for a few points only that wait for a later one.
    func lastSendable(of volume: Volume<Directory>) -> PointNumber {
        if !missing.isEmpty, !isPlanted(.cutsWithoutStoppedVolume) { return volume.points.received }
        var last = PointNumber.max
        if unfinished.count >= Self.cutsInFlightMax { last = unfinished[Self.cutsInFlightMax - 1].point(of: volume.identifier) ?? last }
        if let part = sealing?.members.first(where: { $0.volume == volume.identifier }), part.isSealed { last = min(last, part.point - 1) }
        return last
    }

    /// A volume has come forward.
    func memberProgressed() {
        let volumes = members
        var hasFinished = false
        while let cut = unfinished.first {
            let isHome = volumes.allSatisfy { volume in cut.point(of: volume.identifier).map { $0 <= volume.points.received } ?? true }
            guard isHome else { break }
            unfinished.removeFirst()
            hasFinished = true
        }
        if hasFinished { for volume in volumes where volume.refusal == nil { volume.sendPoints() } }
    }
}
