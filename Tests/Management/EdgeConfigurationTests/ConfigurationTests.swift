import Foundation
import Testing

@testable import EdgeConfiguration

@Suite struct ConfigurationTests {
    private func errors(_ text: String) -> [String] {
        do {
            _ = try Configuration.parse(text, file: "/etc/edge.yaml")
            return []
        } catch {
            return error.errors.map { $0.description.replacingOccurrences(of: "/etc/edge.yaml:", with: "") }
        }
    }

    @Test func smallestFilesGetTheDefaults() throws {
        let onprem = try Configuration.parse("role: onprem\nname: harbour\nstate: /var/lib/causeway\n", file: "/etc/edge.yaml")
        #expect(onprem == .onprem(name: "harbour", stateDirectory: "/var/lib/causeway"))
        #expect(onprem.api.listen.description == "127.0.0.1:7480")
        #expect(onprem.api.tokenFile == "/var/lib/causeway/api-token")
        #expect(onprem.exposedListeners.isEmpty)
        let cloud = try Configuration.parse("role: cloud\nname: c\nstate: state\n", file: "/etc/edge.yaml")
        #expect(cloud == .cloud(name: "c", stateDirectory: "/etc/state"))
        guard case .cloud(let part) = cloud.role else {
            Issue.record("not a cloud edge")
            return
        }
        #expect(part.targetListen.map(\.description) == ["127.0.0.1:3260"])
        #expect(part.cachePath == "/etc/state/cache")
        #expect(part.cacheSizeBytes == 10 << 30)
        #expect(part.recoveryPointObjective == .seconds(5))
    }

