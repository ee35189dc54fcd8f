import Blocks
import Ciphers
import NIOCore

// How a cache is found again:
//
//     headers of all places ──► the row: the highest sequence, and down as long as each header's
//                               predecessor is there with the fragments that count
//     tables of the row, newest first: the first entry about a block that is met is the last that was made
//
// What lies below a hole in the row, or below a barrier, is left alone and will be overwritten.

/// What recovery found, ready to go on.
struct RecoveredCache {
    var geometry: CacheGeometry
    var segments: [CacheSegment]
    var index: CacheIndex
    var salts: CacheSalts
    var salt: Int
    var tableCipher: BlockCipher
    var nextSequence: UInt64
    var nextPosition: Int
    var predecessor: (sequence: UInt64, fragments: Int)?
    var segmentsSkipped: UInt64
}

final class CacheRecovery<File: StorageFile> {
    let file: File
    let key: SecretKey
    let geometry: CacheGeometry
    let newSalt: [UInt8]
    private let completion: (Result<RecoveredCache, CacheError>) -> Void

    private let segments: [CacheSegment]
    private var index = CacheIndex()
    private var salts = CacheSalts()
    private var ciphers: [Int: BlockCipher] = [:]
    private var headers: [UInt64: CacheSegmentHeader] = [:]
    private var skipped: UInt64 = 0
    /// Blocks that a newer tombstone hides, by volume, while the tables are read; and volumes that are gone.
    private var dead: [VolumeIdentifier: ExtentMap<ZeroMark>] = [:]
    private var removed: Set<VolumeIdentifier> = []
    private var predecessor: (sequence: UInt64, fragments: Int)?
    /// Headers that are read at the same time.
    private static var readsMax: Int { 16 }

    init(
        file: File, key: SecretKey, geometry: CacheGeometry, salt: [UInt8],
        completion: @escaping (Result<RecoveredCache, CacheError>) -> Void
    ) {
        self.file = file
        self.key = key
        self.geometry = geometry
        newSalt = salt
        self.completion = completion
        segments = (0..<geometry.segmentCount).map { CacheSegment(position: $0) }
    }

    // MARK: Headers

    func start() {
        file.size { [self] result in
            switch result {
            case .failure(let error): completion(.failure(.file(error)))
            case .success(let size): readHeaders(from: 0, size: size)
            }
        }
    }

    private func readHeaders(from first: Int, size: UInt64) {
        let end = min(first + Self.readsMax, geometry.segmentCount)
        // Where the file has ended there is nothing.
        guard first < end, geometry.offset(ofSegment: first) < size else { return followRow() }
        var left = end - first
        for position in first..<end {
            file.read(at: geometry.offset(ofSegment: position), byteCount: CacheFormat.headerBytes) { [self] result in
                if case .success(let bytes) = result { take(bytes, at: position) } else { skipped += 1 }
                left -= 1
                if left == 0 { readHeaders(from: end, size: size) }
            }
        }
    }

    private func take(_ bytes: ByteBuffer, at position: Int) {
        guard let header = CacheSegmentHeader(parsing: bytes) else {
            // A place that was never written is not damaged.
            if !bytes.readableBytesView.allSatisfy({ $0 == 0 }) { skipped += 1 }
            return
        }
        guard Int(header.position) == position, Int(header.segmentBytes) == geometry.segmentBytes,
            Int(header.segmentCount) == geometry.segmentCount, let cipher = cipher(for: header.salt),
            header.isAuthentic(bytes, cipher: cipher), headers[header.sequence] == nil
        else {
            skipped += 1
            return
        }
        let salt = salts.add(header.salt)
        ciphers[salt] = cipher
        headers[header.sequence] = header
        segments[position].salt = salt
    }

    private func cipher(for salt: [UInt8]) -> BlockCipher? {
        if let number = salts.number(of: salt) { return ciphers[number] }
        return (try? key.derive(salt: salt, purpose: CacheFormat.tablePurpose)).map(BlockCipher.init(key:))
    }

    // MARK: The row

    private func followRow() {
        guard let newest = headers.keys.max() else { return settle() }
        readTable(of: newest, fragmentsNeeded: nil)
    }

    /// Reads the table of the next older segment in the row; the newest one counts as far as it goes.
    private func readTable(of sequence: UInt64, fragmentsNeeded: Int?) {
        guard let header = headers[sequence], let cipher = ciphers[segments[Int(header.position)].salt] else { return settle() }
        let position = Int(header.position)
        if fragmentsNeeded == 0 { return take([], of: header) }
        file.read(at: geometry.offset(ofTable: position), byteCount: geometry.tableBytes) { [self] result in
            guard case .success(let table) = result else { return settle() }
            let fragments = CacheTable.decode(
                table, sequence: sequence, position: position, slotCount: geometry.slotCount, limit: fragmentsNeeded ?? .max,
                cipher: cipher)
            // Entries are missing, and nobody knows what they would have hidden.
            if let fragmentsNeeded, fragments.count < fragmentsNeeded { return settle() }
            take(fragments, of: header)
        }
    }

