import Blocks
import Files
import Glibc
import NIOCore
import NIOPosix

/// Why a disk could not be opened. The texts say what to do.
public enum LocalDiskError: Error, Equatable, Sendable, CustomStringConvertible {
    case missing(path: String)
    case locked(path: String)
    case denied(path: String, reason: String)
    case notADisk(path: String)
    case partialSector(path: String, byteCount: UInt64)
    case empty(path: String)
    case shrunk(path: String, from: UInt64, to: UInt64)
    case notResizable(path: String)
    case growing(path: String, reason: String)
    case failed(path: String, reason: String)

    public var description: String {
        switch self {
        case .missing(let path): "the disk \(path) does not exist: check the path, or create the file"
        case .locked(let path):
            "the disk \(path) is in use by another program (a running machine, a mount, or a second daemon): stop that first"
        case .denied(let path, let reason):
            "the disk \(path) can't be opened for reading and writing: \(reason): check owner and mode"
        case .notADisk(let path): "\(path) is neither a regular file nor a block device: name a raw image or a device"
        case .partialSector(let path, let byteCount):
            "the disk \(path) has \(byteCount) bytes, which is not a multiple of 512, so it is cut off or not a raw image: "
                + "run `truncate -s %512 \(path)` to fill up its last sector with zeroes"
        case .empty(let path):
            "the disk \(path) has no bytes: give the file a size first, for instance by `truncate -s 10G \(path)`"
        case .shrunk(let path, let from, let to):
            "the disk \(path) has \(from) bytes, and \(to) are less: a disk can only grow"
        case .notResizable(let path):
            "\(path) is a block device, which only its own tools make larger"
        case .growing(let path, let reason): "the disk \(path) can't be made larger: \(reason)"
        case .failed(let path, let reason): "the disk \(path) can't be opened: \(reason)"
        }
    }
}

/// How a disk is opened.
public struct LocalDiskOptions: Sendable {
    /// Past the page cache where the file system and the device can.
    public var usesDirectIO = true

    public init(usesDirectIO: Bool = true) { self.usesDirectIO = usesDirectIO }
}

/// What a disk is made of.
public enum LocalDiskKind: String, Sendable {
    case rawFile = "raw-file"
    case blockDevice = "block-device"
}

/// A disk that this edge owns: a raw file or a block device, locked as long as it is open.
///
/// A file is locked by an exclusive OFD lock, which QEMU and a second daemon see; a block device by
/// O_EXCL, which a mount sees. The size is that of the time of opening, until `rescan` or `grow` finds a larger one.
public final class LocalDisk: StorageFile {
    /// What the disk is made of.
    public let kind: LocalDiskKind
    /// The size in sectors.
    public var sectorCount: UInt64 { byteCount / UInt64(BlockGeometry.sectorBytes) }
    /// True when reads and writes go past the page cache.
    public let usesDirectIO: Bool
    /// The path under which it was opened.
    public let path: String
    var byteCount: UInt64
    var access: Access?
    let calls: BlockingCalls
    /// Operations on their way to the disk and back.
    var operationsInFlight = 0
    /// While the size changes: what came meanwhile, in order.
    var heldOperations: [() -> Void]?
    /// Runs when no operation is in flight any more.
    var whenIdle: (() -> Void)?

    /// The way to the bytes.
    enum Access: Sendable {
        case buffered(OpenFile)
        case direct(DirectFile)
    }

    /// What was opened on the pool, on its way to the loop.
    private struct Opened: Sendable {
        let kind: LocalDiskKind
        let byteCount: UInt64
        let access: Access
    }

    private init(_ opened: Opened, path: String, calls: BlockingCalls) {
        kind = opened.kind
        byteCount = opened.byteCount
        access = opened.access
        if case .direct = opened.access { usesDirectIO = true } else { usesDirectIO = false }
        self.path = path
        self.calls = calls
    }

    /// Opens and locks the disk at `path`. The completion runs on `eventLoop`, which the disk belongs to from then on;
    /// call it there.
    public static func open(
        path: String, eventLoop: any EventLoop, threadPool: NIOThreadPool, options: LocalDiskOptions = LocalDiskOptions(),
        completion: @escaping (Result<LocalDisk, LocalDiskError>) -> Void
    ) {
        let calls = BlockingCalls(eventLoop: eventLoop, threadPool: threadPool)
        let opened = { (result: Result<Result<Opened, LocalDiskError>, StorageFileError>) in
            switch result {
            case .success(let opened): completion(opened.map { LocalDisk($0, path: path, calls: calls) })
            case .failure(let error): completion(.failure(.failed(path: path, reason: "\(error)")))
            }
        }
        calls.run(opened) { () throws(FileSystemError) in
            do throws(LocalDiskError) { return .success(try openLocked(path, options)) } catch { return .failure(error) }
        }
    }

    private static func openLocked(_ path: String, _ options: LocalDiskOptions) throws(LocalDiskError) -> Opened {
        var file = try translated(path) { () throws(FileSystemError) in try OpenFile(path, .write) }
        var information = try translated(path) { () throws(FileSystemError) in try file.information() }
        switch information.kind {
        case .regular: try translated(path) { () throws(FileSystemError) in try file.lockAsDisk() }
        case .blockDevice:
            // O_EXCL means something for devices only, so what it is had to be known first.
            file = try translated(path) { () throws(FileSystemError) in try OpenFile(path, [.write, .exclusive]) }
            information = try translated(path) { () throws(FileSystemError) in try file.information() }
        case .directory, .other: throw .notADisk(path: path)
        }
        if information.size == 0 { throw .empty(path: path) }
        if information.size % UInt64(BlockGeometry.sectorBytes) != 0 {
            throw .partialSector(path: path, byteCount: information.size)
        }
        let direct = options.usesDirectIO ? directFile(beside: file, information) : nil
        return Opened(
            kind: information.kind == .regular ? .rawFile : .blockDevice, byteCount: information.size,
            access: direct.map { .direct($0) } ?? .buffered(file))
    }

    /// The way past the page cache, or nil where there is none. It is tried with a read before it is trusted.
    static func directFile(beside file: OpenFile, _ information: FileInformation) -> DirectFile? {
        let page = AlignedBuffer.alignment
        var alignment = page
        if let known = information.directAlignment {
            guard known.memory > 0, known.offset > 0, page % known.memory == 0, page % known.offset == 0 else { return nil }
            alignment = known.offset
        }
        // Smaller units would be allowed by some devices, but pages keep the two ways of reaching a file apart.
        alignment = max(alignment, page)
        // Without O_EXCL: of a device, the first descriptor holds the claim.
        guard information.size >= UInt64(page), let direct = try? OpenFile(file.path, [.write, .direct]) else { return nil }
        let probe = AlignedBuffer(byteCount: alignment)
        guard (try? direct.read(into: probe.bytes, at: 0)) == alignment else { return nil }
        return DirectFile(direct: direct, buffered: file, alignment: alignment, size: information.size)
    }

    static func translated<Value>(_ path: String, _ body: () throws(FileSystemError) -> Value) throws(LocalDiskError)
        -> Value
    {
        do throws(FileSystemError) { return try body() } catch {
            if error.isNotFound { throw .missing(path: path) }
            if error.isLocked { throw .locked(path: path) }
            if error.isDenied { throw .denied(path: path, reason: error.description) }
            if error.errorNumber == EISDIR || error.errorNumber == ENXIO { throw .notADisk(path: path) }
            throw .failed(path: path, reason: error.description)
        }
    }
}
