/// What passed through an emulated WAN, and what it is like.
public struct LineStatistics: Hashable, Sendable {
    /// One direction.
    public struct Direction: Hashable, Sendable {
        public var counts: PacketLine.Counts
        /// Bytes that wait for the line now.
        public var queuedBytes: Int
        /// Packets that wait or travel now.
        public var packetsInTransit: Int
        /// Packets that were lost before or behind the line because the machine was too slow. The line is not what it says when this is above 0.
        public var overrunPackets: UInt64

        init(_ line: PacketLine, overrunPackets: UInt64) {
            counts = line.counts
            queuedBytes = line.queuedByteCount
            packetsInTransit = line.packetsInTransit
            self.overrunPackets = overrunPackets
        }
    }

    public var state: LineState
    public var conditions: LineConditions
    /// From the cloud's end to home's, where the on-prem edge listens.
    public var toServer: Direction
    /// From home's end to the cloud's.
    public var toClient: Direction

    /// One line of JSON. What the relay counts, too, has the same name as there.
    public var json: String {
        let rate = conditions.bytesPerSecond.map(String.init) ?? "null"
        let queue = conditions.queueByteLimit == .max ? "null" : String(conditions.queueByteLimit)
        return """
            {"line":"\(state.rawValue)","roundTripNanoseconds":\(conditions.roundTrip.nanoseconds),"bytesPerSecond":\(rate),\
            "queueByteLimit":\(queue),"jitterNanoseconds":\(conditions.jitter.nanoseconds),"lossShare":\(conditions.loss.share),\
            "reorderShare":\(conditions.reorder),"toServer":\(toServer.json),"toClient":\(toClient.json)}
            """
    }
}

extension LineStatistics.Direction {
    fileprivate var json: String {
        """
        {"enteredBytes":\(counts.offeredBytes),"enteredPackets":\(counts.offeredPackets),"carriedBytes":\(counts.carriedBytes),\
        "carriedPackets":\(counts.carriedPackets),"deliveredBytes":\(counts.deliveredBytes),"deliveredPackets":\(counts.deliveredPackets),\
        "droppedPackets":\(counts.droppedPackets),"lostPackets":\(counts.lostPackets),"cutPackets":\(counts.cutPackets),\
        "latePackets":\(counts.latePackets),"overrunPackets":\(overrunPackets),"queuedBytes":\(queuedBytes),\
        "queuedBytesPeak":\(counts.queuedBytesPeak),"packetsInTransit":\(packetsInTransit)}
        """
    }
}