    @Test func everyKeyIsRead() throws {
        let cloud = try Configuration.parse(
            """
            role: cloud
            name: west-1
            state: /s
            memoryLimit: 1GiB
            log: {level: debug, format: json}
            api:
              listen: "[::1]:0"
              tokenFile: ../token
              openMetrics: true
            link: {connect: home.example.com:7481, connections: 4, congestionControl: bbr, deduplicationMemory: 8MiB}
            target:
              listen: [0.0.0.0:3260, "[::]:3260"]
              discoveryAuthentication: required
              keepProcessorsAwake: false
            cache: {path: /dev/nvme1n1, size: 100GB}
            writeLog: {size: 8GiB, memory: 64MiB}
            points: {recoveryPointObjective: 500ms, sealSize: 16MiB}
            timeouts: {read: 45s, write: 2m}
            """, file: "/etc/causeway/edge.yaml")
        let part = Configuration.Cloud(
            linkConnect: .init(host: "home.example.com", port: 7_481), linkConnections: 4,
            targetListen: [.init(host: "0.0.0.0", port: 3_260), .init(host: "::", port: 3_260)], discoveryAuthentication: .required,
            keepsProcessorsAwake: false, cachePath: "/dev/nvme1n1",
            cacheSizeBytes: 100_000_000_000, writeLogSizeBytes: 8 << 30, writeLogMemoryBytes: 64 << 20,
            recoveryPointObjective: .milliseconds(500), sealSizeBytes: 16 << 20, readTimeout: .seconds(45), writeTimeout: .seconds(120))
        #expect(
            cloud
                == Configuration(
                    role: .cloud(part), name: "west-1", stateDirectory: "/s", log: .init(level: .debug, format: .json),
                    api: .init(listen: .init(host: "::1", port: 0), tokenFile: "/etc/causeway/../token", openMetrics: true),
                    memoryLimitBytes: 1 << 30, linkCongestionControl: "bbr",
                    linkDeduplicationMemoryBytes: 8 << 20))
        #expect(cloud.exposedListeners == ["target.listen 0.0.0.0:3260", "target.listen [::]:3260"])
        let onprem = try Configuration.parse(
            "role: onprem\nname: h\nstate: /s\nlink:\n  listen: 10.0.0.1:7481\nreadCache: {memory: 1GiB}\ndisks:\n- name: a\n  path: ./a.img\n- {name: b, path: /dev/sdb, readOnly: true}\n",
            file: "/etc/edge.yaml")
        #expect(
            onprem.role
                == .onprem(
                    .init(
                        linkListen: .init(host: "10.0.0.1", port: 7_481), readCacheBytes: 1 << 30,
                        disks: [.init(name: "a", path: "/etc/a.img"), .init(name: "b", path: "/dev/sdb", readOnly: true)])))
        #expect(onprem.exposedListeners == ["link.listen 10.0.0.1:7481"])
    }

    @Test func emptySectionsAreDefaults() throws {
        let text = "role: cloud\nname: c\nstate: /s\nlog:\napi:\nlink:\ntarget: {}\ncache: ~\nwriteLog:\npoints:\n"
        #expect(try Configuration.parse(text, file: "/f") == .cloud(name: "c", stateDirectory: "/s"))
    }

    @Test func everythingWrongIsNamedAtOnceWithItsPlace() {
        let text = """
            role: onprem
            nmae: harbour
            state: ""
            log: {level: verbose, colour: true}
            api:
              listen: 127.0.0.1
              token_file: /t
            link:
              connect: a:1
            memoryLimit: 1G
            disks:
              - name: a b
                path: /a
              - path: /b
              - name: c
                path: [1]
                readOnly: yes
              - oops
            cache: {size: 1GiB}
            """
        let expected = [
            "1:1: name is missing — give it a name, for example the site's",
            "2:1: unknown key “nmae” — did you mean “name”?",
            "3:8: state: this is not a path — write the path of a file or directory",
            "4:14: log.level: “verbose” is none of the possible values — use one of trace, debug, info, notice, warning, error, critical",
            "4:23: unknown key “log.colour” — known here: level, format",
            "6:11: api.listen: “127.0.0.1” has no port — write host:port, for example 127.0.0.1:3260 or [::1]:3260",
            "7:3: unknown key “api.token_file” — did you mean “tokenFile”?",
            "9:3: link.connect is a key of the other role: this edge has role “onprem” — remove it, or change “role”",
            "10:14: memoryLimit: “G” is not a unit of size — write GiB for powers of 1,024 or GB for powers of 1,000",
            "12:11: disks[].name: “a b” is not a name — use 1 to 63 letters, digits, “-”, “.” and “_”, and begin with a letter or a digit",
            "14:5: disks[].name is missing — give it a name, for example the site's",
            "16:11: disks[].path: expected one value, found a list",
            "17:15: disks[].readOnly: “yes” is not true or false — write true or false",
            "18:5: disks[]: expected keys and values, found “oops”",
            "19:1: cache is a key of the other role: this edge has role “onprem” — remove it, or change “role”",
        ]
        let found = errors(text)
        #expect(found.count == expected.count)
        for (found, expected) in zip(found, expected) { #expect(found == expected) }
    }

    @Test(arguments: [
        ("", "the file is empty"), ("# nothing\n", "the file is empty"),
        ("- a\n", "1:1: the file: expected keys and values, found a list"),
        ("role: onprem\n\tname: x\n", "this is not YAML"), ("role: [", "this is not YAML"),
        ("a: 1\nrole: cloud\na: 2\n", "1:1: “a” is there twice"),
        ("role: a\nname: n\nstate: /s\n", "1:7: role: “a” is not a role — use onprem or cloud"),
        ("name: n\nstate: /s\n", "1:1: role is missing"),
        ("role:\nname: n\nstate: /s\n", "role: expected one value, found nothing"),
        ("role: cloud\nname: n\nstate: /s\n---\nrole: cloud\n", "this is not YAML"),
        (
            "role: cloud\nname: n\nstate: /s\nlink: {connections: 0}\n",
            "4:21: link.connections: “0” is not a whole number from 1 to 16"
        ),
        (
            "role: onprem\nname: n\nstate: /s\nlink: {congestionControl: bbr v2}\n",
            "4:27: link.congestionControl: “bbr v2” is no name of a congestion control — write automatic"
        ),
        (
            "role: cloud\nname: n\nstate: /s\nlink: {congestionControl: ''}\n",
            "link.congestionControl: “” is no name of a congestion control"
        ),
        ("role: cloud\nname: n\nstate: /s\nlink: {connect: 'a:0'}\n", "4:17: link.connect: one cannot connect to port 0"),
        (
            "role: cloud\nname: n\nstate: /s\nlink: {connect: 'a:1', listen: 'b:2'}\n",
            "4:32: link.listen: link.connect is there too — keep connect where this edge dials, listen where the on-prem edge does"
        ),
        (
            "role: cloud\nname: n\nstate: /s\nlink: {listen: 127.0.0.1:3260}\n",
            "link.listen: this is the address of another listener — give each its own port"
        ),
        ("role: cloud\nname: n\nstate: /s\ntarget: {listen: []}\n", "target.listen: expected 1 to 16 addresses, found 0"),
        ("role: cloud\nname: n\nstate: /s\ntarget: {listen: [a:1, a:1]}\n", "4:24: target.listen: a:1 is there twice"),
        ("role: cloud\nname: n\nstate: /s\ntarget: {listen: [a, {b: c}]}\n", "4:19: target.listen: “a” has no port"),
        (
            "role: cloud\nname: n\nstate: /s\ncache: {size: 1MiB}\n",
            "4:15: cache.size: “1MiB” is out of range — use 16MiB to 4TiB"
        ),
        (
            "role: cloud\nname: n\nstate: /s\nwriteLog: {size: 1GiB}\npoints: {sealSize: 768MiB}\n",
            "5:20: points.sealSize: 768MiB is more than half of writeLog.size, 1GiB"
        ),
        (
            "role: cloud\nname: n\nstate: /s\npoints: {sealSize: 3GiB}\n",
            "4:20: points.sealSize: “3GiB” is out of range — use 1MiB to 1GiB"
        ),
        (
            "role: cloud\nname: n\nstate: /s\nwriteLog: {memory: 300MiB}\n",
            "4:20: writeLog.memory: 300MiB is more than half of memoryLimit, 512MiB"
        ),
        ("role: cloud\nname: n\nstate: /s\ntimeouts: {write: 500ms}\n", "is out of range — use 1s to 24h"),
        ("role: cloud\nname: n\nstate: /s\npoints: {recoveryPointObjective: 1ms}\n", "is out of range — use 50ms to 24h"),
        (
            "role: onprem\nname: n\nstate: /s\nlink: {listen: 127.0.0.1:7480}\n",
            "4:7: link.listen: 127.0.0.1:7480 is the address of api.listen"
        ),
        (
            "role: onprem\nname: n\nstate: /s\ndisks: [{name: a, path: /a}, {name: a, path: /b}]\n",
            "4:37: disks[].name: “a” is there twice"
        ),
        ("role: onprem\nname: n\nstate: /s\ndisks: [{name: a, path: /a}, {name: b, path: //a}]\n", "disk “a” has the same path"),
        ("role: onprem\nname: n\nstate: /s\ndisks: {a: /b}\n", "4:8: disks: expected a list, found keys and values"),
        (
            "role: cloud\nname: n\nstate: /s\nsealSize: 1GiB\n",
            "4:1: unknown key “sealSize” — “sealSize” belongs at points.sealSize"
        ),
        (
            "role: cloud\nname: n\nstate: /s\ntarget:\n  busyPoll: 50us\n",
            "5:3: unknown key “target.busyPoll” — this key is gone, because it had no effect: delete the line"
        ),
        ("? [a]\n: b\nrole: cloud\n", "expected the name of a key, found a list"),
    ])
    func oneError(text: String, message: String) {
        let found = errors(text)
        #expect(found.contains { $0.contains(message) }, "\(found)")
    }

    @Test func unreadableFilesAreNamed() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "edge-\(UUID().uuidString).yaml").path
        func message() -> String {
            do {
                _ = try Configuration.load(path)
                return ""
            } catch {
                return error.description
            }
        }
        #expect(message().hasPrefix("\(path): there is no such file"))
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data([0xFF, 0xFE, 0x00]).write(to: URL(fileURLWithPath: path))
        #expect(message() == "\(path): the file is not UTF-8 text")
        try Data(repeating: 0x23, count: Configuration.largestFileBytes + 1).write(to: URL(fileURLWithPath: path))
        #expect(message() == "\(path): the file is larger than 1MiB")
        try "role: onprem\nname: n\nstate: s\n".write(toFile: path, atomically: true, encoding: .utf8)
        let state = URL(fileURLWithPath: path).deletingLastPathComponent().appending(path: "s").path
        #expect(try Configuration.load(path).stateDirectory == state)
    }

    @Test func renderedFilesParseBack() throws {
        var onprem = Configuration.onprem(name: "n", stateDirectory: "/s \"q\" \\ # ü\t: {}")
        #expect(try Configuration.parse(Configuration.render(onprem), file: "/f") == onprem)
        onprem.role = .onprem(
            .init(
                linkListen: .init(host: "::1", port: 0), linkConnections: 2,
                disks: [.init(name: "null", path: "/a:b", readOnly: true), .init(name: "1", path: "/~")]))
        onprem.log = .init(level: .trace, format: .json)
        onprem.api = .init(listen: .init(host: "localhost", port: 1), tokenFile: "/t", openMetrics: true)
        #expect(try Configuration.parse(Configuration.render(onprem), file: "/f") == onprem)
        var cloud = Configuration.cloud(name: "c", stateDirectory: "/s", connect: .init(host: "::1", port: 5))
        #expect(try Configuration.parse(Configuration.render(cloud), file: "/f") == cloud)
        cloud.role = .cloud(.init(linkListen: .init(host: "::", port: 7), cachePath: "/c"))
        #expect(try Configuration.parse(Configuration.render(cloud), file: "/f") == cloud)
        #expect(cloud.exposedListeners == ["link.listen [::]:7"])
        cloud.role = .cloud(.init(cachePath: "/c", cacheSizeBytes: 16_777_217, recoveryPointObjective: .milliseconds(1_500)))
        #expect(try Configuration.parse(Configuration.render(cloud), file: "/f") == cloud)
    }

    /// Damaged files: each is a configuration or errors with places, and nothing traps.
    @Test func damagedFiles() {
        let original = Array(
            Configuration.render(.cloud(name: "c", stateDirectory: "/s", connect: .init(host: "::1", port: 5))).utf8)
        let pieces = [
            "{", "}", "[", "]", ": ", "- ", "\n", "  ", "\"", "'", "&a ", "*a ", "!!x ", "#", "|", ">", "%", "\t", "\0", "<<: ",
            "? ", "---\n",
        ]
        var seed: UInt64 = 7
        func random(_ below: Int) -> Int {
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((seed >> 33) % UInt64(below))
        }
        for _ in 0..<3_000 {
            var bytes = original
            for _ in 0...random(4) {
                switch random(3) {
                case 0: bytes[random(bytes.count)] = UInt8(random(256))
                case 1: bytes.removeSubrange(random(bytes.count / 2)..<(bytes.count / 2 + random(bytes.count / 2)))
                default: bytes.insert(contentsOf: Array(pieces[random(pieces.count)].utf8), at: random(bytes.count))
                }
                if bytes.count < 8 { bytes = original }
            }
            let text = String(decoding: bytes, as: UTF8.self)
            do {
                let configuration = try Configuration.parse(text, file: "/f")
                #expect(!configuration.name.isEmpty)
            } catch {
                #expect(!error.errors.isEmpty)
            }
        }
    }

    /// The reference page has a row for each key, and its examples can be used.
    @Test func referencePageIsTrue() throws {
        let root = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let page = try String(contentsOf: root.appending(path: "docs/reference/configuration.md"), encoding: .utf8)
        for key in ConfigurationKey.all { #expect(page.contains("| `\(key.path)` |"), "\(key.path)") }
        let examples = page.components(separatedBy: "```yaml\n").dropFirst().compactMap {
            $0.components(separatedBy: "```").first
        }
        #expect(examples.count >= 2)
        for example in examples {
            #expect(throws: Never.self) { try Configuration.parse(example, file: "/etc/causeway/edge.yaml") }
        }
    }
}
