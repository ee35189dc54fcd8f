import Blocks
import Ciphers
import DequeModule
import Disks
import LinkProtocol
import NIOCore

// The other half of a volume, at the edge that owns the disk: it answers reads, and takes points.
//
// Messages of points are taken in order, one at a time: the next waits while a point is being
// committed or the journal has enough to write. When many wait, the owner holds back the link's
// credit for write-behind.
//
// Answers that the link does not take at once wait here, short ones before long ones; their number
// is bounded by the journal's limit on reads and by what the asker may have in flight.

/// A disk at home that is served at another edge.
public final class HomeVolume<Disk: DiskFile, Directory: StorageDirectory> {
    /// An answer that is on its way out.
    private struct Answer {
        let read: UInt64
        /// The first block of the data, and where that belongs in what was asked for.
        let block: UInt64
        let base: UInt32
        let data: ByteBuffer
        /// Of each block that is neither zeroes nor cut; none when nothing is referred to.
        var digests: [BlockDigest?] = []
        /// The asker wants the bytes themselves.
        var isPlain = false
        var offset = 0

        var isShort: Bool { data.readableBytes <= HomeVolume.shortAnswerBytesMax }
        var isComplete: Bool { offset >= data.readableBytes }
    }

    /// Counters since the volume was opened here.
    public struct Statistics: Equatable, Sendable {
        public var reads: UInt64 = 0
        public var readBytes: UInt64 = 0
        public var points: UInt64 = 0
        public var pointBytes: UInt64 = 0
        /// Blocks of points that came by name.
        public var referredBlocks: UInt64 = 0
        public var refusals: UInt64 = 0
    }

    /// Answers up to this size overtake longer ones.
    static var shortAnswerBytesMax: Int { 16 << 10 }
    /// What messages of points that wait may take before the volume asks for no more, and before it asks again, in bytes. What the link has granted
    /// by then still comes, so the memory is bounded by that and by `waitingBytesMax`.
    static var waitingBytesMax: Int { 2 << 20 }
    static var waitingBytesLow: Int { 512 << 10 }
    /// What a message takes besides its bytes.
    private static var messageBytes: Int { 64 }
    /// Reads of the disk and answers that may be under way; one more is answered as busy.
    static var answersMax: Int { 4_096 }
    /// The bytes of them; beyond it a read is answered as busy too.
    static var answerBytesMax: Int { 64 << 20 }
    /// The longest read that is answered.
    static var readBytesMax: Int { 1 << 20 }
    /// Notices that may wait for the link. A peer that lets more pile up does not listen, and misses the next ones.
    static var noticesMax: Int { 16_384 }
    /// Notices that may wait before questions about allocation are answered as busy.
    static var noticesBeforeAllocationsMax: Int { 256 }

    public let identifier: VolumeIdentifier
    public let journal: PointJournal<Disk, Directory>
    public internal(set) var statistics = Statistics()
    /// Hands a message to the link; false when its class takes no more, then `linkWritable` will be called.
    public var downlink: (LinkMessage, TrafficClass, Bool) -> Bool = { _, _, _ in false }
    /// How long a piece of an answer should be on this line: at most what one frame carries, less where a frame takes long.
    public var preferredPieceBytes: () -> Int = { 16 << 10 }
    /// The version of the link's protocol that both edges speak.
    public var linkVersion: () -> UInt16 = { LinkVersion.newest }
    /// What the edge probably has of what it asks for; nil to send all of it.
    public var peerBlocks: PeerBlocks?
    /// A point was refused, for this reason.
    public var onRefused: (PointNumber, PointRefusal) -> Void = { _, _ in }
    /// Asks for no more messages of points (false), and for the next ones again (true): the owner holds the link's credit back.
    public var onReceiving: (Bool) -> Void = { _ in }

