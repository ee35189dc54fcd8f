import Blocks
import Ciphers
import NIOCore
import SimulatedStorage
import Volumes
import WriteLog

// Worlds in which volumes get other keys, and their logs other bounds, while machines write.
//
//     home has a new key ──a while──► log and cache take it ──what the old one sealed goes home──► the edge says which are needed
//         ──a while──► home destroys the others
//
// An edge that starts has the keys that there are: its logs must open with them whatever has crashed when.

/// The keys of a volume as home keeps them: durable the moment they change.
final class SimulatedKeys {
    /// What a cloud-only disk was made with, and stays under.
    let first: SecretKey
    /// Those that are not destroyed.
    private(set) var all: DataKeys
    private var known: [KeyGeneration: SecretKey]
    /// Every key that there ever was.
    private(set) var ever: [[UInt8]]
    private let volume: Int
    private let random: SeededRandom

    init(volume: Int, random: SeededRandom) throws(CipherError) {
        self.volume = volume
        self.random = random
        let bytes = Self.bytes(random)
        first = try SecretKey(bytes)
        known = [1: first]
        all = DataKeys(first)
        ever = [bytes]
    }

    var count: Int { known.count }

    /// There is a new key, which is the newest from now on.
    func rotate() throws(CipherError) {
        let bytes = Self.bytes(random)
        known[all.newest + 1] = try SecretKey(bytes)
        ever.append(bytes)
        settle()
    }

    /// All keys are destroyed, and there is a new one.
    func replaceAll() throws(CipherError) {
        try rotate()
        retire(before: all.newest, needed: [])
    }

    /// Destroys the keys older than `newest` that are not needed, as home does when the edge has told it.
    func retire(before newest: KeyGeneration, needed: Set<KeyGeneration>) {
        known = known.filter { $0.key >= newest || needed.contains($0.key) }
        settle()
    }

    private static func bytes(_ random: SeededRandom) -> [UInt8] {
        var source = random.source
        return source.bytes(SecretKey.byteCount)
    }

    private func settle() { if let keys = DataKeys(known) { all = keys } }
}

extension World {
    func scheduleKeysAndSizes() {
        scheduler.schedule(microseconds: 20_000...800_000) { [self] in
            if isCalm || failure != nil { return }
            let volume = volumes[Int(scheduler.random.below(UInt64(volumes.count)))]
            if scheduler.random.chance(percent: 60) { volume.rotateKey() } else { resizeLog(of: volume) }
            scheduleKeysAndSizes()
        }
    }

    private func resizeLog(of volume: SimulatedVolume) {
        tally.logResizes += 1
        served(volume)?.resizeLog(to: UInt64(scheduler.random.within(Self.logKibibytes)) << 10)
    }

    /// What an edge has of a volume that was taken from it is shredded: home destroys the keys, and the edge hears of that a while later, if it
    /// lives. Its neighbours, which may share blocks with it there, go on.
    func shred(_ volume: SimulatedVolume, on edge: SimulatedEdge) {
        do { try volume.keys.replaceAll() } catch { return volume.fail("there is no key: \(error)") }
        tally.shreddings += 1
        scheduler.schedule(microseconds: 0...300_000) { edge.process?.forgetShredded(volume) }
    }

    /// The smallest still takes any write of the initiator's.
    private static let logKibibytes = 256...4096

    /// Nothing that a machine has written, and no key, may stand in a file of a cloud edge, also of files that have been removed.
    func checkConfidentiality() {
        for edge in edges {
            for bytes in edge.machine.allBytes {
                if Stamp.isPlain(in: bytes) {
                    return fail("invariant 5: a file of cloud edge \(edge.number) holds what a machine has written")
                }
                // Looking for keys takes longer than all else of a world's end.
                guard seed % 32 == 0 else { continue }
                for volume in volumes where volume.keys.ever.contains(where: { bytes.holds($0) }) {
                    return fail("invariant 5: a file of cloud edge \(edge.number) holds a key of volume \(volume.number)")
                }
            }
        }
    }
}

extension SimulatedVolume {
    /// Home has a new key for the volume, and the edge that has it hears of that a while later, if it lives.
    func rotateKey() {
        do { try keys.rotate() } catch { return fail("there is no key: \(error)") }
        world.tally.rotations += 1
        world.scheduler.schedule(microseconds: 0...300_000) { [self] in world.served(self)?.useKeys() }
    }
}

/// Watches that what a log has in memory stays within its bounds: they may be lowered, and then it only gets less.
struct LogMemoryWatch {
    private let limits: WriteLogLimits
    /// What the index may take: more than its bound as long as that was found at the start, or was there when the bound was lowered.
    private var indexCeilingBytes: Int?

    init(limits: WriteLogLimits) { self.limits = limits }

    /// What is too much; nil when nothing is.
    mutating func excess(in volume: ServedVolume.Core) -> String? {
        let memory = volume.logMemory
        if memory.unwrittenBytes > max(limits.unwrittenBytesMax, Self.writeBytesMax) {
            return "\(memory.unwrittenBytes) bytes of the log wait in memory, and \(limits.unwrittenBytesMax) may"
        }
        let bound = Int(volume.logFill.sizeBytes / limits.logBytesPerIndexByte)
        let ceiling = indexCeilingBytes ?? memory.indexBytes
        indexCeilingBytes = max(bound, min(ceiling, memory.indexBytes))
        guard memory.indexBytes > max(bound, ceiling) + Self.sealsBytesMax else { return nil }
        return "the log's index takes \(memory.indexBytes) bytes, and may take \(bound) (\(ceiling) were there)"
    }

    /// The longest write: a region that comes home goes into the log as one.
    private static let writeBytesMax = SimulatedRegions.changing.byteCount
    /// What the seals of points take, which wait for no room.
    private static let sealsBytesMax = 6 << 10
}

extension Stamp {
    /// True when the bytes hold a stamped sector, whole or in good part, anywhere: 16 bytes that come again and again, and are not zero.
    static func isPlain(in bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes { bytes in
            stride(from: 0, to: bytes.count - 64, by: 64).contains { start in
                let word = { bytes.loadUnaligned(fromByteOffset: start + $0, as: UInt64.self) }
                let (low, high) = (word(0), word(8))
                guard low != high else { return false }
                return stride(from: 16, to: 64, by: 16).allSatisfy { word($0) == low && word($0 + 8) == high }
            }
        }
    }
}

extension [UInt8] {
    /// True when `other`, which is not empty, stands anywhere in these bytes.
    func holds(_ other: [UInt8]) -> Bool {
        guard let first = other.first, count >= other.count else { return false }
        return (0...(count - other.count)).contains { self[$0] == first && self[$0..<$0 + other.count].elementsEqual(other) }
    }
}
