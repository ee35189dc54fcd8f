import NIOCore

/// Keeps the processors awake while initiators wait for one answer after the other; see WakefulnessPolicy.swift. One for all front ends of
/// an event loop, on which every call is made.
public final class ProcessorWakefulness {
    private let eventLoop: any EventLoop
    private let keep: (Bool) -> Bool
    private var policy = WakefulnessPolicy()
    private var isUseless = false

    /// - Parameter keep: asks the kernel to keep processors awake (true), or takes that back (false). It says whether that
    ///   was possible; where it is not, it isn't asked again.
    public init(eventLoop: any EventLoop, keep: @escaping (Bool) -> Bool) {
        self.eventLoop = eventLoop
        self.keep = keep
    }

    /// Something has arrived from an initiator.
    package func arrived() {
        if !isUseless, policy.arrived() { beginWindow() }
    }

    private func beginWindow() {
        let end: () -> Void = { [weak self] in self?.windowEnded() }
        let bound = NIOLoopBound(end, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: WakefulnessPolicy.window) { bound.value() }
    }

    private func windowEnded() {
        switch policy.windowEnded() {
        case .nothing: break
        case .wake: isUseless = !keep(true)
        case .rest: _ = keep(false)
        }
        if policy.isWatching, !isUseless { beginWindow() }
    }

    deinit { if policy.isAwake, !isUseless { _ = keep(false) } }
}
