import Blocks
import NIOCore

/// What is in a point journal that nobody has open.
public struct JournalReport: Equatable, Sendable {
    /// What became of a point whose file is there.
    public enum PointState: String, Codable, Sendable {
        /// Whole, and to be applied to the disk when the journal is opened.
        case received
        /// Whole, and of a group whose other volumes have not received their parts, as far as this journal knows; or behind such a
        /// one. It is not applied before they have. One that was put aside when its attachment ended never is.
        case held
        /// On the disk already, or of an earlier attachment: the file is removed when the journal is opened.
        case leftOver
        /// Not whole, and nothing says that it ever was: it is dropped when the journal is opened, and sent again.
        case incomplete
    }

    /// One point file.
    public struct Point: Equatable, Sendable {
        public let number: PointNumber
        public let state: PointState
        /// The generation of the lease that it came under; nil when its header can't be read.
        public let generation: LeaseGeneration?
        /// How many pieces it has, and their data in bytes; 0 for one that is not `received` or `held`.
        public let pieceCount: Int
        public let byteCount: UInt64
        /// The cut of its group that it carries; nil for a point of no group.
        public let group: GroupPoint?
    }

    /// Something that no crash leaves.
    public struct Damage: Equatable, Sendable {
        /// The name of the file, and where in it, in bytes.
        public let file: String
        public let offset: UInt64
        /// What is wrong, for people.
        public let text: String
    }

    /// The volume and the position that the position file tells; nil when there is none.
    public fileprivate(set) var volume: VolumeIdentifier?
    public fileprivate(set) var position: PointPosition?
    /// Points up to here are applied or may be, whatever the other volumes of the group have.
    public fileprivate(set) var agreed: PointNumber = 0
    /// The last cut of a group that the disk has gone to, or is about to.
    public fileprivate(set) var cut: GroupPoint?
    /// The files of points that ended attachments left held: nobody applies them any more.
    public fileprivate(set) var keptFiles: [String] = []
    /// The points whose files are there, in order.
    public fileprivate(set) var points: [Point] = []
    public fileprivate(set) var damages: [Damage] = []
}

/// Reads a point journal that nobody has open, every byte of what counts in it, and writes nothing. The disk is not looked at.
///
/// What it calls whole a daemon opens, provided that the disk is the right one.
public final class JournalReader<Directory: StorageDirectory> {
    public typealias Completion = (Result<JournalReport, StorageFileError>) -> Void

    private let directory: Directory
    private let limits: PointJournalLimits
    private let completion: Completion
    private var report = JournalReport()

    private init(_ directory: Directory, _ limits: PointJournalLimits, _ completion: @escaping Completion) {
        self.directory = directory
        self.limits = limits
        self.completion = completion
    }

    /// Reads the journal in `directory`. The completion runs on the directory's event loop.
    public static func read(directory: Directory, limits: PointJournalLimits = PointJournalLimits(), completion: @escaping Completion) {
        JournalReader(directory, limits, completion).start()
    }

    private func start() {
        directory.list { [self] result in
            step(result) { names in
                report.keptFiles = names.filter(PointFormat.isKeptFile).sorted()
                let points = names.compactMap { PointFormat.point(ofFile: $0) }.sorted()
                guard names.contains(PositionRecord.fileName) else {
                    if !points.isEmpty { damage(PositionRecord.fileName, 0, "there are point files, and this file is missing") }
                    return scan(points[...])
                }
                readPosition { self.scan(points[...]) }
            }
        }
    }

    private func readPosition(then next: @escaping () -> Void) {
        directory.open(PositionRecord.fileName, create: false) { [self] result in
            step(result) { file in
                file.read(at: 0, byteCount: 2 * PositionRecord.slotBytes) { result in
                    file.close()
                    self.step(result) { bytes in
                        self.take(bytes)
                        next()
                    }
                }
            }
        }
    }

