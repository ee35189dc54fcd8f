import NIOCore

extension LinkSession {
    /// Takes a frame from a connection; the payload of a data frame is decompressed already.
    /// - Parameter wireBytes: what the frame took on the line, when it was compressed.
    public func receive(_ frame: Frame, wireBytes: Int? = nil, on identifier: ConnectionIdentifier, now: NIODeadline) {
        guard let index = index(of: identifier) else { return }
        noteHeard(index, now: now)
        do throws(LinkViolation) {
            switch frame.header.kind {
            case .hello: try receiveHello(HelloBody.decode(frame.payload), on: index, now: now)
            case .goodbye: end(identifier, try LinkCloseReason.decodeGoodbye(frame.payload))
            default:
                guard connections[index].isEstablished else { throw LinkViolation("a frame before the hello") }
                try receiveEstablished(frame, on: index, now: now)
                if frame.header.kind == .data { count(frame, wireBytes: wireBytes) }
            }
        } catch {
            end(identifier, .violation(error.description))
        }
    }

    /// Bytes have come on a connection, of a frame that is not whole yet: it lives.
    public func heard(on identifier: ConnectionIdentifier, now: NIODeadline) {
        if let index = index(of: identifier) { noteHeard(index, now: now) }
    }

    private func noteHeard(_ index: Int, now: NIODeadline) {
        connections[index].heardAt = now
        connections[index].doubt = nil
    }

    private func receiveEstablished(_ frame: Frame, on index: Int, now: NIODeadline) throws(LinkViolation) {
        switch frame.header.kind {
        case .data:
            guard frame.payload.readableBytes == frame.header.plainBytes, frame.header.plainBytes > 0 else {
                throw LinkViolation("a frame that is not as long as it says")
            }
            lastHeardConnection = connections[index].identifier
            receiveData(frame, now: now)
        case .acknowledgement:
            receiveAcknowledgement(try AcknowledgementBody.decode(frame.payload), now: now)
        case .ping:
            guard frame.payload.readableBytes == 0 else { throw LinkViolation("a ping with a payload") }
            connections[index].pongDue = frame.header.sequence
        case .pong:
            if let sentAt = connections[index].pingSentAt, frame.header.sequence == connections[index].pingToken {
                connections[index].pingSentAt = nil
                window.measured(roundTrip: now - sentAt, now: now)
            }
        case .hello, .goodbye: break
        }
    }

    private func count(_ frame: Frame, wireBytes: Int?) {
        let plain = UInt64(FrameHeader.byteCount + frame.payload.readableBytes)
        counters[frame.header.trafficClass].framesReceived += 1
        counters[frame.header.trafficClass].plainBytesReceived += plain
        counters[frame.header.trafficClass].wireBytesReceived += wireBytes.map { UInt64(clamping: $0) } ?? plain
    }

    /// What is wrong with the content of a data frame would be wrong again on another connection, so it ends the session.
    private func receiveData(_ frame: Frame, now: NIODeadline) {
        let trafficClass = frame.header.trafficClass
        let index = Int(trafficClass.rawValue)
        do throws(LinkViolation) {
            switch try receivers[index].arrive(frame) {
            case .duplicate:
                counters[trafficClass].framesReceivedTwice += 1
                report(trafficClass, by: now)
            case .new where trafficClass.isOrdered:
                while let payload = try receivers[index].nextInOrder() {
                    actions.append(.deliver(try LinkMessage.decode(payload), trafficClass))
                }
            case .new:
                actions.append(.deliver(try LinkMessage.decode(frame.payload), trafficClass))
            }
        } catch {
            failSession(error)
            return
        }
        newestArrival = now
        framesSinceReport += 1
        report(trafficClass, by: now + times.acknowledgementDelay)
    }

    /// Sees to it that the other side hears of our position by a time.
    func report(_ trafficClass: TrafficClass, by deadline: NIODeadline) {
        unreported |= 1 << trafficClass.rawValue
        reportAt = reportAt.map { min($0, deadline) } ?? deadline
    }

    private func receiveAcknowledgement(_ body: AcknowledgementBody, now: NIODeadline) {
        var newest: SentFrame?
        do throws(LinkViolation) {
            for position in body.positions {
                if let frame = try take(position), newest.map({ $0.sentAt < frame.sentAt }) ?? true { newest = frame }
            }
        } catch {
            failSession(error)
            return
        }
        noteRoom()
        guard let newest, !newest.wasSentAgain else { return }
        let roundTrip = max(.nanoseconds(1000), now - newest.sentAt - TimeAmount.microseconds(Int64(body.delayMicroseconds)))
        // What passed by bulk says how long the way is, and not how long bulk waits.
        if isPrompt(newest.connection), connections.contains(where: { !$0.isPrompt && $0.inFlightBytes > 0 }) {
            return window.measured(roundTrip: roundTrip, now: now)
        }
        window.measured(
            roundTrip: roundTrip, sentAt: newest.sentAt, frameBytes: newest.wireBytes,
            inFlightWhenSent: newest.inFlightWhenSent, now: now)
    }

    /// Takes the other side's position in a class.
    /// - Returns: of the frames that are known to have arrived only now, the one that was sent last.
    @discardableResult
    func take(_ position: ClassPosition) throws(LinkViolation) -> SentFrame? {
        var newest: SentFrame?
        try senders[Int(position.trafficClass.rawValue)].acknowledge(position) { frame in
            if frame.state == .inFlight {
                window.acknowledged(frame.wireBytes)
                if let index = index(of: frame.connection) { connections[index].inFlightBytes -= frame.wireBytes }
                if newest.map({ $0.sentAt <= frame.sentAt }) ?? true { newest = frame }
            }
        }
        return newest
    }

    /// Tells the layers above about classes that were full and are not any more.
    func noteRoom() {
        for index in senders.indices {
            let isForAll = senders[index].wasFull && senders[index].hasRoomAgain
            let isForBulk = senders[index].wasFullForBulk && senders[index].hasRoomForBulkAgain
            guard isForAll || isForBulk else { continue }
            if isForAll { senders[index].wasFull = false }
            if isForBulk { senders[index].wasFullForBulk = false }
            actions.append(.becameWritable(senders[index].trafficClass))
        }
    }
}
