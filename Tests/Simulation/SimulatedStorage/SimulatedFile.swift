import Blocks
import NIOCore

// A file that is crueler than a real one.
//
// `visible` is what a running process reads: writes enter it when they complete. `durable` is what
// a power cut leaves for certain: it follows only when a `synchronize` completes that was called
// after the write had completed. A power cut then decides for each change in between, one by one,
// whether it is there whole, torn into 512-byte sectors, or not at all.

/// The bytes of one file, on a simulated machine.
final class FileNode {
    enum Change {
        case bytes(offset: Int, ByteBuffer)
        case size(Int)

        func apply(to content: inout [UInt8]) {
            switch self {
            case .bytes(let offset, let bytes): bytes.withUnsafeReadableBytes { content.put($0, at: offset) }
            case .size(let size): content.resize(to: size)
            }
        }
    }

    var visible: [UInt8]
    var durable: [UInt8]
    /// Changes that are visible and not certainly durable, with their serial numbers.
    var unsynchronized: [(serial: UInt64, change: Change)] = []
    /// Changes that were asked for and have not completed.
    var inFlight: [UInt64: Change] = [:]
    var serial: UInt64 = 0
    /// What the medium may have shown at some time: all that was ever to be written, also what a crash has lost since; and the
    /// sectors in which there was something.
    private var exposed: [UInt8] = []
    private var isExposed: [Bool] = []

    init(content: [UInt8] = []) {
        visible = content
        durable = content
    }

    /// Notes what is going to be written. False when other bytes were at its place, or on their way there.
    ///
    /// Zeroes that end a write, from the next sector on, are room for what is to come and no content. A file whose beginning is set to
    /// zeroes begins a new life: what gives all else in it its meaning is gone, the salt of a log's file too.
    func expose(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Bool {
        guard let last = bytes.lastNonzeroIndex else {
            if offset == 0, bytes.count >= Self.sectorBytes { (exposed, isExposed) = ([], []) }
            return true
        }
        let end = min(offset + bytes.count, (offset + last) / Self.sectorBytes * Self.sectorBytes + Self.sectorBytes)
        if end > exposed.count {
            exposed.resize(to: end)
            isExposed.append(contentsOf: repeatElement(false, count: (end - 1) / Self.sectorBytes + 1 - isExposed.count))
        }
        var isSame = true
        var position = offset
        while position < end {
            let sector = position / Self.sectorBytes
            let next = min(end, (sector + 1) * Self.sectorBytes)
            if isExposed[sector], !exposed.holds(next - position, at: position, as: bytes, at: position - offset) { isSame = false }
            isExposed[sector] = true
            position = next
        }
        exposed.put(UnsafeRawBufferPointer(rebasing: bytes[..<(end - offset)]), at: offset)
        return isSame
    }

    func discard() {
        (visible, durable, exposed, isExposed) = ([], [], [], [])
        unsynchronized = []
        inFlight = [:]
    }

    /// What the file holds after the power went.
    func cutPower(_ random: SeededRandom) {
        let pending = unsynchronized.map(\.change) + inFlight.sorted { $0.key < $1.key }.map(\.value)
        for change in pending {
            switch (random.below(3), change) {
            case (0, _): change.apply(to: &durable)
            case (1, .bytes(let offset, let bytes)): tear(offset: offset, bytes: bytes, random)
            default: break
            }
        }
        visible = durable
        unsynchronized = []
        inFlight = [:]
    }

    /// What the file holds after the process was killed: the kernel finishes some of what was in flight.
    func killProcess(_ random: SeededRandom) {
        for (_, change) in inFlight.sorted(by: { $0.key < $1.key }) {
            switch (random.below(3), change) {
            case (0, _):
                change.apply(to: &visible)
                unsynchronized.append((serial, change))
            case (1, .bytes(let offset, let bytes)):
                let part = Change.bytes(offset: offset, bytes.prefix(Int(random.below(UInt64(bytes.readableBytes + 1)))))
                part.apply(to: &visible)
                unsynchronized.append((serial, part))
            default: break
            }
        }
        inFlight = [:]
    }

    private static let sectorBytes = 512

    private func tear(offset: Int, bytes: ByteBuffer, _ random: SeededRandom) {
        // A device writes whole sectors, so the cuts are at multiples of 512 on the medium.
        bytes.withUnsafeReadableBytes { bytes in
            var position = offset
            while position < offset + bytes.count {
                let next = min((position / Self.sectorBytes + 1) * Self.sectorBytes, offset + bytes.count)
                if random.chance(percent: 50) {
                    durable.put(UnsafeRawBufferPointer(rebasing: bytes[position - offset..<next - offset]), at: position)
                }
                position = next
            }
        }
    }
}

/// An open simulated file.
public final class SimulatedFile: DiskFile {
    let node: FileNode
    let machine: SimulatedMachine
    private let name: String
    private let incarnation: UInt64
    private let isWatched: Bool

