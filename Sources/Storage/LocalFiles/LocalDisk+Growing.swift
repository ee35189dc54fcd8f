import Blocks
import Files
import NIOCore

// A disk that is in use may grow, and never shrinks.
//
//   look at the size (pool) ─> hold new operations ─> [those in flight end] ─> take the size over ─> let the held ones go
//
// The size changes between operations, never during one: the last part of a unit of direct I/O is reached through the page
// cache, and becomes a whole unit that is reached past it, so an operation of either kind must not meet one of the other.
// The pause is that of the operations in flight, and what is held is bounded by what the journal has in flight.

extension LocalDisk {
    /// Looks at the size again, and takes a larger one over.
    /// - Returns: true when the disk has grown. A disk that has become smaller is an error, and keeps its size here.
    public func rescan(completion: @escaping (Result<Bool, LocalDiskError>) -> Void) { changeSize(to: nil, completion: completion) }

    /// Makes a file larger, and takes its size over. What is new reads as zeroes.
    /// - Returns: true when the disk has grown; false when it had that size already.
    public func grow(to byteCount: UInt64, completion: @escaping (Result<Bool, LocalDiskError>) -> Void) {
        changeSize(to: byteCount, completion: completion)
    }

    private func changeSize(to wanted: UInt64?, completion: @escaping (Result<Bool, LocalDiskError>) -> Void) {
        let path = path
        guard let access else { return completion(.failure(.failed(path: path, reason: "it has been closed"))) }
        let file = access.file
        let (current, usesDirectIO, calls) = (byteCount, usesDirectIO, calls)
        let found = { [weak self] (result: Result<Result<Grown?, LocalDiskError>, StorageFileError>) in
            switch result {
            case .failure(let error): completion(.failure(.failed(path: path, reason: "\(error)")))
            case .success(.failure(let error)): completion(.failure(error))
            case .success(.success(nil)): completion(.success(false))
            case .success(.success(let grown?)):
                guard let self else { return completion(.success(false)) }
                self.adopt(grown) { completion($0) }
            }
        }
        calls.run(found) { () throws(FileSystemError) in
            do throws(LocalDiskError) {
                return .success(try Self.sizeChange(of: file, path: path, from: current, to: wanted, usesDirectIO: usesDirectIO))
            } catch { return .failure(error) }
        }
    }

    /// A larger size, and the way to the bytes that goes with it.
    private struct Grown: Sendable {
        let byteCount: UInt64
        let access: Access
    }

    /// Looks, and makes larger; blocking.
    private static func sizeChange(
        of file: OpenFile, path: String, from current: UInt64, to wanted: UInt64?, usesDirectIO: Bool
    ) throws(LocalDiskError) -> Grown? {
        var information = try translated(path) { () throws(FileSystemError) in try file.information() }
        if let wanted, wanted != information.size {
            guard information.kind == .regular else { throw .notResizable(path: path) }
            guard wanted > information.size, wanted > current else { throw .shrunk(path: path, from: information.size, to: wanted) }
            guard wanted % UInt64(BlockGeometry.sectorBytes) == 0 else { throw .partialSector(path: path, byteCount: wanted) }
            do throws(FileSystemError) {
                try file.truncate(to: wanted)
                // The size must be there after a crash, before anybody is told of it.
                try file.synchronizeData()
            } catch { throw .growing(path: path, reason: error.description) }
            information = try translated(path) { () throws(FileSystemError) in try file.information() }
        }
        if information.size < current { throw .shrunk(path: path, from: current, to: information.size) }
        // A file that is being made larger by somebody may be between two sectors; it is taken when it is whole.
        let whole = information.size - information.size % UInt64(BlockGeometry.sectorBytes)
        if whole <= current { return nil }
        let direct = usesDirectIO ? directFile(beside: file, information) : nil
        return Grown(byteCount: whole, access: direct.map { .direct($0) } ?? .buffered(file))
    }

    private func adopt(_ grown: Grown, completion: @escaping (Result<Bool, LocalDiskError>) -> Void) {
        // Another growth is waiting for its moment; this one has seen at most what that one brings.
        guard heldOperations == nil else { return completion(.success(false)) }
        heldOperations = []
        whenIdle = { [self] in
            let isOpen = access != nil
            if isOpen, grown.byteCount > byteCount {
                byteCount = grown.byteCount
                access = grown.access
            }
            let held = heldOperations ?? []
            heldOperations = nil
            for operation in held { operation() }
            completion(isOpen ? .success(true) : .failure(.failed(path: path, reason: "it has been closed")))
        }
        operationEnded()
    }

    /// An operation has ended, perhaps the last one that a growth waits for.
    func operationEnded() {
        guard operationsInFlight == 0, let idle = whenIdle else { return }
        whenIdle = nil
        idle()
    }
}

extension LocalDisk.Access {
    /// The descriptor that holds the lock.
    fileprivate var file: OpenFile {
        switch self {
        case .buffered(let file): file
        case .direct(let file): file.buffered
        }
    }
}