    private func take(_ fragments: [[CacheEntry]], of header: CacheSegmentHeader) {
        let segment = segments[Int(header.position)]
        segment.sequence = header.sequence
        segment.hasRoom = true
        if predecessor == nil { predecessor = (header.sequence, fragments.count) }
        for fragment in fragments.reversed() {
            for entry in fragment.reversed() { take(entry, of: segment) }
        }
        headers[header.sequence] = nil
        guard header.predecessorFragments != CacheFormat.barrier else { return settle() }
        readTable(of: header.sequence - 1, fragmentsNeeded: Int(header.predecessorFragments))
    }

    private func take(_ entry: CacheEntry, of segment: CacheSegment) {
        if removed.contains(entry.volume) { return }
        switch entry.kind {
        case .volumeRemoved:
            // Newer entries about the volume stay: it was attached again.
            removed.insert(entry.volume)
        case .tombstone:
            dead[entry.volume, default: ExtentMap()].insert(entry.blocks.sectors, ZeroMark(segment: 0))
        case .zeroes:
            takeZeroes(entry, of: segment)
        case .data:
            takeData(entry, of: segment)
        }
    }

    private func takeData(_ entry: CacheEntry, of segment: CacheSegment) {
        let volume = index.volume(entry.volume)
        let hidden = dead[entry.volume]
        let end = Int(entry.slot) + Int(entry.count)
        while segment.slots.count < end { segment.slots.append((.max, 0)) }
        for (number, block) in entry.blocks.enumerated() {
            if volume.contains(block) || hidden?.overlaps(SectorRange(block: block)) == true { continue }
            let slot = Int(entry.slot) + number
            segment.slots[slot] = (volume.ordinal, block)
            volume.set(block, to: CacheLocation(segment: UInt32(segment.position), slot: UInt32(slot)))
        }
    }

    private func takeZeroes(_ entry: CacheEntry, of segment: CacheSegment) {
        let volume = index.volume(entry.volume)
        // Only what nothing newer speaks about.
        var open = dead[entry.volume]?.gaps(in: entry.blocks.sectors) ?? [entry.blocks.sectors]
        open = open.flatMap { volume.zeroes.gaps(in: $0) }
        for range in open {
            var start = range.start / BlockGeometry.sectorsPerBlock
            let end = range.end / BlockGeometry.sectorsPerBlock
            for block in volume.dataBlocks(in: start..<end) + [end] {
                if start < block {
                    volume.setZeroes(start..<block, segment: UInt32(segment.position))
                    segment.zeroes.append((volume.ordinal, start..<block))
                }
                start = block + 1
            }
        }
    }

    // MARK: Ending

    private func settle() {
        // What is in the page cache only must not change any more once something is built on it.
        file.synchronize { [self] result in
            if case .failure(let error) = result { return completion(.failure(.file(error))) }
            finish()
        }
    }

    private func finish() {
        let salt = salts.add(newSalt)
        let tableCipher: BlockCipher
        do throws(CipherError) {
            tableCipher = BlockCipher(key: try key.derive(salt: newSalt, purpose: CacheFormat.tablePurpose))
        } catch {
            return completion(.failure(.cipher("\(error)")))
        }
        skipped += UInt64(headers.count)
        let highest = max(predecessor?.sequence ?? 0, headers.keys.max() ?? 0)
        let newest = segments.first { $0.sequence == highest && highest > 0 }
        completion(
            .success(
                RecoveredCache(
                    geometry: geometry, segments: segments, index: index, salts: salts, salt: salt, tableCipher: tableCipher,
                    nextSequence: highest + 1, nextPosition: newest.map { ($0.position + 1) % segments.count } ?? 0,
                    predecessor: predecessor, segmentsSkipped: skipped)))
    }
}

extension SecureCache {
    /// Opens the cache in `file`, which it has for itself, or makes one there.
    ///
    /// The index is rebuilt from all tables that are whole. What is damaged is skipped and counted; a
    /// file that was sealed under another key, or had another size, is a cache without blocks.
    public static func open(
        file: File, byteCount: UInt64, key: SecretKey, limits: CacheLimits = CacheLimits(), random: RandomSource,
        completion: @escaping (Result<SecureCache, CacheError>) -> Void
    ) {
        var random = random
        let geometry = CacheGeometry(byteCount: byteCount, segmentBytes: limits.segmentBytes)
        // One segment being written, one taking entries, and one to evict.
        guard geometry.segmentCount >= 3 else {
            return completion(.failure(.tooSmall(bytesNeeded: 3 * UInt64(limits.segmentBytes))))
        }
        let recovery = CacheRecovery(file: file, key: key, geometry: geometry, salt: random.bytes(CacheFormat.saltBytes)) {
            result in
            completion(
                result.map { SecureCache(recovered: $0, file: file, key: key, limits: limits, byteCount: byteCount) })
        }
        recovery.start()
    }
}
