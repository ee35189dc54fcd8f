import CPlatform

// A stamped sector, 512 bytes, integers big-endian:
//
//     0   8  magic "CWLDSECT"
//     8   8  job identifier: random, one for each state file
//    16   8  sector number on the disk
//    24   8  generation: the number of the write command that put it there
//    32   8  seed of the run
//    40 468  bytes that depend on seed, sector and generation
//   508   4  CRC-32C of the 508 bytes before it
//
// Every word of the filling depends on the generation, so a sector that is half old and half new
// fails the checksum wherever the seam is.

/// What was found in a sector.
public enum SectorContent: Equatable, Sendable {
    /// No stamp of this job: what was there before the job began, or rubbish.
    case unstamped
    /// A whole stamp of this job, made for this sector.
    case stamped(generation: UInt64)
    /// A whole stamp of this job, made for another sector.
    case misplaced(sector: UInt64, generation: UInt64)
    /// It begins like a stamp of this job, but the checksum is wrong: mixed, or damaged.
    case damaged
}

/// Writes and reads the stamps of one job.
public struct SectorStamp: Sendable {
    /// The bytes in a sector.
    public static let byteCount = 512
    static let magic: UInt64 = 0x4357_4C44_5345_4354
    private static let checksumOffset = 508

    /// Which state file the stamps belong to.
    public let job: UInt64
    /// Of the run that writes; a job may have runs with several.
    public let seed: UInt64

    public init(job: UInt64, seed: UInt64) {
        self.job = job
        self.seed = seed
    }

    /// Fills whole sectors, the first of which is `sector`, with stamps of one generation.
    public func write(_ bytes: UnsafeMutableRawBufferPointer, sector: UInt64, generation: UInt64) {
        var number = sector
        var offset = 0
        while offset + Self.byteCount <= bytes.count {
            writeOne(UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<offset + Self.byteCount]), number, generation)
            number &+= 1
            offset += Self.byteCount
        }
    }

    private func writeOne(_ bytes: UnsafeMutableRawBufferPointer, _ sector: UInt64, _ generation: UInt64) {
        bytes.storeBytes(of: Self.magic.bigEndian, toByteOffset: 0, as: UInt64.self)
        bytes.storeBytes(of: job.bigEndian, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: sector.bigEndian, toByteOffset: 16, as: UInt64.self)
        bytes.storeBytes(of: generation.bigEndian, toByteOffset: 24, as: UInt64.self)
        bytes.storeBytes(of: seed.bigEndian, toByteOffset: 32, as: UInt64.self)
        // Xorshift from a well mixed start: cheap, and no run of it repeats in a sector.
        var word = SeededGenerator.mix(seed ^ SeededGenerator.mix(sector ^ SeededGenerator.mix(generation))) | 1
        for offset in stride(from: 40, to: 504, by: 8) {
            word ^= word << 13
            word ^= word >> 7
            word ^= word << 17
            bytes.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
        }
        bytes.storeBytes(of: UInt32(truncatingIfNeeded: word &* 0x9E37_79B9), toByteOffset: 504, as: UInt32.self)
        let checksum = causeway_crc32c(0, bytes.baseAddress, Self.checksumOffset)
        bytes.storeBytes(of: checksum.bigEndian, toByteOffset: Self.checksumOffset, as: UInt32.self)
    }

    /// Reads one sector of 512 bytes that was found at `sector`.
    public func read(_ bytes: UnsafeRawBufferPointer, sector: UInt64) -> SectorContent {
        guard bytes.count >= Self.byteCount else { return .damaged }
        func word(_ offset: Int) -> UInt64 { UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
        guard word(0) == Self.magic, word(8) == job else { return .unstamped }
        let checksum = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: Self.checksumOffset, as: UInt32.self))
        guard causeway_crc32c(0, bytes.baseAddress, Self.checksumOffset) == checksum else { return .damaged }
        let (place, generation) = (word(16), word(24))
        return place == sector ? .stamped(generation: generation) : .misplaced(sector: place, generation: generation)
    }
}
