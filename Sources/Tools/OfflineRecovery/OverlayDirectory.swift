import Blocks
import NIOCore

// What a daemon would do to its files when it starts, done to a picture of them: a log cuts its torn end, a cloud-only disk drains. Changes
// stay in memory, and reads see them over what the files hold.

/// How much the changes may take.
private final class OverlayRoom {
    /// As much as the journal of a cloud-only disk holds, drained and sealed.
    static let bytesMax = 1 << 30

    private var used = 0

    func take(_ bytes: Int) -> Bool {
        guard bytes <= Self.bytesMax - used else { return false }
        used += bytes
        return true
    }
}

/// A directory whose changes stay in memory.
final class OverlayDirectory<Base: StorageDirectory>: StorageDirectory {
    private let base: Base
    private let eventLoop: any EventLoop
    private let room = OverlayRoom()
    /// The files that were opened, made or renamed; nil for a name that was removed.
    private var files: [String: OverlayFile<Base.File>?] = [:]

    init(_ base: Base, eventLoop: any EventLoop) {
        self.base = base
        self.eventLoop = eventLoop
    }

    func list(completion: @escaping (Result<[String], StorageFileError>) -> Void) {
        base.list { [self] result in
            completion(
                result.map { names in
                    let known = files.filter { $0.value != nil }.map(\.key)
                    return known + names.filter { files[$0] == nil }
                })
        }
    }

    func open(_ name: String, create: Bool, completion: @escaping (Result<OverlayFile<Base.File>, StorageFileError>) -> Void) {
        let make = { [self] in
            guard create else { return completion(.failure(.notFound(name))) }
            let file = OverlayFile<Base.File>(name: name, base: nil, byteCount: 0, room: room, eventLoop: eventLoop)
            files[name] = .some(file)
            completion(.success(file))
        }
        if let known = files[name] {
            return eventLoop.soon { if let file = known { completion(.success(file)) } else { make() } }
        }
        base.open(name, create: false) { [self] result in
            switch result {
            case .failure(.notFound): make()
            case .failure(let error): completion(.failure(error))
            case .success(let opened):
                opened.size { [self] size in
                    completion(
                        size.map { byteCount in
                            let file = OverlayFile(name: name, base: opened, byteCount: byteCount, room: room, eventLoop: eventLoop)
                            files[name] = .some(file)
                            return file
                        })
                }
            }
        }
    }

    func remove(_ name: String, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        files[name] = .some(nil)
        eventLoop.soon { completion(.success(())) }
    }

    func rename(_ name: String, to newName: String, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        open(name, create: false) { [self] result in
            completion(
                result.map { file in
                    files[name] = .some(nil)
                    files[newName] = .some(file)
                })
        }
    }

    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { eventLoop.soon { completion(.success(())) } }
}

/// A file whose changes stay in memory.
final class OverlayFile<Base: StorageFile>: StorageFile {
    /// Bytes at a place; nil for zeroes.
    private struct Change {
        var offset: UInt64
        var byteCount: UInt64
        let bytes: ByteBuffer?
        var end: UInt64 { offset + byteCount }
    }

    private let name: String
    private let base: Base?
    private let room: OverlayRoom
    private let eventLoop: any EventLoop
    /// How far the file below still shows: no further than the file was ever cut.
    private var baseEnd: UInt64
    private var byteCount: UInt64
    /// Oldest first.
    private var changes: [Change] = []

    fileprivate init(name: String, base: Base?, byteCount: UInt64, room: OverlayRoom, eventLoop: any EventLoop) {
        self.name = name
        self.base = base
        self.room = room
        self.eventLoop = eventLoop
        self.byteCount = byteCount
        baseEnd = byteCount
    }

    func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool { false }

    func read(at offset: UInt64, byteCount wanted: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        let count = offset < byteCount ? Int(clamping: min(UInt64(max(0, wanted)), byteCount - offset)) : 0
        let below = offset < baseEnd ? Int(clamping: min(UInt64(count), baseEnd - offset)) : 0
        // As they are when the read is asked for.
        let over = changes
        let finish = { (data: ByteBuffer) in
            var bytes = [UInt8](data.readableBytesView)
            bytes += [UInt8](repeating: 0, count: max(0, count - bytes.count))
            for change in over { Self.put(change, over: &bytes, at: offset) }
            completion(.success(ByteBuffer(bytes: bytes)))
        }
        guard let base, below > 0 else { return eventLoop.soon { finish(ByteBuffer()) } }
        base.read(at: offset, byteCount: below) { result in
            switch result {
            case .success(let data): finish(data)
            case .failure(let error): completion(.failure(error))
            }
        }
    }

    private static func put(_ change: Change, over bytes: inout [UInt8], at offset: UInt64) {
        let start = max(change.offset, offset)
        let end = min(change.end, offset + UInt64(bytes.count))
        guard start < end else { return }
        let range = Int(start - offset)..<Int(end - offset)
        guard let data = change.bytes else {
            return bytes.replaceSubrange(range, with: repeatElement(0, count: range.count))
        }
        let view = data.readableBytesView.dropFirst(Int(start - change.offset)).prefix(range.count)
        bytes.replaceSubrange(range, with: view)
    }

    func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        guard room.take(data.readableBytes) else {
            return eventLoop.soon { [name] in
                completion(.failure(.noSpace("more of \(name) would have to be changed than fits in memory")))
            }
        }
        add(Change(offset: offset, byteCount: UInt64(data.readableBytes), bytes: data))
        eventLoop.soon { completion(.success(())) }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        add(Change(offset: offset, byteCount: byteCount, bytes: nil))
        eventLoop.soon { completion(.success(())) }
    }

    private func add(_ change: Change) {
        changes.append(change)
        byteCount = max(byteCount, change.end)
    }

    func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) { eventLoop.soon { completion(.success(())) } }

    func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) {
        eventLoop.soon { [byteCount] in completion(.success(byteCount)) }
    }

    func truncate(to newCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        if newCount < byteCount {
            baseEnd = min(baseEnd, newCount)
            changes.removeAll { $0.offset >= newCount }
            for index in changes.indices { changes[index].byteCount = min(changes[index].byteCount, newCount - changes[index].offset) }
        }
        byteCount = newCount
        eventLoop.soon { completion(.success(())) }
    }

    func close() {}
}

extension EventLoop {
    /// Completes a call when it has returned, as files do. On the loop.
    fileprivate func soon(_ completion: @escaping () -> Void) {
        let bound = NIOLoopBound(completion, eventLoop: self)
        execute { bound.value() }
    }
}
