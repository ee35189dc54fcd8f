import Blocks
import NIOCore

extension LinkSession {
    /// Over how many frames `rest` is a mean, and the least that it is taken for.
    private static let restFrames = 32.0
    private static let restMin = 1.0 / 16

    /// The frame to send next, on the connection that it names; nil when there is none, or nobody can take it.
    ///
    /// The frame counts as sent when this returns. When the connection then cannot take another one, say so by
    /// `connectionWritable`.
    public func nextTransmission(now: NIODeadline) -> LinkTransmission? {
        for index in connections.indices where connections[index].isWritable {
            if let frame = connectionFrame(index, now: now) {
                return LinkTransmission(connection: connections[index].identifier, header: frame.header, bytes: frame.encoded())
            }
        }
        return copyTransmission(now: now) ?? acknowledgementTransmission(now: now) ?? dataTransmission(now: now)
    }

    /// Says that a data frame took fewer bytes on the line than were counted, because it was compressed. A few more don't count.
    public func compressed(_ transmission: LinkTransmission, wireBytes: Int) {
        guard transmission.header.kind == .data, wireBytes < transmission.bytes.readableBytes else { return }
        let trafficClass = transmission.header.trafficClass
        if transmission.isCopy { return copyCompressed(trafficClass, saved: transmission.bytes.readableBytes - wireBytes) }
        let saved = senders[Int(trafficClass.rawValue)].setWireBytes(wireBytes, sequence: transmission.header.sequence)
        guard saved > 0 else { return }
        noteRest(-Double(saved) / Double(transmission.bytes.readableBytes), of: transmission.bytes.readableBytes)
        window.shrink(by: saved)
        shaper.saved(trafficClass, byteCount: saved)
        counters[trafficClass].wireBytesSent -= UInt64(saved)
        if let index = index(of: transmission.connection) { connections[index].inFlightBytes -= saved }
    }

    /// A long frame counts with all of its bytes when it leaves, and without what was saved when that is known.
    private func noteRest(_ change: Double, of byteCount: Int) {
        guard byteCount >= BlockGeometry.blockBytes else { return }
        rest = min(max(rest + change / Self.restFrames, Self.restMin), 1)
    }

    /// The sender, the window and the connection know the frame itself, and nothing of its copy.
    private func copyCompressed(_ trafficClass: TrafficClass, saved: Int) {
        guard saved > 0 else { return }
        shaper.saved(trafficClass, byteCount: saved)
        counters[trafficClass].wireBytesSent -= UInt64(saved)
    }

    /// What belongs to the connection itself: hello, pong, ping.
    private func connectionFrame(_ index: Int, now: NIODeadline) -> Frame? {
        if connections[index].needsHello {
            connections[index].needsHello = false
            connections[index].helloSentAt = role == .initiator ? now : nil
            connections[index].helloSession = sessionIdentifier
            let hello = HelloBody(session: sessionIdentifier, incarnation: incarnation, positions: receivers.map { $0.position })
            return hello.frame()
        }
        if let token = connections[index].pongDue {
            connections[index].pongDue = nil
            return Frame(header: FrameHeader(kind: .pong, sequence: token))
        }
        if connections[index].pingDue, connections[index].isEstablished {
            connections[index].pingDue = false
            // A way that takes longer than it is to the next ping is measured by the first that is answered.
            if connections[index].pingSentAt == nil {
                connections[index].pingToken = random.next()
                connections[index].pingSentAt = now
            }
            return Frame(header: FrameHeader(kind: .ping, sequence: connections[index].pingToken))
        }
        return nil
    }

