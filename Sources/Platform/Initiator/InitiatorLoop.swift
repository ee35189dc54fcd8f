import Glibc

/// A poll loop for the sessions of one thread.
public final class InitiatorLoop {
    /// The sessions, in the order in which they are served.
    public private(set) var sessions: [ISCSIInitiatorSession] = []
    private var descriptors: [pollfd] = []
    private var lastSweep: Int = 0

    public init() {}

    /// Adds a session; it is polled whenever it has a descriptor.
    public func add(_ session: ISCSIInitiatorSession) {
        sessions.append(session)
        descriptors.append(pollfd(fd: -1, events: 0, revents: 0))
    }

    /// Waits until a session has something to do, at most `timeoutNanoseconds`, and serves it.
    public func turn(timeoutNanoseconds: UInt64) {
        var isWaiting = false
        for index in sessions.indices {
            let session = sessions[index]
            descriptors[index] = pollfd(fd: session.fileDescriptor, events: session.wantedEvents, revents: 0)
            isWaiting = isWaiting || session.phase == .connecting
        }
        // libiscsi asks for a look now and then while it connects.
        let limit = isWaiting ? min(timeoutNanoseconds, 100_000_000) : min(timeoutNanoseconds, 1_000_000_000)
        // Milliseconds are what poll knows; rounding up keeps a short wait from becoming a busy one.
        let ready = poll(&descriptors, nfds_t(descriptors.count), Int32(clamping: (limit + 999_999) / 1_000_000))
        if ready > 0 {
            for index in sessions.indices where descriptors[index].revents != 0 {
                sessions[index].service(events: descriptors[index].revents)
            }
        }
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now)
        if now.tv_sec != lastSweep {
            lastSweep = now.tv_sec
            for session in sessions { session.service(events: 0) }
        }
    }
}
