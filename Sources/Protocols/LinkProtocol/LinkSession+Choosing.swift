import NIOCore

// On which connection a frame goes.
//
//   clean line   on the one of the first four that has the least on its way. Each connection's TCP has its own idea of what the line carries: the
//                more of them share it, the less each dares, and the longer a frame takes to leave, which looks like a queue
//   lossy line   what TCP has to send again holds up all that comes behind it on its connection, for a round trip at least, and a connection that
//                carries bulk always has something to send again. So the first connections are kept quiet: they carry short answers, requests
//                and calls, and the others carry the rest. With two quiet ones a frame of a demand read goes out on both, and the
//                first to arrive counts: the other end knows the second by its sequence (ClassReceiver)
//
// Whether the line loses is for the shell to say, which can ask the kernel (`LossEstimate`).

extension LinkSession {
    /// Connections that are kept quiet on a lossy line, of so many that are established.
    static func quietConnections(of count: Int) -> Int { min(count / 2, LinkLimits.quietConnections) }

    /// Says whether the line loses packets.
    public func setLossy(_ isLossy: Bool) { window.isLossy = isLossy }

    /// The line loses packets.
    var isLossy: Bool { window.isLossy }

    /// The connection for the next frame of a lane, or for what may go on any; nil when none takes one.
    func bestConnection(for lane: Lane?) -> Int? {
        guard let lane else { return leastBusy() }
        guard isLossy else { return leastBusy(ofFirst: LinkLimits.cleanConnections) }
        return leastBusy(isQuiet: lane.isQuiet) ?? (lane.isQuiet ? leastBusy() : nil)
    }

    /// - Parameters:
    ///   - isQuiet: nil for any connection. With one connection there is no other.
    ///   - limit: only so many of those that are established count.
    private func leastBusy(isQuiet: Bool? = nil, ofFirst limit: Int = .max) -> Int? {
        let quiet = isQuiet == nil ? 0 : Self.quietConnections(of: connections.count { $0.isEstablished })
        var (best, place): (Int?, Int) = (nil, 0)
        for index in connections.indices where connections[index].isEstablished && place < limit {
            defer { place += 1 }
            if quiet > 0, let isQuiet, (place < quiet) != isQuiet { continue }
            guard connections[index].isWritable else { continue }
            if let other = best, connections[other].inFlightBytes <= connections[index].inFlightBytes { continue }
            best = index
        }
        return best
    }

    // MARK: Copies

    /// On a lossy line a frame of a demand read goes out on a second quiet connection too, if one takes it at once and no limit is in the way.
    func prepareCopy(of transmission: LinkTransmission, now: NIODeadline) {
        guard isLossy, shaper.due(transmission.header.trafficClass, now: now) == nil else { return }
        let quiet = Self.quietConnections(of: connections.count { $0.isEstablished })
        let other = connections.filter(\.isEstablished).prefix(quiet).first { $0.identifier != transmission.connection && $0.isWritable }
        guard let other else { return }
        copy = LinkTransmission(connection: other.identifier, header: transmission.header, bytes: transmission.bytes, isCopy: true)
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

extension Lane {
    /// True when its frames are short, and somebody waits for each.
    var isQuiet: Bool { self == .urgentDemand || self == .control }
}
