import Blocks

// Which writes of a volume go home (W1, W2): a default for all of it, and regions with a policy of their own. Pure: it decides, and
// `Volume+Regions.swift` acts.

/// Where the writes to a range go.
public enum WritePolicy: String, Equatable, Sendable, CaseIterable {
    /// Home, with the points of the volume.
    case onPrem = "onprem"
    /// To the cloud-only disk, and nowhere else.
    case cloudOnly = "cloud-only"
}

/// Who has made a region.
public enum RegionOrigin: String, Equatable, Sendable, CaseIterable {
    /// A person, or a program in his name.
    case `operator`
    /// The analysis of an image, which has found something that need not go home.
    case found
}

/// A range of a volume with its own write policy.
public struct VolumeRegion: Equatable, Sendable {
    /// The sectors: whole blocks, but for the end of the disk.
    public let range: SectorRange
    public let policy: WritePolicy
    public let origin: RegionOrigin

    public init(range: SectorRange, policy: WritePolicy, origin: RegionOrigin) {
        self.range = range
        self.policy = policy
        self.origin = origin
    }
}

/// Why a region can't be as asked.
public enum RegionError: Error, Equatable, Sendable {
    /// The range has no sector.
    case empty
    /// Start and end must be multiples of 4096 bytes, or the end of the disk.
    case unaligned
    /// The range ends behind the disk's last sector.
    case outOfRange
    /// The table holds this many regions, and can't hold more.
    case tooMany(Int)
    /// This many ranges are on their way home, and there can't be more at once.
    case tooManyImaging(Int)
}

/// The write policy of a volume.
public struct RegionTable: Equatable, Sendable {
    /// The regions that a table may hold.
    public static let regionsMax = 256
    /// The ranges that may be on their way home at once: as many as the on-prem parts of a full table, and some more. One more is
    /// refused; what lies between two ranges may be meant to stay, so that they can't be made one.
    public static let imagingMax = 512

    /// Where writes go that are in no region.
    public var defaultPolicy: WritePolicy
    /// The regions, ascending; none overlaps another.
    public private(set) var regions: [VolumeRegion] = []
    /// Ranges whose cloud-only writes are being brought home, ascending.
    public private(set) var imaging: [SectorRange] = []

    public init(defaultPolicy: WritePolicy = .onPrem) { self.defaultPolicy = defaultPolicy }

    /// True when all is as if there were no table.
    public var isTrivial: Bool { defaultPolicy == .onPrem && regions.isEmpty && imaging.isEmpty }

    /// True when nothing is cloud-only.
    public var isAllOnPrem: Bool { defaultPolicy == .onPrem && !regions.contains { $0.policy == .cloudOnly } }

    // MARK: Changing

    /// Gives a range a policy of its own, whatever regions it had. What sticks out of those stays as it was.
    public mutating func set(
        _ range: SectorRange, to policy: WritePolicy, origin: RegionOrigin = .operator, sectorCount: UInt64
    ) throws(RegionError) {
        try Self.check(range, sectorCount: sectorCount)
        var changed = without(range)
        changed.append(VolumeRegion(range: range, policy: policy, origin: origin))
        try take(changed)
    }

    /// Takes a range out of all regions: the default holds there again.
    public mutating func remove(_ range: SectorRange, sectorCount: UInt64) throws(RegionError) {
        try Self.check(range, sectorCount: sectorCount)
        try take(without(range))
    }

    private static func check(_ range: SectorRange, sectorCount: UInt64) throws(RegionError) {
        if range.isEmpty { throw .empty }
        if range.end > sectorCount { throw .outOfRange }
        let isAligned = { (sector: UInt64) in sector % BlockGeometry.sectorsPerBlock == 0 }
        guard isAligned(range.start), isAligned(range.end) || range.end == sectorCount else { throw .unaligned }
    }

    private func without(_ range: SectorRange) -> [VolumeRegion] {
        regions.flatMap { region in
            [
                SectorRange(from: region.range.start, to: min(region.range.end, range.start)),
                SectorRange(from: max(region.range.start, range.end), to: region.range.end),
            ]
            .filter { !$0.isEmpty }
            .map { VolumeRegion(range: $0, policy: region.policy, origin: region.origin) }
        }
    }

