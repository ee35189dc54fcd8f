// An extent map is a two-level array: chunks of up to 256 extents, each sorted, and the chunks
// sorted among themselves.
//
//     chunks   [ 0..., 0x4000..., 0x9100... ]            binary search over the first sectors
//     extents  [ 0..<8  8..<16  64..<72 ... ]            binary search within one chunk
//
// Extents never overlap and are never empty, and no chunk is empty. An insertion moves at most one
// chunk's extents, and the list of chunks only when a chunk splits or empties, so that a map of
// 100,000 extents takes random insertions at the speed of a small one.

/// A value of an extent map: it knows what it becomes when its extent loses sectors at the front.
public protocol ExtentValue {
    /// The value for the same extent without its first `sectors` sectors.
    func dropping(sectors: UInt64) -> Self
}

/// A run of sectors and what belongs to it.
public struct Extent<Value: ExtentValue> {
    /// The sectors; never empty.
    public let range: SectorRange
    /// What belongs to them, counted from the first.
    public let value: Value

    @inlinable
    public init(range: SectorRange, value: Value) {
        self.range = range
        self.value = value
    }

    /// The part of this extent that lies in `bounds`, which overlaps it.
    @inlinable
    public func clipped(to bounds: SectorRange) -> Extent {
        let clipped = range.intersection(bounds)
        if clipped.start == range.start { return Extent(range: clipped, value: value) }
        return Extent(range: clipped, value: value.dropping(sectors: clipped.start - range.start))
    }
}

/// A map from sectors to values in which each sector has at most one: a later insertion overwrites what it covers.
public struct ExtentMap<Value: ExtentValue> {
    @usableFromInline var chunks: [[Extent<Value>]] = []
    @usableFromInline var extentsHeld = 0
    @usableFromInline var sectorsHeld: UInt64 = 0

    /// How many extents the map holds.
    @inlinable public var count: Int { extentsHeld }
    /// How many sectors have a value.
    @inlinable public var sectorCount: UInt64 { sectorsHeld }

    /// The most extents in one chunk.
    @inlinable static var chunkExtentsMax: Int { 256 }

    @inlinable public init() {}

    /// True when no sector has a value.
    @inlinable public var isEmpty: Bool { extentsHeld == 0 }

    // MARK: Changing

    /// Gives every sector of `range` the value, and takes whatever these sectors had.
    /// - Parameter replacing: is told each piece that was overwritten, clipped to `range`, in order.
    @inlinable
    public mutating func insert(_ range: SectorRange, _ value: Value, replacing: (Extent<Value>) -> Void = { _ in }) {
        if range.isEmpty { return }
        let place = cut(range, removed: replacing)
        put(Extent(range: range, value: value), at: place)
    }

    /// Takes the value from every sector of `range`.
    /// - Parameter removed: is told each piece that went, clipped to `range`, in order.
    @inlinable
    public mutating func remove(_ range: SectorRange, removed: (Extent<Value>) -> Void = { _ in }) {
        if range.isEmpty { return }
        _ = cut(range, removed: removed)
    }

    /// Forgets everything.
    @inlinable
    public mutating func removeAll() {
        chunks.removeAll()
        extentsHeld = 0
        sectorsHeld = 0
    }

    // MARK: Asking

    /// Visits each extent that overlaps `bounds`, clipped to it, in ascending order.
    @inlinable
    public func forEach(in bounds: SectorRange, _ body: (Extent<Value>) -> Void) {
        visit(in: bounds) {
            body($0)
            return true
        }
    }

    /// Visits extents like `forEach(in:)`, as long as `body` wants more.
    @inlinable
    func visit(in bounds: SectorRange, _ body: (Extent<Value>) -> Bool) {
        if bounds.isEmpty { return }
        var place = firstPlace(endingAfter: bounds.start)
        while place.chunk < chunks.count {
            let chunk = chunks[place.chunk]
            while place.index < chunk.count {
                let extent = chunk[place.index]
                if extent.range.start >= bounds.end || !body(extent.clipped(to: bounds)) { return }
                place.index += 1
            }
            place = Place(chunk: place.chunk + 1, index: 0)
        }
    }

    /// Visits every extent in ascending order.
    @inlinable
    public func forEach(_ body: (Extent<Value>) -> Void) {
        for chunk in chunks {
            for extent in chunk { body(extent) }
        }
    }

    /// The extents that overlap `bounds`, clipped to it, in ascending order.
    @inlinable
    public func extents(in bounds: SectorRange) -> [Extent<Value>] {
        var found: [Extent<Value>] = []
        forEach(in: bounds) { found.append($0) }
        return found
    }

    /// The first extents that overlap `bounds`, at most `limit`, clipped to it, in ascending order.
    @inlinable
    public func extents(in bounds: SectorRange, limit: Int) -> [Extent<Value>] {
        var found: [Extent<Value>] = []
        if limit <= 0 { return found }
        visit(in: bounds) {
            found.append($0)
            return found.count < limit
        }
        return found
    }

    /// The runs of `bounds` that have no value, in ascending order.
    @inlinable
    public func gaps(in bounds: SectorRange) -> [SectorRange] {
        var gaps: [SectorRange] = []
        var next = bounds.start
        forEach(in: bounds) { extent in
            if extent.range.start > next { gaps.append(SectorRange(from: next, to: extent.range.start)) }
            next = extent.range.end
        }
        if next < bounds.end { gaps.append(SectorRange(from: next, to: bounds.end)) }
        return gaps
    }

    /// True when at least one sector of `range` has a value.
    @inlinable
    public func overlaps(_ range: SectorRange) -> Bool {
        if range.isEmpty || chunks.isEmpty { return false }
        let place = firstPlace(endingAfter: range.start)
        return place.chunk < chunks.count && chunks[place.chunk][place.index].range.start < range.end
    }

