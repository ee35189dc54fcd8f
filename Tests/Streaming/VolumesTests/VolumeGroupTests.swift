import Blocks
import Ciphers
import LinkProtocol
import NIOCore
import SecureCache
import SimulatedStorage
import Testing
import WriteLog

@testable import Volumes

/// Volumes that have their points together, over one simulated machine.
@Suite struct VolumeGroupTests {
    private static let identifier = GroupIdentifier(high: 7, low: 7)

    /// Some volumes of one group, with a link that takes what it is given and keeps it.
    private final class Bench {
        typealias Core = Volume<SimulatedDirectory>

        let scheduler = Scheduler(seed: 12)
        let machine: SimulatedMachine
        private let key: SecretKey
        private(set) var volumes: [Core] = []
        private(set) var group: VolumeGroup<SimulatedDirectory>
        var sent: [LinkMessage] = []

        init(count: Int, policy: GroupPolicy = GroupPolicy(recoveryPointObjective: .seconds(3_600))) throws {
            machine = SimulatedMachine(scheduler: scheduler)
            key = try SecretKey([UInt8](repeating: 3, count: SecretKey.byteCount))
            group = VolumeGroup(identifier: identifier, policy: policy, lastNumber: 0, clock: { [scheduler] in scheduler.now })
            try start(count: count, policy: policy)
        }

        /// The process begins, or begins anew: the logs are what is there of the one before.
        func start(count: Int, policy: GroupPolicy = GroupPolicy(recoveryPointObjective: .seconds(3_600))) throws {
            let (scheduler, key) = (scheduler, key)
            sent = []
            var cache: SecureCache<SimulatedDirectory>?
            let records = machine.directory("cache")
            machine.directory("state").open("cache", create: true) { opened in
                guard case .success(let file) = opened else { return }
                SecureCache.open(
                    file: file, directory: records, byteCount: 512 << 10, keys: CacheKeys(cache: key) { _, _ in key },
                    limits: CacheLimits(segmentBytes: 64 << 10),
                    random: scheduler.random.source
                ) { if case .success(let opened) = $0 { cache = opened } }
            }
            scheduler.runUntilIdle()
            let opened = try #require(cache)
            volumes = try (0..<count).map { number in
                let identifier = VolumeIdentifier(high: 1, low: UInt64(number))
                var log: WriteLog<SimulatedDirectory>?
                WriteLog.open(
                    directory: machine.directory("log-\(number)"), volume: identifier, keys: DataKeys(key), limits: WriteLogLimits(),
                    random: scheduler.random.source, now: scheduler.now
                ) { if case .success(let opened) = $0 { log = opened } }
                scheduler.runUntilIdle()
                opened.attach(volume: identifier, key: key, generation: 1)
                let volume = Core(
                    identifier: identifier, routingTag: UInt16(number + 1), sectorCount: 2_048, policy: VolumePolicy(),
                    log: try #require(log), cache: opened, clock: { scheduler.now })
                volume.isAwaitingGroup = true
                volume.uplink = { [unowned self] message, _, _ in
                    sent.append(message)
                    return true
                }
                return volume
            }
            group = VolumeGroup(identifier: VolumeGroupTests.identifier, policy: policy, lastNumber: 0, clock: { scheduler.now })
            group.setMembers(volumes)
        }

        /// As it is in the process's first moments: the volumes are there, and their group is not.
        func withholdGroup() {
            group.setMembers([])
            for volume in volumes { volume.isAwaitingGroup = true }
        }

        func connect() {
            for volume in volumes {
                volume.linkConnectivityChanged(isConnected: true)
                volume.opened(VolumeOpenReply(generation: 1, receivedPoint: volume.points.received, appliedPoint: 0))
            }
        }

        func write(_ number: Int, block: UInt64, durability: WriteDurability = .ordered) {
            let range = SectorRange(block: block)
            volumes[number].write(range, data: ByteBuffer(repeating: 1, count: range.byteCount), durability: durability) { _ in }
            scheduler.runUntilIdle()
        }

        func seal(_ seal: PointSeal? = nil) -> GroupPoint? {
            var cut: GroupPoint?
            group.seal(carrying: seal) { cut = try? $0.get() }
            scheduler.runUntilIdle()
            return cut
        }

        func pass(_ time: TimeAmount) {
            let end = scheduler.now + time
            while scheduler.now < end {
                _ = scheduler.run(until: min(end, scheduler.now + .milliseconds(50)))
                for volume in volumes { volume.tick() }
                group.tick()
            }
            scheduler.runUntilIdle()
        }

        /// What was sent of each volume's points besides their bytes.
        func attributes(of number: Int) -> [PointNumber: PointAttributes] {
            var found: [PointNumber: PointAttributes] = [:]
            for case .pointAttributes(volumes[number].identifier, let point, let attributes) in sent { found[point] = attributes }
            return found
        }

        func begun(_ number: Int) -> [PointNumber] {
            sent.compactMap { message in
                if case .pointBegin(volumes[number].identifier, _, let point) = message { point } else { nil }
            }
        }
    }

