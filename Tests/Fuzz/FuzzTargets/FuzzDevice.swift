import Blocks
import NIOCore

/// A disk in memory that remembers what was written, so that it is soon as new; it may hold its answers back.
final class FuzzDevice: BlockDevice {
    static let sectors = 2048
    let sectorCount = UInt64(FuzzDevice.sectors)
    var isWriteProtected = false
    /// True keeps requests until `answerAll`.
    var isHolding = false
    private var bytes = [UInt8](repeating: 0, count: FuzzDevice.sectors * BlockGeometry.sectorBytes)
    private var written = SectorRange(from: 0, to: 0)
    private var waiting: [() -> Void] = []
    /// What somebody asked for that is no request for this disk.
    private(set) var finding: FuzzFinding?

    /// The disk as it was in the beginning: zeroes, and a stamp in its first sectors.
    func reset() {
        for index in Int(written.byteOffset)..<Int(written.byteOffset) + written.byteCount { bytes[index] = 0 }
        written = SectorRange(from: 0, to: 0)
        waiting = []
        isHolding = false
        isWriteProtected = false
        finding = nil
    }

    /// Answers everything; requests that come meanwhile too, up to a bound.
    func answerAll() throws {
        isHolding = false
        var left = 10_000
        while !waiting.isEmpty {
            left -= 1
            if left == 0 { throw FuzzFinding("the device is asked without end") }
            waiting.removeFirst()()
        }
        if let finding { throw finding }
    }

    func answerOne() {
        if !waiting.isEmpty { waiting.removeFirst()() }
    }

    private func serve(_ work: @escaping () -> Void) {
        if isHolding { waiting.append(work) } else { work() }
    }

    private func indices(_ range: SectorRange) -> Range<Int>? {
        guard range.end <= sectorCount else {
            finding = finding ?? FuzzFinding("\(range) is asked of a disk of \(sectorCount) sectors")
            return nil
        }
        return Int(range.byteOffset)..<Int(range.byteOffset) + range.byteCount
    }

    private func note(_ range: SectorRange) {
        written =
            written.isEmpty ? range : SectorRange(from: min(written.start, range.start), to: max(written.end, range.end))
    }

    func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        guard !isHolding, let indices = indices(range) else { return false }
        buffer.writeBytes(bytes[indices])
        return true
    }

    func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        guard let indices = indices(range) else { return completion(.failure(.outOfRange)) }
        serve { completion(.success(ByteBuffer(bytes: self.bytes[indices]))) }
    }

    func write(
        _ range: SectorRange, data: ByteBuffer, durability: WriteDurability,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        guard let indices = indices(range), data.readableBytes == indices.count, !isWriteProtected else {
            finding = finding ?? FuzzFinding("a write of \(data.readableBytes) bytes to \(range)")
            return completion(.failure(.outOfRange))
        }
        note(range)
        serve {
            self.bytes.replaceSubrange(indices, with: data.readableBytesView)
            completion(.success(()))
        }
    }

    func writeZeroes(
        _ range: SectorRange, durability: WriteDurability, completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        guard let indices = indices(range), !isWriteProtected else { return completion(.failure(.outOfRange)) }
        serve {
            for index in indices { self.bytes[index] = 0 }
            completion(.success(()))
        }
    }

    func allocation(of range: SectorRange, completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void) {
        guard indices(range) != nil else { return completion(.failure(.outOfRange)) }
        serve {
            var extents = AllocationExtents()
            extents.append(range.intersection(SectorRange(from: 0, to: 64)), .mapped)
            extents.append(range.intersection(SectorRange(from: max(64, range.start), to: range.end)), .deallocated)
            completion(.success(extents.extents))
        }
    }

    func flush(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        serve { completion(.success(())) }
    }
}
