import Glibc
import LoadGenerator

// Two files. STATEFILE holds the ledger as it was at the last checkpoint and is replaced by rename.
// STATEFILE.journal holds the events since then. Each event is given to the kernel (write) before
// anything that follows from it is sent to the target, so a killed generator has forgotten nothing that
// mattered; a power cut on the generator's own machine is not what it is made for.

/// The ledger of a job and its files.
final class VerificationStore {
    /// At this size the journal is replaced by a new state file.
    static let journalLimitBytes = 64 << 20

    var ledger: WriteLedger
    private let path: String
    private var stateNumber: UInt32
    private var journal: Int32 = -1
    private var journalBytes = 0
    private var pending: [UInt8] = []

    private init(path: String, ledger: WriteLedger, stateNumber: UInt32) {
        self.path = path
        self.ledger = ledger
        self.stateNumber = stateNumber
        pending.reserveCapacity(64 * 1024)
    }

    deinit { if journal >= 0 { Glibc.close(journal) } }

    /// Opens the job in a file for a run, or begins a new one.
    static func open(path: String, create: () -> WriteLedger?) throws -> VerificationStore {
        let descriptor = Glibc.open(path + ".journal", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw LoadError.system("open", path + ".journal") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            Glibc.close(descriptor)
            throw LoadError("\(path) is in use by another run")
        }
        let store: VerificationStore
        do {
            if let saved = try load(path: path) {
                store = VerificationStore(path: path, ledger: saved.ledger, stateNumber: saved.stateNumber)
                // Time has passed: the target may have crashed since the last run.
                store.ledger.loseSession()
            } else {
                guard let ledger = create() else {
                    throw LoadError("too many blocks for --verify: give a smaller --range or a larger --block-size")
                }
                store = VerificationStore(path: path, ledger: ledger, stateNumber: 0)
            }
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        store.journal = descriptor
        try store.checkpoint()
        return store
    }

    /// Reads the job in a file without touching it; nil when there is no such file.
    static func load(path: String) throws -> (ledger: WriteLedger, stateNumber: UInt32)? {
        guard let bytes = try readFile(path) else { return nil }
        guard var saved = WriteLedger.decode(bytes) else { throw LoadError("\(path) is not a state file, or is damaged") }
        if let events = try readFile(path + ".journal"), events.count >= JournalRecord.byteCount {
            guard let header = JournalRecord.parseHeader(events[..<JournalRecord.byteCount]) else {
                throw LoadError("\(path).journal is damaged")
            }
            // An older journal is one that the state file has swallowed already.
            if header.job == saved.ledger.job && header.stateNumber == saved.stateNumber {
                guard saved.ledger.replay(events[JournalRecord.byteCount...]) != nil else {
                    throw LoadError("\(path).journal is damaged")
                }
            }
        }
        return saved
    }

    /// Notes an event; `writeJournal` makes it last.
    func record(_ event: JournalRecord) { event.encode(into: &pending) }

    /// Gives all noted events to the kernel. Call it before anything is sent.
    func writeJournal() throws {
        if pending.isEmpty { return }
        try Self.writeAll(journal, pending, path + ".journal")
        journalBytes += pending.count
        pending.removeAll(keepingCapacity: true)
        if journalBytes > Self.journalLimitBytes { try checkpoint() }
    }

    /// Writes the ledger to the state file and begins a new journal.
    func checkpoint() throws {
        pending.removeAll(keepingCapacity: true)
        stateNumber &+= 1
        let temporary = path + ".new"
        let descriptor = Glibc.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw LoadError.system("open", temporary) }
        defer { Glibc.close(descriptor) }
        try Self.writeAll(descriptor, ledger.encode(stateNumber: stateNumber), temporary)
        guard fsync(descriptor) == 0 else { throw LoadError.system("fsync", temporary) }
        guard rename(temporary, path) == 0 else { throw LoadError.system("rename", path) }
        guard ftruncate(journal, 0) == 0, lseek(journal, 0, SEEK_SET) == 0 else {
            throw LoadError.system("truncate", path + ".journal")
        }
        try Self.writeAll(journal, JournalRecord.header(job: ledger.job, stateNumber: stateNumber), path + ".journal")
        journalBytes = 0
    }

    private static func writeAll(_ descriptor: Int32, _ bytes: [UInt8], _ path: String) throws {
        var position = 0
        while position < bytes.count {
            let count = bytes.withUnsafeBytes { raw in
                Glibc.write(descriptor, raw.baseAddress.map { $0 + position }, raw.count - position)
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw LoadError.system("write", path) }
            position += count
        }
    }

    private static func readFile(_ path: String) throws -> [UInt8]? {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        if descriptor < 0 && errno == ENOENT { return nil }
        guard descriptor >= 0 else { throw LoadError.system("open", path) }
        defer { Glibc.close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw LoadError.system("stat", path) }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var position = 0
        while position < bytes.count {
            let count = bytes.withUnsafeMutableBytes { raw in
                Glibc.read(descriptor, raw.baseAddress.map { $0 + position }, raw.count - position)
            }
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw LoadError.system("read", path) }
            if count == 0 { break }
            position += count
        }
        return Array(bytes[..<position])
    }
}

/// A file in memory that gives sectors as they were before a job.
final class OriginalContent {
    private let bytes: UnsafeRawBufferPointer

    init(path: String) throws {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw LoadError.system("open", path) }
        defer { Glibc.close(descriptor) }
        let length = lseek(descriptor, 0, SEEK_END)
        guard length > 0, let base = mmap(nil, length, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else {
            throw LoadError.system("mmap", path)
        }
        bytes = UnsafeRawBufferPointer(start: base, count: length)
    }

    deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count) }

    /// The bytes of a sector; nil behind the end of the file.
    func sector(_ number: UInt64) -> UnsafeRawBufferPointer? {
        guard number < UInt64(bytes.count / 512) else { return nil }
        let start = Int(number) * 512
        return UnsafeRawBufferPointer(rebasing: bytes[start..<start + 512])
    }
}
