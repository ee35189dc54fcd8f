import Initiator
import LoadGenerator

extension LoadRunner {
    /// How often another position is drawn when a write to the first one is in flight.
    private static let drawLimit = 16
    /// The pause before an I/O is tried again that met a target that was not ready.
    private static let retryPauseNanoseconds: UInt64 = 20_000_000

    /// Starts as many I/Os as slots and rates allow.
    /// - Returns: how long to wait at most before it is worth to call again.
    func issue(now: UInt64) -> UInt64 {
        if !delayed.isEmpty { retryDelayed(now) }
        for volume in volumes {
            for connection in volume.connections where connection.session.phase == .ready {
                while let slot = connection.idle.last {
                    if let limit = plan.operationLimit, issuedOperations >= limit { return 0 }
                    if let limit = plan.byteLimit, issuedBytes >= limit { return 0 }
                    let wait = max(operationLimiter?.wait(now: now) ?? 0, byteLimiter?.wait(now: now) ?? 0)
                    if wait > 0 { return wait }
                    guard prepare(slot, volume) else { break }
                    connection.idle.removeLast()
                    start(slot, now: now, isFirst: true)
                }
            }
        }
        return .max
    }

    /// Chooses kind and position. False when every position that was drawn has a write in flight.
    private func prepare(_ slot: LoadSlot, _ volume: LoadVolume) -> Bool {
        if plan.flushEvery > 0 && volume.writesSinceFlush >= plan.flushEvery {
            slot.kind = .flush
            volume.writesSinceFlush = 0
            if let store = volume.store { slot.ticket = store.ledger.beginFlush() }
            return true
        }
        let isRead = plan.readPercent == 100 || (plan.readPercent > 0 && random.below(100) < UInt64(plan.readPercent))
        slot.kind = isRead ? .read : .write
        for _ in 0..<Self.drawLimit {
            let byte = volume.firstByte &+ volume.positions.next() &* UInt64(plan.blockBytes)
            slot.block = byte / UInt64(volume.blockBytes)
            guard let store = volume.store else {
                if !isRead { fill(slot) }
                break
            }
            let unitSectors = store.ledger.sectorsPerUnit
            let first = Int(clamping: (byte / 512 - store.ledger.firstSector) / UInt64(unitSectors))
            slot.units = first..<first + plan.blockBytes / 512 / unitSectors
            if isRead {
                store.ledger.expect(slot.units, into: &slot.expectation)
                break
            }
            if store.ledger.canWrite(slot.units) {
                slot.generation = store.ledger.issue(slot.units)
                store.record(.issue(slot.units))
                SectorStamp(job: store.ledger.job, seed: plan.seed).write(
                    slot.command.buffer, sector: byte / 512, generation: slot.generation)
                return finishWrite(slot, volume)
            }
            slot.block = .max
        }
        if slot.block == .max { return false }
        return isRead ? true : finishWrite(slot, volume)
    }

    private func finishWrite(_ slot: LoadSlot, _ volume: LoadVolume) -> Bool {
        hasWritten = true
        volume.writesSinceFlush += 1
        slot.durable = plan.forceUnitAccessPercent > 0 && random.below(100) < UInt64(plan.forceUnitAccessPercent)
        return true
    }

    /// Makes every sector different from any other, so that nothing can save work by de-duplication.
    private func fill(_ slot: LoadSlot) {
        writeCounter &+= 1
        for offset in stride(from: 0, to: slot.command.buffer.count, by: 512) {
            slot.command.buffer.storeBytes(
                of: SeededGenerator.mix(writeCounter &+ UInt64(offset) << 40), toByteOffset: offset, as: UInt64.self)
        }
    }

