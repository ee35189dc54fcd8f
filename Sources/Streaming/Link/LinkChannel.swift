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

    /// How many segments TCP has sent again since the connection began, and how large a full one is (`TCP_INFO`). Nil for a channel that is no
    /// TCP connection, or when the kernel does not tell. Called on the channel's loop.
    static func retransmissions(of channel: any Channel) -> (segments: UInt32, segmentBytes: UInt32)? {
        #if os(Linux)
            guard let options = channel as? any SocketOptionProvider else { return nil }
            var counts: (UInt32, UInt32)?
            // On its own loop the channel answers before this returns.
            options.getTCPInfo().assumeIsolated().whenSuccess { counts = ($0.tcpi_total_retrans, $0.tcpi_snd_mss) }
            return counts.map { (segments: $0.0, segmentBytes: $0.1) }
        #else
            return nil
        #endif
    }
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
