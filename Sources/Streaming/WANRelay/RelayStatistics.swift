/// What passed through a relay, and what its line is like.
public struct RelayStatistics: Equatable, Sendable {
    /// One direction.
    public struct Direction: Equatable, Sendable {
        /// Bytes that came in from sockets.
        public var enteredBytes: UInt64 = 0
        /// Bytes that left at the far end.
        public var deliveredBytes: UInt64 = 0
        /// Bytes that a cut destroyed.
        public var droppedBytes: UInt64 = 0
        /// Bytes that wait for the line now.
        public var queuedBytes = 0
        /// The most bytes that ever waited.
        public var queuedBytesPeak = 0
        /// Bytes that wait or travel now.
        public var inTransitBytes = 0

        public init() {}
    }

    public var lineState: RelayLineState = .up
    public var conditions = RelayConditions()
    /// Connections that are open now.
    public var openConnections = 0
    /// Connections that were ever accepted.
    public var acceptedConnections: UInt64 = 0
    /// From the clients to the server that the relay connects to.
    public var toServer = Direction()
    /// From that server to the clients.
    public var toClient = Direction()

    public init() {}

    /// One line of JSON.
    public var json: String {
        let rate = conditions.bytesPerSecond.map(String.init) ?? "null"
        return """
            {"line":"\(lineState.rawValue)","roundTripNanoseconds":\(conditions.roundTrip.nanoseconds),"bytesPerSecond":\(rate),\
            "openConnections":\(openConnections),"acceptedConnections":\(acceptedConnections),\
            "toServer":\(toServer.json),"toClient":\(toClient.json)}
            """
    }
}

extension RelayStatistics.Direction {
    init(_ queue: RelayQueue) {
        enteredBytes = queue.enteredByteCount
        deliveredBytes = queue.deliveredByteCount
        droppedBytes = queue.droppedByteCount
        queuedBytes = queue.queuedByteCount
        queuedBytesPeak = queue.queuedByteCountPeak
        inTransitBytes = queue.inTransitByteCount
    }

    fileprivate var json: String {
        """
        {"enteredBytes":\(enteredBytes),"deliveredBytes":\(deliveredBytes),"droppedBytes":\(droppedBytes),\
        "queuedBytes":\(queuedBytes),"queuedBytesPeak":\(queuedBytesPeak),"inTransitBytes":\(inTransitBytes)}
        """
    }
}