    @Test("a cut takes one turn, has what was written to any volume before it, and goes home with each of its points")
    func cut() throws {
        let bench = try Bench(count: 3)
        bench.connect()
        bench.write(0, block: 1)
        bench.write(1, block: 1)
        let cut = try #require(bench.seal())
        #expect(cut.members.map(\.point) == [1, 1, 0], "a volume that was not written to makes no point")
        #expect(cut.members.map(\.isSealed) == [true, true, false])
        #expect(bench.attributes(of: 0) == [1: PointAttributes(group: cut)])
        #expect(bench.attributes(of: 1) == [1: PointAttributes(group: cut)])
        #expect(bench.begun(2).isEmpty)
        #expect(bench.seal() == cut, "with nothing new the last one is the answer")
        bench.write(2, block: 3)
        #expect(bench.seal()?.members.map(\.point) == [1, 1, 1])
    }

    @Test("writers go on while a cut is made durable, and their writes are in the next one")
    func writersGoOn() throws {
        let bench = try Bench(count: 2)
        bench.connect()
        bench.write(0, block: 1)
        var cut: GroupPoint?
        bench.group.seal { cut = try? $0.get() }
        #expect(cut == nil, "it is not durable yet")
        var acknowledged = 0
        for block in 2..<10 as Range<UInt64> {
            let range = SectorRange(block: block)
            for volume in bench.volumes {
                volume.write(range, data: ByteBuffer(repeating: 2, count: range.byteCount), durability: .ordered) { _ in acknowledged += 1 }
            }
        }
        #expect(bench.volumes.allSatisfy { $0.log.currentEpochExtents > 0 }, "nobody is held back")
        bench.scheduler.runUntilIdle()
        #expect(acknowledged == 16)
        #expect(cut?.members.map(\.point) == [1, 0])
        #expect(bench.seal()?.members.map(\.point) == [2, 1])
    }

    @Test("a point of a cut is sent when all of the cut is durable, not before")
    func durableFirst() throws {
        let bench = try Bench(count: 2)
        bench.connect()
        bench.write(0, block: 1)
        bench.write(1, block: 1)
        var isDurable = false
        bench.group.seal { _ in isDurable = true }
        while !isDurable {
            #expect(bench.begun(0).isEmpty && bench.begun(1).isEmpty)
            guard bench.scheduler.step() else { break }
        }
        bench.scheduler.runUntilIdle()
        #expect(bench.begun(0) == [1] && bench.begun(1) == [1])
    }

    @Test("a crash between the seals leaves no cut: what is durable of it goes home as part of the next one")
    func crashBetweenSeals() throws {
        var found = (whole: 0, broken: 0, none: 0)
        for steps in stride(from: 0, to: 30, by: 3) {
            let bench = try Bench(count: 2)
            bench.write(0, block: 1, durability: .durable)
            bench.write(1, block: 1, durability: .durable)
            var isDurable = false
            bench.group.seal { _ in isDurable = true }
            for _ in 0..<steps where !isDurable { _ = bench.scheduler.step() }
            bench.machine.cutPower()
            try bench.start(count: 2)
            bench.connect()
            bench.scheduler.runUntilIdle()
            let sealed = bench.volumes.filter { $0.log.lastSealedPoint == 1 }.count
            let first = (0..<2).compactMap { bench.attributes(of: $0)[1]?.group }
            switch sealed {
            case 2:
                found.whole += 1
                #expect(first.count == 2 && first.allSatisfy { $0.isCut && $0.number == 1 })
            case 1:
                found.broken += 1
                #expect(first == [.partOfLater(Self.identifier)])
            default: found.none += 1
            }
            // The next cut comes by itself, and has all of it.
            bench.pass(.milliseconds(200))
            let cut = try #require(bench.group.lastCut)
            #expect(cut.number > 1 || sealed == 0)
            for volume in bench.volumes {
                #expect(!volume.log.hasUnsealedWrites && cut.point(of: volume.identifier) == volume.log.lastSealedPoint)
            }
        }
        #expect(found.broken > 0, "\(found)")
    }

