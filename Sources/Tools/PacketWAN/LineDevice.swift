import CNetwork
import CPlatform
import Glibc

/// Why the emulator can't be, or can't go on.
public struct PacketWANError: Error, Hashable, CustomStringConvertible {
    public var description: String
    /// What helps.
    public var action: String?

    init(_ what: String, code: Int32, action: String? = nil) {
        var text = [CChar](repeating: 0, count: 128)
        causeway_error_text(code, &text, text.count)
        description = "\(what): \(String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self))"
        self.action = action
    }
}

/// A TUN device: one end of the line.
struct LineDevice {
    /// Packets that the kernel may hold for us. What it has no room for is lost before the line, and not by its rules.
    static let queuePackets: UInt32 = 20_000

    let descriptor: Int32
    let name: String
    /// /proc/net/dev of its namespace, which has its counts.
    private let counts: Int32

    private init(descriptor: Int32, name: String) {
        self.descriptor = descriptor
        self.name = name
        counts = open("/proc/thread-self/net/dev", O_RDONLY | O_CLOEXEC)
    }

    /// Makes a device in the calling thread's namespace; nil when the name is taken.
    static func make(_ name: String) throws(PacketWANError) -> LineDevice? {
        let descriptor = causeway_tun_open(name)
        switch -descriptor {
        case EBUSY: return nil
        case ENOENT, ENXIO, ENODEV:
            throw PacketWANError(
                "there are no TUN devices on this machine (/dev/net/tun)", code: -descriptor, action: "Load them: modprobe tun")
        case EPERM, EACCES:
            throw PacketWANError(
                "a TUN device cannot be made", code: -descriptor,
                action: "Run it as root: it needs CAP_NET_ADMIN, and read and write access to /dev/net/tun.")
        case 1...: throw PacketWANError("a TUN device cannot be made", code: -descriptor)
        default: return LineDevice(descriptor: descriptor, name: name)
        }
    }

    /// Gives it its address, and turns it on. More addresses go by an alias.
    func bringUp(address: UInt32, alias: String = "") throws(PacketWANError) {
        let isAlias = !alias.isEmpty
        try Self.bringUp(
            name + alias, address: address, prefixLength: WANAddresses.prefixLength,
            mtu: isAlias ? 0 : UInt32(clamping: PacketWAN.maximumPacketBytes), queue: isAlias ? 0 : Self.queuePackets)
    }

    /// Whether packets of one connection that follow one another come as one. A kernel that can't do that gives them one by one.
    func takeTrains(_ takesTrains: Bool) { _ = causeway_tun_take_trains(descriptor, takesTrains ? 1 : 0) }

    /// Turns the loopback device of the thread's namespace on.
    static func bringUpLoopback() throws(PacketWANError) {
        try bringUp("lo", address: 0x7F00_0001, prefixLength: 8, mtu: 0, queue: 0)
    }

    private static func bringUp(
        _ name: String, address: UInt32, prefixLength: UInt32, mtu: UInt32, queue: UInt32
    ) throws(PacketWANError) {
        let code = causeway_interface_up(name, address, prefixLength, mtu, queue)
        if code < 0 {
            throw PacketWANError("\(name) cannot be turned on", code: -code, action: "It needs CAP_NET_ADMIN: run it as root.")
        }
    }

    /// Packets that the kernel lost because nobody read them in time.
    var unreadPackets: UInt64 {
        var text = [UInt8](repeating: 0, count: 16_384)
        let length = pread(counts, &text, text.count, 0)
        guard length > 0 else { return 0 }
        let lines = String(decoding: text.prefix(length), as: UTF8.self).split(separator: "\n")
        let fields = lines.compactMap { line -> [Substring]? in
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, parts[0].split(separator: " ").first == name[...] else { return nil }
            return parts[1].split(separator: " ")
        }
        // Eight columns of what it received, then bytes, packets, errors and drops of what it sent: to us.
        guard let own = fields.first, own.count > 11 else { return 0 }
        return UInt64(own[11]) ?? 0
    }

    func discard() {
        close(descriptor)
        if counts >= 0 { close(counts) }
    }
}