    init(node: FileNode, name: String, machine: SimulatedMachine) {
        isWatched = name.hasPrefix(machine.watchedPrefix)
        self.node = node
        self.name = name
        self.machine = machine
        incarnation = machine.incarnation
    }

    /// The bytes that a reader would see now.
    public var content: [UInt8] { node.visible }

    /// Turns a bit over, as decay or an attacker would.
    public func flipBit(at offset: Int) {
        guard offset < node.visible.count else { return }
        node.visible[offset] ^= 1
        if offset < node.durable.count { node.durable[offset] ^= 1 }
    }

    /// Puts bytes of one place to another one, as a device would that has got an address wrong. Nobody has the file open.
    public func misdirect(from source: Int, to target: Int, byteCount: Int) {
        let count = max(0, min(byteCount, node.visible.count - max(source, target)))
        node.visible.replaceSubrange(target..<target + count, with: Array(node.visible[source..<source + count]))
        node.durable = node.visible
    }

    private func later(_ action: @escaping () -> Void) {
        machine.complete(incarnation: incarnation, action)
    }

    public func readIfResident(at offset: UInt64, byteCount: Int, into buffer: inout ByteBuffer) -> Bool {
        guard machine.random.chance(percent: machine.faults.residentPercent), let start = Int(exactly: offset),
            start + byteCount <= node.visible.count
        else { return false }
        buffer.writeBytes(node.visible[start..<start + byteCount])
        return true
    }

    public func read(at offset: UInt64, byteCount: Int, completion: @escaping (Result<ByteBuffer, StorageFileError>) -> Void) {
        later { [self] in
            if machine.faults.failsReads || machine.faults.failsReadsOf.map(name.contains) == true {
                return completion(.failure(.failed("simulated read error in \(name)")))
            }
            let start = min(Int(clamping: offset), node.visible.count)
            let end = min(start + byteCount, node.visible.count)
            completion(.success(ByteBuffer(bytes: node.visible[start..<end])))
        }
    }

    /// A block of 4 KiB that is all zeroes may be a hole, or not: a file system may have kept its room.
    public func allocation(
        of range: SectorRange, extentsMax: Int, completion: @escaping (Result<[AllocationExtent], StorageFileError>) -> Void
    ) {
        later { [self] in
            if machine.faults.failsReads { return completion(.failure(.failed("simulated error of a seek in \(name)"))) }
            var extents = AllocationExtents(extentsMax: extentsMax)
            for block in range.blocks {
                let sectors = SectorRange(block: block).intersection(range)
                let start = min(Int(clamping: sectors.byteOffset), node.visible.count)
                let end = min(start + sectors.byteCount, node.visible.count)
                let isHole = node.visible[start..<end].allSatisfy { $0 == 0 } && machine.random.chance(percent: 80)
                extents.append(sectors, isHole ? .deallocated : .mapped)
            }
            completion(.success(extents.extents))
        }
    }

    public func write(_ data: ByteBuffer, at offset: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        expose(data, at: Int(clamping: offset))
        change(.bytes(offset: Int(clamping: offset), data), completion)
    }

    public func writeAtOnce(_ data: ByteBuffer, at offset: UInt64) -> Result<Void, StorageFileError>? {
        guard incarnation == machine.incarnation else { return .failure(.failed("simulated: the process is dead")) }
        guard machine.random.chance(percent: machine.faults.atOncePercent) else { return nil }
        expose(data, at: Int(clamping: offset))
        return apply(.bytes(offset: Int(clamping: offset), data))
    }

