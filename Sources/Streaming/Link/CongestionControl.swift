import Glibc
import NIOCore

// Which algorithm of the kernel says how fast a connection may send (X6; tcp(7), TCP_CONGESTION).
//
// CUBIC takes each lost packet for a full queue, so what it sends falls with the loss and the round trip whatever the line carries; BBR goes by
// what arrives. On a line that loses nothing the system's choice is as good as another, and the operator's. So by default a link
// has the system's, and BBR from the moment on when its line turns out to lose packets. Going back has time: packets that CUBIC lost to a full
// queue look the same, and BBR fills no queue.
//
// BBR paces: what it is given leaves as slowly as it believes the connection's share of the line to be, and on a connection that carries little as
// slowly as when that began, ten segments in a round trip. That suits bulk, and makes a short answer wait for several milliseconds. So by default
// the link's prompt connection has Reno, which lets ten segments go at once (RFC 5681, RFC 6928). Linux paces a connection for good once its
// algorithm has asked for that, so all connections begin with Reno, and those that carry bulk change when the link takes them. Behind the queueing
// discipline `fq` every connection is paced, and the prompt one is no worse than others.

/// What decides how fast the connections of a link may send.
public enum CongestionControl: Equatable, Sendable {
    /// The system's algorithm, and BBR while the line loses packets.
    case automatic
    /// The system's (`net.ipv4.tcp_congestion_control`).
    case system
    /// One of the kernel's, by its name.
    case named(String)

    /// The algorithm for a line that loses packets.
    static let forLossyLines = "bbr"
    /// The algorithm for what is short and waited for: it is in every kernel, everybody may use it by default, and it does not ask to be paced.
    static let forPromptConnections = "reno"

    /// What connections begin with; nil for what the system gives them.
    var beginning: String? { self == .automatic ? Self.forPromptConnections : nil }

    /// Reads a word, or takes the text for a name; whether there is such an algorithm `obstacle` tells.
    public init(_ text: String) {
        switch text {
        case "automatic": self = .automatic
        case "system": self = .system
        default: self = .named(text)
        }
    }

    /// Why this process can't have it; nil when it can.
    public var obstacle: String? {
        guard case .named(let name) = self else { return nil }
        let unknown = "the kernel has none of that name"
        if name.utf8.count > CongestionName.byteCountMax { return unknown }
        return CongestionName.ofNewSocket { descriptor in
            var value = CongestionName(name)
            let size = socklen_t(MemoryLayout<CongestionName>.size)
            if setsockopt(descriptor, Int32(IPPROTO_TCP), CongestionName.option, &value, size) == 0 { return nil }
            if errno != EPERM { return unknown }
            return "only root may use it (net.ipv4.tcp_allowed_congestion_control lists those for everybody)"
        }
    }

    /// The name of what `system` stands for; nil where it can't be asked.
    static var systemName: String? {
        CongestionName.ofNewSocket { descriptor in
            var (value, size) = (CongestionName(""), socklen_t(MemoryLayout<CongestionName>.size))
            return getsockopt(descriptor, Int32(IPPROTO_TCP), CongestionName.option, &value, &size) == 0 ? value.text : nil
        }
    }
}

/// The name of an algorithm as the kernel takes and gives it: 16 bytes that end with zeroes (`TCP_CA_NAME_MAX`).
struct CongestionName: Equatable, Sendable {
    /// TCP_CONGESTION.
    static let option: CInt = 13
    static let byteCountMax = 15

    /// The bytes, the first of them in the lowest byte of each.
    private var low: UInt64 = 0
    private var high: UInt64 = 0

    /// Takes at most 15 bytes.
    init(_ text: String) {
        for (index, byte) in text.utf8.prefix(Self.byteCountMax).enumerated() {
            if index < 8 { low |= UInt64(byte) << (8 * index) } else { high |= UInt64(byte) << (8 * (index - 8)) }
        }
        (low, high) = (low.littleEndian, high.littleEndian)
    }

    /// Asks the kernel on a socket that nobody else has; nil when there is none.
    static func ofNewSocket(_ ask: (_ descriptor: CInt) -> String?) -> String? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        return ask(descriptor)
    }

    var text: String {
        let bytes = [low.littleEndian, high.littleEndian].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}

/// When a link changes its algorithm. Pure; told about once a second.
struct CongestionChooser {
    /// How often in a row the line must have been clean before the system's algorithm comes back: some ten minutes.
    static let cleanNotesMin = 600

    let control: CongestionControl
    private var cleanNotes = 0
    private var isForLoss = false

    init(_ control: CongestionControl) { self.control = control }

    /// The algorithm that connections are to have; nil for the system's.
    /// - Parameter isPrompt: the connection carries what is short and waited for.
    func name(isPrompt: Bool = false) -> String? {
        switch control {
        case .automatic: isPrompt ? CongestionControl.forPromptConnections : isForLoss ? CongestionControl.forLossyLines : nil
        case .system: nil
        case .named(let name): name
        }
    }

    /// Takes in whether the line loses packets now.
    /// - Returns: true when the name has changed.
    mutating func note(isLossy: Bool) -> Bool {
        let before = name()
        cleanNotes = isLossy ? 0 : cleanNotes + 1
        if isLossy { isForLoss = true } else if cleanNotes >= Self.cleanNotesMin { isForLoss = false }
        return name() != before
    }
}

extension LinkChannel {
    /// The algorithm of a connection; nil for a channel that is no TCP connection. Called on the channel's loop.
    static func congestionControl(of channel: any Channel) -> String? {
        guard let options = channel as? any SocketOptionProvider else { return nil }
        var name: String?
        let value: EventLoopFuture<CongestionName> = options.unsafeGetSocketOption(
            level: .tcp, name: NIOBSDSocket.Option(rawValue: CongestionName.option))
        // On its own loop the channel answers before this returns.
        value.assumeIsolated().whenSuccess { name = $0.text }
        return name
    }

    /// Gives a connection an algorithm; false when the kernel refuses. Called on the channel's loop.
    static func setCongestionControl(_ name: String, of channel: any Channel) -> Bool {
        guard let options = channel as? any SocketOptionProvider else { return false }
        var isDone = false
        options.unsafeSetSocketOption(
            level: .tcp, name: NIOBSDSocket.Option(rawValue: CongestionName.option), value: CongestionName(name)
        ).assumeIsolated().whenSuccess { isDone = true }
        return isDone
    }
}