    /// True when every sector of `range` has a value.
    @inlinable
    public func covers(_ range: SectorRange) -> Bool {
        var covered: UInt64 = 0
        forEach(in: range) { covered += $0.range.count }
        return covered == range.count
    }

    /// The value of one sector.
    @inlinable
    public func value(at sector: UInt64) -> Value? {
        let place = firstPlace(endingAfter: sector)
        guard place.chunk < chunks.count else { return nil }
        let extent = chunks[place.chunk][place.index]
        return extent.range.start <= sector ? extent.value.dropping(sectors: sector - extent.range.start) : nil
    }

    // MARK: The two levels

    /// An extent's position; `chunk == chunks.count` is the end.
    @usableFromInline
    struct Place {
        @usableFromInline var chunk: Int
        @usableFromInline var index: Int

        @inlinable
        init(chunk: Int, index: Int) {
            self.chunk = chunk
            self.index = index
        }
    }

    /// The first extent whose end lies behind `sector`, or the end of the map.
    @inlinable
    func firstPlace(endingAfter sector: UInt64) -> Place {
        // The last extent of a chunk ends last in it.
        let chunk = chunks.partitioningIndex { ($0.last?.range.end ?? 0) > sector }
        guard chunk < chunks.count else { return Place(chunk: chunk, index: 0) }
        return Place(chunk: chunk, index: chunks[chunk].partitioningIndex { $0.range.end > sector })
    }

    /// Removes what lies in `range`, leaving the ends of extents that stick out, and says where an
    /// extent of that range belongs now.
    @inlinable
    mutating func cut(_ range: SectorRange, removed: (Extent<Value>) -> Void) -> Place {
        let first = firstPlace(endingAfter: range.start)
        guard first.chunk < chunks.count else { return first }
        var left: Extent<Value>?
        var right: Extent<Value>?
        var end = first
        scan: while end.chunk < chunks.count {
            while end.index < chunks[end.chunk].count {
                let extent = chunks[end.chunk][end.index]
                if extent.range.start >= range.end { break scan }
                removed(extent.clipped(to: range))
                sectorsHeld -= extent.range.intersection(range).count
                if extent.range.start < range.start {
                    left = extent.clipped(to: SectorRange(from: extent.range.start, to: range.start))
                }
                if extent.range.end > range.end { right = extent.clipped(to: SectorRange(from: range.end, to: extent.range.end)) }
                end.index += 1
            }
            // Stay behind the last extent of a chunk rather than move to a next one that is not there.
            if end.chunk + 1 == chunks.count { break }
            if let next = chunks[end.chunk + 1].first, next.range.start >= range.end { break }
            end = Place(chunk: end.chunk + 1, index: 0)
        }
        return replace(from: first, to: end, left: left, right: right)
    }

    /// Replaces the extents from `first` up to `end` by up to two remnants. The place between them is the answer.
    @inlinable
    mutating func replace(from first: Place, to end: Place, left: Extent<Value>?, right: Extent<Value>?) -> Place {
        var remnants: [Extent<Value>] = []
        if left == nil, right == nil, first.chunk == end.chunk, first.index == end.index { return first }
        if let left { remnants.append(left) }
        if let right { remnants.append(right) }
        let place = Place(chunk: first.chunk, index: first.index + (left == nil ? 0 : 1))
        if first.chunk == end.chunk {
            extentsHeld += remnants.count - (end.index - first.index)
            chunks[first.chunk].replaceSubrange(first.index..<end.index, with: remnants)
        } else {
            // Cut the later chunks first: their positions change when earlier ones go.
            extentsHeld -= end.index
            chunks[end.chunk].removeSubrange(0..<end.index)
            let last = chunks[end.chunk].isEmpty ? end.chunk + 1 : end.chunk
            for chunk in (first.chunk + 1)..<max(last, first.chunk + 1) where chunk < end.chunk {
                extentsHeld -= chunks[chunk].count
            }
            if first.chunk + 1 < last { chunks.removeSubrange((first.chunk + 1)..<last) }
            extentsHeld += remnants.count - (chunks[first.chunk].count - first.index)
            chunks[first.chunk].replaceSubrange(first.index..., with: remnants)
        }
        if chunks[first.chunk].isEmpty {
            chunks.remove(at: first.chunk)
            return Place(chunk: first.chunk, index: 0)
        }
        return place
    }

    /// Puts an extent at a place that `cut` gave.
    @inlinable
    mutating func put(_ extent: Extent<Value>, at place: Place) {
        extentsHeld += 1
        sectorsHeld += extent.range.count
        guard place.chunk < chunks.count else {
            // Behind the last extent: ascending insertions fill one chunk after the other.
            if let last = chunks.indices.last, chunks[last].count < Self.chunkExtentsMax {
                chunks[last].append(extent)
            } else {
                chunks.append([extent])
            }
            return
        }
        chunks[place.chunk].insert(extent, at: place.index)
        if chunks[place.chunk].count <= Self.chunkExtentsMax { return }
        let half = Self.chunkExtentsMax / 2
        let upper = Array(chunks[place.chunk][half...])
        chunks[place.chunk].removeSubrange(half...)
        chunks.insert(upper, at: place.chunk + 1)
    }
}

extension ExtentMap: Sendable where Value: Sendable {}
extension Extent: Sendable where Value: Sendable {}
extension Extent: Equatable where Value: Equatable {}

extension Array {
    /// The first index whose element satisfies `predicate`, where all that do stand behind all that do not.
    @inlinable
    func partitioningIndex(where predicate: (Element) -> Bool) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if predicate(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
