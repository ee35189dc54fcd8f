import NIOCore

// At depth 1 most of an I/O's time is the kernel's, for waking a thread that sleeps in epoll_wait. So after a command the
// loop looks again and again for a moment instead of sleeping:
//
//     traffic --> polling --(more within `duration`)--> polling: it paid
//                    |
//                    +--(nothing)--> asleep: it did not
//
// Where it does not pay often enough it is left out for a while, so that slow or rare traffic costs no processor time.

/// Whether an event loop stays awake after traffic: only as long as that pays. A pure value; its owner has the loop.
struct BusyPoll {
    /// What a poll that did not pay costs; one that paid is worth 1.
    static let price = 4
    /// The most that polls which paid can save up.
    static let creditMax = 64
    /// Turns with traffic without a poll before it is tried again.
    static let pauseTurns = 256

    /// How long the loop stays awake after traffic; zero turns it off.
    let duration: TimeAmount
    private(set) var isPolling = false
    private var deadline = NIODeadline.uptimeNanoseconds(0)
    private var credit = 0
    private var turnsToPause = 0

    init(duration: TimeAmount) { self.duration = duration }

    /// A connection was read.
    /// - Returns: true when a poll begins now.
    mutating func sawTraffic(now: NIODeadline) -> Bool {
        guard duration > .zero else { return false }
        deadline = now + duration
        if isPolling {
            credit = min(Self.creditMax, credit + 1)
            return false
        }
        if turnsToPause > 0 {
            turnsToPause -= 1
            return false
        }
        isPolling = true
        return true
    }

    /// A turn of the loop has passed.
    /// - Returns: true when the loop is to take another turn without sleeping.
    mutating func goesOn(now: NIODeadline) -> Bool {
        if now < deadline { return true }
        isPolling = false
        credit -= Self.price
        if credit < 0 {
            credit = 0
            turnsToPause = Self.pauseTurns
        }
        return false
    }
}