    @Test("while a point waits, all volumes gather on and merge in step")
    func merging() throws {
        let bench = try Bench(count: 2, policy: GroupPolicy(recoveryPointObjective: .seconds(1), sealBytes: 1 << 20))
        // The line is down.
        bench.pass(.milliseconds(100))
        let start = bench.group.lastNumber
        bench.write(0, block: 1)
        bench.pass(.seconds(3))
        #expect(bench.group.lastNumber == start, "the first point, which carries the cut at the start, waits")
        bench.write(1, block: 1)
        bench.pass(.milliseconds(1_200))
        #expect(bench.group.lastNumber == start + 1, "four times the objective is")
        #expect(bench.volumes.map { $0.log.hasUnsealedWrites } == [false, false])
    }

    @Test("a volume does not run ahead of the others by more than a few cuts")
    func inStep() throws {
        let bench = try Bench(count: 2)
        bench.connect()
        for block in 0..<8 as Range<UInt64> {
            bench.write(0, block: block)
            bench.write(1, block: block)
            _ = bench.seal()
            // Home has what was sent of the first volume, and nothing of the second.
            guard let last = bench.begun(0).last else { continue }
            bench.volumes[0].receive(.pointReceived(volume: bench.volumes[0].identifier, point: last))
            bench.scheduler.runUntilIdle()
        }
        #expect(bench.begun(0) == [1, 2, 3, 4])
        bench.volumes[1].receive(.pointReceived(volume: bench.volumes[1].identifier, point: 1))
        bench.scheduler.runUntilIdle()
        #expect(bench.begun(0) == [1, 2, 3, 4, 5])
    }

    @Test("a volume that leaves has points of its own again, and what it had for the group goes home with no group")
    func leaving() throws {
        let bench = try Bench(count: 2)
        bench.write(0, block: 1)
        bench.write(1, block: 1)
        let cut = try #require(bench.seal())
        bench.group.setMembers([bench.volumes[1]])
        bench.connect()
        bench.scheduler.runUntilIdle()
        #expect(bench.attributes(of: 0).isEmpty && bench.begun(0) == [1])
        #expect(
            bench.attributes(of: 1)[cut.members[1].point]?.group
                == GroupPoint(group: Self.identifier, number: cut.number, members: [cut.members[1]]),
            "what remains of the cut is one of the others")
        bench.write(0, block: 2)
        var point: PointNumber?
        bench.volumes[0].seal(until: .sealed) { point = try? $0.get() }
        bench.scheduler.runUntilIdle()
        #expect(point == 2)
        #expect(bench.attributes(of: 0).isEmpty)
    }

    @Test("who seals a volume before its group is there waits for it, and has a point of the group")
    func sealBeforeGroup() throws {
        let bench = try Bench(count: 2)
        bench.withholdGroup()
        bench.connect()
        bench.write(0, block: 1)
        bench.write(1, block: 1)
        var points: [PointNumber?] = []
        for volume in bench.volumes { volume.seal(until: .sealed) { points.append(try? $0.get()) } }
        bench.scheduler.runUntilIdle()
        #expect(points.isEmpty && bench.volumes.allSatisfy { $0.log.sealedPoints.isEmpty }, "a point of its own would be in no cut")
        bench.group.setMembers(bench.volumes)
        bench.scheduler.runUntilIdle()
        #expect(points == [1, 1])
        let cut = try #require(bench.group.lastCut)
        #expect(cut.members.map(\.point) == [1, 1])
        #expect(bench.attributes(of: 0) == [1: PointAttributes(group: cut)] && bench.attributes(of: 1) == [1: PointAttributes(group: cut)])
    }

