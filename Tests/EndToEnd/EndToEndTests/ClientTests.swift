import Foundation
import Testing

/// Real initiators against a real pair. One lab at a time here, one in `EndToEndFaults` and one in `EndToEndShortage`: together they keep
/// two cores busy, and each takes a third of the time.
@Suite(.serialized)
struct EndToEnd {}

/// What is killed, cut and lost.
@Suite(.serialized)
struct EndToEndFaults {}

/// What fills up, and what is shared out. These wait for room more than they work.
@Suite(.serialized)
struct EndToEndShortage {}

extension EndToEnd {
    @Suite(.serialized)
    struct Clients {
        @Test("libiscsi's tools and QEMU's see a disk, and what they write comes home")
        func tools() async throws {
            try await Lab.with(disks: [("data", 64 << 20)]) { lab in
                let url = lab.url("data")
                let portal = url.replacing(/\/iqn.*/, with: "/")
                let listed = try await Command.check("iscsi-ls", ["-s", portal], seconds: 20)
                #expect(listed.contains("iqn.") && listed.contains("Lun:0"), "\(listed)")
                // Who has no secret, or a wrong one, learns nothing.
                let nameless = try await Command.run("iscsi-ls", [portal.replacing(/iscsi:\/\/[^@]*@/, with: "iscsi://")], seconds: 20)
                #expect(!nameless.output.contains("iqn."), "\(nameless)")
                let wrong = try await Command.run(
                    "iscsi-ls", [portal.replacing(/%[^@]*@/, with: "%wrongwrongwrong@")], seconds: 20)
                #expect(!wrong.isSuccess && !wrong.output.contains("iqn."))
                let inquiry = try await Command.check("iscsi-inq", [url], seconds: 20)
                #expect(inquiry.contains("CAUSEWAY"))
                let capacity = try await Command.check("iscsi-readcapacity16", [url], seconds: 20)
                #expect(capacity.contains("\(64 << 20)"))
                // The disk at home is locked, also against QEMU, unless that is told to share it.
                let writer = ["-f", "raw", "-c", "write 0 4k", lab.disk("data")]
                #expect(try await !Command.run("qemu-io", writer, seconds: 20).isSuccess)
                #expect(try await Command.run("qemu-img", ["info", "-U", lab.disk("data")], seconds: 20).isSuccess)
                let info = try await Command.check("qemu-img", ["info", url], seconds: 20)
                #expect(info.contains("64 MiB"))

                try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "write -P 0x5a 1M 3M", "-c", "write -z 2M 64k", "-c", "flush", url], seconds: 60)
                let read = try await Command.check(
                    "qemu-io", ["-f", "raw", "-c", "read -P 0x5a 1M 1M", "-c", "read -P 0 2M 64k", "-c", "read -P 0 32M 1M", url],
                    seconds: 60)
                #expect(!read.contains("verification failed"))
                try await lab.seal("data")
                let compared = try await Command.run(
                    "qemu-img", ["compare", "-U", "-f", "raw", "-F", "raw", url, lab.disk("data")], seconds: 240)
                #expect(compared.isSuccess, "\(compared)")
            }
        }

        @Test("an image read through the pair is the original, cold and warm, and after a restart of the cloud edge")
        func image() async throws {
            let directory = try Lab.makeDirectory()
            defer { try? FileManager.default.removeItem(at: directory) }
            let original = directory.appendingPathComponent("original.img").path
            // Random bytes, then files of this machine, then nothing.
            try await Command.check(
                "bash",
                [
                    "-c",
                    "head -c 48M /dev/urandom >\(original); tar -C /usr/bin -c . 2>/dev/null | head -c 48M >>\(original); truncate -s 128M \(original)",
                ])
            let lab = try await Lab.up(in: directory, disks: [("image", original)])
            do {
                let expected = try await Command.check("sha256sum", [original]).prefix(64)
                for state in ["cold", "warm", "restarted"] {
                    if state == "restarted" {
                        // A cache that is killed has what was saved in the last seconds; one that is stopped has all.
                        try await lab.kill(.cloud, by: SIGTERM)
                        try await lab.restart(.cloud)
                        try await lab.untilServing("image")
                    }
                    let copy = directory.appendingPathComponent("copy.img").path
                    try await Command.check("qemu-img", ["convert", "-f", "raw", "-O", "raw", lab.url("image"), copy], seconds: 120)
                    let actual = try await Command.check("sha256sum", [copy]).prefix(64)
                    #expect(actual == expected, "\(state)")
                }
                let volume = try await lab.status("image")
                #expect((volume.cache?.hits ?? 0) > 0)
                #expect(volume.cache?.corrupt == 0)
            } catch {
                let logs = lab.logTails()
                await lab.down(force: true)
                throw CommandFailure(description: "\(error)\n\(logs)")
            }
            await lab.down(force: false)
        }

        @Test("a file system written through QEMU passes e2fsck at home after a seal")
        func fileSystem() async throws {
            try await Lab.with(disks: [("root", 128 << 20)]) { lab in
                let image = lab.directory.appendingPathComponent("fs.img").path
                try await Command.check("truncate", ["-s", "128M", image])
                try await Command.check("mkfs.ext4", ["-q", "-F", "-d", "/etc/apt", image])
                try await Command.check("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", image, lab.url("root")], seconds: 120)
                try await lab.seal("root")
                let checked = try await Command.run("e2fsck", ["-fn", lab.disk("root")], seconds: 60)
                #expect(checked.isSuccess, "\(checked)")
                let same = try await Command.run("cmp", [image, lab.disk("root")], seconds: 60)
                #expect(same.isSuccess, "\(same)")
            }
        }
    }
}
