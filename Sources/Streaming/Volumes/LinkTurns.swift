import Blocks
import LinkProtocol

/// Whose message goes to a link next, class by class: of those who have more than a class takes, all have equal bytes of it. Lives on the link's
/// event loop.
///
/// What has turns is bulk in each class, and in `demand`, where the link has a queue of its own for it, what is short. Everything else goes to the
/// link at once: the messages of a class of calls and notices are in order, and few.
///
/// A link whose line is fast, or whose messages shrink to little or name blocks in place of their bytes, takes more and more of them, and the
/// loop has others to serve: machines wait for the answers to their writes. So a class is handed the bulk of so many bytes of volumes in one turn
/// of the loop, and senders stop as if the link took no more, until `goOn`.
public final class LinkTurns<Sender: Hashable> {
    /// What a class is handed of bulk in one turn of the loop, in bytes of volumes; the last message may go beyond it. Of blocks of 4 KiB that is half a
    /// millisecond of reading, encryption and digests.
    public static var bytesInTurnMax: Int { 64 << 10 }

    /// The number of the loop's turn. Without it there is no such limit.
    public var loopTurn: (() -> UInt64)?
    /// Is called when senders have stopped for the sake of others on the loop: call `goOn` in a later turn of it.
    public var onPause: () -> Void = {}

    /// By class, at the index of its raw value.
    private let bulk = TrafficClass.allCases.map { _ in SendingTurns<Sender>() }
    private let short = SendingTurns<Sender>()
    /// What each class was handed in the turn of that number.
    private var handed = TrafficClass.allCases.map { _ in 0 }
    private var handedIn: UInt64 = 0
    /// Those in which somebody waits for `goOn`.
    private var pausedClasses: Set<TrafficClass> = []

    /// Nobody waits.
    public init() {}

    /// Hands a message to the link, if it is the sender's turn.
    /// - Parameter hand: gives the message to the link; false when that takes no more, and will say when it does.
    /// - Returns: false when it was not sent; then the sender's turn will come in `run` or in `goOn`.
    public func send(
        _ message: LinkMessage, of sender: Sender, class trafficClass: TrafficClass, isBulk: Bool, via hand: () -> Bool
    ) -> Bool {
        if !isBulk { return trafficClass == .demand ? short.send(message.encodedBytes, of: sender, via: hand) : hand() }
        let turns = bulk[Int(trafficClass.rawValue)]
        return turns.send(message.encodedBytes, of: sender, unless: { !hasRoomInTurn(trafficClass) }) {
            guard hand() else { return false }
            handed[Int(trafficClass.rawValue)] += message.volumeBytes
            return true
        }
    }

    /// False when the class was handed enough in this turn of the loop: then it asks for `goOn`.
    private func hasRoomInTurn(_ trafficClass: TrafficClass) -> Bool {
        guard let turn = loopTurn?() else { return true }
        if turn != handedIn {
            handedIn = turn
            for index in handed.indices { handed[index] = 0 }
        }
        if handed[Int(trafficClass.rawValue)] < Self.bytesInTurnMax { return true }
        let isFirst = pausedClasses.isEmpty
        pausedClasses.insert(trafficClass)
        if isFirst { onPause() }
        return false
    }

    /// The loop has served others: gives turns to those who wait for that.
    /// - Parameter turn: has the sender send what it has.
    public func goOn(_ turn: (Sender) -> Void) {
        let classes = pausedClasses
        pausedClasses = []
        for trafficClass in TrafficClass.allCases where classes.contains(trafficClass) { bulk[Int(trafficClass.rawValue)].run(turn) }
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

extension LinkMessage {
    /// The bytes of a volume that a message brings, named ones and zeroes of answers too: they were read and looked at.
    fileprivate var volumeBytes: Int {
        switch self {
        case .pointReferences(_, _, _, _, _, let digests), .readReferences(_, _, _, _, let digests):
            digests.count * BlockGeometry.blockBytes
        case .readZeroes(_, _, let byteCount): Int(clamping: byteCount)
        default: encodedBytes
        }
    }
}
