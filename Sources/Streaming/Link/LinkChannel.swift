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