    /// Takes over regions that don't overlap, joined where they are alike.
    private mutating func take(_ changed: [VolumeRegion]) throws(RegionError) {
        var joined: [VolumeRegion] = []
        for region in changed.sorted(by: { $0.range.start < $1.range.start }) {
            if let last = joined.last, last.range.end == region.range.start, last.policy == region.policy, last.origin == region.origin {
                joined[joined.count - 1] = VolumeRegion(
                    range: SectorRange(from: last.range.start, to: region.range.end), policy: last.policy, origin: last.origin)
            } else {
                joined.append(region)
            }
        }
        guard joined.count <= Self.regionsMax else { throw .tooMany(Self.regionsMax) }
        regions = joined
    }

    /// The cloud-only writes in a range are to be brought home.
    public mutating func beginImaging(_ range: SectorRange) throws(RegionError) {
        if range.isEmpty { return }
        var merged: [SectorRange] = []
        for next in (imaging + [range]).sorted(by: { $0.start < $1.start }) {
            if let last = merged.last, next.start <= last.end {
                merged[merged.count - 1] = SectorRange(from: last.start, to: max(last.end, next.end))
            } else {
                merged.append(next)
            }
        }
        guard merged.count <= Self.imagingMax else { throw .tooManyImaging(Self.imagingMax) }
        imaging = merged
    }

    /// The cloud-only writes in a range are home, gone, or to stay.
    public mutating func endImaging(_ range: SectorRange) {
        imaging = imaging.flatMap { held in
            [SectorRange(from: held.start, to: min(held.end, range.start)), SectorRange(from: max(held.start, range.end), to: held.end)]
                .filter { !$0.isEmpty }
        }
    }

    // MARK: Asking

    /// Visits a range in pieces of one policy, ascending.
    func forEachPiece(of range: SectorRange, _ body: (SectorRange, WritePolicy) -> Void) {
        var position = range.start
        // Regions are few: a look at each costs less than the write.
        for region in regions where region.range.overlaps(range) {
            let part = region.range.intersection(range)
            if position < part.start { body(SectorRange(from: position, to: part.start), defaultPolicy) }
            body(part, region.policy)
            position = part.end
        }
        if position < range.end { body(SectorRange(from: position, to: range.end), defaultPolicy) }
    }

    /// The parts of a range whose writes go home, ascending.
    public func onPremParts(of range: SectorRange) -> [SectorRange] {
        var parts: [SectorRange] = []
        forEachPiece(of: range) { part, policy in if policy == .onPrem { parts.append(part) } }
        return parts
    }

    /// True when a write to the range would go to the cloud-only disk, at least in part, whatever that holds.
    func isCloudOnly(overlapping range: SectorRange) -> Bool {
        var isCloudOnly = false
        forEachPiece(of: range) { _, policy in if policy == .cloudOnly { isCloudOnly = true } }
        return isCloudOnly
    }

    /// Where the parts of a write go, ascending. `held` tells, ascending and clipped, which sectors of a range the cloud-only disk holds.
    ///
    /// What it holds goes there again whatever the policy: it hides what is below it, so a newer write must not be.
    func route(_ range: SectorRange, held: (SectorRange) -> [SectorRange]) -> [WritePiece] {
        var pieces: [WritePiece] = []
        func add(_ range: SectorRange, _ policy: WritePolicy) {
            if range.isEmpty { return }
            if let last = pieces.last, last.destination == policy {
                pieces[pieces.count - 1] = WritePiece(range: SectorRange(from: last.range.start, to: range.end), destination: policy)
            } else {
                pieces.append(WritePiece(range: range, destination: policy))
            }
        }
        forEachPiece(of: range) { part, policy in
            if policy == .cloudOnly { return add(part, .cloudOnly) }
            var position = part.start
            for run in held(part) {
                add(SectorRange(from: position, to: run.start), .onPrem)
                add(run, .cloudOnly)
                position = run.end
            }
            add(SectorRange(from: position, to: part.end), .onPrem)
        }
        return pieces
    }
}

/// A part of a write, and where it goes.
struct WritePiece: Equatable {
    let range: SectorRange
    let destination: WritePolicy
}
