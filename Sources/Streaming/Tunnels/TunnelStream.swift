import LinkProtocol
import NIOCore

// One TCP connection through a tunnel, as one end sees it: pure.
//
//   opener (listens)                               other end (connects)
//   opening --tunnelOpen(window)-->                connecting
//   open    <--tunnelOpened(window)--              open
//
// Each direction ends by itself with `tunnelFinish`, as a TCP connection does. A stream is done when both have, and all that arrived was
// written. `tunnelReset` ends both at once.
//
// A receiver grants credit when what arrived has been written to its own TCP connection, so a slow reader holds back its own stream and nothing
// else of the link. The window begins small, and doubles when the sender has had to wait for credit although the reader keeps up: then it is
// the round trip that bounds the stream. All windows together stay within a budget.

/// Memory that the windows of all streams share. Confined to their event loop.
public final class WindowBudget {
    /// What all windows together may take.
    let byteCountMax: Int
    private(set) var byteCount = 0

    /// - Parameter byteCountMax: what all windows together may take.
    public init(byteCountMax: Int) { self.byteCountMax = byteCountMax }

    /// Takes a part of it; false when so much is not left.
    func take(_ bytes: Int) -> Bool {
        guard bytes <= byteCountMax - byteCount else { return false }
        byteCount += bytes
        return true
    }

    /// Takes a part of it for a window that grows: half of all stays for connections that are yet to come.
    func grow(_ bytes: Int) -> Bool { byteCount + bytes <= byteCountMax / 2 && take(bytes) }

    func giveBack(_ bytes: Int) { byteCount -= bytes }
}

/// The state of one connection at one end. It does no input or output: the shell hands it what happens and asks what to do.
struct TunnelStream {
    /// The window that a stream begins with; without so much of the budget there is no stream.
    static let firstWindowBytes = 64 << 10
    /// The largest window: what a stream needs that fills 200 Mbit/s at a round trip of 160 ms.
    static let windowBytesMax = 4 << 20
    /// What is kept of the local connection while the link or the other end takes nothing; it is not read beyond.
    static let pendingBytesMax = 32 << 10

    enum Phase {
        /// The other end has not answered yet.
        case opening
        case open
    }

    private(set) var phase: Phase
    // What goes out.
    private var pending = ByteBuffer()
    private var sendCredit: UInt64
    private(set) var localHasEnded = false
    private var hasSentFinish = false
    // What comes in.
    private(set) var windowBytes = firstWindowBytes
    /// What the other end may still send.
    private var receiveCredit = firstWindowBytes
    /// Arrived, and not written yet.
    private var unwrittenBytes = 0
    /// Written, and not granted again yet.
    private var ungrantedBytes = 0
    /// The sender has had to wait for credit since the last grant.
    private var wasShort = false
    private(set) var remoteHasEnded = false

    /// A stream that this end opens.
    init() {
        phase = .opening
        sendCredit = 0
    }

    /// A stream that the other end has opened, and gives credit for.
    init(sendCredit: UInt32) {
        phase = .open
        self.sendCredit = UInt64(sendCredit)
    }

    /// The other end is connected.
    /// - Returns: false when that makes no sense.
    mutating func opened(window: UInt32) -> Bool {
        guard phase == .opening else { return false }
        phase = .open
        sendCredit = UInt64(window)
        return true
    }

    // MARK: What goes out

    /// True while the local connection may be read.
    var wantsToRead: Bool { !localHasEnded && pending.readableBytes < Self.pendingBytesMax }

    /// Bytes of the local connection.
    mutating func read(_ bytes: ByteBuffer) {
        if pending.readableBytes == 0 {
            pending = bytes
        } else {
            // What was sent goes, or the buffer would be as long as all that the stream has ever said.
            pending.discardReadBytes()
            pending.writeImmutableBuffer(bytes)
        }
    }

    /// No bytes of the local connection follow.
    mutating func readEnd() { localHasEnded = true }

    /// What may be sent now. The caller hands over what it is given, or puts it back by `putBack`.
    /// - Parameter pieceBytes: how many bytes at most.
    mutating func nextMessage(_ stream: UInt64, pieceBytes: Int = LinkLimits.pieceBytes) -> LinkMessage? {
        guard phase == .open else { return nil }
        let byteCount = min(pending.readableBytes, pieceBytes, Int(clamping: sendCredit))
        if byteCount > 0, let data = pending.getSlice(at: pending.readerIndex, length: byteCount) {
            return .tunnelData(
                stream: stream, isShort: byteCount == Int(clamping: sendCredit) && pending.readableBytes > byteCount, data: data)
        }
        return localHasEnded && pending.readableBytes == 0 && !hasSentFinish ? .tunnelFinish(stream: stream) : nil
    }

    /// The link has taken what `nextMessage` gave.
    mutating func sent(_ message: LinkMessage) {
        switch message {
        case .tunnelData(_, _, let data):
            pending.moveReaderIndex(forwardBy: data.readableBytes)
            sendCredit -= min(sendCredit, UInt64(data.readableBytes))
            if pending.readableBytes == 0 { pending = ByteBuffer() }
        case .tunnelFinish: hasSentFinish = true
        default: break
        }
    }

    /// The other end grants so much more.
    /// - Returns: false when that makes no sense.
    mutating func credited(_ byteCount: UInt32) -> Bool {
        guard phase == .open, sendCredit + UInt64(byteCount) <= UInt64(UInt32.max) else { return false }
        sendCredit += UInt64(byteCount)
        return true
    }

    // MARK: What comes in

    /// Bytes for the local connection.
    /// - Parameter isShort: the other end had more, and no credit for it.
    /// - Returns: false when they are more than the other end may send.
    mutating func received(_ byteCount: Int, isShort: Bool = false) -> Bool {
        guard phase == .open, !remoteHasEnded, byteCount <= receiveCredit else { return false }
        receiveCredit -= byteCount
        unwrittenBytes += byteCount
        if isShort { wasShort = true }
        return true
    }

    /// No bytes of the other end follow.
    /// - Returns: false when that makes no sense.
    mutating func receivedEnd() -> Bool {
        guard phase == .open, !remoteHasEnded else { return false }
        remoteHasEnded = true
        return true
    }

    /// The local connection has taken so many bytes.
    /// - Returns: what is to be granted now; nil for nothing. The caller sees to it that the grant leaves.
    mutating func wrote(_ byteCount: Int, _ budget: WindowBudget) -> UInt32? {
        unwrittenBytes -= byteCount
        ungrantedBytes += byteCount
        guard !remoteHasEnded, ungrantedBytes >= windowBytes / 4 else { return nil }
        var grant = ungrantedBytes
        // The reader keeps up, and yet the sender has to wait: for the round trip.
        if wasShort, unwrittenBytes <= windowBytes / 4, windowBytes < Self.windowBytesMax, budget.grow(windowBytes) {
            grant += windowBytes
            windowBytes *= 2
        }
        wasShort = false
        ungrantedBytes = 0
        receiveCredit += grant
        return UInt32(clamping: grant)
    }

    /// Forgets what was not sent: nobody will.
    mutating func clear() { pending = ByteBuffer() }

    /// What is kept of the local connection takes so much.
    var pendingStorageBytes: Int { pending.storageCapacity }

    /// True when both directions have ended and everything was handed on.
    var isDone: Bool { hasSentFinish && remoteHasEnded && unwrittenBytes == 0 }
    /// True when all that will come was written: the local connection's output may be closed.
    var outputHasEnded: Bool { remoteHasEnded && unwrittenBytes == 0 }
}
