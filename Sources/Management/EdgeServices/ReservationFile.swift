import APIModels
import Blocks
import Ciphers
import Files
import NIOCore
import NIOPosix
import SCSI

// The file in which the persistent reservations of one volume survive a loss of power (APTPL), as
// docs/reference/reservation-file-format.md describes it. It lies beside the write log of the volume and is sealed under the
// volume's key (SealedFile.swift), because it names the customer's initiators.

/// The bytes of the file.
enum ReservationFileFormat {
    private static let format = SealedFile(
        magic: 0x4341_5553_4552_5356,  // "CAUSERSV"
        version: 1, purpose: "causeway reservations 1")
    /// More than the largest state takes: what a reader believes at most.
    static let fileBytesMax = 256 << 10

    /// The file that keeps `state`. `salt` is random and never used again.
    static func seal(_ state: ByteBuffer, volume: VolumeIdentifier, key: SecretKey, salt: [UInt8]) throws -> ByteBuffer {
        try format.seal(state, owner: volume, key: key, salt: salt)
    }

    /// The state that a file keeps. The bytes come from a disk that others may have written.
    static func open(
        _ file: ByteBuffer, volume: VolumeIdentifier, keys: DataKeys
    ) throws -> (state: PersistentReservations, KeyGeneration) {
        let (state, generation) = try unseal(file, volume: volume, keys: keys)
        do throws(PersistentReservations.DecodingError) {
            return (try PersistentReservations(decoding: state), generation)
        } catch {
            throw SealedFileError.inconsistent("\(error)")
        }
    }

    /// The state under whichever of a volume's keys it was sealed, and that key's generation.
    static func unseal(_ file: ByteBuffer, volume: VolumeIdentifier, keys: DataKeys) throws -> (state: ByteBuffer, KeyGeneration) {
        for generation in keys.generations {
            guard let key = keys[generation] else { continue }
            do {
                return (try format.unseal(file, owner: volume, key: key), generation)
            } catch SealedFileError.wrongKey {}
        }
        throw SealedFileError.wrongKey
    }
}

/// The file of one volume. It lives on the event loop of the volume; what blocks runs on the thread pool.
final class ReservationFile {
    static let name = "reservations"

    private let directory: OpenDirectory
    private let volume: VolumeIdentifier
    private var keys: DataKeys
    /// The generations of the key that the file may be sealed under; none when there is no file. A change that failed may have come
    /// as far as the file all the same.
    private var mayBeSealedUnder: Set<KeyGeneration> = []
    /// Those of the changes that are on their way, in their order.
    private var changing: [KeyGeneration] = []
    /// It is being sealed anew, under a newer key.
    private var isRenewing = false
    /// What touches the file comes one after the other: the last of it.
    private var last: EventLoopFuture<Void>
    private let eventLoop: any EventLoop
    private let threadPool: NIOThreadPool
    /// Called with the reason when a change could not be made durable.
    var onFailure: (String) -> Void = { _ in }

    /// The generations of the key without which the file might not open.
    var keyGenerations: Set<KeyGeneration> { mayBeSealedUnder.union(changing) }

    var path: String { "\(directory.path)/\(Self.name)" }

    init(
        directory: OpenDirectory, volume: VolumeIdentifier, keys: DataKeys, eventLoop: any EventLoop, threadPool: NIOThreadPool
    ) {
        self.directory = directory
        self.volume = volume
        self.keys = keys
        last = eventLoop.makeSucceededVoidFuture()
        self.eventLoop = eventLoop
        self.threadPool = threadPool
    }

    /// Reads the state; nil when none is kept. A file that can't be used is an error: who knew nothing of the reservations
    /// would let those write whom a cluster has shut out.
    func load(completion: @escaping (Result<PersistentReservations?, any Error>) -> Void) {
        let (directory, volume, keys, path) = (directory, volume, keys, path)
        let bound = NIOLoopBound((self, completion), eventLoop: eventLoop)
        threadPool.runIfActive(eventLoop: eventLoop) { () -> (state: PersistentReservations, KeyGeneration)? in
            do {
                let bytes = try directory.readFile(Self.name, byteCountMax: ReservationFileFormat.fileBytesMax)
                return try ReservationFileFormat.open(ByteBuffer(bytes: bytes), volume: volume, keys: keys)
            } catch let error as FileSystemError where error.isNotFound {
                return nil
            } catch {
                throw Problem(
                    status: 500, code: "reservations", title: "The persistent reservations can't be read",
                    detail: "\(path): \(error); the volume is not served, because initiators that are shut out could write",
                    action: "put the file back, or remove it and have the cluster register anew")
            }
        }.whenComplete { result in
            let (file, completion) = bound.value
            if case .success(let found) = result { file.mayBeSealedUnder = Set(found.map { [$0.1] } ?? []) }
            completion(result.map { $0?.state })
        }
    }

    /// Keeps a state, or with nil removes what was kept; `completion` says whether that is durable.
    func store(_ state: ByteBuffer?, completion: @escaping (Bool) -> Void) {
        let bound = NIOLoopBound((self, completion), eventLoop: eventLoop)
        change { _ in state }.whenComplete { result in
            let (file, completion) = bound.value
            if case .failure(let error) = result { file.onFailure("\(error)") }
            completion((try? result.get()) != nil)
        }
    }

    /// Takes over the volume's keys as they are now, and seals the file anew if it is under an older one. Should that fail, the
    /// older key is needed on, and the next call tries again.
    func use(_ keys: DataKeys) {
        self.keys = keys
        guard keyGenerations.contains(where: { $0 != keys.newest }), !isRenewing else { return }
        isRenewing = true
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        change { kept in try kept() }.whenComplete { _ in bound.value.isRenewing = false }
    }

    /// Puts a state in the place of the one that is kept, which `state` may ask for, sealed under the newest key.
    private func change(_ state: @escaping @Sendable (_ kept: () throws -> ByteBuffer?) throws -> ByteBuffer?) -> EventLoopFuture<Void> {
        let (directory, volume, keys, threadPool, eventLoop) = (directory, volume, keys, threadPool, eventLoop)
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        changing.append(keys.newest)
        let changed = last.flatMap {
            threadPool.runIfActive(eventLoop: eventLoop) { () -> Bool in
                guard let state = try state({ try Self.kept(in: directory, volume: volume, keys: keys) }) else {
                    try directory.remove(Self.name)
                    try directory.synchronize()
                    return false
                }
                var random = RandomSource.system
                let salt = random.bytes(SealedFile.saltBytes)
                let file = try ReservationFileFormat.seal(state, volume: volume, key: keys.newestKey, salt: salt)
                try directory.replaceFile(Self.name, with: file.readableBytesView)
                return true
            }
        }.map { isKept in
            bound.value.changing.removeFirst()
            bound.value.mayBeSealedUnder = isKept ? [keys.newest] : []
        }.flatMapErrorThrowing { error in
            bound.value.changing.removeFirst()
            bound.value.mayBeSealedUnder.insert(keys.newest)
            throw error
        }
        last = changed.flatMapErrorThrowing { _ in }
        return changed
    }

    private static func kept(in directory: OpenDirectory, volume: VolumeIdentifier, keys: DataKeys) throws -> ByteBuffer? {
        do {
            let bytes = try directory.readFile(name, byteCountMax: ReservationFileFormat.fileBytesMax)
            return try ReservationFileFormat.unseal(ByteBuffer(bytes: bytes), volume: volume, keys: keys).state
        } catch let error as FileSystemError where error.isNotFound {
            return nil
        }
    }
}