    private var isOpen = false
    private var readsUnderWay = 0
    /// What the reads under way and the answers that wait take.
    private var answerBytes = 0
    private var shortAnswers = Deque<Answer>()
    private var longAnswers = Deque<Answer>()
    private var notices = Deque<(message: LinkMessage, trafficClass: TrafficClass)>()
    private var waitingMessages = Deque<LinkMessage>()
    private var waitingBytes = 0
    /// The next message waits for what the one before it has begun.
    var isTaking = false
    /// Blocks that the point which is arriving names, and of which some have to be asked for; see HomeVolume+References.swift.
    var namedBlocks: NamedBlocks?
    private var isReceiving = true
    /// The point that was refused last: its pieces are still on their way, and one answer is enough.
    private var refusedPoint: PointNumber?
    /// Grows with each session, so that what a lost one began is not answered in the next.
    private(set) var session: UInt64 = 0
    /// Reads whole blocks of a disk that is served to the same edge (`sourceBlocks`); nil when they can't be had at once.
    public var readSource: (VolumeIdentifier, SectorRange, @escaping (ByteBuffer?) -> Void) -> Void = { _, _, completion in completion(nil)
    }
    /// Compares blocks with what the edge says of them; nil when the library refuses, then all are asked for.
    let blockHasher = BlockHasher()

    public init(identifier: VolumeIdentifier, journal: PointJournal<Disk, Directory>) {
        self.identifier = identifier
        self.journal = journal
        journal.onApplied = { [weak self] point in
            guard let self else { return }
            self.say(.pointApplied(volume: self.identifier, point: point))
        }
    }

    /// The edge that holds the lease has opened the volume; what an earlier session left unfinished is dropped.
    public func opened(generation: LeaseGeneration, completion: @escaping (PointPosition) -> Void) {
        sessionLost { [self] in
            journal.setLease(generation) { [self] in
                isOpen = true
                completion(journal.position)
            }
        }
    }

    /// The session with the edge is gone: nothing of it will be answered, and a half point is dropped.
    public func sessionLost(completion: @escaping () -> Void = {}) {
        session &+= 1
        isOpen = false
        refusedPoint = nil
        answerBytes -= (shortAnswers + longAnswers).reduce(0) { $0 + $1.data.readableBytes }
        shortAnswers.removeAll()
        longAnswers.removeAll()
        notices.removeAll()
        waitingMessages.removeAll()
        waitingBytes = 0
        isTaking = false
        namedBlocks = nil
        controlReceiving()
        journal.discardUnfinished(completion: completion)
    }

    /// The journal takes and gives nothing any more: the edge is told, so that it opens the volume again and asks anew for what
    /// will not be answered.
    public func journalStopped() {
        if isOpen { sessionWasEnded() }
    }

    /// The session was ended at home, and the edge may go on after all: it is told, so that it opens the volume again and asks anew for what
    /// will not be answered.
    public func sessionWasEnded() {
        say(.pointRefused(volume: identifier, point: journal.position.received &+ 1, refusal: .notOpen))
    }

    /// A message of the edge that may have opened the volume.
    public func receive(_ message: LinkMessage) {
        switch message {
        case .readRequest(let read, _, let range): answer(read, range)
        case .readPlainRequest(let read, _, let range, let offset):
            peerBlocks?.noteWrong(UInt64(range.blocks.count))
            answer(read, range, base: offset, isPlain: true)
        case .allocationRequest(let read, _, let range): answerAllocation(read, range)
        case .pointPiece(_, let point, let start, let data): take(point, start, data)
        case .pointWithdrawn(_, let point): withdraw(point)
        case .pointBegin, .pointAttributes, .pointData, .pointReferences, .pointZeroes, .pointCommit:
            waitingMessages.append(message)
            waitingBytes += Self.messageBytes + message.encodedBytes
            takeMessages()
            controlReceiving()
        default: break
        }
    }

    /// The link takes messages again.
    public func linkWritable() {
        sendNotices()
        sendAnswers()
    }

    // MARK: Reads

