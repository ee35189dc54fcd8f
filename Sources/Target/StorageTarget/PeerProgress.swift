import NIOCore

/// Since when an initiator has stood still, in either direction.
///
/// While the answers to it fill the channel nothing is read from it, so it may have sent what nobody has seen: then it stands still only when
/// it takes none of those answers. The data of its writes is looked at by itself: who answers pings may still keep memory for data that he
/// does not send.
struct PeerProgress {
    private var lastTraffic: NIODeadline
    private var lastData: NIODeadline
    /// What the channel held at the last look while it took nothing more; nil while it does.
    private var outboundByteCount: Int?

    init(now: NIODeadline) {
        lastTraffic = now
        lastData = now
    }

    /// Notes what happened since the last look.
    /// - Parameters:
    ///   - outboundByteCount: what a channel holds that can't be written to; nil when it can.
    ///   - awaitsData: some write has memory for data that is still to come.
    mutating func look(_ now: NIODeadline, sawTraffic: Bool, sawData: Bool, outboundByteCount: Int?, awaitsData: Bool) {
        if sawTraffic || outboundByteCount != self.outboundByteCount { lastTraffic = now }
        if sawData || outboundByteCount != nil || !awaitsData { lastData = now }
        self.outboundByteCount = outboundByteCount
    }

    /// True while the channel waits for the initiator to take answers.
    var isFull: Bool { outboundByteCount != nil }
    /// How long it has neither sent nor taken anything.
    func silence(_ now: NIODeadline) -> TimeAmount { now - lastTraffic }
    /// How long the data of writes has not come.
    func dataSilence(_ now: NIODeadline) -> TimeAmount { now - lastData }
}
