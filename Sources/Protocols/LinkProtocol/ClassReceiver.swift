import NIOCore

/// What one end has received of a class: positions, duplicates, order, credit.
struct ClassReceiver {
    enum Arrival {
        case duplicate
        case new
    }

    let trafficClass: TrafficClass
    /// Every sequence below has arrived.
    private(set) var next: UInt64 = 0
    /// One behind the highest sequence that has arrived.
    private(set) var end: UInt64 = 0
    /// The cost of everything that has arrived.
    private(set) var receivedBytes: UInt64 = 0
    /// The cost of everything that was taken over by the layers above, and is no more on our account.
    private var consumedBytes: UInt64 = 0
    /// While false the credit does not grow.
    private(set) var isReceiving = true
    private var heldBytes: UInt64 = 0

    /// A bit for each sequence of the window, at its number modulo the window.
    private var arrived = [UInt64](repeating: 0, count: LinkLimits.windowFrames / 64)
    /// Frames of an ordered class that wait for an earlier one.
    private var waiting: [UInt64: Frame] = [:]
    private var nextToDeliver: UInt64 = 0
    /// The parts of a message that is not complete.
    private var parts = ByteBuffer()
    private var hasParts = false

    init(_ trafficClass: TrafficClass) { self.trafficClass = trafficClass }

    /// How much the other side may have sent.
    var credit: UInt64 { consumedBytes &+ UInt64(LinkLimits.outstandingBytes(trafficClass)) }

    var position: ClassPosition {
        var words: [UInt64] = []
        if end > next {
            words = [UInt64](repeating: 0, count: Int((end - next + 63) / 64))
            for offset in 0..<Int(end - next) where has(next + UInt64(offset)) { words[offset / 64] |= 1 << UInt64(offset % 64) }
        }
        return ClassPosition(trafficClass: trafficClass, next: next, credit: credit, arrived: words)
    }

    private func has(_ sequence: UInt64) -> Bool {
        let index = Int(sequence % UInt64(LinkLimits.windowFrames))
        return arrived[index / 64] & (1 << UInt64(index % 64)) != 0
    }

    private mutating func set(_ sequence: UInt64, _ value: Bool) {
        let index = Int(sequence % UInt64(LinkLimits.windowFrames))
        if value { arrived[index / 64] |= 1 << UInt64(index % 64) } else { arrived[index / 64] &= ~(1 << UInt64(index % 64)) }
    }

    /// Records the arrival of a data frame, whose payload is decompressed.
    mutating func arrive(_ frame: Frame) throws(LinkViolation) -> Arrival {
        let sequence = frame.header.sequence
        if sequence < next { return .duplicate }
        guard sequence - next < UInt64(LinkLimits.windowFrames) else { throw LinkViolation("a frame beyond the window") }
        if has(sequence) { return .duplicate }
        let cost = UInt64(FrameHeader.byteCount + frame.payload.readableBytes)
        guard receivedBytes &+ cost <= credit else { throw LinkViolation("more bytes than were granted") }
        receivedBytes &+= cost
        set(sequence, true)
        end = max(end, sequence + 1)
        while next < end, has(next) {
            set(next, false)
            next += 1
        }
        if trafficClass.isOrdered {
            waiting[sequence] = frame
        } else {
            guard !frame.header.hasMore else { throw LinkViolation("a message in parts in a class without order") }
            consume(cost)
        }
        return .new
    }

    /// The payload of the next complete message of an ordered class.
    mutating func nextInOrder() throws(LinkViolation) -> ByteBuffer? {
        while let frame = waiting.removeValue(forKey: nextToDeliver) {
            nextToDeliver += 1
            consume(UInt64(FrameHeader.byteCount + frame.payload.readableBytes))
            if !frame.header.hasMore, !hasParts { return frame.payload }
            guard parts.readableBytes + frame.payload.readableBytes <= LinkLimits.controlMessageBytes else {
                throw LinkViolation("a message of more than \(LinkLimits.controlMessageBytes) bytes")
            }
            hasParts = true
            parts.writeImmutableBuffer(frame.payload)
            if !frame.header.hasMore {
                hasParts = false
                defer { parts = ByteBuffer() }
                return parts
            }
        }
        return nil
    }

    private mutating func consume(_ cost: UInt64) {
        if isReceiving { consumedBytes &+= cost } else { heldBytes &+= cost }
    }

    mutating func setReceiving(_ value: Bool) {
        isReceiving = value
        if value {
            consumedBytes &+= heldBytes
            heldBytes = 0
        }
    }
}
