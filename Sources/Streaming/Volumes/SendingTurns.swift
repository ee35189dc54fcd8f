import DequeModule

// Whose message goes to the link next, when several volumes have more to send in a class than it takes (deficit round robin: Shreedhar and
// Varghese, SIGCOMM 1995). The link's queue of a class is short and first come, first served; so the shares of the volumes are decided by
// who may fill it:
//
//   nobody waits              whoever sends, sends
//   the link refuses one      it waits, before all others; whoever sends meanwhile waits behind
//   the link has room (`run`) those who wait have turns: each sends until its quantum is used up, and waits again behind the others if it
//                             has more, until the link refuses again or nobody waits
//   the loop has others to    who has sent something waits behind the others: the next turn is another's
//   serve (a pause)
//
// What a message takes beyond a quantum is taken from the next one, so that over time all have equal bytes whatever the size of their messages.
// Somebody waits only after a message was refused, so that `run` is sure to come, by the link or after a pause (`LinkTurns`); a new session begins
// without anybody waiting.

/// Shares a class of the link equally between those who have much to send. Lives on the link's event loop.
public final class SendingTurns<Sender: Hashable> {
    private struct Turn {
        let sender: Sender
        /// What is left of a turn, in bytes; below zero when the last one took too much.
        var bytes: Int
        /// It has sent something in it.
        var isUsed = false
    }

    /// What each may send before it is another's turn, in bytes: some frames, so that a point's pieces stay together for the line's sake.
    public static var quantumBytes: Int { 64 << 10 }

    /// In the order of their turns, each once.
    private var waiting = Deque<Turn>()
    private var isWaiting = Set<Sender>()
    private var holder: Turn?
    private var isRunning = false
    /// A message was refused, and `run` will come.
    private var isBlocked = false

    /// Nobody waits.
    public init() {}

    /// Hands a message to the link, if it is the sender's turn.
    /// - Parameters:
    ///   - isPaused: true when nobody is to send any more in this turn of the loop; then `run` will come.
    ///   - hand: gives the message to the link; false when that takes no more.
    /// - Returns: false when it was not sent; then the sender's turn will come in `run`.
    public func send(_ byteCount: Int, of sender: Sender, unless isPaused: () -> Bool = { false }, via hand: () -> Bool) -> Bool {
        guard isTurn(of: sender) else {
            // More than a quantum may have been taken, but only what the last message took too much of it.
            wait(Turn(sender: sender, bytes: holder?.sender == sender ? min(0, holder?.bytes ?? 0) : 0), isFirst: false)
            return false
        }
        if isPaused() {
            isBlocked = true
            if let holder, holder.isUsed {
                wait(Turn(sender: sender, bytes: min(0, holder.bytes)), isFirst: false)
            } else {
                wait(holder ?? Turn(sender: sender, bytes: 0), isFirst: true)
            }
            return false
        }
        guard hand() else {
            isBlocked = true
            wait(holder ?? Turn(sender: sender, bytes: 0), isFirst: true)
            return false
        }
        holder?.bytes -= byteCount
        holder?.isUsed = true
        return true
    }

    /// The link takes messages again: gives turns to those who wait.
    /// - Parameter turn: has the sender send what it has.
    public func run(_ turn: (Sender) -> Void) {
        isBlocked = false
        if isRunning { return }
        isRunning = true
        while !isBlocked, let next = waiting.popFirst() {
            isWaiting.remove(next.sender)
            holder = Turn(sender: next.sender, bytes: next.bytes > 0 ? next.bytes : next.bytes + Self.quantumBytes)
            turn(next.sender)
        }
        isRunning = false
    }

    /// A new session: what anybody waited for is gone.
    public func reset() {
        waiting.removeAll()
        isWaiting.removeAll()
        holder = nil
        isBlocked = false
    }

    private func isTurn(of sender: Sender) -> Bool {
        if waiting.isEmpty {
            if holder.map({ $0.sender != sender || $0.bytes <= 0 }) ?? true { holder = Turn(sender: sender, bytes: Self.quantumBytes) }
            return true
        }
        guard isRunning, let holder, holder.sender == sender else { return false }
        return holder.bytes > 0
    }

    private func wait(_ turn: Turn, isFirst: Bool) {
        guard isWaiting.insert(turn.sender).inserted else { return }
        if isFirst { waiting.prepend(turn) } else { waiting.append(turn) }
    }
}