    private func start(_ slot: LoadSlot, now: UInt64, isFirst: Bool) {
        if isFirst {
            slot.startedAt = now
            slot.retryPeriod = RetryPeriod(nanoseconds: plan.reconnectNanoseconds)
            inFlight += 1
            if slot.kind != .flush {
                issuedOperations += 1
                issuedBytes += UInt64(plan.blockBytes)
                operationLimiter?.take(1, now: now)
                byteLimiter?.take(plan.blockBytes, now: now)
            }
        }
        let volume = slot.connection.volume
        let session = slot.connection.session
        let count = plan.blockBytes / volume.blockBytes
        let started: Bool
        switch slot.kind {
        case .read: started = session.read(slot.command, block: slot.block, blockCount: count, blockBytes: volume.blockBytes)
        case .write:
            started = session.write(
                slot.command, block: slot.block, blockCount: count, blockBytes: volume.blockBytes, forceUnitAccess: slot.durable)
        case .flush: started = session.synchronizeCache(slot.command)
        }
        if !started { complete(slot, .lost) }
    }

    private func retryDelayed(_ now: UInt64) {
        let due = delayed.filter { $0.retryAt <= now && $0.connection.session.phase == .ready }
        if due.isEmpty { return }
        delayed.removeAll { slot in due.contains { $0 === slot } }
        for slot in due { start(slot, now: now, isFirst: false) }
    }

    /// Gives a slot back.
    func release(_ slot: LoadSlot) {
        inFlight -= 1
        slot.connection.idle.append(slot)
    }

    /// An I/O has ended. Runs inside the loop's turn, and starts nothing: the journal comes first.
    func complete(_ slot: LoadSlot, _ outcome: CommandOutcome) {
        let store = slot.connection.volume.store
        if outcome == .good {
            let now = monotonicNanoseconds()
            let byteCount = slot.kind == .flush ? 0 : plan.blockBytes
            statistics[slot.kind.rawValue].record(now &- slot.startedAt, byteCount: byteCount)
            if plan.live { interval.record(now &- slot.startedAt, byteCount: byteCount) }
            if let store { settle(slot, store) }
            release(slot)
            return
        }
        if outcome == .lost {
            // The ledger learns of it when the volume's sessions are ended.
            lostOperations += 1
            release(slot)
            return
        }
        let now = monotonicNanoseconds()
        if outcome.isTransient && slot.retryPeriod.allowsRetry(now: now) {
            retryCount += 1
            slot.retryAt = now &+ Self.retryPauseNanoseconds
            delayed.append(slot)
            return
        }
        errorCount += 1
        if slot.kind == .write, let store {
            store.ledger.fail(slot.units, generation: slot.generation)
            store.record(.fail(slot.units, generation: slot.generation))
        }
        if errorCount > plan.maximumErrors {
            failure = failure ?? "\(slot.kind.name) at block \(slot.block) failed: \(outcome)"
        }
        release(slot)
    }

    private func settle(_ slot: LoadSlot, _ store: VerificationStore) {
        switch slot.kind {
        case .write:
            store.ledger.acknowledge(slot.units, generation: slot.generation, durable: slot.durable)
            store.record(.acknowledge(slot.units, generation: slot.generation, durable: slot.durable))
        case .flush:
            store.ledger.completeFlush(slot.ticket)
            store.record(.flush(slot.ticket))
        case .read:
            sectorsChecked += UInt64(plan.blockBytes / 512)
            var seen: [(Int, UInt64)] = []
            // Only after a lost session is there a doubt that a read can end.
            let isInDoubt = slot.expectation.units.contains { $0.low != $0.high } || !slot.expectation.maybes.isEmpty
            let lookup = original.map { content in { (sector: UInt64) in content.sector(sector) } }
            let mismatch = store.ledger.check(
                UnsafeRawBufferPointer(slot.command.buffer), firstUnit: slot.units.lowerBound, against: slot.expectation,
                stamp: SectorStamp(job: store.ledger.job, seed: plan.seed), original: lookup,
                observed: { unit, generation in if isInDoubt { seen.append((unit, generation)) } })
            if let mismatch { mismatches.append(mismatch) }
            for (unit, generation) in seen
            where store.ledger.observe(unit, generation: generation, issuedInEpoch: slot.expectation.epoch) {
                store.record(.observe(unit: unit, generation: generation))
            }
        }
    }
}
