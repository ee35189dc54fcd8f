import Initiator
import LoadGenerator

extension LoadRunner {
    /// How long after a failed attempt the next one starts.
    private static let attemptPauseNanoseconds: UInt64 = 200_000_000
    /// An attempt that is not through after so long is given up.
    private static let attemptLimitNanoseconds: UInt64 = 10_000_000_000

    private var sessionOptions: ISCSIInitiatorSession.Options {
        var options = ISCSIInitiatorSession.Options()
        options.headerDigest = plan.headerDigest
        options.commandTimeoutSeconds = plan.commandTimeoutSeconds
        return options
    }

    /// Asks the target for the size of the volume and makes all that the run needs for it.
    func makeVolume(_ url: String, _ index: Int) throws -> LoadVolume {
        let capacity: LogicalUnitCapacity
        do {
            capacity = try BlockingInitiator(url: url, options: sessionOptions, timeoutSeconds: 10).capacity
        } catch {
            throw LoadError("\(withoutSecret(url)): \(error)")
        }
        guard plan.blockBytes % capacity.blockBytes == 0 else {
            throw LoadError(
                "\(withoutSecret(url)): its blocks have \(capacity.blockBytes) bytes, --block-size must be a multiple")
        }
        let range = plan.range ?? 0..<capacity.byteCount
        guard range.upperBound <= capacity.byteCount else {
            throw LoadError("\(withoutSecret(url)): --range ends beyond the volume, which has \(capacity.byteCount) bytes")
        }
        let count = range.isEmpty ? 0 : (range.upperBound - range.lowerBound) / UInt64(plan.blockBytes)
        guard range.lowerBound % UInt64(capacity.blockBytes) == 0,
            let positions = PositionGenerator(
                pattern: plan.pattern, count: count, seed: SeededGenerator.mix(plan.seed &+ UInt64(index) &+ 1))
        else {
            throw LoadError("\(withoutSecret(url)): the range holds no whole block (the volume has \(capacity.byteCount) bytes)")
        }
        let volume = LoadVolume(url: url, blockBytes: capacity.blockBytes, firstByte: range.lowerBound, positions: positions)
        if let path = plan.stateFile { volume.store = try openStore(path, range.lowerBound, count) }
        for _ in 0..<plan.connections { addConnection(to: volume) }
        return volume
    }

    private func openStore(_ path: String, _ firstByte: UInt64, _ count: UInt64) throws -> VerificationStore {
        let sectors = plan.blockBytes / 512
        let store = try VerificationStore.open(path: path) {
            WriteLedger(
                firstSector: firstByte / 512, sectorsPerUnit: sectors, unitCount: Int(clamping: count),
                job: UInt64.random(in: .min ... .max))
        }
        let ledger = store.ledger
        let unitSectors = UInt64(ledger.sectorsPerUnit)
        guard sectors % ledger.sectorsPerUnit == 0, firstByte / 512 >= ledger.firstSector,
            (firstByte / 512 - ledger.firstSector) % unitSectors == 0,
            (firstByte / 512 - ledger.firstSector) / unitSectors + count * UInt64(sectors) / unitSectors
                <= UInt64(ledger.unitCount)
        else {
            throw LoadError("\(path) was made for another range or block size: --range and --block-size must fit into it")
        }
        return store
    }

    private func addConnection(to volume: LoadVolume) {
        let session = ISCSIInitiatorSession(url: volume.url, options: sessionOptions)
        let connection = LoadConnection(session: session, volume: volume)
        session.onLoss = { [unowned volume] reason in volume.lossReason = volume.lossReason ?? reason }
        loop.add(session)
        for _ in 0..<plan.queueDepth {
            let slot = LoadSlot(connection: connection, byteCount: plan.blockBytes)
            slot.command.handler = { [unowned self, unowned slot] _, outcome in complete(slot, outcome) }
            var filler = SeededGenerator(seed: plan.seed ^ random.next())
            slot.command.buffer.withMemoryRebound(to: UInt64.self) { words in
                for index in words.indices { words[index] = filler.next() }
            }
            connection.idle.append(slot)
            slots.append(slot)
        }
        volume.connections.append(connection)
    }

    /// Starts the first connections.
    func beginConnecting(now: UInt64) {
        for volume in volumes {
            volume.outageStart = now
            volume.outageDeadline = now &+ max(plan.reconnectNanoseconds, 10_000_000_000)
        }
        maintainSessions(now: now)
    }

    /// Ends all sessions of a volume of which one broke. Nobody can know whether the edge crashed; what
    /// an old session still had to say must not be taken for news of the new one.
    func handleLosses(now: UInt64) {
        for volume in volumes {
            guard let reason = volume.lossReason else { continue }
            for connection in volume.connections { connection.session.close() }
            volume.lossReason = nil
            lossCount += 1
            if let store = volume.store {
                if plan.targetKeepsWrites { store.ledger.interruptSession() } else { store.ledger.loseSession() }
                store.record(plan.targetKeepsWrites ? .interruption : .loss)
            }
            delayed.removeAll { slot in
                if slot.connection.volume !== volume { return false }
                lostOperations += 1
                release(slot)
                return true
            }
            if volume.outageStart == nil {
                volume.outageStart = now
                volume.outageDeadline = now &+ plan.reconnectNanoseconds
            }
            if plan.reconnectNanoseconds == 0 {
                errorCount += 1
                failure = failure ?? "\(withoutSecret(volume.url)): session lost: \(reason)"
            }
        }
    }

    /// Connects what is not connected.
    func maintainSessions(now: UInt64) {
        for volume in volumes {
            guard let start = volume.outageStart, failure == nil else { continue }
            var readyCount = 0
            for connection in volume.connections {
                switch connection.session.phase {
                case .ready: readyCount += 1
                case .connecting:
                    if now > connection.connectingSince &+ Self.attemptLimitNanoseconds { connection.session.close() }
                case .idle:
                    if now >= connection.nextAttempt { attempt(connection, now) }
                }
            }
            if readyCount == volume.connections.count {
                volume.outageStart = nil
                outageNanoseconds &+= now &- start
            } else if now > volume.outageDeadline {
                let reason = volume.connections.lazy.map(\.lastFailure).first { !$0.isEmpty } ?? "no answer"
                errorCount += 1
                failure = "\(withoutSecret(volume.url)): \(reason)"
            }
        }
    }

    private func attempt(_ connection: LoadConnection, _ now: UInt64) {
        connection.connectingSince = now
        connection.nextAttempt = now &+ Self.attemptPauseNanoseconds
        do {
            try connection.session.connect { [unowned connection] result in
                if case .failure(let error) = result {
                    connection.lastFailure = "\(error)"
                    connection.nextAttempt = monotonicNanoseconds() &+ Self.attemptPauseNanoseconds
                }
            }
        } catch {
            connection.lastFailure = "\(error)"
            if case .invalidURL = error { failure = "\(withoutSecret(connection.volume.url)): \(error)" }
        }
    }
}
