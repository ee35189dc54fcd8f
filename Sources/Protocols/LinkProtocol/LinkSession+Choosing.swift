import NIOCore

// On which connection a frame goes.
//
//   prompt       with four connections or more one carries no bulk, but short answers, requests and calls, and about as many of them as TCP lets
//                go at once. Its TCP is not to pace what it sends: one that does spreads a frame over as long as its share of the line would take
//   clean line   all else goes on the one of the first four others that has the least on its way. Each connection's TCP has its own idea of what
//                the line carries: the more of them share it, the less each dares, and the longer a frame takes to leave, which looks like a queue
//   lossy line   what TCP has to send again holds up all that comes behind it on its connection, for a round trip at least, and a connection that
//                carries bulk always has something to send again. So the first connections, the prompt one among them, are kept quiet: they carry
//                short answers, requests and calls, and the others carry the rest, and many short answers too while there is no bulk. With two quiet
//                ones a frame of a demand read goes out twice, and the first to arrive counts: the other end knows the second by its sequence
//                (ClassReceiver)
//
//
// A connection in doubt (LinkSession.swift) keeps its place, and carries nothing new while there is one that isn't. One that is given up has no
// place: those behind it move up. Where none is trusted all are as good as any.
//
// Whether the line loses is for the shell to say, which can ask the kernel (`LossEstimate`), and to give the prompt connection its TCP.

extension LinkSession {
    /// Connections that are kept quiet on a lossy line, of so many that are established.
    static func quietConnections(of count: Int) -> Int { min(count / 2, LinkLimits.quietConnections) }

    /// Says whether the line loses packets.
    public func setLossy(_ isLossy: Bool) { window.isLossy = isLossy }

    /// The line loses packets.
    var isLossy: Bool { window.isLossy }

    /// Whether a connection is the one for what is short and waited for: may its TCP let go at once what it is given.
    public func isPrompt(_ identifier: ConnectionIdentifier) -> Bool { connections.contains { $0.identifier == identifier && $0.isPrompt } }

    /// Chooses the prompt connection when one was opened or lost: the newest, which has carried nothing else. The one before may be dead already
    /// without this end knowing it, and the new one be there in its place.
    func choosePrompt(opened identifier: ConnectionIdentifier?) {
        let isPossible = hasPrompt && connections.count >= LinkLimits.connectionsWithPrompt
        if isPossible, identifier == nil { return }
        for index in connections.indices { connections[index].isPrompt = isPossible && connections[index].identifier == identifier }
    }

    /// The connection for the next frame of a lane, or for what may go on any; nil when none takes one.
    /// - Parameter byteCount: how long the frame is before compression.
    func bestConnection(for lane: Lane?, byteCount: Int = 0) -> Int? {
        guard let lane, otherCount > 0 else { return leastBusy(of: 0..<connections.count, countsPrompt: true) }
        if lane.isQuiet, let prompt = promptPlace(withRoomFor: byteCount) { return prompt }
        if let place = usualPlace(for: lane, byteCount: byteCount) { return place }
        guard connections.contains(where: \.isDoubted) else { return nil }
        // The usual ones may be those in doubt. Where all others are, the prompt one carries everything meanwhile.
        let isOtherTrusted = connections.contains { $0.isTrusted && !$0.isPrompt }
        return leastBusy(of: 0..<connections.count, countsPrompt: !isOtherTrusted)
    }

    private func usualPlace(for lane: Lane, byteCount: Int) -> Int? {
        guard isLossy else { return leastBusy(of: 0..<LinkLimits.cleanConnections) }
        guard lane.isQuiet else { return leastBusy(of: quietOthers..<otherCount) }
        guard let quiet = leastBusy(of: 0..<quietOthers) else { return leastBusy(of: 0..<otherCount) }
        if connections[quiet].hasRoomForShort(byteCount) { return quiet }
        // Where the rest carries no bulk, many short answers are held up less on all connections than on a few.
        return leastBusy(of: quietOthers..<otherCount).flatMap { connections[$0].hasRoomForShort(byteCount) ? $0 : nil } ?? quiet
    }

    private func promptPlace(withRoomFor byteCount: Int) -> Int? {
        connections.firstIndex { $0.isTrusted && $0.isPrompt && $0.isWritable && $0.hasRoomForShort(byteCount) }
    }

    private var isAnyTrusted: Bool { connections.contains(where: \.isTrusted) }

    /// The connections with places besides the prompt one, and those of them that are kept quiet on a lossy line.
    private var otherCount: Int {
        let isAnyTrusted = isAnyTrusted
        return connections.count { $0.hasPlace(isAnyTrusted: isAnyTrusted) && !$0.isPrompt }
    }
    private var quietOthers: Int {
        let prompts = connections.contains { $0.isEstablished && $0.isPrompt } ? 1 : 0
        return max(0, Self.quietConnections(of: otherCount + prompts) - prompts)
    }

    /// - Parameter places: of those that have one, in the order in which they were opened.
    private func leastBusy(of places: Range<Int>, countsPrompt: Bool = false, except: ConnectionIdentifier? = nil) -> Int? {
        let isAnyTrusted = isAnyTrusted
        var (best, place): (Int?, Int) = (nil, 0)
        for index in connections.indices {
            guard connections[index].hasPlace(isAnyTrusted: isAnyTrusted), countsPrompt || !connections[index].isPrompt else { continue }
            defer { place += 1 }
            guard places.contains(place), connections[index].isWritable, connections[index].isTrusted || !isAnyTrusted,
                connections[index].identifier != except
            else { continue }
            if let other = best, connections[other].inFlightBytes <= connections[index].inFlightBytes { continue }
            best = index
        }
        return best
    }

    // MARK: Copies

    /// On a lossy line a frame of a demand read goes out on a second quiet connection too, if one takes it at once and no limit is in the way.
    func prepareCopy(of transmission: LinkTransmission, now: NIODeadline) {
        guard isLossy, shaper.due(transmission.header.trafficClass, now: now) == nil else { return }
        var place = leastBusy(of: 0..<quietOthers, except: transmission.connection)
        if place == nil, let prompt = promptPlace(withRoomFor: transmission.bytes.readableBytes),
            connections[prompt].identifier != transmission.connection
        {
            place = prompt
        }
        guard let place else { return }
        copy = LinkTransmission(
            connection: connections[place].identifier, header: transmission.header, bytes: transmission.bytes, isCopy: true)
    }

    /// What the operator allows on the line counts copies too. The window does not: nobody acknowledges them, and each is a short frame
    /// behind one that the window let go.
    func copyTransmission(now: NIODeadline) -> LinkTransmission? {
        guard let copy else { return nil }
        self.copy = nil
        // It may have ended, or become full, meanwhile.
        guard let index = index(of: copy.connection), connections[index].isWritable else { return nil }
        let (trafficClass, byteCount) = (copy.header.trafficClass, copy.bytes.readableBytes)
        shaper.sent(trafficClass, byteCount: byteCount, now: now)
        counters[trafficClass].framesCopied += 1
        counters[trafficClass].wireBytesSent += UInt64(byteCount)
        return copy
    }
}

extension LinkSession.Connection {
    fileprivate func hasPlace(isAnyTrusted: Bool) -> Bool { isEstablished && !(isGivenUp && isAnyTrusted) }
}

extension Lane {
    /// True when its frames are short, and somebody waits for each.
    var isQuiet: Bool { self == .urgentDemand || self == .control }
}
