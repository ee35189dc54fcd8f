import Blocks
import NIOCore

/// What goes wrong on a simulated machine.
public struct StorageFaults: Sendable {
    /// How often a read finds its bytes in the page cache.
    public var residentPercent: UInt64 = 50
    /// How often a file takes a write at once.
    public var atOncePercent: UInt64 = 50
    /// Every write and sync fails.
    public var failsWrites = false
    /// Every write to a file fails in whose path this text is.
    public var failsWritesTo: String?
    /// Every sync of a file fails in whose path this text is. Of what it was for a part is lost, though it can be read until the power
    /// goes, and a later sync finds nothing to do.
    public var failsSyncsOf: String?
    /// The file system is mounted read-only: every change is denied, syncs find nothing to do.
    public var isReadOnly = false
    /// Files can be neither made nor removed, while those that are there take writes.
    public var deniesNames = false
    /// Every read that waits fails.
    public var failsReads = false
    /// Every read of a file that waits fails in whose path this text is.
    public var failsReadsOf: String?
    /// The room of the file system in bytes.
    public var capacityBytes = Int.max
    /// There is no room for more of a file in whose path this text is, while others grow: a file system of its own, or a quota.
    public var lacksRoomFor: String?
    /// Of files with this in their names, which have holes, half of all writes find no room; what comes first of them may be written.
    public var lacksRoomInHolesOf: String?
    /// Files in whose path this text is have another name besides.
    public var linkedName: String?
    /// The largest file that the file system takes, in bytes.
    public var fileBytesMax = Int.max
    /// How long an operation takes, in microseconds.
    public var latencyMicroseconds: ClosedRange<Int> = 10...2_000

    public init() {}

    /// No file can be made or removed, for any reason.
    var refusesNames: Bool { failsWrites || isReadOnly || deniesNames }
}

/// A machine's storage: what survives when the process on it is killed or its power is cut.
public final class SimulatedMachine {
    /// The faults in force.
    public var faults = StorageFaults()
    let scheduler: Scheduler
    var random: SeededRandom { scheduler.random }
    /// Grows with each crash, so that nothing of a dead process completes in the next.
    private(set) var incarnation: UInt64 = 0
    private var directories: [String: DirectoryNode] = [:]
    private var disks: [String: FileNode] = [:]
    /// All files that ever were here.
    private var nodes: [FileNode] = []

    public init(scheduler: Scheduler) { self.scheduler = scheduler }

    /// The files of which some place was written with different bytes at different times, by their paths, whether or not a crash
    /// came in between. A file that is sealed under nonces which count must not be among them.
    public internal(set) var overwrittenFiles = Set<String>()

    /// Called when a name has been removed or changed; a power cut may still bring it back.
    public var onNameGone: (() -> Void)?

    /// Only files whose path begins with this are looked at for such places: every byte that was ever written is kept for it.
    public var watchedPrefix = ""

    func makeNode(content: [UInt8] = []) -> FileNode {
        let node = FileNode(content: content)
        nodes.append(node)
        return node
    }

    /// Forgets every byte: nobody looks any more. What ran on the machine may hold its files for ever, in closures that wait for
    /// what a dead process will never hear.
    public func discard() {
        killProcess()
        for node in nodes { node.discard() }
        nodes.removeAll()
        directories.removeAll()
        disks.removeAll()
    }

    /// The bytes that all files take.
    public var usedBytes: Int {
        directories.values.reduce(0) { $0 + $1.visible.values.reduce(0) { $0 + $1.visible.count } }
    }

    /// A directory of that path, made when it is missing (and durable from the start).
    public func directory(_ path: String) -> SimulatedDirectory {
        let node = directories[path] ?? DirectoryNode()
        directories[path] = node
        return SimulatedDirectory(node: node, path: path, machine: self)
    }

    /// A disk of a fixed size, all zeroes at first.
    public func disk(_ name: String, byteCount: Int) -> SimulatedFile {
        disk(name, holding: [UInt8](repeating: 0, count: byteCount))
    }

    /// A disk of a fixed size, which holds `content` when there is none of that name yet.
    public func disk(_ name: String, holding content: [UInt8]) -> SimulatedFile {
        let node = disks[name] ?? makeNode(content: content)
        disks[name] = node
        return SimulatedFile(node: node, name: name, machine: self)
    }

    /// Copies disks and directories, as they are now.
    public func copy(disks names: [String] = [], directories: [String]) -> StorageCopy {
        var copy = StorageCopy()
        for name in names { copy.disks[name] = disks[name]?.visible ?? [] }
        for name in directories { copy.directories[name] = self.directories[name]?.visible.mapValues(\.visible) ?? [:] }
        return copy
    }

    /// Puts a copy in the place of what is there now. Nobody has a file of it open.
    public func restore(_ copy: StorageCopy) {
        for (name, content) in copy.disks { disks[name] = makeNode(content: content) }
        for (name, files) in copy.directories {
            let node = DirectoryNode()
            node.visible = files.mapValues { makeNode(content: $0) }
            node.durable = node.visible
            directories[name] = node
        }
    }

    /// How many changes of files were asked for and have not completed.
    public var changesInFlight: Int { nodes.reduce(0) { $0 + $1.inFlight.count } }