    @Test("who waits for a group that does not come has a point of the volume's own, and an error when the volume stops")
    func sealWithoutGroup() throws {
        let bench = try Bench(count: 2)
        bench.withholdGroup()
        bench.write(0, block: 1)
        bench.write(1, block: 1)
        var results: [Result<PointNumber, BlockDeviceError>] = []
        for volume in bench.volumes { volume.seal(until: .sealed) { results.append($0) } }
        bench.scheduler.runUntilIdle()
        #expect(results.isEmpty)
        bench.volumes[0].leaveGroup()
        bench.scheduler.runUntilIdle()
        #expect(results == [.success(1)])
        bench.volumes[1].close(reason: "closed") {}
        #expect(results == [.success(1), .failure(.stopped("closed"))])
    }

    @Test("who waits for a cut of a group that goes away is told that there will be none")
    func sealOfGroupThatGoes() throws {
        let bench = try Bench(count: 2)
        bench.withholdGroup()
        // The cut waits for a point that the second volume had under way when it joined.
        bench.volumes[1].leaveGroup()
        bench.write(1, block: 1)
        bench.volumes[1].seal(until: .sealed) { _ in }
        bench.group.setMembers(bench.volumes)
        var result: Result<GroupPoint, BlockDeviceError>?
        bench.group.seal { result = $0 }
        #expect(result == nil)
        bench.group.setMembers([])
        #expect(result == .failure(.stopped("no volume of the group is served")))
    }

    @Test("a label makes a point where there is nothing to send")
    func label() throws {
        let bench = try Bench(count: 2)
        bench.connect()
        let cut = try #require(bench.seal(PointSeal(label: "before the update", isAtRestUntil: bench.scheduler.now + .seconds(1))))
        #expect(cut.members.map(\.point) == [1, 1])
        #expect(bench.attributes(of: 0)[1]?.consistency == .application)
        #expect(bench.attributes(of: 0)[1]?.label == "before the update")
        #expect(bench.attributes(of: 1) == bench.attributes(of: 0), "every disk says so")
    }

    // MARK: What is not there

    @Test("a volume that is not served after a restart is awaited: there is no cut without it, and nothing goes home")
    func missing() throws {
        let bench = try Bench(count: 3)
        for number in 0..<3 { bench.write(number, block: 1, durability: .durable) }
        let cut = try #require(bench.seal())
        bench.write(0, block: 2, durability: .durable)
        bench.machine.killProcess()
        try bench.start(count: 3)
        let absent = bench.volumes[2].identifier
        bench.group.setMembers(Array(bench.volumes[0..<2]), missing: [absent])
        bench.volumes[2].isAwaitingGroup = true
        bench.connect()
        bench.pass(.seconds(2))
        #expect(bench.group.awaited == [absent])
        #expect(bench.group.lastCut == nil && bench.sent.isEmpty)
        var refusal: BlockDeviceError?
        bench.group.seal { if case .failure(let error) = $0 { refusal = error } }
        #expect(refusal == .unreachable("the group waits for \(absent)"))
        bench.group.setMembers(bench.volumes)
        bench.pass(.milliseconds(200))
        #expect(bench.attributes(of: 0)[1]?.group == cut, "the cut from before is whole")
        #expect(bench.group.lastCut?.members.map(\.point) == [2, 1, 1])
    }

    @Test("a volume that has stopped is awaited, until home says that it has left")
    func stopped() throws {
        let bench = try Bench(count: 2)
        bench.connect()
        bench.pass(.milliseconds(200))
        let before = bench.group.lastNumber
        bench.volumes[1].openRefused("the history has split")
        bench.write(0, block: 1)
        bench.pass(.seconds(2))
        #expect(bench.group.awaited == [bench.volumes[1].identifier])
        #expect(bench.seal() == nil && bench.group.lastNumber == before)
        bench.group.setMembers([bench.volumes[0]])
        bench.pass(.milliseconds(200))
        #expect(bench.group.lastCut?.members.map(\.volume) == [bench.volumes[0].identifier])
    }

    @Test("a cut counts on no point that a crash may still take away")
    func unsealedPart() throws {
        for steps in 0..<40 {
            let bench = try Bench(count: 2)
            bench.withholdGroup()
            // The second volume has a point of its own under way when it joins, and nothing behind it.
            bench.volumes[1].leaveGroup()
            bench.write(0, block: 1, durability: .durable)
            bench.write(1, block: 1, durability: .durable)
            bench.volumes[1].seal(until: .sealed) { _ in }
            bench.group.setMembers(bench.volumes)
            bench.group.seal { _ in }
            for _ in 0..<steps {
                _ = bench.scheduler.step()
                bench.group.tick()
            }
            bench.machine.cutPower()
            try bench.start(count: 2)
            let cut = bench.volumes[0].log.attributes(of: 1)?.group
            let lacks = bench.volumes[1].log.lastSealedPoint < cut?.point(of: bench.volumes[1].identifier) ?? 0
            #expect(!lacks, "after \(steps) steps the log of the second volume lacks a point that the cut \(String(describing: cut)) has")
        }
    }

