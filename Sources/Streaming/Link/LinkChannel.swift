import Logging
import NIOCore

/// The options of every channel of a link.
enum LinkChannel {
    /// TCP_NOTSENT_LOWAT: what the kernel keeps unsent is beyond our ordering, so it keeps about a frame.
    static let unsentBytes: SocketOptionValue = 16 * 1024

    /// Sets the options that every link channel has.
    static func configure(_ channel: any Channel) throws {
        guard let options = channel.syncOptions else { return }
        // One byte that waits makes a channel not writable: the session holds everything else back, in its order.
        try options.setOption(.writeBufferWaterMark, value: .init(low: 1, high: 1))
        try options.setOption(.tcpOption(.tcp_nodelay), value: 1)
        #if os(Linux)
            let notSentLowWater = ChannelOptions.Types.SocketOption(level: .tcp, name: NIOBSDSocket.Option(rawValue: 25))
            try? options.setOption(notSentLowWater, value: unsentBytes)
        #endif
    }

    /// What TCP has sent since the connection began. Nil for a channel that is no TCP connection, or when the kernel does not tell. Called on the
    /// channel's loop.
    static func sentBytes(of channel: any Channel) -> TCPSentBytes? {
        guard let options = channel as? any SocketOptionProvider else { return nil }
        var information: TCPInformation?
        let value: EventLoopFuture<TCPInformation> = options.unsafeGetSocketOption(
            level: .tcp, name: NIOBSDSocket.Option(rawValue: TCPInformation.option))
        // On its own loop the channel answers before this returns.
        value.assumeIsolated().whenSuccess { information = $0 }
        return information?.sentBytes
    }
}

/// What TCP has sent on a connection, what it sent again included, and that, in bytes.
struct TCPSentBytes: Equatable {
    var all: UInt64 = 0
    var again: UInt64 = 0

    /// What was sent for the first time. A segment that is sent again counts as that before it counts as sent.
    var first: UInt64 { all > again ? all - again : 0 }

    /// Adds what has come since the counts were `before`.
    mutating func add(_ now: TCPSentBytes, since before: TCPSentBytes) {
        all += now.all > before.all ? now.all - before.all : 0
        again += now.again > before.again ? now.again - before.again : 0
    }
}

/// What the kernel says of a connection (`struct tcp_info`), as far as the two counters at its end that are of use here; they came with Linux 4.19,
/// and glibc's declaration has them not. The kernel fills in as much as it is asked for.
struct TCPInformation {
    /// TCP_INFO.
    static let option: CInt = 11

    /// 200 bytes that are not looked at: eight of flags, 24 words of 32 bits, and what followed them.
    private var before = InlineArray<25, UInt64>(repeating: 0)
    /// `tcpi_bytes_sent` and `tcpi_bytes_retrans`.
    private var bytesSent: UInt64 = 0
    private var bytesSentAgain: UInt64 = 0

    var sentBytes: TCPSentBytes { TCPSentBytes(all: bytesSent, again: bytesSentAgain) }
}

/// Writes at most one line in ten seconds about what strangers do, and says how many it kept to itself.
struct RateLimitedLog {
    private var nextAt = NIODeadline.uptimeNanoseconds(0)
    private var suppressed = 0

    mutating func notice(_ message: String, peer: SocketAddress?, logger: Logger, now: NIODeadline) {
        guard now >= nextAt else {
            suppressed += 1
            return
        }
        logger.notice("\(message)", metadata: ["peer": "\(peer?.description ?? "unknown")", "similar": "\(suppressed)"])
        suppressed = 0
        nextAt = now + .seconds(10)
    }
}
