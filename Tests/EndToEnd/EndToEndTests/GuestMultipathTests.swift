import Foundation
import Testing

extension EndToEnd {
    @Suite(.serialized, .enabled(if: Guest.isSoaking, "takes minutes: make soak-guests"))
    struct GuestMultipath {
        /// How often a path goes and comes back.
        static let cuts = 2 * Guest.rounds

        @Test("multipathd makes one map of two portals; verified writes outlast the loss of one, and it comes back")
        func twoPortals() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--portals", "2"]) { lab in
                var target = try await lab.target("data")
                #expect(target.ports.count == 2)
                // The second path leads through a relay, which can be cut.
                let relay = try PortalRelay(to: target.ports[1])
                try await relay.start()
                defer { relay.end() }
                target.ports[1] = relay.port
                try await Guest.with(lifetimeSeconds: 600 + Double(Self.cuts) * 120) { guest in
                    try await Self.start(guest, target)
                    let map = try await guest.check("multipathd show maps raw format '%n %w %N'")
                        .split(separator: "\n").map { $0.split(separator: " ") }
                    #expect(map.count == 1, "\(map)")
                    // Page 83h says the same on both paths: the vendor's designator ("1"), as nobody has given us an OUI for another.
                    let name = try #require(map.first?.first)
                    #expect(map.first?[1].hasPrefix("1CAUSEWAY") == true, "\(map)")
                    #expect(map.first?[2] == "2", "\(map)")
                    let writes = try guest.startVerifiedWrites(to: "/dev/mapper/\(name)", byteCount: 16 << 20)
                    let dm = try await guest.check("basename $(readlink -f /dev/mapper/\(name))")
                        .trimmingCharacters(in: .whitespacesAndNewlines)
                    for cut in 0..<Self.cuts {
                        try await guest.untilWritten(50, to: dm)
                        // A portal that is gone, then a silent one, which only NOP-Out notices.
                        let isGone = cut.isMultiple(of: 2)
                        if isGone { relay.end() } else { try await relay.say("cut blackhole") }
                        try await guest.untilTrue(Self.paths("active", are: 1), seconds: 120)
                        try await guest.untilWritten(50, to: dm)
                        if isGone { try await relay.start() } else { try await relay.say("restore") }
                        do {
                            try await guest.untilTrue(Self.paths("active", are: 2), seconds: 120)
                        } catch {
                            throw CommandFailure(description: "cut \(cut): \(error)\n\(try await Self.state(of: guest, port: relay.port))")
                        }
                    }
                    let result = try await guest.endVerifiedWrites(writes)
                    #expect(result.isSuccess && result.output.contains("err= 0"), "\(result)")
                    let failed = try await guest.run("dmesg | grep 'I/O error, dev dm-'")
                    #expect(failed.output.isEmpty, "\(failed)")
                    // udev looks into a map that nobody writes to any more, and holds it meanwhile.
                    try await guest.untilTrue("udevadm settle && multipath -F", seconds: 60)
                    try await guest.check("iscsiadm -m node --logout", seconds: 60)
                }
            }
        }

        /// Logs in over both portals, and waits until multipathd has both paths.
        static func start(_ guest: Guest, _ target: GuestTarget) async throws {
            try await guest.check(
                """
                cat >/etc/multipath.conf <<'CONFIGURATION'
                defaults {
                  user_friendly_names no
                  find_multipaths no
                  polling_interval 1
                  max_polling_interval 2
                  no_path_retry queue
                  path_grouping_policy multibus
                }
                blacklist {
                  devnode "^vd"
                }
                CONFIGURATION
                multipathd
                """)
            try await guest.startInitiator()
            let settings = [
                "node.session.timeo.replacement_timeout": "2", "node.conn[0].timeo.noop_out_interval": "1",
                "node.conn[0].timeo.noop_out_timeout": "2",
            ]
            _ = try await guest.logIn(to: target, digests: false, settings: settings)
            try await guest.untilTrue(paths("active", are: 2), seconds: 30)
        }

        /// What guest, initiator and multipathd say of the paths.
        static func state(of guest: Guest, port: Int) async throws -> String {
            try await guest.run(
                """
                multipathd show paths; iscsiadm -m session -P 1; ss -tnp; dmesg | tail -n 40; tail -n 120 \(Guest.initiatorLog)
                timeout 3 bash -c 'exec 3<>/dev/tcp/\(Guest.host)/\(port)' && echo "the portal can be reached"
                """
            ).output
        }

        /// A condition in the guest: so many paths are in a state of the device mapper.
        static func paths(_ state: String, are count: Int) -> String {
            "[ $(multipathd show paths raw format '%t' | grep -cx '\(state) *') -eq \(count) ]"
        }
    }
}

/// A portal's way through a process that can lose it: `causeway relay`.
///
/// A relay that is cut takes connections and ends them at once. Open-iscsi never logs in again when that happens
/// to it in the middle of a login (its issue 387: "can't bind conn, retcode -107" from then on), so a portal that is gone has no relay.
final class PortalRelay {
    let port: Int
    private let portal: Int
    private let control: String
    private var running: RunningCommand?

    init(to portal: Int) throws {
        self.portal = portal
        let (port, control) = (try Self.freePort(), try Self.freePort())
        self.port = port
        self.control = "127.0.0.1:\(control)"
    }

    func start() async throws {
        running = try Command.start(
            "causeway",
            [
                "relay", "--listen", "127.0.0.1:\(port)", "--connect", "127.0.0.1:\(portal)", "--control", control, "--rtt", "0ms",
            ])
        let address = control
        try await Lab.untilTrue(seconds: 20, "the portal's relay") { (try? await Lab.say("stats", to: address)) != nil }
    }

    func say(_ line: String) async throws { try await Lab.say(line, to: control) }

    func end() {
        running?.signal(SIGKILL)
        running = nil
    }

    /// A port that the system says is free now.
    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard isBound else { throw CommandFailure(description: "no port is free") }
        return Int(UInt16(bigEndian: address.sin_port))
    }
}
