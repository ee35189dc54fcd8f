import Blocks
import NIOCore
import SimulatedStorage

// What the demon does. Each strike is one line of `strike`; what it takes away it gives back after a while.

extension World {
    func scheduleDemon() {
        scheduler.schedule(microseconds: 5_000...700_000) { [self] in
            if isCalm || failure != nil { return }
            strike()
            scheduleDemon()
        }
    }

    private func strike() {
        let volume = volumes[Int(scheduler.random.below(UInt64(volumes.count)))]
        let edge = edges[volume.edge]
        switch scheduler.random.below(group == nil ? 23 : 33) {
        case 0, 1: crash(edge, power: false)
        case 2, 3: crash(edge, power: true)
        case 4: crashHome(power: false)
        case 5, 6: crashHome(power: true)
        case 7:
            crash(edge, power: true)
            crashHome(power: true)
        case 8: cut(edge.line)
        case 9: if scheduler.random.chance(percent: 40) { fillHomeDisks() } else { cut(edge.line) }
        case 10: fillDisk(of: scheduler.random.chance(percent: 70) ? edge.machine : homeMachine)
        case 11: slowDisks(of: scheduler.random.chance(percent: 50) ? edge.machine : homeMachine)
        case 12, 13: damageCache(of: edge)
        case 14, 15: handOver(volume)
        case 16: copyDisk(of: volume)
        case 17: restoreDisk(of: volume)
        case 18: crash(edge, power: scheduler.random.chance(percent: 50)) { edge.keepCopyOfCache() }
        case 19: crash(edge, power: scheduler.random.chance(percent: 50)) { edge.restoreCopyOfCache() }
        case 20: failCache(of: edge)
        case 21: failLogs(of: edge)
        case 23, 24: leaveAndJoin(volume)
        case 25, 26: stop(volume)
        case 27: handGroupOver()
        case 28...31: crashBetweenSeals(edge)
        default: edge.line.dropOne()
        }
    }

    // MARK: Groups

    /// A volume leaves the group, and joins it again a while later. The cloud edge hears of either when it lives, or when it starts.
    private func leaveAndJoin(_ volume: SimulatedVolume) {
        guard volume.isInGroup, !isHandingGroupOver else { return }
        volume.isInGroup = false
        volume.hasLeftGroup = true
        lastCutNumber = GroupPoint.numberBeforeNextTerm(after: lastCutNumber)
        home?.settleGroup()
        tellMembership(of: volume)
        scheduleJoin(of: volume)
    }

    private func scheduleJoin(of volume: SimulatedVolume) {
        scheduler.schedule(microseconds: 500_000...1_500_000) { [self] in
            // A group is at one edge, and the numbers that there were are known.
            let edge = edges[volume.edge]
            let isTogether = volumes.allSatisfy { !$0.isInGroup || $0.edge == volume.edge }
            guard !isHandingGroupOver, isTogether, home?.lastCutNumber != nil, edge.process?.lastCutNumber != nil else {
                return isCalm ? () : scheduleJoin(of: volume)
            }
            volume.joinedAfter = .max
            volume.isInGroup = true
            lastCutNumber = GroupPoint.numberBeforeNextTerm(after: lastCutNumber)
            home?.settleGroup()
            tellMembership(of: volume)
        }
    }

    private func tellMembership(of volume: SimulatedVolume) {
        scheduler.schedule(microseconds: 0...400_000) { [self] in edges[volume.edge].process?.membershipChanged() }
    }

    /// A volume stops, as when its log fails; the others of its group live on for a while.
    private func stop(_ volume: SimulatedVolume) {
        guard volume.isInGroup, let served = served(volume), served.core != nil else { return }
        let edge = edges[volume.edge]
        served.stop()
        scheduler.schedule(microseconds: 200_000...2_000_000) { [self] in crash(edge, power: scheduler.random.chance(percent: 50)) }
    }

    /// The power fails when some of a cut's points may be durable, and others not. Then one of the volumes comes late: the others are
    /// written to before there is another cut.
    private func crashBetweenSeals(_ edge: SimulatedEdge) {
        guard !isCalm, let process = edge.process else { return }
        if process.isSealingGroup {
            edge.lateVolume = volumes[Int(scheduler.random.below(UInt64(volumes.count)))].number
            return crash(edge, power: true)
        }
        scheduler.schedule(microseconds: 20...400) { [self] in crashBetweenSeals(edge) }
    }

    /// The cloud edge is given up: all of the group is detached by force, and attached to the other edge.
    private func handGroupOver() {
        guard let home, !isHandingGroupOver, volumes.contains(where: \.isInGroup), volumes.allSatisfy({ !$0.isInGroup || $0.edge == 0 })
        else { return }
        isHandingGroupOver = true
        home.settleGroup()
    }