    /// - Parameter base: where the range belongs in what the read asks for, in bytes.
    private func answer(_ read: UInt64, _ range: SectorRange, base: UInt32 = 0, isPlain: Bool = false) {
        guard isOpen, journal.state == .open else { return say(.readFailed(read: read, status: .notOpen)) }
        guard range.byteCount <= Self.readBytesMax else { return say(.readFailed(read: read, status: .outOfRange)) }
        guard readsUnderWay + shortAnswers.count + longAnswers.count < Self.answersMax,
            answerBytes + range.byteCount <= Self.answerBytesMax
        else {
            return say(.readFailed(read: read, status: .busy))
        }
        let session = session
        readsUnderWay += 1
        answerBytes += range.byteCount
        journal.read(range) { [self] result in
            readsUnderWay -= 1
            guard session == self.session else {
                answerBytes -= range.byteCount
                return
            }
            switch result {
            case .success(let data):
                statistics.reads &+= 1
                statistics.readBytes &+= UInt64(data.readableBytes)
                var answer = Answer(read: read, block: range.blocks.lowerBound, base: base, data: data, isPlain: isPlain)
                if let peerBlocks, linkVersion() >= LinkVersion.references, range.start % BlockGeometry.sectorsPerBlock == 0 {
                    answer.digests = peerBlocks.digests(of: data)
                }
                if answer.isShort { shortAnswers.append(answer) } else { longAnswers.append(answer) }
                sendAnswers()
            case .failure(let error):
                answerBytes -= range.byteCount
                say(.readFailed(read: read, status: status(of: error)))
            }
        }
    }

    /// Tells what of the disk has storage. The journal bounds how many such questions are under way, and the notices that
    /// wait how many answers, which are up to 4 KiB each.
    private func answerAllocation(_ read: UInt64, _ range: SectorRange) {
        guard isOpen, journal.state == .open else { return say(.readFailed(read: read, status: .notOpen)) }
        guard notices.count < Self.noticesBeforeAllocationsMax else { return say(.readFailed(read: read, status: .busy)) }
        let session = session
        journal.allocation(of: range) { [self] result in
            guard session == self.session else { return }
            switch result {
            case .success(let extents): say(.allocationReply(read: read, runs: extents.map(AllocationRun.init)))
            case .failure(let error): say(.readFailed(read: read, status: status(of: error)))
            }
        }
    }

    /// What the asker is told. Only a read that itself failed is the medium's fault: a journal that has stopped, because there was
    /// no room for a point for instance, is opened again, and the read waits for that.
    private func status(of error: PointJournalError) -> ReadStatus {
        if journal.state != .open { return .notOpen }
        return switch error {
        case .outOfRange: .outOfRange
        case .busy: .busy
        case .closed, .fenced: .notOpen
        default: .medium
        }
    }

    private func sendAnswers() {
        while var answer = shortAnswers.popFirst() {
            guard send(&answer, pieceBytes: answer.data.readableBytes) else {
                shortAnswers.prepend(answer)
                break
            }
        }
        let pieceBytes = preferredPieceBytes()
        while var answer = longAnswers.popFirst() {
            guard send(&answer, pieceBytes: pieceBytes) else { return longAnswers.prepend(answer) }
        }
    }

    /// False when the link takes no more.
    private func send(_ answer: inout Answer, pieceBytes: Int) -> Bool {
        while !answer.isComplete {
            let piece = reference(in: answer) ?? bytes(of: answer, pieceBytes: pieceBytes)
            guard downlink(piece.message, .demand, !answer.isShort) else { return false }
            answer.offset += piece.byteCount
            if piece.isReference {
                peerBlocks?.noteReferred(UInt64(piece.byteCount / BlockGeometry.blockBytes))
            } else {
                noteSent(answer, piece.byteCount)
            }
        }
        answerBytes -= answer.data.readableBytes
        return true
    }

    private typealias Piece = (message: LinkMessage, byteCount: Int, isReference: Bool)

