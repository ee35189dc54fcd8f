import Blocks
import SCSI

/// A task on the medium, or waiting for its range.
final class LogicalUnitRunningTask {
    let identifier: UInt64
    let nexus: NexusIdentifier
    let tag: UInt64
    let completion: (SCSIResponse) -> Void
    /// What is to be done when the range is held; nil once it has begun.
    var body: ((LogicalUnitRunningTask) -> Void)?
    /// False for work that outlives the command that began it.
    var isAbortable = true
    /// Set when the task was aborted while the device was at work for it: it starts nothing more.
    var isAborted = false
    /// Who waits for the end of this task.
    var waiters: [LogicalUnitAbortion] = []

    init(
        identifier: UInt64, nexus: NexusIdentifier, tag: UInt64, completion: @escaping (SCSIResponse) -> Void,
        body: @escaping (LogicalUnitRunningTask) -> Void
    ) {
        self.identifier = identifier
        self.nexus = nexus
        self.tag = tag
        self.completion = completion
        self.body = body
    }
}

/// A task management function that waits for tasks which the device cannot give up.
final class LogicalUnitAbortion {
    var remaining = 1
    let completion: () -> Void

    init(completion: @escaping () -> Void) { self.completion = completion }

    func countDown() {
        remaining -= 1
        if remaining == 0 { completion() }
    }
}

extension LogicalUnit {
    /// Runs `body` when the range is held. `body` ends by `finish`. Without `isLimited`, the caller bounds the number of tasks.
    func runOnMedium(
        _ task: SCSITask, _ range: SectorRange, _ mode: LogicalUnitRangeLocks.Mode, isLimited: Bool = true,
        completion: @escaping (SCSIResponse) -> Void, body: @escaping (LogicalUnitRunningTask) -> Void
    ) {
        guard !isLimited || runningTasks.count < Self.maximumTasks else {
            completion(SCSIResponse(status: .taskSetFull))
            return
        }
        let running = register(task, completion, body)
        if locks.acquire(running.identifier, range, mode, atFront: task.attribute == .headOfQueue) { start([running.identifier]) }
    }

    /// The same for whoever is not a SCSI command, and stands in no order to them.
    func runOnMedium(
        nexus: NexusIdentifier, _ range: SectorRange, _ mode: LogicalUnitRangeLocks.Mode,
        completion: @escaping (SCSIResponse) -> Void, body: @escaping (LogicalUnitRunningTask) -> Void
    ) {
        guard runningTasks.count < Self.maximumTasks else {
            completion(SCSIResponse(status: .taskSetFull))
            return
        }
        let running = register(nexus: nexus, tag: 0, completion, body)
        if locks.acquire(running.identifier, range, mode) { start([running.identifier]) }
    }

    /// Makes a task known that begins when it is started.
    func register(
        _ task: SCSITask, _ completion: @escaping (SCSIResponse) -> Void, _ body: @escaping (LogicalUnitRunningTask) -> Void
    ) -> LogicalUnitRunningTask {
        register(nexus: task.nexus, tag: task.tag, completion, body)
    }

    private func register(
        nexus: NexusIdentifier, tag: UInt64, _ completion: @escaping (SCSIResponse) -> Void,
        _ body: @escaping (LogicalUnitRunningTask) -> Void
    ) -> LogicalUnitRunningTask {
        lastTaskIdentifier &+= 1
        let running = LogicalUnitRunningTask(
            identifier: lastTaskIdentifier, nexus: nexus, tag: tag, completion: completion, body: body)
        runningTasks[running.identifier] = running
        return running
    }

    /// Ends a task: gives its range to those that wait, and answers.
    func finish(_ running: LogicalUnitRunningTask, _ response: SCSIResponse) {
        guard runningTasks.removeValue(forKey: running.identifier) != nil else { return }
        let granted = locks.release(running.identifier)
        running.completion(running.isAborted ? SCSIResponse(status: .taskAborted) : formatted(response))
        for waiter in running.waiters { waiter.countDown() }
        if !granted.isEmpty { start(granted) }
    }

    /// Starts tasks one after the other, also when one of them ends at once and releases more: a queue, not a recursion.
    func start(_ identifiers: [UInt64]) {
        readyTasks += identifiers
        if isStartingTasks { return }
        isStartingTasks = true
        defer { isStartingTasks = false }
        var next = 0
        while next < readyTasks.count {
            if let running = runningTasks[readyTasks[next]], let body = running.body {
                running.body = nil
                body(running)
            }
            next += 1
        }
        readyTasks.removeAll(keepingCapacity: true)
    }

    /// Aborts tasks. Those that wait end at once; those that the device is working on end when it has answered, because
    /// only then can they no longer touch the medium, and `completion` runs after the last of them.
    public func abortTasks(_ selection: SCSITaskSelection, completion: @escaping () -> Void) {
        abortTasks(selection, except: nil, completion: completion)
    }

    /// The same, sparing one task: who aborts the others is not aborted with them.
    func abortTasks(_ selection: SCSITaskSelection, except spared: UInt64?, completion: @escaping () -> Void) {
        if selection == .all { clearCount &+= 1 }
        // What has its turn because others are aborted, and is aborted with them, is not begun.
        for nexus in nexuses.values where selection == .all || selection == .nexus(nexus.identifier) { nexus.abortCount &+= 1 }
        let abortion = LogicalUnitAbortion(completion: completion)
        let chosen = runningTasks.values.sorted { $0.identifier < $1.identifier }.filter {
            $0.isAbortable && $0.identifier != spared && selection.names($0.nexus, tag: $0.tag)
        }
        let waiting = chosen.filter { $0.body != nil }
        for running in chosen {
            running.isAborted = true
            if running.body == nil {
                abortion.remaining += 1
                running.waiters.append(abortion)
            }
            running.body = nil
        }
        // Only now: a task that ends gives its range to others, and none of those that are aborted may begin with it.
        abortWaiting(selection)
        for running in waiting { finish(running, SCSIResponse(status: .taskAborted)) }
        abortion.countDown()
    }

    /// LOGICAL UNIT RESET (SAM-5, 6.3.3): aborts all tasks, releases a RESERVE (6), brings the default mode parameters
    /// back, allows removal, and tells every initiator. Persistent reservations stay, and so does a SANITIZE. `completion` runs when no aborted task can touch the
    /// medium any more.
    public func reset(completion: @escaping () -> Void) {
        legacyHolder = nil
        removalPreventers.removeAll()
        parameters = ModeParameters()
        for nexus in nexuses.values { establish(.busDeviceResetFunctionOccurred, for: nexus) }
        abortTasks(.all, completion: completion)
    }
}
