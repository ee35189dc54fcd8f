import Foundation
import Testing

extension EndToEnd {
    /// Real NBD clients against a real pair.
    @Suite(.serialized)
    struct NBD {
        @Test("libnbd's and QEMU's tools see what an NBD disk can do, and copy it both ways over many connections")
        func tools() async throws {
            try await Lab.with(disks: [("data", 96 << 20), ("other", 1 << 20)], options: ["--nbd"]) { lab in
                let url = lab.nbd("data")
                let base = url.replacing(/\/data$/, with: "")
                let listed = try await Command.check("nbdinfo", ["--list", base], seconds: 20)
                #expect(listed.contains("export=\"data\"") && listed.contains("export=\"other\""))
                let shown = try await Command.check("nbdinfo", [url], seconds: 20)
                #expect(shown.contains("\(96 << 20)") && shown.contains("base:allocation"), "\(shown)")
                #expect(shown.contains("block_size_minimum: 512"))
                for can in ["connect", "cache", "df", "fast-zero", "flush", "fua", "multi-conn", "read", "trim", "write", "zero"] {
                    let result = try await Command.run("nbdinfo", ["--can", can, url], seconds: 20)
                    #expect(result.isSuccess, "\(can): \(result)")
                }
                #expect(try await !Command.run("nbdinfo", ["--is", "read-only", url], seconds: 20).isSuccess)
                // There are two exports, so none is the default.
                #expect(try await !Command.run("nbdinfo", [base], seconds: 20).isSuccess)
                #expect(try await !Command.run("nbdinfo", [base + "/absent"], seconds: 20).isSuccess)

                let image = lab.directory.appendingPathComponent("image.raw").path
                try await Command.check(
                    "bash",
                    [
                        "-c",
                        "head -c 20M /dev/urandom >\(image); truncate -s 60M \(image); head -c 3M /dev/urandom >>\(image); truncate -s 96M \(image)",
                    ])
                try await Command.check("nbdcopy", ["--connections=4", "--requests=32", "--flush", image, url], seconds: 120)
                let back = lab.directory.appendingPathComponent("back.raw").path
                for options in [[], ["--allocated"], ["--synchronous"], ["--connections=8", "--request-size=4194304"]] {
                    try await Command.check("nbdcopy", options + [url, back], seconds: 120)
                    let same = try await Command.run("cmp", [image, back], seconds: 60)
                    #expect(same.isSuccess, "\(options): \(same)")
                }
                // What iSCSI sees, and what comes home, is the same.
                for (other, options) in [(lab.url("data"), [String]()), (url, [])] {
                    let compared = try await Command.run(
                        "qemu-img", ["compare", "-f", "raw", "-F", "raw"] + options + [image, other], seconds: 120)
                    #expect(compared.isSuccess, "\(compared)")
                }
                try await lab.seal("data")
                let home = try await Command.run("cmp", [image, lab.disk("data")], seconds: 60)
                #expect(home.isSuccess, "\(home)")
            }
        }

