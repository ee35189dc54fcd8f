import Blocks
import LinkProtocol
import NIOCore
import WriteLog

// Sending points (W4): one after the other, and of each what the log has in memory as it is asked for.
//
// What is only in the log's files is read ahead, some runs at once: while the link takes no more, or others have their turns on it, so that a
// volume has something to send when its own turn comes (`SendingTurns`), and so that one alone does not wait for its disk between two runs.
// Reads may end in any order; the runs go out in the order in which they were asked for.

extension Volume {
    /// Hands messages of points to the link until it takes no more or there are none.
    func sendPoints() {
        guard isOpenAtHome, points.pausedUntil == nil else { return }
        while true {
            while let message = points.outbox.first {
                guard uplink(message, .writeBehind, true) else { return readAhead() }
                points.messageWasSent()
            }
            guard prepareMessages() else { return }
        }
    }

    /// Fills the outbox with what comes next; false when nothing does, or when it has to be read first.
    private func prepareMessages() -> Bool {
        guard points.transmission != nil else {
            guard let point = points.nextToSend(lastSealed: lastSendable) else { return false }
            points.transmission = PointTransmission(
                point: point, segments: log.contents(of: point), isPlain: point == points.plainPoint)
            points.outbox.append(.pointBegin(volume: identifier, generation: points.generation, point: point))
            if let attributes = attributesToSend(of: point) {
                points.outbox.append(.pointAttributes(volume: identifier, point: point, attributes: attributes))
            }
            return true
        }
        if points.isReading {
            readAhead()
            return !points.outbox.isEmpty
        }
        guard let run = points.transmission?.nextRun() else {
            commitPoint()
            return true
        }
        take(run)
        if points.outbox.isEmpty { readAhead() }
        return !points.outbox.isEmpty
    }

    private func commitPoint() {
        guard let transmission = points.transmission else { return }
        points.outbox.append(transmission.commit(volume: identifier))
        points.transmission = nil
        points.sent = transmission.point
        statistics.pointsSent &+= 1
    }

    /// Takes the point's next runs as far as the limits allow, while something is in the way of those before them.
    private func readAhead() {
        while points.mayReadAhead, let run = points.transmission?.nextRun() { take(run) }
    }

    /// Puts a run in the row of what is sent: at once what is in memory, the rest when it has been read.
    private func take(_ run: LogSegment) {
        if case .zeroes = run.content { return add(run, nil) }
        var data = ByteBufferAllocator().buffer(capacity: run.range.byteCount)
        if log.readIfResident(run, into: &data) { return add(run, data) }
        let session = points.session
        let number = points.addRead(of: run)
        log.read(run) { [self] result in
            guard session == points.session else { return }
            switch result {
            case .success(let data):
                points.readEnded(number, with: data)
                putOut()
                sendPoints()
            case .failure(let error): _ = deviceError(error)
            }
        }
    }

    private func add(_ run: LogSegment, _ data: ByteBuffer?) {
        points.readEnded(points.addRead(of: run), with: data)
        putOut()
    }

    /// Moves what has been read, and has nothing before it that has not, to the outbox.
    private func putOut() {
        while let (range, data) = points.nextRead() {
            guard let data else {
                let message = points.transmission?.message(forZeroes: range, volume: identifier)
                if let message, !isPlanted(.sendsPointWithoutZeroes) { points.outbox.append(message) }
                continue
            }
            statistics.pointBytesSent &+= UInt64(range.byteCount)
            addToOutbox(range, data)
        }
    }
}
