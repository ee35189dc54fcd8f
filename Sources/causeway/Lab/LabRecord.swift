import Foundation
import PacketWAN

/// What `DIR/lab.json` says about a lab that is up.
struct LabRecord: Codable, Sendable {
    struct Edge: Codable, Sendable {
        /// The address of its API.
        var api: String
        var token: String
        var pid: Int32
        /// Its configuration file: `causewayd --config` with it starts the edge again.
        var config: String
        /// Its state directory.
        var state: String
        var log: String

        /// The daemon, whoever started it.
        var daemon: LabProcess? { LabProcess.daemon(config: config, state: state) }
        /// What the lab started, when that is not the daemon itself but something that started it (`CAUSEWAYD` may name such a thing).
        var wrapper: LabProcess? {
            let started = LabProcess(pid: pid)
            return started.runs(with: config) && daemon?.pid != pid ? started : nil
        }
    }

    struct Relay: Codable, Sendable {
        var pid: Int32
        /// `host:port` of the control protocol.
        var control: String
        /// `host:port` where the cloud edge connects.
        var listen: String
        var log: String
        /// Where the ends of the WAN are, with `--wan packets`; nil for a relay. The on-prem edge is in home's network namespace then.
        var addresses: WANAddresses?
    }

    struct Volume: Codable, Sendable {
        var name: String
        /// libiscsi's form, with user and secret.
        var url: String
        /// The same by the other portals; nil when there is one.
        var otherURLs: [String]?
        /// The NBD URL, with `--nbd`.
        var nbd: String?
        /// The path of the disk.
        var disk: String
    }

    var onprem: Edge
    var cloud: Edge
    var relay: Relay?
    var volumes: [Volume]
}

/// A path from the root, whatever the current directory is. Its `..` stay as they are: only the kernel knows where they lead
/// behind a symbolic link.
func absolutePath(_ path: String) -> String {
    path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
}

/// The files of a lab.
struct LabDirectory: Sendable {
    let path: String

    /// The directory, by its absolute path.
    init(_ path: String) {
        self.path = absolutePath(path)
    }

    var record: String { path + "/lab.json" }
    /// Where the emulator of packets tells the addresses of its ends.
    var line: String { path + "/line.json" }
    /// The ports of the last time, so that addresses stay as they are.
    var ports: String { path + "/ports.json" }

    func configuration(_ role: String) -> String { "\(path)/\(role).yaml" }
    func state(_ role: String) -> String { "\(path)/\(role)" }
    func log(_ role: String) -> String { "\(path)/\(role).log" }

    /// Makes the directory, unless it is there.
    func make() throws {
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            let reason = ((error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError).map {
                ": \(String(cString: strerror(Int32($0.code))))"
            }
            var isDirectory: ObjCBool = false
            let isFile = FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) && !isDirectory.boolValue
            throw CommandFailure(
                "\(path) \(isFile ? "is no directory" : "can't be made\(reason ?? "")")", action: "Name a directory with --directory.")
        }
    }

    /// What the lab left about itself; nil when none is there.
    func readRecord() throws -> LabRecord? {
        guard let data = FileManager.default.contents(atPath: record) else {
            let reason = access(record, R_OK) == 0 ? 0 : errno
            // Without rights for the directory nobody can say whether there is one.
            if reason == 0 || reason == ENOENT || reason == ENOTDIR { return nil }
            throw CommandFailure(
                "\(record) can't be read: \(String(cString: strerror(reason)))", action: "Use the account that started the lab.")
        }
        do {
            return try JSONDecoder().decode(LabRecord.self, from: data)
        } catch {
            throw CommandFailure("\(record) is not what a lab leaves", action: "Remove it, after ending what it names.")
        }
    }

    /// What the lab left about itself; an error when none is up.
    func recordOfLabThatIsUp() throws -> LabRecord {
        guard let record = try readRecord() else {
            throw CommandFailure("no lab is up in \(path)", action: "Start one with causeway lab up --directory \(path).")
        }
        return record
    }

    func write(_ value: some Encodable, to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try writePrivately(try encoder.encode(value) + Data("\n".utf8), to: path)
    }

    /// Writes a file as a whole, for its owner's eyes only.
    func writePrivately(_ data: Data, to path: String) throws {
        let temporary = "\(path).new"
        try? FileManager.default.removeItem(atPath: temporary)
        guard FileManager.default.createFile(atPath: temporary, contents: data, attributes: [.posixPermissions: 0o600]),
            rename(temporary, path) == 0
        else { throw CommandFailure("\(path) cannot be written: \(String(cString: strerror(errno)))") }
    }

    /// Runs `body` while no other `lab up` or `lab down` works in the directory.
    func locked<Value>(_ body: () async throws -> Value) async throws -> Value {
        let descriptor = open(path + "/lab.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw CommandFailure("\(path) cannot be written: \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw CommandFailure("another causeway lab is at work in \(path)", action: "Wait until it is done.")
        }
        return try await body()
    }

    /// The end of a log, for messages.
    func tail(ofLog path: String, lines: Int = 12) -> String {
        guard let handle = FileHandle(forReadingAtPath: path) else { return "" }
        defer { try? handle.close() }
        let size = (try? handle.seekToEnd()) ?? 0
        try? handle.seek(toOffset: size > 16_384 ? size - 16_384 : 0)
        let text = String(decoding: (try? handle.readToEnd()) ?? Data(), as: UTF8.self)
        return text.split(separator: "\n").suffix(lines).map { "    " + $0 }.joined(separator: "\n")
    }
}