    /// What comes next as it is, up to a block that the edge has.
    private func bytes(of answer: Answer, pieceBytes: Int) -> Piece {
        var byteCount = min(pieceBytes, answer.data.readableBytes - answer.offset)
        let first = answer.offset / BlockGeometry.blockBytes + 1
        for index in first..<max(first, min(answer.digests.count, (answer.offset + byteCount) / BlockGeometry.blockBytes))
        where source(of: index, in: answer) != nil {
            byteCount = index * BlockGeometry.blockBytes - answer.offset
            break
        }
        let offset = answer.base &+ UInt32(clamping: answer.offset)
        guard let piece = answer.data.getSlice(at: answer.data.readerIndex + answer.offset, length: byteCount) else {
            return (.readFailed(read: answer.read, status: .medium), byteCount, false)
        }
        if piece.isAllZeroes {
            return (.readZeroes(read: answer.read, offset: offset, byteCount: UInt32(clamping: byteCount)), byteCount, false)
        }
        return (.readData(read: answer.read, offset: offset, data: piece), byteCount, false)
    }

    /// The blocks that come next by where the edge has them; nil when it probably does not.
    private func reference(in answer: Answer) -> Piece? {
        guard answer.offset % BlockGeometry.blockBytes == 0 else { return nil }
        let first = answer.offset / BlockGeometry.blockBytes
        guard let source = source(of: first, in: answer) else { return nil }
        var digests: [BlockDigest] = []
        for index in first..<min(answer.digests.count, first + LinkLimits.references) {
            let next = BlockPlace(volume: source.volume, block: source.block + UInt64(index - first))
            guard let digest = answer.digests[index], self.source(of: index, in: answer) == next else { break }
            digests.append(digest)
        }
        let message = LinkMessage.readReferences(
            read: answer.read, offset: answer.base &+ UInt32(clamping: answer.offset), source: source.volume, block: source.block,
            digests: digests)
        return (message, digests.count * BlockGeometry.blockBytes, true)
    }

    /// Where the edge probably has a block of the answer.
    private func source(of index: Int, in answer: Answer) -> BlockPlace? {
        guard !answer.isPlain, index < answer.digests.count, let digest = answer.digests[index] else { return nil }
        let source = peerBlocks?.source(of: digest, isUrgent: answer.isShort)
        // Who asks for a block does not have it in its place.
        return source == BlockPlace(volume: identifier, block: answer.block + UInt64(index)) ? nil : source
    }

    /// The last `byteCount` bytes before the answer's offset have been sent: what blocks end there, the edge has.
    private func noteSent(_ answer: Answer, _ byteCount: Int) {
        let firstEnd = (answer.offset - byteCount) / BlockGeometry.blockBytes
        let end = min(answer.digests.count, answer.offset / BlockGeometry.blockBytes)
        // An answer whose blocks nobody compares has no digests.
        guard firstEnd < end else { return }
        for index in firstEnd..<end {
            guard let digest = answer.digests[index] else { continue }
            peerBlocks?.note(digest, at: BlockPlace(volume: identifier, block: answer.block + UInt64(index)))
        }
    }

    // MARK: Points

    func takeMessages() {
        while !isTaking, let message = waitingMessages.popFirst() {
            waitingBytes -= Self.messageBytes + message.encodedBytes
            take(message)
        }
        controlReceiving()
    }

    private func controlReceiving() {
        if isReceiving, waitingBytes >= Self.waitingBytesMax {
            isReceiving = false
            onReceiving(false)
        } else if !isReceiving, waitingBytes <= Self.waitingBytesLow {
            isReceiving = true
            onReceiving(true)
        }
    }