    /// Every byte of every file, for those who look for what must not be there.
    public var allBytes: [[UInt8]] {
        directories.values.flatMap { $0.visible.values.map(\.visible) } + disks.values.map(\.visible)
    }

    /// Kills the process: completed operations stay, those in flight are done, half done or not.
    public func killProcess() {
        incarnation += 1
        for node in nodesInOrder { node.killProcess(random) }
        for (_, directory) in directories.sorted(by: { $0.key < $1.key }) { directory.inFlight = [:] }
    }

    /// Cuts the power: of what was not synchronised, each change is there, torn or gone.
    public func cutPower() {
        incarnation += 1
        for (_, directory) in directories.sorted(by: { $0.key < $1.key }) { directory.cutPower(random) }
        for node in nodesInOrder { node.cutPower(random) }
    }

    private var nodesInOrder: [FileNode] {
        directories.sorted { $0.key < $1.key }.flatMap { $0.value.visible.sorted { $0.key < $1.key }.map(\.value) }
            + disks.sorted { $0.key < $1.key }.map(\.value)
    }

    func complete(incarnation: UInt64, _ action: @escaping () -> Void) {
        scheduler.schedule(microseconds: faults.latencyMicroseconds) { [self] in
            if incarnation == self.incarnation { action() }
        }
    }
}

/// What a disk and a directory held at one time.
public struct StorageCopy: Equatable {
    fileprivate var disks: [String: [UInt8]] = [:]
    fileprivate var directories: [String: [String: [UInt8]]] = [:]
}

final class DirectoryNode {
    enum Change {
        case bind(String, FileNode)
        case remove(String)
        case rename(String, String)

        func apply(to names: inout [String: FileNode]) {
            switch self {
            case .bind(let name, let node): names[name] = node
            case .remove(let name): names[name] = nil
            case .rename(let name, let newName):
                if let node = names.removeValue(forKey: name) { names[newName] = node }
            }
        }
    }

    var visible: [String: FileNode] = [:]
    var durable: [String: FileNode] = [:]
    var unsynchronized: [(serial: UInt64, change: Change)] = []
    var inFlight: [UInt64: Change] = [:]
    var serial: UInt64 = 0

    func cutPower(_ random: SeededRandom) {
        for (_, change) in unsynchronized where random.chance(percent: 50) { change.apply(to: &durable) }
        visible = durable
        unsynchronized = []
        inFlight = [:]
    }
}

/// A directory of a simulated machine.
public final class SimulatedDirectory: StorageDirectory {
    let node: DirectoryNode
    private let machine: SimulatedMachine
    private let path: String
    private let incarnation: UInt64

    init(node: DirectoryNode, path: String, machine: SimulatedMachine) {
        self.node = node
        self.path = path
        self.machine = machine
        incarnation = machine.incarnation
    }

    /// The names that a reader would see now.
    public var names: [String] { node.visible.keys.sorted() }

    /// The file of that name as a reader would see it now.
    public func file(_ name: String) -> SimulatedFile? {
        node.visible[name].map { SimulatedFile(node: $0, name: "\(path)/\(name)", machine: machine) }
    }

    private func later(_ action: @escaping () -> Void) { machine.complete(incarnation: incarnation, action) }

    public func list(completion: @escaping (Result<[String], StorageFileError>) -> Void) {
        later { [self] in
            completion(machine.faults.failsReads ? .failure(.failed("simulated read error in \(path)")) : .success(names))
        }
    }

    public func open(
        _ name: String, create: Bool, completion: @escaping (Result<SimulatedFile, StorageFileError>) -> Void
    ) {
        later { [self] in
            if node.visible[name] == nil {
                if !create { return completion(.failure(.notFound("\(path)/\(name)"))) }
                if machine.faults.refusesNames {
                    return completion(.failure(.denied("simulated: cannot create \(path)/\(name)")))
                }
                record(.bind(name, machine.makeNode()))
            }
            guard let file = file(name) else { return completion(.failure(.notFound("\(path)/\(name)"))) }
            completion(.success(file))
        }
    }

    public func remove(_ name: String, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        later { [self] in
            if machine.faults.refusesNames {
                return completion(.failure(.denied("simulated: cannot remove \(path)/\(name)")))
            }
            if node.visible[name] != nil { record(.remove(name)) }
            completion(.success(()))
        }
    }

    public func rename(
        _ name: String, to newName: String, completion: @escaping (Result<Void, StorageFileError>) -> Void
    ) {
        later { [self] in
            if node.visible[name] == nil { return completion(.failure(.notFound("\(path)/\(name)"))) }
            if machine.faults.refusesNames { return completion(.failure(.denied("simulated: cannot rename \(path)/\(name)"))) }
            record(.rename(name, newName))
            completion(.success(()))
        }
    }

    public func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        let covered = node.serial
        later { [self] in
            if machine.faults.failsWrites { return completion(.failure(.failed("simulated sync error in \(path)"))) }
            for (serial, change) in node.unsynchronized where serial <= covered { change.apply(to: &node.durable) }
            node.unsynchronized.removeAll { $0.serial <= covered }
            completion(.success(()))
        }
    }

    private func record(_ change: DirectoryNode.Change) {
        change.apply(to: &node.visible)
        node.serial += 1
        node.unsynchronized.append((node.serial, change))
        if case .bind = change { return }
        machine.onNameGone?()
    }
}