    private func expose(_ data: ByteBuffer, at offset: Int) {
        guard isWatched else { return }
        if !data.withUnsafeReadableBytes({ node.expose($0, at: offset) }) { machine.overwrittenFiles.insert(name) }
    }

    public func writeZeroes(
        at offset: UInt64, byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void
    ) {
        change(.bytes(offset: Int(clamping: offset), ByteBuffer(repeating: 0, count: Int(clamping: byteCount))), completion)
    }

    public func truncate(to byteCount: UInt64, completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        change(.size(Int(clamping: byteCount)), completion)
    }

    private func change(_ change: FileNode.Change, _ completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        // A process that is dead asks for nothing, should something of it still run in the simulator.
        guard incarnation == machine.incarnation else { return }
        node.serial += 1
        let serial = node.serial
        node.inFlight[serial] = change
        later { [self] in
            node.inFlight[serial] = nil
            completion(apply(change))
        }
    }

    private func apply(_ change: FileNode.Change) -> Result<Void, StorageFileError> {
        if machine.faults.failsWrites || machine.faults.failsWritesTo.map(name.contains) == true {
            return .failure(.failed("simulated write error in \(name)"))
        }
        if machine.faults.isReadOnly { return .failure(.denied("simulated: read-only file system, \(name)")) }
        if case .size(let byteCount) = change, byteCount > machine.faults.fileBytesMax {
            return .failure(.failed("simulated: file too large, \(name)"))
        }
        if case .bytes(let offset, let bytes) = change, machine.faults.lacksRoomInHolesOf.map(name.contains) == true,
            machine.random.chance(percent: 50)
        {
            let fitting = Int(machine.random.below(UInt64(bytes.readableBytes / 512) + 1)) * 512
            if fitting > 0 { show(.bytes(offset: offset, bytes.prefix(fitting))) }
            return .failure(.noSpace("simulated: no space for a hole of \(name)"))
        }
        if case .bytes(let offset, let bytes) = change, offset + bytes.readableBytes > node.visible.count {
            let lacksRoom = machine.faults.lacksRoomFor.map(name.contains) == true
            let room = lacksRoom ? 0 : max(0, machine.faults.capacityBytes - machine.usedBytes)
            if offset + bytes.readableBytes - node.visible.count > room {
                // As a real file does, this one takes what fits before it says so.
                let fitting = node.visible.count - offset + room
                if fitting > 0 { _ = apply(.bytes(offset: offset, bytes.prefix(fitting))) }
                return .failure(.noSpace("simulated: no space for \(name)"))
            }
        }
        show(change)
        return .success(())
    }

    private func show(_ change: FileNode.Change) {
        change.apply(to: &node.visible)
        // A fresh serial: the order in which changes became visible is the order in which they count.
        node.serial += 1
        node.unsynchronized.append((node.serial, change))
    }

    public func synchronize(completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        let covered = node.serial
        later { [self] in
            let isFailing = machine.faults.failsSyncsOf.map(name.contains) == true
            if isFailing { node.unsynchronized.removeAll { $0.serial <= covered && machine.random.chance(percent: 30) } }
            if machine.faults.failsWrites || isFailing { return completion(.failure(.failed("simulated sync error in \(name)"))) }
            for (serial, change) in node.unsynchronized where serial <= covered { change.apply(to: &node.durable) }
            node.unsynchronized.removeAll { $0.serial <= covered }
            completion(.success(()))
        }
    }

    public func synchronizeAndForget(completion: @escaping (Result<Void, StorageFileError>) -> Void) {
        synchronize { [self] result in
            // What a failed sync has lost was in memory until now.
            if case .success = result, node.unsynchronized.isEmpty { node.visible = node.durable }
            completion(result)
        }
    }

    public func size(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) {
        later { [self] in completion(.success(UInt64(node.visible.count))) }
    }

    public func nameCount(completion: @escaping (Result<UInt64, StorageFileError>) -> Void) {
        later { [self] in completion(.success(machine.faults.linkedName.map(name.contains) == true ? 2 : 1)) }
    }

    public func close() {}
}

extension ByteBuffer {
    /// The first bytes, as many as there are of `count`.
    fileprivate func prefix(_ count: Int) -> ByteBuffer { getSlice(at: readerIndex, length: min(count, readableBytes)) ?? self }
}
