import LinkProtocol

/// Whose message goes to a link next, class by class: of those who have more than a class takes, all have equal bytes of it. Lives on the link's
/// event loop.
///
/// What has turns is bulk in each class, and in `demand`, where the link has a queue of its own for it, what is short. Everything else goes to the
/// link at once: the messages of a class of calls and notices are in order, and few.
///
/// A link whose line is fast, or whose messages shrink to little, takes more and more of them, and the loop has others to serve: machines wait for
/// the answers to their writes. So senders together hand over so much and stop as if the link took no more, until `goOn`.
public final class LinkTurns<Sender: Hashable> {
    /// What is handed to the link before the loop serves others, in bytes; the last message may go beyond it. Of blocks of 4 KiB that is some
    /// milliseconds of reading, encryption, digests and compression; a line that is full has its own limit before.
    public static var bytesAtOnceMax: Int { 128 << 10 }

    /// Is called when so much has been handed over: call `goOn` after the loop has served others. Without it there is no such limit.
    public var onPause: (() -> Void)?

    /// By class, at the index of its raw value.
    private let bulk = TrafficClass.allCases.map { _ in SendingTurns<Sender>() }
    private let short = SendingTurns<Sender>()
    private var bytesAtOnce = 0
    /// Those in which somebody waits for `goOn`.
    private var pausedClasses: Set<TrafficClass> = []

    /// Nobody waits.
    public init() {}

    /// Hands a message to the link, if it is the sender's turn.
    /// - Parameter hand: gives the message to the link; false when that takes no more, and will say when it does.
    /// - Returns: false when it was not sent; then the sender's turn will come in `run`.
    public func send(
        _ message: LinkMessage, of sender: Sender, class trafficClass: TrafficClass, isBulk: Bool, via hand: () -> Bool
    ) -> Bool {
        guard isBulk || trafficClass == .demand else { return hand() }
        let turns = isBulk ? bulk[Int(trafficClass.rawValue)] : short
        let byteCount = message.encodedBytes
        return turns.send(byteCount, of: sender) {
            if pauses(trafficClass) { return false }
            guard hand() else { return false }
            bytesAtOnce += byteCount
            return true
        }
    }

    /// Whether the loop should serve others first; then `goOn` is sure to come.
    private func pauses(_ trafficClass: TrafficClass) -> Bool {
        guard bytesAtOnce >= Self.bytesAtOnceMax, let onPause else { return false }
        let isFirst = pausedClasses.isEmpty
        pausedClasses.insert(trafficClass)
        if isFirst { onPause() }
        return true
    }

    /// The loop has served others: gives turns to those who wait for that.
    /// - Parameter turn: has the sender send what it has.
    public func goOn(_ turn: (Sender) -> Void) {
        bytesAtOnce = 0
        let classes = pausedClasses
        pausedClasses = []
        for trafficClass in TrafficClass.allCases where classes.contains(trafficClass) { run(trafficClass, turn) }
    }

    /// A class takes messages again: gives turns to those who wait.
    /// - Parameter turn: has the sender send what it has.
    public func run(_ trafficClass: TrafficClass, _ turn: (Sender) -> Void) {
        if trafficClass == .demand { short.run(turn) }
        bulk[Int(trafficClass.rawValue)].run(turn)
    }

    /// A new session: what anybody waited for is gone.
    public func reset() {
        for turns in bulk { turns.reset() }
        short.reset()
    }
}
