import Blocks
import NIOCore

// A view of a past point: the disk, and over it what the points behind have overwritten, the oldest of them last. New points go on being
// applied meanwhile. Each tells the view of its undo file before it begins, and then waits for the reads of the disk that are under way:
// so a read that began without that file ends before any of it could be missing.

/// A disk as it was at a past point, for reading. It stays whole whatever becomes of the point's files; close it when it is done with.
///
/// All calls are made on the journal's event loop.
public final class PastView<Disk: DiskFile, Directory: StorageDirectory> {
    /// Reads of one view under way; one more is refused as busy.
    static var readsMax: Int { 8 }

    public let point: PointNumber
    private let journal: PointJournal<Disk, Directory>
    private var layers: [OpenUndo<Directory.File>]
    private var pieces: Int
    private var reads = 0
    /// Why nothing can be read any more.
    private(set) var failure: PointJournalError?

    init(point: PointNumber, journal: PointJournal<Disk, Directory>, layers: [OpenUndo<Directory.File>]) {
        self.point = point
        self.journal = journal
        self.layers = layers
        pieces = layers.reduce(0) { $0 + $1.received.index.pieces.count }
    }

    /// The size of the disk at the point.
    public var sectorCount: UInt64 { layers.first?.sectorCount ?? journal.sectorCount }

    /// Reads `range`, of at most `PointJournalLimits.readBytesMax`.
    public func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, PointJournalError>) -> Void) {
        if let failure = failure ?? journal.refusal { return completion(.failure(failure)) }
        guard !range.isEmpty, range.end <= sectorCount, range.byteCount <= journal.limits.readBytesMax else {
            return completion(.failure(.outOfRange(range)))
        }
        guard reads < Self.readsMax else { return completion(.failure(.busy("\(reads) reads of point \(point) are under way"))) }
        reads += 1
        let over = layers.reversed().map { $0.received }.filter { $0.index.overlaps(range) }
        // Held until the bytes are laid over: the files stay open.
        let held = layers
        journal.readBelowPoints(range) { [self] result in
            guard case .success(let buffer) = result else {
                reads -= 1
                return completion(result)
            }
            journal.lay(over[...], over: buffer, of: range) { [self] result in
                withExtendedLifetime(held) {
                    reads -= 1
                    completion(failure.map { .failure($0) } ?? result)
                }
            }
        }
    }

    /// Gives the files back. No call may follow.
    public func close() {
        fail(.closed)
        layers = []
        journal.views[ObjectIdentifier(self)] = nil
    }

    /// A point is about to be applied.
    func add(_ undo: OpenUndo<Directory.File>) {
        pieces += undo.received.index.pieces.count
        layers.append(undo)
        if !journal.isWithinLimits(layers: layers.count, pieces: pieces) { fail(.busy("too much lies over point \(point) by now")) }
    }

    func fail(_ error: PointJournalError) {
        failure = failure ?? error
        layers = []
    }
}

extension PointJournal {
    /// Opens a view of a past point, or of the one on the disk when points are kept.
    public func openPast(_ point: PointNumber, completion: @escaping (Result<PastView<Disk, Directory>, PointJournalError>) -> Void) {
        if let refusal { return completion(.failure(refusal)) }
        guard views.count < limits.viewsMax else { return completion(.failure(.busy("\(views.count) past points are being read"))) }
        guard isKept(point), !isRecordingKeeping else { return completion(.failure(.notKept(point))) }
        let ended = viewsEnded
        load(after: point, []) { [self] result in
            if ended != viewsEnded { return completion(.failure(.notKept(point))) }
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let layers):
                let view = PastView(point: point, journal: self, layers: layers)
                views[ObjectIdentifier(view)] = view
                completion(.success(view))
            }
        }
    }

    /// True when every point behind `point` has its undo file.
    func isKept(_ point: PointNumber) -> Bool {
        if point == position.applied { return record.keptFrom > 0 && record.keptFrom <= point &+ 1 }
        return undos.contains { $0.point <= position.applied && $0.point == point &+ 1 }
    }

    /// Reads the undo files behind `point`, every byte of them, until there is no further one.
    private func load(
        after point: PointNumber, _ loaded: [OpenUndo<Directory.File>],
        completion: @escaping (Result<[OpenUndo<Directory.File>], PointJournalError>) -> Void
    ) {
        if let refusal { return completion(.failure(refusal)) }
        let last = loaded.last?.received.index.point ?? point
        guard let next = undos.first(where: { $0.point > last }) else {
            // All of them may have been given up meanwhile.
            return completion(last >= position.applied ? .success(loaded) : .failure(.notKept(point)))
        }
        guard next.point == last &+ 1 else { return completion(.failure(.notKept(point))) }
        openUndo(next.point) { [self] result in
            switch result {
            case .failure(let error): completion(.failure(error))
            case .success(let undo):
                let loaded = loaded + [undo]
                guard isWithinLimits(layers: loaded.count, pieces: loaded.reduce(0) { $0 + $1.received.index.pieces.count }) else {
                    return completion(.failure(.busy("too much lies over point \(point) to read it")))
                }
                load(after: point, loaded, completion: completion)
            }
        }
    }

    /// True while a view has no more layers, each of which is an open file, and pieces than it may.
    func isWithinLimits(layers: Int, pieces: Int) -> Bool { layers <= limits.layersPerViewMax && pieces <= limits.piecesPerViewMax }

    /// Opens an undo file and checks all of it.
    func openUndo(_ point: PointNumber, completion: @escaping (Result<OpenUndo<Directory.File>, PointJournalError>) -> Void) {
        let name = PointFormat.undoFileName(point)
        directory.open(name, create: false) { [self] result in
            switch result {
            case .failure(.notFound): completion(.failure(.notKept(point - 1)))
            case .failure(let error): completion(.failure(PointJournalError(journal: error)))
            case .success(let file):
                PointFileScan(file: file, limits: limits) { [self] result in
                    switch result {
                    case .success(.complete(let header, let index)) where isUndo(header, of: point):
                        let received = ReceivedPoint(index: index, attributes: header.attributes, file: file)
                        completion(.success(OpenUndo(received, sectorCount: header.sectorCount)))
                    case .success:
                        file.close()
                        completion(.failure(.corrupt("`\(name)` is damaged: point \(point - 1) can't be had again")))
                    case .failure(let error):
                        file.close()
                        completion(.failure(PointJournalError(journal: error)))
                    }
                }.run()
            }
        }
    }

    func isUndo(_ header: PointHeader, of point: PointNumber) -> Bool {
        header.volume == record.volume && header.point == point && header.leftAtMilliseconds != nil
    }

    /// Reads the disk as it is, whatever waits to be applied. A point that would change `range` waits for it.
    func readBelowPoints(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, PointJournalError>) -> Void) {
        readSerial &+= 1
        let serial = readSerial
        readsInFlight[serial] = range
        disk.read(at: range.byteOffset, byteCount: range.byteCount) { [self] result in
            readsInFlight[serial] = nil
            startApplying()
            switch result {
            case .failure(let error): completion(.failure(PointJournalError(disk: error)))
            case .success(let buffer) where buffer.readableBytes == range.byteCount: completion(.success(buffer))
            case .success(let buffer):
                completion(.failure(.disk("\(buffer.readableBytes) bytes came for \(range): the disk has become shorter")))
            }
            finishCloseIfIdle()
        }
    }
}