    // MARK: Crashes

    /// When a process is struck again that has started after a crash.
    enum SecondStrike {
        /// Sometimes, and at any time.
        case sometimes
        /// When it has taken a name away, or at any time.
        case behindName(SimulatedMachine)
    }

    /// Starts again after a while; sometimes only to be struck again while it recovers.
    func crash(_ edge: SimulatedEdge, power: Bool, again: SecondStrike = .sometimes, whileDown: () -> Void = {}) {
        guard edge.process != nil else { return }
        tally.crashes += 1
        edge.crash(power: power)
        whileDown()
        scheduler.schedule(microseconds: 1_000...300_000) { [self] in
            edge.start()
            strikeAgain(again) { [self] in crash(edge, power: $0) }
        }
    }

    func crashHome(power: Bool, again: SecondStrike = .sometimes, whileDown: () -> Void = {}) {
        guard home != nil else { return }
        tally.crashes += 1
        stopHome(power: power)
        whileDown()
        scheduler.schedule(microseconds: 1_000...300_000) { [self] in
            startHome()
            strikeAgain(again) { [self] in crashHome(power: $0) }
        }
    }

    private func strikeAgain(_ strike: SecondStrike, _ crash: @escaping (_ power: Bool) -> Void) {
        if case .behindName(let machine) = strike {
            if scheduler.random.chance(percent: 60) { return strikeBehindName(on: machine) { crash(true) } }
        } else if !scheduler.random.chance(percent: 25) {
            return
        }
        scheduler.schedule(microseconds: 0...40_000) { [self] in
            if !isCalm { crash(scheduler.random.chance(percent: 60)) }
        }
    }

    // MARK: Lines, disks and file systems

    private func cut(_ line: SimulatedLine) {
        line.cut()
        scheduler.schedule(microseconds: 10_000...900_000) { line.restore() }
    }

    /// The file system of a machine gets full, and has room again a while later.
    private func fillDisk(of machine: SimulatedMachine) {
        machine.faults.capacityBytes = machine.usedBytes + Int(scheduler.random.below(64 << 10))
        scheduler.schedule(microseconds: 10_000...1_500_000) { machine.faults.capacityBytes = .max }
    }

    /// The file system under home's disks has no room for a while: they are sparse.
    private func fillHomeDisks() {
        homeMachine.faults.lacksRoomInHolesOf = "disk-"
        scheduler.schedule(microseconds: 10_000...1_500_000) { [self] in homeMachine.faults.lacksRoomInHolesOf = nil }
    }

    /// The disks of a machine take a hundred times as long for a while.
    private func slowDisks(of machine: SimulatedMachine) {
        let usual = StorageFaults().latencyMicroseconds
        machine.faults.latencyMicroseconds = usual.lowerBound * 100...usual.upperBound * 100
        scheduler.schedule(microseconds: 50_000...800_000) { machine.faults.latencyMicroseconds = usual }
    }

    /// A disk grows, home notices, and the cloud edge hears of it a while later, if it lives.
    func scheduleGrowth() {
        scheduler.schedule(microseconds: 50_000...1_500_000) { [self] in
            if isCalm || failure != nil { return }
            let volume = volumes[Int(scheduler.random.below(UInt64(volumes.count)))]
            volume.diskSectorCount = min(SimulatedVolume.sectorCountMax, volume.diskSectorCount + 1 + scheduler.random.below(40))
            let grown = volume.diskSectorCount
            home?.disk(of: volume).core?.journal.diskDidGrow(to: grown)
            scheduler.schedule(microseconds: 0...400_000) { [self] in served(volume)?.core?.grow(to: grown) }
            scheduleGrowth()
        }
    }

    /// Some bytes of the cache hold something else when the edge starts again: a flipped bit, or what belongs to another place, among
    /// blocks, owners and records, the newest too.
    private func damageCache(of edge: SimulatedEdge) {
        crash(edge, power: scheduler.random.chance(percent: 50)) {
            let random = scheduler.random
            let records = edge.machine.directory("cache")
            // Mostly blocks: a damaged record can cost the whole cache.
            let names = random.chance(percent: 30) ? records.names : []
            let file =
                names.isEmpty ? edge.machine.directory("state").file("cache") : records.file(names[Int(random.below(UInt64(names.count)))])
            guard let file, file.content.count > 1024 else { return }
            let place = { Int(random.below(UInt64(file.content.count - 512))) }
            for _ in 0..<random.within(1...16) {
                if random.chance(percent: 50) {
                    file.flipBit(at: place())
                } else {
                    file.misdirect(from: place(), to: place(), byteCount: 512)
                }
            }
        }
    }

