import LinkProtocol

/// Whose message goes to a link next, class by class: of those who have more than a class takes, all have equal bytes of it. Lives on the link's
/// event loop.
///
/// What has turns is bulk in each class, and in `demand`, where the link has a queue of its own for it, what is short. Everything else goes to the
/// link at once: the messages of a class of calls and notices are in order, and few.
public final class LinkTurns<Sender: Hashable> {
    /// By class, at the index of its raw value.
    private let bulk = TrafficClass.allCases.map { _ in SendingTurns<Sender>() }
    private let short = SendingTurns<Sender>()

    /// Nobody waits.
    public init() {}

    /// Hands a message to the link, if it is the sender's turn.
    /// - Parameter hand: gives the message to the link; false when that takes no more, and will say when it does.
    /// - Returns: false when it was not sent; then the sender's turn will come in `run`.
    public func send(
        _ message: LinkMessage, of sender: Sender, class trafficClass: TrafficClass, isBulk: Bool, via hand: () -> Bool
    ) -> Bool {
        if isBulk { return bulk[Int(trafficClass.rawValue)].send(message.encodedBytes, of: sender, via: hand) }
        return trafficClass == .demand ? short.send(message.encodedBytes, of: sender, via: hand) : hand()
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