        @Test("what one front end writes, zeroes or trims the other sees, and unaligned clients are served")
        func bothFrontEnds() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--nbd"]) { lab in
                func io(_ url: String, _ commands: String...) async throws {
                    let result = try await Command.run(
                        "qemu-io", ["-f", "raw"] + commands.flatMap { ["-c", $0] } + [url], seconds: 60)
                    #expect(result.isSuccess && !result.output.contains("verification failed"), "\(result)")
                }
                let (nbd, iscsi) = (lab.nbd("data"), lab.url("data"))
                try await io(nbd, "write -P 0x11 1M 8M", "write -f -P 0x12 512 512", "flush")
                try await io(iscsi, "read -P 0x11 1M 8M", "read -P 0x12 512 512", "write -P 0x22 2M 1M", "write -z 3M 1M")
                try await io(nbd, "read -P 0x22 2M 1M", "read -P 0 3M 1M", "discard 4M 1M", "write -z -u 5M 1M", "write -z 6M 1M", "flush")
                try await io(iscsi, "read -P 0 4M 3M", "read -P 0x11 7M 2M")
                // libnbd checks no sizes here and asks for none, so the server reads, changes and writes.
                let script = """
                    import nbd
                    h = nbd.NBD(); h.set_strict_mode(0); h.set_request_block_size(False); h.connect_uri("\(nbd)")
                    h.pwrite(b"x" * 1000, 1048576 + 100); h.zero(10, 1048576 + 200, 0); h.trim(100, 1048576 + 300)
                    assert h.pread(1100, 1048576 + 50) == b"\\x11" * 50 + b"x" * 100 + bytes(10) + b"x" * 890 + b"\\x11" * 50
                    assert h.pread(3, 67108861) == bytes(3)
                    """
                let unaligned = try await Command.run("/usr/bin/python3", ["-c", script], seconds: 30)
                #expect(unaligned.isSuccess, "\(unaligned)")
                try await io(iscsi, "read -P 0x78 \((1 << 20) + 512) 512")
                // One that was told must keep to it.
                let told = "import nbd; h = nbd.NBD(); h.set_strict_mode(0); h.connect_uri(\"\(nbd)\"); h.pread(3, 1)"
                let refused = try await Command.run("/usr/bin/python3", ["-c", told], seconds: 30)
                #expect(!refused.isSuccess && refused.errors.contains("EINVAL"), "\(refused)")
                try await lab.seal("data")
                let compared = try await Command.run(
                    "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", nbd, lab.disk("data")], seconds: 240)
                #expect(compared.isSuccess, "\(compared)")
            }
        }

        @Test("a map of the disk tells its holes")
        func map() async throws {
            try await Lab.with(disks: [("data", 16 << 20)], options: ["--nbd"]) { lab in
                try await Command.check("qemu-io", ["-f", "raw", "-c", "write -P 1 4M 64k", "-c", "flush", lab.nbd("data")], seconds: 30)
                try await Command.check("nbdcopy", [lab.nbd("data"), "null:"], seconds: 60)
                let map = try await Command.check("nbdinfo", ["--map", lab.nbd("data")], seconds: 60)
                let rows = map.split(separator: "\n").map { $0.split(separator: " ") }
                #expect(
                    rows.map { $0.prefix(3).joined(separator: " ") } == ["0 4194304 3", "4194304 65536 0", "4259840 12517376 3"], "\(map)")
            }
        }

        @Test("fio verifies random writes over NBD while the WAN is slow")
        func fio() async throws {
            try await Lab.with(disks: [("data", 64 << 20)], options: ["--nbd", "--rtt", "10ms"]) { lab in
                let result = try await Command.run(
                    "fio",
                    [
                        "--name=nbd", "--ioengine=nbd", "--uri=\(lab.nbd("data"))", "--rw=randrw", "--bs=4k", "--iodepth=32", "--size=48M",
                        "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
                    ], seconds: 180)
                #expect(result.isSuccess, "\(result)")
            }
        }

        @Test("nbdkit's client carries the disk on")
        func nbdkit() async throws {
            try await Lab.with(disks: [("data", 16 << 20)], options: ["--nbd"]) { lab in
                let script = "qemu-io -f raw -c 'write -P 7 1M 1M' -c 'read -P 7 1M 1M' -c flush $uri && nbdinfo --size $uri"
                let result = try await Command.run(
                    "nbdkit", ["-U", "-", "nbd", "uri=\(lab.nbd("data"))", "--run", script], seconds: 60)
                #expect(result.isSuccess && result.output.contains("\(16 << 20)"), "\(result)")
            }
        }

        @Test("with TLS demanded only clients with a certificate come in, and each volume only to its own")
        func tls() async throws {
            try await Lab.with(disks: [("data", 16 << 20)], options: ["--nbd"]) { lab in
                let pki = lab.directory.appendingPathComponent("pki").path
                try await Command.check("bash", ["-c", Self.makeCertificates(pki)], seconds: 60)
                try await lab.kill(.cloud)
                var text = try String(contentsOfFile: lab.edge(.cloud).config, encoding: .utf8)
                text = text.replacing(
                    "  allowPlain: false",
                    with:
                        "  tls: {certificate: \(pki)/server.crt, key: \(pki)/server.key, clientAuthority: \(pki)/ca-cert.pem, required: true}"
                )
                try text.write(toFile: lab.edge(.cloud).config, atomically: true, encoding: .utf8)
                try await lab.restart(.cloud)
                try await lab.untilServing("data")
                let shown = try #require(try await lab.status("data").nbdURL)
                #expect(shown.hasPrefix("nbds://"))

                let plain = try await Command.run("nbdinfo", [lab.nbd("data")], seconds: 20)
                #expect(!plain.isSuccess, "\(plain)")
                let url = shown.replacing("127.0.0.1", with: "localhost")
                for (directory, isGood) in [("client", true), ("stranger", false), ("nobody", false)] {
                    let result = try await Command.run("nbdinfo", ["\(url)?tls-certificates=\(pki)/\(directory)"], seconds: 20)
                    #expect(result.isSuccess == isGood, "\(directory): \(result)")
                }
                let image = lab.directory.appendingPathComponent("image.raw").path
                try await Command.check("bash", ["-c", "head -c 16M /dev/urandom >\(image)"])
                let good = "\(url)?tls-certificates=\(pki)/client"
                try await Command.check("nbdcopy", ["--flush", image, good], seconds: 60)
                let back = lab.directory.appendingPathComponent("back.raw").path
                try await Command.check("nbdcopy", ["--connections=4", good, back], seconds: 60)
                let same = try await Command.run("cmp", [image, back], seconds: 60)
                #expect(same.isSuccess, "\(same)")
            }
        }

        /// Makes a certificate authority, a server's certificate, and clients': one good, one of another authority, one without.
        private static func makeCertificates(_ directory: String) -> String {
            """
            set -e; mkdir -p \(directory)/client \(directory)/stranger \(directory)/nobody; cd \(directory)
            authority() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $2 -days 2 -subj "/CN=$1" 2>/dev/null; }
            issue() { # name, key file, certificate file, authority's key, authority's certificate, extensions
              openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $2 -out request.csr -subj "/CN=$1" 2>/dev/null
              openssl x509 -req -in request.csr -CAkey $4 -CA $5 -CAcreateserial -out $3 -days 2 -extfile <(echo "$6") 2>/dev/null; }
            authority ours ca-cert.pem; authority theirs theirs.pem
            issue localhost server.key server.crt ours.key ca-cert.pem "subjectAltName=DNS:localhost,IP:127.0.0.1"
            issue client client/client-key.pem client/client-cert.pem ours.key ca-cert.pem "extendedKeyUsage=clientAuth"
            issue stranger stranger/client-key.pem stranger/client-cert.pem theirs.key theirs.pem "extendedKeyUsage=clientAuth"
            for each in client stranger nobody; do cp ca-cert.pem $each/; done
            """
        }
    }
}
