import SCSI

// The order of the tasks of a logical unit, by their attributes (SAM-5, 8.6):
//
//   SIMPLE         starts when no ORDERED task before it and no HEAD OF QUEUE task is left
//   ORDERED        starts when no task before it and no HEAD OF QUEUE task is left
//   HEAD OF QUEUE  starts at once
//
// A task takes its place when it is admitted, before its Data-Out is here: an ORDERED task waits for a write whose data is
// still on the wire. Memory it takes only when its turn has come (`atTurn`), and HEAD OF QUEUE counts from its start only. Otherwise
// a task could wait for memory that others hold which wait for it.

/// The places of the admitted tasks. A pure value; while all tasks are SIMPLE it only counts.
struct LogicalUnitTaskOrder {
    private struct Ordered {
        let place: UInt64
        /// Tasks before this one that have not ended.
        var earlierCount: Int
    }

    private var lastPlace: UInt64 = 0
    private(set) var taskCount = 0
    /// The ORDERED tasks that have not ended, by place.
    private var ordered: [Ordered] = []
    private var headCount = 0

    /// True when a SIMPLE task that comes now may start at once.
    var isFree: Bool { headCount == 0 && ordered.isEmpty }

    /// Gives a task its place.
    mutating func enter(_ attribute: SCSITask.Attribute) -> UInt64 {
        lastPlace += 1
        if attribute == .ordered { ordered.append(Ordered(place: lastPlace, earlierCount: taskCount)) }
        taskCount += 1
        return lastPlace
    }

    func mayStart(_ place: UInt64, _ attribute: SCSITask.Attribute) -> Bool {
        switch attribute {
        case .headOfQueue: true
        case .simple: headCount == 0 && ordered.first.map { $0.place > place } ?? true
        case .ordered: headCount == 0 && ordered.contains { $0.place == place && $0.earlierCount == 0 }
        }
    }

    /// Notes that a task that may start does.
    mutating func start(_ attribute: SCSITask.Attribute) {
        if attribute == .headOfQueue { headCount += 1 }
    }

    /// Takes a task out.
    /// - Returns: true when others may have become free to start.
    mutating func leave(_ place: UInt64, _ attribute: SCSITask.Attribute, hasStarted: Bool) -> Bool {
        taskCount -= 1
        var isRelevant = false
        if attribute == .headOfQueue && hasStarted {
            headCount -= 1
            isRelevant = true
        }
        if ordered.isEmpty { return isRelevant }
        ordered.removeAll { $0.place == place }
        for index in ordered.indices where ordered[index].place > place { ordered[index].earlierCount -= 1 }
        return true
    }
}

/// A task that has all it needs but its turn.
struct LogicalUnitWaitingTask {
    let task: SCSITask
    let completion: (SCSIResponse) -> Void
}

/// A task that is to have what it needs when its turn has come.
struct LogicalUnitTurnWaiter {
    let task: SCSITask
    let action: () -> Void
}

extension LogicalUnit {
    /// Runs `action` when the turn of an admitted task has come, perhaps at once; never when it is withdrawn before.
    /// - Returns: false when too many wait.
    func atTurn(of task: SCSITask, _ action: @escaping () -> Void) -> Bool {
        guard let place = task.place, !order.mayStart(place, task.attribute) else {
            action()
            return true
        }
        guard turnWaiters.count + waitingTasks.count + runningTasks.count < Self.maximumTasks else { return false }
        turnWaiters.append(LogicalUnitTurnWaiter(task: task, action: action))
        return true
    }

    /// Carries out a task; `completion` runs once, perhaps before this returns.
    ///
    /// A task that `abortTasks`, `reset` or `removeNexus` ended completes with TASK ABORTED. For an initiator that aborted
    /// its own task, the target sends no response (SAM-5, Aborting commands).
    public func execute(_ task: SCSITask, completion: @escaping (SCSIResponse) -> Void) {
        var task = task
        if task.place == nil {
            if let refusal = refusal(of: task) { return completion(formatted(refusal)) }
            task.place = order.enter(task.attribute)
            task.abortCount = nexuses[task.nexus]?.abortCount ?? 0
        }
        guard let place = task.place, !order.mayStart(place, task.attribute) else { return begin(task, completion) }
        if waitingTasks.count + runningTasks.count >= Self.maximumTasks {
            completion(SCSIResponse(status: .taskSetFull))
            return leave(task, hasStarted: false)
        }
        waitingTasks.append(LogicalUnitWaitingTask(task: task, completion: completion))
    }

    /// Gives up a task that was admitted and will not be executed.
    public func withdraw(_ task: SCSITask) {
        if !turnWaiters.isEmpty { turnWaiters.removeAll { $0.task.place == task.place } }
        leave(task, hasStarted: false)
    }

    /// Carries out a task whose turn it is.
    private func begin(_ task: SCSITask, _ completion: @escaping (SCSIResponse) -> Void) {
        order.start(task.attribute)
        perform(task) { response in
            completion(response)
            self.leave(task, hasStarted: true)
        }
    }

    private func leave(_ task: SCSITask, hasStarted: Bool) {
        guard let place = task.place, order.leave(place, task.attribute, hasStarted: hasStarted) else { return }
        startWaiting()
    }

    /// Starts those that waited for their turn and have it: a loop, not a recursion, when they end at once.
    private func startWaiting() {
        if isStartingWaiting { return }
        isStartingWaiting = true
        defer { isStartingWaiting = false }
        while startNext() {}
    }

    /// - Returns: false when nobody's turn has come.
    private func startNext() -> Bool {
        let mayStart = { [order] (task: SCSITask) in task.place.map { order.mayStart($0, task.attribute) } ?? true }
        if let index = waitingTasks.firstIndex(where: { mayStart($0.task) }) {
            let waiting = waitingTasks.remove(at: index)
            begin(waiting.task, waiting.completion)
            return true
        }
        guard let index = turnWaiters.firstIndex(where: { mayStart($0.task) }) else { return false }
        turnWaiters.remove(at: index).action()
        return true
    }

    /// Ends tasks that wait for their turn and are aborted.
    func abortWaiting(_ selection: SCSITaskSelection) {
        let aborted = waitingTasks.filter { selection.names($0.task.nexus, tag: $0.task.tag) }
        if aborted.isEmpty { return }
        waitingTasks.removeAll { selection.names($0.task.nexus, tag: $0.task.tag) }
        for waiting in aborted {
            waiting.completion(SCSIResponse(status: .taskAborted))
            leave(waiting.task, hasStarted: false)
        }
    }
}