    private func take(_ bytes: ByteBuffer) {
        for slot in 0..<2 {
            let offset = slot * PositionRecord.slotBytes
            let found = bytes.getSlice(at: bytes.readerIndex + offset, length: PositionRecord.slotBytes).flatMap {
                PositionRecord(slot: $0)
            }
            // A record fits in one sector of the medium, so a crash leaves the old one or the new one; but for the
            // longer kind, of which a crash may leave one torn.
            if found == nil, PositionRecord(file: bytes)?.isLong != true {
                damage(PositionRecord.fileName, UInt64(offset), "the slot holds no valid record")
            }
        }
        guard let record = PositionRecord(file: bytes) else { return }
        report.volume = record.volume
        report.position = record.position
        report.agreed = max(record.agreed, record.position.applied)
        report.cut = record.cut
    }

    private func scan(_ points: ArraySlice<PointNumber>) {
        guard let point = points.first else { return end() }
        let name = PointFormat.fileName(point)
        if let applied = report.position?.applied, point <= applied {
            add(point, .leftOver)
            return scan(points.dropFirst())
        }
        directory.open(name, create: false) { [self] result in
            step(result) { file in
                var scan: PointFileScan<Directory.File>?
                scan = PointFileScan(file: file, limits: limits) { result in
                    file.close()
                    self.step(result) { self.take($0, of: point, endingAt: scan?.offset ?? 0) }
                    scan = nil
                    if case .success = result { self.scan(points.dropFirst()) }
                }
                scan?.run()
            }
        }
    }

    private func take(_ content: PointFileContent, of point: PointNumber, endingAt offset: UInt64) {
        switch content {
        case .complete(let header, let index)
        where header.point == point && header.volume == report.volume ?? header.volume && header.leftAtMilliseconds == nil:
            let byteCount = index.pieces.reduce(0) { $0 + UInt64($1.dataBytes) }
            let group = header.attributes?.group
            isHolding = isHolding || group != nil && point > report.agreed
            add(point, isHolding ? .held : .received, header, pieceCount: index.pieces.count, byteCount: byteCount, group: group)
        case .complete(let header, _): add(point, .leftOver, header)
        case .incomplete(let header):
            add(point, .incomplete, header)
            // Counts when the point turns out to have been received.
            incompleteAt[point] = offset
        }
    }

    private var incompleteAt: [PointNumber: UInt64] = [:]
    /// A point is held: those behind it wait with it.
    private var isHolding = false

    private func add(
        _ number: PointNumber, _ state: JournalReport.PointState, _ header: PointHeader? = nil, pieceCount: Int = 0, byteCount: UInt64 = 0,
        group: GroupPoint? = nil
    ) {
        report.points.append(
            .init(
                number: number, state: state, generation: header?.generation, pieceCount: pieceCount, byteCount: byteCount,
                group: group))
    }

    /// Every point behind the applied one, up to the last that was received, has to be whole.
    private func end() {
        let received = report.points.filter { $0.state == .received || $0.state == .held }.map(\.number)
        guard let position = report.position else { return completion(.success(report)) }
        // The last point that is accounted for. All received ones are behind it.
        var accounted = position.applied
        for number in received {
            if number - accounted > 1 { missing(from: accounted + 1, through: number - 1) }
            accounted = number
        }
        if position.received > accounted { missing(from: accounted + 1, through: position.received) }
        completion(.success(report))
    }

    private func missing(from first: PointNumber, through last: PointNumber) {
        let damaged = incompleteAt.filter { (first...last).contains($0.key) }.sorted { $0.key < $1.key }
        for (point, offset) in damaged {
            damage(PointFormat.fileName(point), offset, "point \(point) was received, and its file is not whole")
        }
        guard UInt64(damaged.count) <= last - first else { return }
        let text = first == last ? "point \(first) was" : "of points \(first) to \(last), \(last - first + 1 - UInt64(damaged.count)) were"
        damage(PointFormat.fileName(first), 0, "\(text) received, and the file is missing")
    }

    private func damage(_ file: String, _ offset: UInt64, _ text: String) {
        report.damages.append(.init(file: file, offset: offset, text: text))
    }

    private func step<Value>(_ result: Result<Value, StorageFileError>, _ next: (Value) -> Void) {
        switch result {
        case .success(let value): next(value)
        case .failure(let error): completion(.failure(error))
        }
    }
}