    private func take(_ message: LinkMessage) {
        switch message {
        case .pointBegin(_, let generation, let point): begin(point, generation)
        case .pointAttributes(_, let point, let attributes):
            add(to: point) { () throws(PointJournalError) in try journal.setAttributes(attributes) }
        case .pointData(_, let point, let start, let data):
            let count = UInt64(data.readableBytes / BlockGeometry.sectorBytes)
            guard let range = SectorRange(start: start, count: count), range.byteCount == data.readableBytes else { return drop(point) }
            statistics.pointBytes &+= UInt64(data.readableBytes)
            add(to: point) { () throws(PointJournalError) in try journal.addData(range, data: data) }
        case .pointReferences(_, let point, let start, let source, let block, let digests):
            guard isArriving(point) else { return }
            take(NamedBlocks(point: point, start: start, source: source, block: block, digests: digests))
        case .pointZeroes(_, let point, let range):
            add(to: point) { () throws(PointJournalError) in try journal.addZeroes(range) }
        case .pointCommit(_, let point, let pieces, let digest): commit(point, pieces: pieces, digest: digest)
        default: break
        }
    }

    private func begin(_ point: PointNumber, _ generation: LeaseGeneration) {
        guard isOpen else { return refuse(point, .notOpen) }
        refusedPoint = nil
        do {
            switch try journal.begin(point: point, generation: generation) {
            case .accepted: break
            case .alreadyReceived:
                say(.pointReceived(volume: identifier, point: point))
                if point <= journal.position.applied { say(.pointApplied(volume: identifier, point: point)) }
            }
        } catch {
            refuse(point, Self.refusal(of: error))
        }
    }

    /// False for a point that was refused or is here already.
    func isArriving(_ point: PointNumber) -> Bool { point != refusedPoint && journal.unfinishedPoint == point }

    /// Adds a piece to the point that is arriving; pieces of another one are dropped.
    func add(to point: PointNumber, _ piece: () throws(PointJournalError) -> Void) {
        guard isArriving(point) else { return }
        do {
            try piece()
        } catch {
            journal.discardUnfinished()
            return refuse(point, Self.refusal(of: error))
        }
        if journal.isBusy {
            isTaking = true
            let session = session
            journal.whenReady { [self] in
                guard session == self.session else { return }
                isTaking = false
                takeMessages()
            }
        }
    }

    private func commit(_ point: PointNumber, pieces: UInt64, digest: UInt32) {
        guard isArriving(point) else { return }
        isTaking = true
        let session = session
        journal.commit(pieces: pieces, digest: digest) { [self] result in
            guard session == self.session else { return }
            switch result {
            case .success:
                statistics.points &+= 1
                say(.pointReceived(volume: identifier, point: point))
            case .failure(let error): refuse(point, Self.refusal(of: error))
            }
            isTaking = false
            takeMessages()
        }
    }

    /// A piece that makes no sense: the point can't be right any more.
    func drop(_ point: PointNumber) {
        journal.discardUnfinished()
        refuse(point, .damaged)
    }

    private func refuse(_ point: PointNumber, _ refusal: PointRefusal) {
        statistics.refusals &+= 1
        refusedPoint = point
        onRefused(point, refusal)
        say(.pointRefused(volume: identifier, point: point, refusal: refusal))
    }

    private static func refusal(of error: PointJournalError) -> PointRefusal {
        switch error {
        case .fenced: .fenced
        case .outOfSequence, .notBegun: .outOfSequence
        case .damaged, .outOfRange: .damaged
        case .noSpace, .busy: .noSpace
        case .closed, .foreignDisk: .notOpen
        case .disk, .journal, .corrupt, .notKept: .medium
        }
    }

    // MARK: Notices

    /// Sends a short message; what concerns points goes in order, in the control class. The link's refusal only delays it.
    private func say(_ message: LinkMessage) { _ = announce(message) }

    /// The same, where it matters that it is heard.
    /// - Returns: false when too many wait: then it will not be.
    func announce(_ message: LinkMessage) -> Bool {
        guard notices.count < Self.noticesMax else { return false }
        switch message {
        case .readFailed, .allocationReply: notices.append((message, .demand))
        default: notices.append((message, .control))
        }
        sendNotices()
        return true
    }

    private func sendNotices() {
        while let notice = notices.first {
            guard downlink(notice.message, notice.trafficClass, false) else { return }
            notices.removeFirst()
        }
    }
}
