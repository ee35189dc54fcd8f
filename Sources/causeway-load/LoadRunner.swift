import Glibc
import Initiator
import LoadGenerator

/// A run: one thread, one loop.
final class LoadRunner {
    let plan: LoadPlan
    let loop = InitiatorLoop()
    var volumes: [LoadVolume] = []
    var statistics = OperationKind.allCases.map { _ in KindStatistics() }
    var interval = KindStatistics()
    var random: SeededGenerator
    var operationLimiter: RateLimiter?
    var byteLimiter: RateLimiter?
    var original: OriginalContent?
    /// Every slot, for as long as the run lives.
    var slots: [LoadSlot] = []
    /// I/Os that wait to be tried again.
    var delayed: [LoadSlot] = []
    var inFlight = 0
    var issuedOperations: UInt64 = 0
    var issuedBytes: UInt64 = 0
    var writeCounter: UInt64 = 0
    /// A verifying run has issued a write.
    var hasWritten = false

    var mismatches: [Mismatch] = []
    var failure: String?
    var errorCount = 0
    var retryCount = 0
    var lostOperations = 0
    var lossCount = 0
    var outageNanoseconds: UInt64 = 0
    var sectorsChecked: UInt64 = 0
    var measuredFrom: UInt64 = 0
    var measuredTo: UInt64 = 0
    private var isStopping = false

    init(_ plan: LoadPlan) throws {
        self.plan = plan
        random = SeededGenerator(seed: plan.seed)
        if let path = plan.originalFile { original = try OriginalContent(path: path) }
        for (index, url) in plan.urls.enumerated() { volumes.append(try makeVolume(url, index)) }
    }

    /// Runs to the end of the plan, a signal, a mismatch or too many errors.
    func run() throws {
        StopSignal.install()
        let start = monotonicNanoseconds()
        beginConnecting(now: start)
        while volumes.contains(where: { $0.outageStart != nil }) && failure == nil && !StopSignal.isRaised {
            maintainSessions(now: monotonicNanoseconds())
            loop.turn(timeoutNanoseconds: 10_000_000)
            handleLosses(now: monotonicNanoseconds())
        }
        if failure == nil && !StopSignal.isRaised { try load() }
        try finish()
    }

    private func load() throws {
        let start = monotonicNanoseconds()
        operationLimiter = plan.operationsPerSecond.map { RateLimiter(ratePerSecond: $0, now: start) }
        byteLimiter = plan.bytesPerSecond.map { RateLimiter(ratePerSecond: $0, now: start) }
        outageNanoseconds = 0
        measuredFrom = start &+ plan.rampNanoseconds
        var isRamping = plan.rampNanoseconds > 0
        let end = plan.runtimeNanoseconds.map { measuredFrom &+ $0 }
        var table = LiveTable(isOn: plan.live, start: start)
        while true {
            let now = monotonicNanoseconds()
            if isRamping && now >= measuredFrom {
                isRamping = false
                for index in statistics.indices { statistics[index].reset() }
                (issuedBytes, issuedOperations) = (0, 0)
                measuredFrom = now
            }
            if StopSignal.isRaised || !mismatches.isEmpty || failure != nil || isExhausted(now, end, isRamping) {
                isStopping = true
            }
            if isStopping && inFlight == 0 { break }
            if isStopping && !delayed.isEmpty { abandonDelayed() }
            var wait = nextDeadline(now, end)
            if !isStopping { wait = min(wait, issue(now: now)) }
            try writeJournals()
            for volume in volumes { for connection in volume.connections { connection.session.sendQueued() } }
            loop.turn(timeoutNanoseconds: wait)
            handleLosses(now: monotonicNanoseconds())
            maintainSessions(now: now)
            if plan.live { table.tick(self, now: now) }
        }
        measuredTo = monotonicNanoseconds()
        if isRamping { measuredFrom = start }
    }

    private func isExhausted(_ now: UInt64, _ end: UInt64?, _ isRamping: Bool) -> Bool {
        if let end, now >= end { return true }
        if isRamping { return false }
        if let limit = plan.byteLimit, issuedBytes >= limit { return true }
        if let limit = plan.operationLimit, issuedOperations >= limit { return true }
        return false
    }

    private func nextDeadline(_ now: UInt64, _ end: UInt64?) -> UInt64 {
        var wait: UInt64 = 100_000_000
        if let end, !isStopping { wait = end > now ? min(wait, end - now) : 0 }
        if !delayed.isEmpty || volumes.contains(where: { $0.outageStart != nil }) { wait = min(wait, 10_000_000) }
        return wait
    }

    /// I/Os that wait to be tried again when the run ends: their writes may be there or not.
    private func abandonDelayed() {
        for slot in delayed {
            if slot.kind == .write, let store = slot.connection.volume.store {
                store.ledger.fail(slot.units, generation: slot.generation)
                store.record(.fail(slot.units, generation: slot.generation))
            }
            release(slot)
        }
        delayed.removeAll()
    }

    private func writeJournals() throws {
        for volume in volumes { try volume.store?.writeJournal() }
    }

    private func finish() throws {
        for volume in volumes {
            if let store = volume.store {
                if plan.finalFlush && hasWritten && failure == nil { flushAtEnd(volume, store) }
                try store.writeJournal()
                for connection in volume.connections { connection.session.close() }
                try store.checkpoint()
            } else {
                for connection in volume.connections { connection.session.close() }
            }
        }
    }

    /// Makes all that the run wrote durable, and waits for sessions that are down if the plan says so.
    private func flushAtEnd(_ volume: LoadVolume, _ store: VerificationStore) {
        let command = InitiatorCommand(byteCount: 0)
        var outcome: CommandOutcome?
        command.handler = { _, result in outcome = result }
        var period = RetryPeriod(nanoseconds: plan.reconnectNanoseconds)
        while failure == nil {
            maintainSessions(now: monotonicNanoseconds())
            let ticket = store.ledger.beginFlush()
            if let connection = volume.connections.first(where: { $0.session.phase == .ready }),
                connection.session.synchronizeCache(command)
            {
                outcome = nil
                while outcome == nil { loop.turn(timeoutNanoseconds: 100_000_000) }
            } else {
                outcome = .lost
                loop.turn(timeoutNanoseconds: 10_000_000)
            }
            handleLosses(now: monotonicNanoseconds())
            if outcome == .good {
                store.ledger.completeFlush(ticket)
                store.record(.flush(ticket))
                return
            }
            let mayRetry = outcome == .lost || outcome?.isTransient == true
            if !mayRetry || !period.allowsRetry(now: monotonicNanoseconds()) {
                errorCount += 1
                failure = failure ?? "the flush at the end failed: \(outcome?.description ?? "no answer")"
            } else if outcome != .lost {
                loop.turn(timeoutNanoseconds: 20_000_000)
            }
        }
    }
}

/// SIGINT and SIGTERM end a run in order; a second one ends the process.
enum StopSignal {
    /// Written by a signal handler, read by the loop. A `sig_atomic_t` may be used so, and nothing else touches it.
    nonisolated(unsafe) private static var flag: sig_atomic_t = 0

    static var isRaised: Bool { flag != 0 }

    static func install() {
        for number in [SIGINT, SIGTERM] {
            signal(number) { received in
                if StopSignal.flag != 0 { _exit(128 + received) }
                StopSignal.flag = 1
            }
        }
        signal(SIGPIPE, SIG_IGN)
    }
}