    private func acknowledgementTransmission(now: NIODeadline) -> LinkTransmission? {
        guard unreported != 0, framesSinceReport >= 2 || reportAt.map({ $0 <= now }) ?? true else { return nil }
        var place = lastHeardConnection.flatMap { index(of: $0) }
        if let index = place, !connections[index].isTrusted || !connections[index].isWritable { place = nil }
        guard let index = place ?? bestConnection(for: nil) else { return nil }
        let delay = newestArrival.map { (now - $0).nanoseconds / 1000 } ?? 0
        let positions = receivers.filter { unreported & (1 << $0.trafficClass.rawValue) != 0 }.map { $0.position }
        unreported = 0
        reportAt = nil
        framesSinceReport = 0
        let frame = AcknowledgementBody(delayMicroseconds: UInt32(clamping: delay), positions: positions).frame()
        return LinkTransmission(connection: connections[index].identifier, header: frame.header, bytes: frame.encoded())
    }

    private func dataTransmission(now: NIODeadline) -> LinkTransmission? {
        guard bestConnection(for: nil) != nil else { return nil }
        guard window.verdict(isUrgent: true, now: now) == .send else {
            // Many short answers fill a window, too, which then has to grow.
            if Lane.allCases.contains(where: { senders[Int($0.trafficClass.rawValue)].head($0) != nil }) { window.noteLimit() }
            return nil
        }
        var normal: DelayWindow.Verdict?
        var shapedUntil: NIODeadline?
        var isAnswerWaiting = false
        let choice = scheduler.choose { lane in
            guard let byteCount = senders[Int(lane.trafficClass.rawValue)].head(lane),
                bestConnection(for: lane, byteCount: byteCount) != nil
            else { return nil }
            if lane != .urgentDemand {
                if normal == nil { normal = window.verdict(isUrgent: false, now: now) }
                // Short answers may keep the window more than full. The floor of a lane is its due all the same.
                guard normal == .send || isAnswerWaiting && scheduler.hasEarned(lane, byteCount: byteCount) else { return nil }
            }
            let isCall = senders[Int(lane.trafficClass.rawValue)].isHeadCall(lane)
            guard let due = shaper.due(lane.trafficClass, isCall: isCall, now: now) else {
                if lane == .urgentDemand { isAnswerWaiting = true }
                return byteCount
            }
            shapedUntil = shapedUntil.map { min($0, due) } ?? due
            return nil
        }
        guard let choice else {
            paceUntil = shapedUntil
            if case .sendAfter(let time) = normal { paceUntil = shapedUntil.map { min($0, time) } ?? time }
            return nil
        }
        let byteCount = senders[Int(choice.lane.trafficClass.rawValue)].head(choice.lane) ?? 0
        guard let index = bestConnection(for: choice.lane, byteCount: byteCount) else { return nil }
        return send(choice.lane, isFloor: choice.isFloor, on: index, now: now)
    }

    private func send(_ lane: Lane, isFloor: Bool, on index: Int, now: NIODeadline) -> LinkTransmission? {
        let trafficClass = lane.trafficClass
        let place = Int(trafficClass.rawValue)
        let before = senders[place].nextSequence
        guard
            let frame = senders[place].take(lane, on: connections[index].identifier, inFlight: window.inFlightBytes, now: now)
        else { return nil }
        let bytes = frame.bytes
        let byteCount = bytes.readableBytes
        window.sent(byteCount, now: now)
        shaper.sent(trafficClass, byteCount: byteCount, now: now)
        connections[index].inFlightBytes += byteCount
        noteRest(1 - rest, of: byteCount)
        scheduler.sent(lane, byteCount: byteCount, isFloor: isFloor) { senders[Int($0.trafficClass.rawValue)].isWaiting($0) }
        counters[trafficClass].framesSent += 1
        counters[trafficClass].plainBytesSent += UInt64(byteCount)
        counters[trafficClass].wireBytesSent += UInt64(byteCount)
        if senders[place].nextSequence == before { counters[trafficClass].framesSentAgain += 1 }
        noteRoom()
        var header = bytes
        guard let decoded = try? FrameHeader.decode(from: &header) else { return nil }
        let transmission = LinkTransmission(
            connection: connections[index].identifier, header: decoded, bytes: bytes, isBulk: !lane.isQuiet, volume: frame.volume)
        if lane == .urgentDemand { prepareCopy(of: transmission, now: now) }
        return transmission
    }
}
