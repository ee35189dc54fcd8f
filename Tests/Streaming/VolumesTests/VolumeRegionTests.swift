import Blocks
import CloudOnlyDisk
import LinkProtocol
import NIOCore
import SimulatedStorage
import Testing
import WriteLog

@testable import Volumes

extension VolumeBench {
    /// Gives the volume its cloud-only disk.
    func attachCloudOnlyDisk(_ table: RegionTable = RegionTable()) throws {
        var disk: CloudOnlyDisk<SimulatedDirectory>?
        CloudOnlyDisk.open(
            directory: machine.directory("cloud-only"), volume: identifier, sectorCount: volume.sectorCount, key: key,
            limits: CloudOnlyLimits(drainBytes: 64 << 10, drainAge: .milliseconds(300)), random: scheduler.random.source,
            clock: { [scheduler] in scheduler.now }
        ) { if case .success(let opened) = $0 { disk = opened } }
        scheduler.runUntilIdle()
        volume.attach(try #require(disk), table: table)
    }

    /// Changes the policy of some blocks.
    func set(_ blocks: Range<UInt64>, to policy: WritePolicy, images: Bool = false) throws {
        var table = volume.regions
        try table.set(Self.sectors(blocks), to: policy, sectorCount: volume.sectorCount)
        if images { try table.beginImaging(Self.sectors(blocks)) }
        volume.setRegions(table)
    }

    static func sectors(_ blocks: Range<UInt64>) -> SectorRange {
        SectorRange(from: blocks.lowerBound * BlockGeometry.sectorsPerBlock, to: blocks.upperBound * BlockGeometry.sectorsPerBlock)
    }

    /// The first byte of each block of a range, as a read shows it. Home answers with bytes of 0xaa.
    func fills(of blocks: Range<UInt64>) throws -> [UInt8] {
        let range = Self.sectors(blocks)
        var resident = ByteBuffer()
        var result: Result<ByteBuffer, BlockDeviceError>?
        if volume.readIfResident(range, into: &resident) {
            result = .success(resident)
        } else {
            volume.read(range) { result = $0 }
            scheduler.runUntilIdle()
            while result == nil, let request = sent.popLast() {
                guard case .readRequest(let read, _, let range) = request else { continue }
                volume.receive(.readData(read: read, offset: 0, data: ByteBuffer(repeating: 0xaa, count: range.byteCount)))
                scheduler.runUntilIdle()
            }
        }
        let bytes = Array(try #require(result).get().readableBytesView)
        return stride(from: 0, to: bytes.count, by: BlockGeometry.blockBytes).map { bytes[$0] }
    }

    /// The bytes that points brought to the link, by block.
    var homeBlocks: Set<UInt64> {
        sent.reduce(into: []) { blocks, message in
            if case .pointData(_, _, let start, let data) = message {
                blocks.formUnion(SectorRange(from: start, to: start + UInt64(data.readableBytes / 512)).blocks)
            }
            if case .pointZeroes(_, _, let range) = message { blocks.formUnion(range.blocks) }
        }
    }
}

/// What goes home of a volume with regions, what does not, and what becomes of that.
@Suite struct VolumeRegionTests {
    private func bench(limits: WriteLogLimits = WriteLogLimits(), writeTimeout: TimeAmount = .seconds(20)) throws -> VolumeBench {
        let bench = try VolumeBench(
            policy: VolumePolicy(recoveryPointObjective: .milliseconds(200), writeTimeout: writeTimeout), limits: limits)
        try bench.attachCloudOnlyDisk()
        bench.connect()
        return bench
    }

    @Test("cloud-only writes are read, flushed, and never in a point; one that spans regions is split, and answered once")
    func splitting() throws {
        let bench = try bench()
        try bench.set(10..<20, to: .cloudOnly)
        var answers = 0
        let range = VolumeBench.sectors(8..<22)
        bench.volume.write(range, data: ByteBuffer(repeating: 7, count: range.byteCount), durability: .durable) { result in
            if case .success = result { answers += 1 }
        }
        bench.scheduler.runUntilIdle()
        #expect(answers == 1)
        #expect(try bench.fills(of: 8..<22) == [UInt8](repeating: 7, count: 14))
        bench.sent.removeAll()
        bench.pass(.seconds(1))
        #expect(bench.homeBlocks == [8, 9, 20, 21])
        #expect(bench.volume.cloudOnlyBytes(in: SectorRange(from: 0, to: 2_048)) == 10 * 4_096)
        // Drained by now, and read from the files.
        #expect(try bench.fills(of: 9..<21) == [UInt8](repeating: 7, count: 12))
    }

    @Test("a part of a block that is not held is the origin's, without a look at it when it is written")
    func partialBlock() throws {
        let bench = try bench()
        try bench.set(0..<4, to: .cloudOnly)
        bench.volume.linkConnectivityChanged(isConnected: false)
        var result: Result<Void, BlockDeviceError>?
        bench.volume.write(SectorRange(from: 3, to: 5), data: ByteBuffer(repeating: 9, count: 1_024), durability: .durable) { result = $0 }
        bench.scheduler.runUntilIdle()
        #expect(throws: Never.self) { try #require(result).get() }
        bench.volume.linkConnectivityChanged(isConnected: true)
        var read: Result<ByteBuffer, BlockDeviceError>?
        bench.volume.read(SectorRange(block: 0)) { read = $0 }
        for message in bench.sent {
            if case .readRequest(let number, _, let range) = message {
                bench.volume.receive(.readData(read: number, offset: 0, data: ByteBuffer(repeating: 0xaa, count: range.byteCount)))
            }
        }
        bench.scheduler.runUntilIdle()
        let bytes = Array(try #require(read).get().readableBytesView)
        #expect((0..<8).map { bytes[$0 * 512] } == [0xaa, 0xaa, 0xaa, 9, 9, 0xaa, 0xaa, 0xaa])
    }

    @Test("while the log is full, cloud-only writes go on, and a new region frees those that wait")
    func fullLog() throws {
        let bench = try bench(limits: WriteLogLimits(logBytesMax: 64 << 10, slowingPercent: 100))
        bench.volume.linkConnectivityChanged(isConnected: false)
        try bench.set(100..<200, to: .cloudOnly)
        for block in 0..<16 as Range<UInt64> { bench.write(block: block, fill: 1) }
        #expect(bench.volume.isLogFull)
        var answered = Set<UInt64>()
        for block in [50, 51, 60] as [UInt64] {
            bench.volume.write(SectorRange(block: block), data: ByteBuffer(repeating: 2, count: 4_096), durability: .durable) { result in
                if case .success = result { answered.insert(block) }
            }
        }
        bench.write(block: 150, fill: 3, durability: .durable)
        bench.pass(.seconds(1))
        #expect(try bench.fills(of: 150..<151) == [3])
        #expect(answered.isEmpty)
        try bench.set(50..<52, to: .cloudOnly)
        bench.scheduler.runUntilIdle()
        #expect(answered == [50, 51])
        #expect(try bench.fills(of: 50..<52) == [2, 2])
    }

    @Test("what is unsent when its range becomes cloud-only goes home, and newer writes hide it")
    func becomesCloudOnly() throws {
        let bench = try bench()
        bench.write(block: 5, fill: 1)
        try bench.set(0..<10, to: .cloudOnly)
        bench.write(block: 5, fill: 2)
        bench.pass(.seconds(1))
        #expect(bench.homeBlocks == [5])
        #expect(bench.pointBytes == 4_096)
        bench.home(has: 1)
        #expect(try bench.fills(of: 5..<6) == [2])
    }

    @Test("imaged: the writes go home in points, and so do later ones")
    func imaging() throws {
        let bench = try bench()
        try bench.set(0..<100, to: .cloudOnly)
        for block in 0..<40 as Range<UInt64> { bench.write(block: block * 2, fill: UInt8(block) + 1) }
        bench.volume.writeZeroes(VolumeBench.sectors(90..<95), durability: .ordered) { _ in }
        bench.pass(.seconds(1))
        #expect(bench.homeBlocks.isEmpty)
        try bench.set(0..<100, to: .onPrem, images: true)
        bench.pass(.seconds(2))
        #expect(bench.homeBlocks == Set((0..<40).map { $0 * 2 }).union(90..<95))
        #expect(bench.volume.regions.imaging.isEmpty)
        #expect(!bench.volume.hasCloudOnlyWrites)
        #expect(bench.events.contains(.imaged(VolumeBench.sectors(0..<100))))
        bench.sent.removeAll()
        bench.write(block: 4, fill: 99)
        bench.pass(.seconds(1))
        #expect(bench.homeBlocks == [4])
        #expect(try bench.fills(of: 4..<5) == [99])
        #expect(try bench.fills(of: 6..<7) == [4])
    }

    @Test("a range below the one that is being imaged is imaged from its beginning")
    func imagingBelow() throws {
        let bench = try bench()
        try bench.set(0..<200, to: .cloudOnly)
        for block in 0..<200 as Range<UInt64> { bench.write(block: block, fill: 1) }
        bench.pass(.seconds(1))
        try bench.set(100..<200, to: .onPrem, images: true)
        #expect(bench.volume.cloudOnly?.held != nil, "a batch is under way")
        try bench.set(0..<50, to: .onPrem, images: true)
        bench.pass(.seconds(3))
        #expect(bench.homeBlocks == Set(0..<50).union(100..<200))
        #expect(bench.volume.regions.imaging.isEmpty)
        #expect(bench.volume.cloudOnlyBytes(in: VolumeBench.sectors(0..<200)) == 50 * 4_096)
    }

    @Test("imaging a whole volume ends beside a cloud-only region in which a machine goes on writing")
    func imagingBesideABusyRegion() throws {
        let bench = try bench()
        try bench.set(0..<100, to: .cloudOnly)
        for block in 0..<100 as Range<UInt64> { bench.write(block: block, fill: 1) }
        bench.pass(.seconds(1))
        var table = bench.volume.regions
        try table.beginImaging(VolumeBench.sectors(0..<200))
        bench.volume.setRegions(table)
        for round in 0..<40 as Range<UInt64> {
            bench.write(block: 3, fill: UInt8(round))
            bench.pass(.milliseconds(50))
        }
        bench.pass(.seconds(1))
        #expect(bench.volume.regions.imaging.isEmpty)
        #expect(try bench.fills(of: 3..<4) == [39])
    }

    @Test("discarded: the origin shows again, and no restart brings the writes back")
    func discarding() throws {
        let bench = try bench()
        try bench.set(0..<10, to: .cloudOnly)
        for block in 0..<10 as Range<UInt64> { bench.write(block: block, fill: 5) }
        bench.pass(.seconds(1))
        var result: Result<Void, BlockDeviceError>?
        bench.volume.discardCloudOnly(VolumeBench.sectors(2..<8)) { result = $0 }
        bench.scheduler.runUntilIdle()
        #expect(throws: Never.self) { try #require(result).get() }
        #expect(try bench.fills(of: 0..<10) == [5, 5, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 5, 5])
        bench.machine.cutPower()
        let again = try VolumeBench(scheduler: bench.scheduler, machine: bench.machine)
        try again.attachCloudOnlyDisk()
        again.connect()
        #expect(try again.fills(of: 0..<10) == [5, 5, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 5, 5])
    }

    @Test("kept: in a range that is on-prem again, what is held stays here, and so do writes to it")
    func keeping() throws {
        let bench = try bench()
        try bench.set(0..<10, to: .cloudOnly)
        bench.write(block: 3, fill: 5)
        try bench.set(0..<10, to: .onPrem)
        let range = VolumeBench.sectors(2..<5)
        bench.volume.write(range, data: ByteBuffer(repeating: 6, count: range.byteCount), durability: .ordered) { _ in }
        bench.scheduler.runUntilIdle()
        #expect(try bench.fills(of: 2..<5) == [6, 6, 6])
        bench.pass(.seconds(1))
        #expect(bench.homeBlocks == [2, 4])
        #expect(bench.volume.cloudOnlyBytes(in: SectorRange(from: 0, to: 2_048)) == 4_096)
    }

    @Test("a write to what is being moved waits, and is newer than what was moved")
    func writeWhileImaging() throws {
        let bench = try bench()
        try bench.set(0..<64, to: .cloudOnly)
        for block in 0..<64 as Range<UInt64> { bench.write(block: block, fill: 1) }
        try bench.set(0..<64, to: .onPrem, images: true)
        #expect(bench.volume.cloudOnly?.held != nil, "a batch is under way")
        var isAnswered = false
        bench.volume.write(SectorRange(block: 7), data: ByteBuffer(repeating: 2, count: 4_096), durability: .durable) { _ in
            isAnswered = true
        }
        #expect(!isAnswered)
        bench.pass(.seconds(2))
        #expect(isAnswered)
        #expect(try bench.fills(of: 6..<9) == [1, 2, 1])
        #expect(!bench.volume.hasCloudOnlyWrites)
    }

    @Test("imaging that waits for room gives way when the range is cloud-only again: else it and its writers would wait for each other")
    func policyChangesWhileImagingWaits() throws {
        let bench = try bench()
        bench.machine.faults.atOncePercent = 100
        try bench.set(0..<8, to: .cloudOnly)
        for block in 0..<8 as Range<UInt64> { bench.write(block: block, fill: 1) }
        bench.write(block: 100, fill: 1)
        try bench.set(0..<8, to: .onPrem, images: true)
        bench.machine.faults.isReadOnly = true
        bench.write(block: 101, fill: 1)
        #expect(bench.volume.cloudOnly?.imaging.copying != nil, "it waits for room in the log")
        var result: Result<Void, BlockDeviceError>?
        bench.volume.write(SectorRange(block: 3), data: ByteBuffer(repeating: 2, count: 4_096), durability: .durable) { result = $0 }
        try bench.set(0..<8, to: .cloudOnly)
        bench.machine.faults.isReadOnly = false
        bench.pass(.seconds(3))
        #expect(throws: Never.self) { try #require(result).get() }
        #expect(try bench.fills(of: 2..<5) == [1, 2, 1])
        try bench.set(0..<8, to: .onPrem, images: true)
        bench.pass(.seconds(3))
        #expect(!bench.volume.hasCloudOnlyWrites)
        #expect(try bench.fills(of: 2..<5) == [1, 2, 1])
    }

    @Test("what is moved is not let go before its removal is durable, however long there is no room for that")
    func removalWithoutRoom() throws {
        let bench = try bench(writeTimeout: .seconds(3))
        bench.machine.faults.atOncePercent = 0
        try bench.set(0..<8, to: .cloudOnly)
        for block in 0..<8 as Range<UInt64> { bench.write(block: block, fill: 1, durability: .durable) }
        try bench.set(0..<8, to: .onPrem, images: true)
        let layer = try #require(bench.volume.cloudOnly)
        while layer.held != nil, bench.volume.hasCloudOnlyWrites { _ = bench.scheduler.step() }
        #expect(layer.held != nil, "the removal is ordered, and not yet in a file")
        bench.machine.faults.isReadOnly = true
        bench.pass(.seconds(10))
        #expect(layer.held != nil)
        bench.machine.faults.isReadOnly = false
        bench.pass(.seconds(2))
        #expect(layer.held == nil && bench.volume.regions.imaging.isEmpty)
        #expect(try bench.fills(of: 0..<8) == [UInt8](repeating: 1, count: 8))
    }

    @Test("a power cut at any step of imaging loses nothing that was flushed", arguments: UInt64(1)...4)
    func crashWhileImaging(seed: UInt64) throws {
        for steps in stride(from: 1, to: 60, by: 4) {
            var bench = try VolumeBench(seed: seed, policy: VolumePolicy(recoveryPointObjective: .seconds(60)))
            try bench.attachCloudOnlyDisk()
            bench.connect()
            try bench.set(0..<8, to: .cloudOnly)
            for block in 0..<8 as Range<UInt64> { bench.write(block: block, fill: 1, durability: .durable) }
            try bench.set(0..<8, to: .onPrem, images: true)
            var isDurable = false
            bench.volume.write(SectorRange(block: 3), data: ByteBuffer(repeating: 2, count: 4_096), durability: .durable) { _ in
                isDurable = true
            }
            for _ in 0..<steps { _ = bench.scheduler.step() }
            bench.machine.cutPower()
            var table = bench.volume.regions
            bench = try VolumeBench(scheduler: bench.scheduler, machine: bench.machine)
            try table.beginImaging(VolumeBench.sectors(0..<8))
            try bench.attachCloudOnlyDisk(table)
            bench.connect()
            var fills = try bench.fills(of: 0..<8)
            if isDurable { #expect(fills[3] == 2, "after \(steps) steps") }
            #expect(fills[3] == 1 || fills[3] == 2)
            fills[3] = 1
            #expect(fills == [UInt8](repeating: 1, count: 8), "after \(steps) steps")
            bench.pass(.seconds(1))
            #expect(!bench.volume.hasCloudOnlyWrites)
        }
    }

    @Test("what is held is told as mapped, its zeroes as deallocated")
    func allocation() throws {
        let bench = try bench()
        try bench.set(0..<16, to: .cloudOnly)
        bench.volume.linkConnectivityChanged(isConnected: false)
        bench.write(block: 2, fill: 1)
        bench.volume.writeZeroes(VolumeBench.sectors(4..<6), durability: .ordered) { _ in }
        for _ in 0..<2 {
            bench.scheduler.runUntilIdle()
            var extents: [AllocationExtent] = []
            bench.volume.allocation(of: VolumeBench.sectors(0..<16)) { if case .success(let found) = $0 { extents = found } }
            #expect(
                extents == [
                    AllocationExtent(range: VolumeBench.sectors(0..<4), allocation: .mapped),
                    AllocationExtent(range: VolumeBench.sectors(4..<6), allocation: .deallocated),
                    AllocationExtent(range: VolumeBench.sectors(6..<16), allocation: .mapped),
                ])
            bench.pass(.seconds(1))
        }
    }
}