    /// The cache's disk takes no writes for a while, or loses some of those that it had taken.
    private func failCache(of edge: SimulatedEdge) {
        if scheduler.random.chance(percent: 50) {
            edge.machine.faults.failsWritesTo = "cache"
            scheduler.schedule(microseconds: 10_000...1_500_000) { edge.machine.faults.failsWritesTo = nil }
        } else {
            edge.machine.faults.failsSyncsOf = "cache"
            scheduler.schedule(microseconds: 1_000...300_000) { edge.machine.faults.failsSyncsOf = nil }
        }
    }

    /// Syncs of the logs fail for a while, and what they lose is in memory still when the process dies.
    private func failLogs(of edge: SimulatedEdge) {
        guard edge.process != nil, edge.machine.faults.failsSyncsOf == nil else { return }
        edge.failLogs()
        scheduler.schedule(microseconds: 1_000...100_000) { [self] in
            crash(edge, power: false)
            edge.mendLogs()
        }
    }

    // MARK: The cache

    /// A demon of its own, in some worlds.
    func scheduleCacheDemon() {
        scheduler.schedule(microseconds: 20_000...600_000) { [self] in
            if isCalm || failure != nil { return }
            let edge = edges[volumes[0].edge]
            if hasPools, scheduler.random.chance(percent: 60) {
                strikePools(of: edge)
            } else if scheduler.random.chance(percent: 75) {
                resizeCache(of: edge)
            } else {
                hideCache(of: edge)
            }
            scheduleCacheDemon()
        }
    }

    /// Any size; or the smallest, and a while later the largest, and the edge dies before that is worth much.
    private func resizeCache(of edge: SimulatedEdge) {
        tally.resizes += 1
        let (sizes, random) = (Self.cacheSegments, scheduler.random)
        guard random.chance(percent: 60) else { return edge.resizeCache(to: Self.cacheBytes(segments: random.within(sizes))) }
        edge.resizeCache(to: Self.cacheBytes(segments: sizes.lowerBound))
        scheduler.schedule(microseconds: 100_000...1_200_000) { [self] in
            edge.resizeCache(to: Self.cacheBytes(segments: sizes.upperBound))
            scheduler.schedule(microseconds: 0...200_000) { [self] in
                if !isCalm { crash(edge, power: random.chance(percent: 50)) }
            }
        }
    }

    /// The cache's device gives nothing for a while. An edge that starts meanwhile has one that stands in.
    private func hideCache(of edge: SimulatedEdge) {
        edge.machine.faults.failsReadsOf = "state/cache"
        if scheduler.random.chance(percent: 80) { crash(edge, power: scheduler.random.chance(percent: 50)) }
        scheduler.schedule(microseconds: 50_000...1_500_000) { edge.machine.faults.failsReadsOf = nil }
    }

    // MARK: Leases and copies

    /// Home gives a volume to the other cloud edge while the one that has it lives on, and is told nothing.
    private func handOver(_ volume: SimulatedVolume) {
        // What is cloud-only would be lost with its edge.
        guard volume.edge == 0, volume.regions == nil, volume.restoredCopy == nil, group == nil, let home else { return }
        let next = edges[1]
        home.disk(of: volume).handOver(to: next.number) { [self] in
            if scheduler.random.chance(percent: 40) { shred(volume, on: edges[0]) }
            if let process = next.process { process.serve([volume]) } else { next.start() }
        }
    }

    /// Somebody copies a disk and its journal while home is down.
    private func copyDisk(of volume: SimulatedVolume) {
        guard volume.regions == nil, volume.restoredCopy == nil, group == nil,
            let received = home?.disk(of: volume).core?.journal.position.received
        else {
            return
        }
        crashHome(power: true) { volume.keepCopy(received: received) }
    }

    /// Somebody puts an old copy back, and nobody tells the cloud edge. When it is refused the newest state comes back.
    private func restoreDisk(of volume: SimulatedVolume) {
        guard volume.canRestoreCopy, home != nil else { return }
        crashHome(power: true) { volume.restoreCopy() }
    }

    /// The old copy of a volume's disk was refused: somebody puts the newest state back, and both edges start again.
    func copyWasRefused(_ volume: SimulatedVolume) {
        tally.refusedCopies += 1
        scheduler.schedule(microseconds: 0...50_000) { [self] in
            stopHome(power: false)
            volume.restoreNewest()
            let edge = edges[volume.edge]
            edge.crash(power: false)
            scheduler.schedule(microseconds: 1_000...100_000) { [self] in
                startHome()
                edge.start()
            }
        }
    }
}
