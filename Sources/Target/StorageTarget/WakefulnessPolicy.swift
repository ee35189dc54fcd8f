import NIOCore

// An initiator that sends its next command only when it has the answer to the last leaves the processors of both sides without work in
// between. A halted processor of a virtual machine takes tens of microseconds to come back, many times as long as a cached read takes.
// So while such commands come, the edge asks the kernel not to halt the processors:
//
//     idle ──arrival──► watching ──a window with many arrivals──► awake
//       ▲                  │ a window with few                      │
//       └──────────────────┴──────── some windows with few ◄────────┘
//
// Time comes as the ends of windows; while the state is idle there are none, and an edge without work has no timer.

/// Decides when the processors are to be kept awake.
struct WakefulnessPolicy {
    /// How long arrivals are counted together.
    static let window: TimeAmount = .milliseconds(10)
    /// As many arrivals in one window are worth it: a thousand a second. What is rarer waits for something longer than for a processor.
    static let arrivalsMin = 10
    /// So many windows with fewer, in a row, end it.
    static let quietWindowsMax = 5

    /// What the owner is to do.
    enum Action: Equatable {
        case nothing
        /// Ask the kernel.
        case wake
        /// Take that back.
        case rest
    }

    private(set) var isWatching = false
    private(set) var isAwake = false
    private var arrivals = 0
    private var quietWindows = 0

    /// Something has arrived from an initiator.
    /// - Returns: true when a window begins: `windowEnded` is to be called when it is over.
    mutating func arrived() -> Bool {
        arrivals &+= 1
        if isWatching { return false }
        isWatching = true
        return true
    }

    /// A window is over. Another one begins if `isWatching` still holds.
    mutating func windowEnded() -> Action {
        let isBusy = arrivals >= Self.arrivalsMin
        arrivals = 0
        quietWindows = isBusy ? 0 : quietWindows + 1
        switch (isAwake, isBusy) {
        case (false, true):
            isAwake = true
            return .wake
        case (false, false):
            isWatching = false
            quietWindows = 0
            return .nothing
        case (true, _) where quietWindows >= Self.quietWindowsMax:
            (isAwake, isWatching, quietWindows) = (false, false, 0)
            return .rest
        case (true, _):
            return .nothing
        }
    }
}
