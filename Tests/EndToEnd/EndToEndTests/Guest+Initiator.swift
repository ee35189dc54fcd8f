import APIModels
import Foundation

/// A volume as an initiator in a guest logs in to it.
struct GuestTarget {
    let name: String
    let credentials: VolumeCredentials
    /// The ports of the portals, on this machine's loopback.
    var ports: [Int]
}

extension Lab {
    /// What an initiator needs for a volume.
    func target(_ volume: String) async throws -> GuestTarget {
        let shown = try await causeway(.onprem, "volume", "credentials", volume, "--output", "json")
        guard shown.isSuccess else { throw CommandFailure(description: shown.description) }
        let credentials = try APICoding.decoder().decode(VolumeCredentials.self, from: Data(shown.output.utf8))
        guard let target = try await status(volume).target else { throw CommandFailure(description: "\(volume) has no target") }
        let ports = target.portals.compactMap { $0.split(separator: ":").last.flatMap { Int($0) } }
        guard !ports.isEmpty else { throw CommandFailure(description: "\(volume) has no portal") }
        return GuestTarget(name: target.iqn, credentials: credentials, ports: ports)
    }

    /// Makes a disk of holes and has it served with mutual CHAP.
    func serveWithMutualCHAP(_ name: String, byteCount: Int) async throws -> GuestTarget {
        let path = disk(name)
        try await Command.check("truncate", ["-s", "\(byteCount)", path])
        func file(_ secret: String) throws -> String {
            let path = directory.appendingPathComponent("\(name).\(secret)").path
            try Data(secret.utf8).write(to: URL(fileURLWithPath: path))
            return path
        }
        let (secret, mutual) = (try file("secret-of-the-guest"), try file("secret-of-the-target"))
        let added = try await causeway(.onprem, "disk", "add", name, path)
        guard added.isSuccess else { throw CommandFailure(description: added.description) }
        let created = try await causeway(
            .onprem, "volume", "create", name, "--chap-user", "guest", "--chap-secret-file", secret, "--mutual-chap-user", "target",
            "--mutual-chap-secret-file", mutual)
        guard created.isSuccess else { throw CommandFailure(description: created.description) }
        try await untilServing(name)
        return try await target(name)
    }

    /// How much of the file system a disk takes at home: holes count nothing.
    func allocatedByteCount(_ name: String) throws -> Int {
        var status = stat()
        guard stat(disk(name), &status) == 0 else { throw CommandFailure(description: "can't look at \(disk(name))") }
        return Int(status.st_blocks) * 512
    }
}

extension Guest {
    /// Where open-iscsi's daemon says what it does.
    static let initiatorLog = "/run/iscsid.log"

    /// Starts open-iscsi's daemon.
    func startInitiator() async throws {
        try await check("nohup iscsid -f -d 4 </dev/null >\(Self.initiatorLog) 2>&1 &")
        try await untilTrue("iscsiadm -m iface", seconds: 30)
    }

    /// Logs in to a target through its portals and returns the names of its disks, one a portal.
    ///
    /// The records are made by hand: what SendTargets tells is this machine's loopback, which is not the guest's.
    func logIn(to target: GuestTarget, digests: Bool, settings: [String: String] = [:]) async throws -> [String] {
        var all = settings.merging(
            [
                "node.session.auth.authmethod": "CHAP", "node.session.auth.username": target.credentials.user,
                "node.session.auth.password": target.credentials.secret,
            ]
        ) { own, _ in own }
        if let user = target.credentials.mutualUser { all["node.session.auth.username_in"] = user }
        if let secret = target.credentials.mutualSecret { all["node.session.auth.password_in"] = secret }
        for digest in ["HeaderDigest", "DataDigest"] { all["node.conn[0].iscsi.\(digest)"] = digests ? "CRC32C" : "None" }
        var disks: [String] = []
        for port in target.ports {
            let node = "iscsiadm -m node -T \(target.name) -p \(Self.host):\(port)"
            let updates = all.sorted { $0.key < $1.key }.map { "\(node) -o update -n '\($0.key)' -v '\($0.value)'" }
            let link = "/dev/disk/by-path/ip-\(Self.host):\(port)-iscsi-\(target.name)-lun-0"
            try await check("\(node) -o new\n\(updates.joined(separator: "\n"))\n\(node) --login")
            try await untilTrue("[ -b \(link) ]")
            disks.append(try await check("readlink -f \(link)").trimmingCharacters(in: .whitespacesAndNewlines))
        }
        return disks
    }

    /// Starts fio with writes, and their verification by checksum beside them, again and again until `endVerifiedWrites`; every
    /// write is durable when it is answered.
    func startVerifiedWrites(to path: String, byteCount: Int) throws -> Int {
        try start(
            """
            until [ -e /run/end-of-writes ]; do
              fio --name=verified --filename=\(path) --size=\(byteCount) --rw=randwrite --bs=16k --ioengine=libaio --iodepth=8 \
                --direct=1 --sync=dsync --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based --runtime=5 || exit
            done
            """)
    }

    /// Ends the writes and returns what became of them.
    func endVerifiedWrites(_ writes: Int) async throws -> GuestResult {
        try await check("touch /run/end-of-writes")
        return try await result(of: writes, seconds: 240)
    }

    /// Waits until a disk has taken so many more writes.
    func untilWritten(_ writes: Int, to disk: String) async throws {
        let statistics = "/sys/block/\(disk.split(separator: "/").last ?? "")/stat"
        let before = try await check("awk '{print $5}' \(statistics)").trimmingCharacters(in: .whitespacesAndNewlines)
        try await untilTrue("[ $(awk '{print $5}' \(statistics)) -ge $((\(before) + \(writes))) ]")
    }
}
