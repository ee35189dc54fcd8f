import Blocks
import NIOCore
import SimulatedStorage
import Testing
import WriteLog

@testable import CloudOnlyDisk

/// A disk under random load, crashes and restarts, beside a model of each sector: the stamps that it may show, oldest first. 0 is a
/// zeroed sector, nil one that is not held.
private final class CrashRun {
    let harness: DiskHarness
    let sectors: UInt64 = 5_200
    var allowed: [[UInt64?]]
    /// How many entries were taken from the front of each row.
    var forgotten: [Int]
    /// How many entries there were up to the last one that was acknowledged. Where the file system takes nothing for a while some never are.
    var acknowledged: [Int]
    private var hasFaults = false
    /// What each nonce that was ever seen in the files has sealed: the sector, and its ciphertext.
    var sealed: [[UInt8]: (sector: Int, text: [UInt8])] = [:]
    /// The same of pages and the root: by era, epoch and page.
    var sealedPages: [[UInt8]: [UInt8]] = [:]
    var stamp: UInt64 = 0

    init(seed: UInt64) throws {
        harness = try DiskHarness(seed: seed)
        allowed = [[UInt64?]](repeating: [nil], count: Int(sectors))
        forgotten = [Int](repeating: 0, count: Int(sectors))
        acknowledged = forgotten
    }

    private func bytes(_ sector: UInt64, _ stamp: UInt64) -> [UInt8] {
        var buffer = ByteBuffer(repeating: UInt8(truncatingIfNeeded: stamp) | 1, count: 512)
        buffer.setInteger(sector, at: 0)
        buffer.setInteger(stamp, at: 496)
        return Array(buffer.readableBytesView)
    }

    private func change(_ disk: Disk) {
        let random = harness.random
        // Most of it near the border of two pages, where sectors share what they are sealed and counted in.
        let start = random.chance(percent: 70) ? 1_024 * (1 + random.below(4)) - 24 + random.below(60) : random.below(sectors)
        let target = range(start, min(sectors - start, 1 + random.below(random.chance(percent: 5) ? 3_000 : 24)))
        stamp += 1
        let value: UInt64? =
            switch random.below(10) {
            case 0, 1: nil
            case 2, 3: 0
            default: stamp
            }
        for sector in target.start..<target.end { allowed[Int(sector)].append(value) }
        let ends = (target.start..<target.end).map { allowed[Int($0)].count + forgotten[Int($0)] }
        let done: (Result<Void, WriteLogError>) -> Void = { [self] result in
            guard case .success = result else { return }
            for (sector, end) in zip(target.start..<target.end, ends) {
                acknowledged[Int(sector)] = max(acknowledged[Int(sector)], end)
            }
        }
        switch value {
        case nil: disk.remove(target, completion: done)
        case 0?: disk.writeZeroes(target, completion: done)
        case let stamp?:
            var data = ByteBuffer()
            for sector in target.start..<target.end { data.writeBytes(bytes(sector, stamp)) }
            disk.write(target, data: data, completion: done)
        }
    }

    /// Random changes and flushes, with some steps of the world between them.
    func load(_ count: Int) throws {
        hasFaults = false
        let disk = try #require(harness.disk)
        let random = harness.random
        for _ in 0..<count {
            switch random.below(12) {
            case 0:
                // What was ordered by now, counted from the first row entry there ever was; or what was acknowledged, which a flush covers
                // whatever becomes of the rest.
                let ends = hasFaults ? acknowledged : zip(allowed, forgotten).map { $0.count + $1 }
                disk.flush { [self] result in
                    guard case .success = result else { return }
                    for index in allowed.indices { forget(index, before: ends[index] - 1) }
                }
            case 1: disk.sealJournal()
            case 2 where random.chance(percent: 30):
                hasFaults = true
                harness.machine.faults.isReadOnly.toggle()
            case 3 where random.chance(percent: 30):
                hasFaults = true
                let faults = harness.machine.faults
                harness.machine.faults.capacityBytes =
                    faults.capacityBytes == .max ? harness.machine.usedBytes + Int(random.below(16 << 10)) : .max
            default: change(disk)
            }
            for _ in 0..<random.below(30) { _ = harness.scheduler.step() }
        }
        harness.machine.faults.isReadOnly = false
        harness.machine.faults.capacityBytes = .max
    }

    /// Reads all sectors, and compares them with what may be there; what is there is all that may be from now on.
    func check() throws {
        let found = try harness.contents(range(0, sectors))
        for (index, content) in found.enumerated() {
            acknowledged[index] = forgotten[index]
            let match = allowed[index].lastIndex { value in
                switch value {
                case nil: content == nil
                case 0?: content == filled(0)
                case let stamp?: content == bytes(UInt64(index), stamp)
                }
            }
            let place = try #require(match, "sector \(index) shows what it must not: \(allowed[index])")
            forget(index, before: forgotten[index] + place)
            allowed[index] = [allowed[index][0]]
        }
    }

    private func forget(_ index: Int, before end: Int) {
        let count = min(end - forgotten[index], allowed[index].count - 1)
        guard count > 0 else { return }
        allowed[index].removeFirst(count)
        forgotten[index] += count
    }

    /// Looks at the nonces in the files: one that was there before has sealed the same text, in the same place.
    func checkNonces() throws {
        guard let seals = harness.directory.file("seals")?.content, let blocks = harness.directory.file("blocks")?.content else { return }
        for sector in 0..<min(seals.count / 32, max(0, (blocks.count - 4096) / 512)) {
            let seal = Array(seals[sector * 32..<sector * 32 + 32])
            if seal.allSatisfy({ $0 == 0 }) { continue }
            // The tag tells the text: two texts under one nonce have two tags.
            let tag = Array(seal[16...])
            if let known = sealed[Array(seal[..<16])] {
                try #require(known.sector == sector && known.text == tag, "a nonce of sector \(sector) has sealed two texts")
            }
            sealed[Array(seal[..<16])] = (sector, tag)
        }
        guard let pages = harness.directory.file("presence")?.content else { return }
        for start in stride(from: 0, to: pages.count - CloudOnlyFormat.slotBytes + 1, by: CloudOnlyFormat.slotBytes) {
            let slot = Array(pages[start..<start + CloudOnlyFormat.slotBytes])
            if slot.allSatisfy({ $0 == 0 }) { continue }
            // Epoch and era stand first; the page is where the slot is.
            let page = UInt64(start / CloudOnlyFormat.pageBytes)
            let nonce = Array(slot[..<16]) + withUnsafeBytes(of: page) { Array($0) }
            if let known = sealedPages[nonce] { try #require(known == slot, "a nonce of page \(page) has sealed two texts") }
            sealedPages[nonce] = slot
        }
    }
}

@Suite struct CloudOnlyDiskCrashTests {
    @Test(arguments: UInt64(1)...20) func holdsWhatWasFlushedThroughCrashes(seed: UInt64) throws {
        let run = try CrashRun(seed: seed)
        let random = run.harness.random
        for _ in 0..<5 {
            try run.harness.open()
            try run.check()
            try run.load(random.within(5...80))
            try run.checkNonces()
            run.harness.crash(power: random.chance(percent: 70))
            // Sometimes it is struck again while it recovers and drains.
            if random.chance(percent: 40) {
                try run.harness.open()
                for _ in 0..<random.below(400) { _ = run.harness.scheduler.step() }
                try run.checkNonces()
                run.harness.crash(power: true)
            }
        }
        try run.harness.open()
        try run.check()
        try run.harness.drain()
        try run.check()
        try run.checkNonces()
    }
}
