import Blocks
import LinkProtocol
import NIOCore

// The volume's side of the link. A session that only lost its connections goes on by itself: the
// link keeps what was not acknowledged. A new session (the other process restarted) makes the
// volume open itself at home again, and ask and send anew what was under way.

extension Volume {
    /// The link has, or has not, a connection to home.
    public func linkConnectivityChanged(isConnected: Bool) {
        self.isConnected = isConnected
        if refusal == nil { state = isConnected && isOpenAtHome ? .serving : .linkDown }
        if isConnected { linkWritable() } else { answerAllocationQueriesWithoutHome() }
    }

    /// How long an open may go unanswered before it is asked again.
    static var openRetryDelay: TimeAmount { .seconds(5) }

    /// Asks the owner to open the volume at home.
    func askForOpen() {
        isOpenAtHome = false
        openAskedAt = clock()
        onEvent(.needsOpen)
    }

    func retryOpen(now: NIODeadline) {
        if refusal != nil || isOpenAtHome || !isConnected { return }
        if openAskedAt.map({ now - $0 >= Self.openRetryDelay }) ?? true { askForOpen() }
    }

    /// A new session with home: nothing of the old one will be answered.
    public func linkSessionStarted() {
        if refusal != nil { return }
        state = .linkDown
        fetches.restart()
        allocationQueries.restart()
        forgetAllocation()
        points.sessionLost()
        askForOpen()
    }

    /// Home has opened the volume for this process.
    public func opened(_ reply: VolumeOpenReply) {
        if refusal != nil { return }
        isOpenAtHome = true
        isConnected = true
        state = .serving
        points.opened(reply)
        fetches.restart()
        allocationQueries.restart()
        forgetAllocation()
        pointWasReceived(reply.receivedPoint)
        pointWasApplied(reply.appliedPoint)
        sendFetches()
        sendAllocationQueries()
        sendPoints()
    }

    /// Home has refused to open the volume: history split, or the lease is another's.
    public func openRefused(_ reason: String) {
        if refusal != nil { return }
        stop(.stopped(reason), error: .stopped(reason))
        onEvent(.stopped(reason))
    }

    /// A class of the link takes messages again.
    public func linkWritable() {
        sendFetches()
        sendPieces()
        sendAllocationQueries()
        sendPoints()
    }

    /// A message for this volume. The owner routes answers to reads by their routing tag.
    public func receive(_ message: LinkMessage) {
        if refusal != nil {
            if case .pointPieceRequest(_, let point, let range) = message { receivePieceRequest(point, range) }
            return
        }
        switch message {
        case .readData(let read, let offset, let data):
            receiveRead(read, offset: offset, data: data, byteCount: data.readableBytes)
        case .readZeroes(let read, let offset, let byteCount):
            receiveRead(read, offset: offset, data: nil, byteCount: Int(byteCount))
        case .readReferences(let read, let offset, let source, let block, let digests):
            receiveReferences(read, offset: offset, source: source, block: block, digests: digests)
        case .readFailed(let read, let status): receiveReadFailure(read, status: status)
        case .allocationReply(let read, let runs): receiveAllocation(read, runs)
        case .pointPieceRequest(_, let point, let range): receivePieceRequest(point, range)
        case .pointReceived(_, let point): pointWasReceived(point)
        case .pointApplied(_, let point): pointWasApplied(point)
        case .pointRefused(_, let point, let refusal): pointWasRefused(point, refusal)
        default: break
        }
    }
}