    @Test("a point that was sealed again after a crash is not taken for the one of the cut before")
    func sealedAgain() throws {
        var found = 0
        for steps in stride(from: 0, to: 30, by: 3) {
            let bench = try Bench(count: 2)
            bench.write(0, block: 1, durability: .durable)
            bench.write(1, block: 1, durability: .durable)
            bench.group.seal { _ in }
            for _ in 0..<steps { _ = bench.scheduler.step() }
            bench.machine.cutPower()
            try bench.start(count: 2)
            guard bench.volumes.map(\.log.lastSealedPoint).sorted() == [0, 1] else { continue }
            found += 1
            let lost = bench.volumes[0].log.lastSealedPoint == 0 ? 0 : 1
            // The next cut seals it; then all of the volume that lost its part comes home, the other's nothing, and another crash.
            bench.pass(.milliseconds(200))
            bench.volumes[lost].linkConnectivityChanged(isConnected: true)
            bench.volumes[lost].opened(VolumeOpenReply(generation: 1, receivedPoint: 0, appliedPoint: 0))
            bench.volumes[lost].receive(.pointReceived(volume: bench.volumes[lost].identifier, point: 1))
            bench.scheduler.runUntilIdle()
            bench.pass(.seconds(1))
            #expect(
                bench.volumes[lost].log.sealedPoints.map(\.number) == [1], "what tells that the cut is none stays while the other has it")
            bench.machine.cutPower()
            try bench.start(count: 2)
            bench.connect()
            bench.scheduler.runUntilIdle()
            #expect(bench.attributes(of: 1 - lost)[1]?.group == .partOfLater(Self.identifier))
            // The other's point is home: nobody has the broken cut any more.
            for number in [lost, 1 - lost] {
                bench.volumes[number].receive(.pointReceived(volume: bench.volumes[number].identifier, point: 1))
                bench.scheduler.runUntilIdle()
            }
            bench.pass(.milliseconds(200))
            #expect(bench.volumes.allSatisfy { !$0.log.sealedPoints.map(\.number).contains(1) })
        }
        #expect(found > 0)
    }

    @Test("what a volume has of earlier cuts when it comes back has lower numbers than all that was made without it")
    func terms() throws {
        let bench = try Bench(count: 2)
        bench.connect()
        bench.write(0, block: 1)
        bench.write(1, block: 1)
        let old = try #require(bench.seal())
        // Home has taken the second volume out, which this process can't see: it begins without it, and with what home knows.
        bench.machine.killProcess()
        try bench.start(count: 2)
        bench.withholdGroup()
        bench.group.noteLastNumber(GroupPoint.numberBeforeNextTerm(after: 0))
        bench.group.setMembers([bench.volumes[0]])
        bench.volumes[1].leaveGroup()
        bench.write(0, block: 2)
        let alone = try #require(bench.seal())
        #expect(alone.members.map(\.volume) == [bench.volumes[0].identifier] && alone.number > old.number)
        bench.group.noteLastNumber(GroupPoint.numberBeforeNextTerm(after: alone.number))
        bench.group.setMembers(bench.volumes)
        let together = try #require(bench.seal())
        #expect(together.members.count == 2 && together.number > alone.number)
        // A lower number says nothing.
        bench.group.noteLastNumber(1)
        #expect(bench.group.lastNumber == together.number)
    }

    @Test("the last point of a volume that leaves while it is sealed goes home")
    func leavingWhileSealing() throws {
        let bench = try Bench(count: 2)
        bench.connect()
        bench.pass(.milliseconds(200))
        bench.sent = []
        bench.write(1, block: 1)
        bench.group.seal { _ in }
        bench.group.setMembers([bench.volumes[0]])
        bench.scheduler.runUntilIdle()
        #expect(bench.begun(1) == [1])
        #expect(bench.attributes(of: 1).isEmpty)
    }
}
