import Foundation
import Testing

extension EndToEnd {
    /// Linux's own initiator, in a machine of its own.
    @Suite(.serialized, .enabled(if: Guest.isSoaking, "takes minutes: make soak-guests"))
    struct GuestInitiator {
        @Test("open-iscsi with mutual CHAP and digests: file systems, fstrim, and a kill and a cut that are a delay only")
        func fileSystems() async throws {
            try await Lab.with(disks: [], options: ["--rtt", "5ms", "--rate", "1gbit"]) { lab in
                let ext4 = try await lab.serveWithMutualCHAP("ext4", byteCount: 192 << 20)
                let xfs = try await lab.serveWithMutualCHAP("xfs", byteCount: 320 << 20)
                try await Guest.with(lifetimeSeconds: 600 + Double(Guest.rounds) * 120) { guest in
                    try await guest.startInitiator()
                    try await Self.refusesForeignTarget(guest, ext4)
                    let first = try #require(await guest.logIn(to: ext4, digests: true).first)
                    let second = try #require(await guest.logIn(to: xfs, digests: true).first)
                    let session = try await guest.check("iscsiadm -m session -P 2")
                    #expect(session.matches(of: /HeaderDigest: CRC32C/).count == 2, "\(session)")
                    #expect(session.matches(of: /DataDigest: CRC32C/).count == 2, "\(session)")
                    #expect(session.matches(of: /username_in: target/).count == 2, "\(session)")
                    try await guest.check(
                        """
                        mkfs.ext4 -q \(first); mkfs.xfs -q \(second)
                        mkdir /mnt/ext4 /mnt/xfs
                        mount \(first) /mnt/ext4; mount \(second) /mnt/xfs
                        """, seconds: 180)
                    try await Self.trim(guest, lab)
                    try await Self.outlastKillAndCut(guest, lab, disk: first)
                    try await guest.check("umount /mnt/ext4 /mnt/xfs; iscsiadm -m node --logout", seconds: 180)
                    let errors = try await guest.run("dmesg | grep -iE 'I/O error|EXT4-fs error|XFS.*(corrupt|shut)'")
                    #expect(errors.output.isEmpty, "\(errors)")
                }
                for name in ["ext4", "xfs"] { try await lab.seal(name) }
                let checked = try await Command.run("e2fsck", ["-fn", lab.disk("ext4")], seconds: 60)
                #expect(checked.isSuccess, "\(checked)")
                let repaired = try await Command.run("xfs_repair", ["-n", lab.disk("xfs")], seconds: 60)
                #expect(repaired.isSuccess, "\(repaired)")
            }
        }

        /// Mutual CHAP is worth something: a target that does not know the other secret is left.
        static func refusesForeignTarget(_ guest: Guest, _ target: GuestTarget) async throws {
            let node = "iscsiadm -m node -T \(target.name) -p \(Guest.host):\(target.ports[0])"
            try await guest.check(
                """
                \(node) -o new
                \(node) -o update -n node.session.auth.authmethod -v CHAP
                \(node) -o update -n node.session.auth.username -v \(target.credentials.user)
                \(node) -o update -n node.session.auth.password -v \(target.credentials.secret)
                \(node) -o update -n node.session.auth.username_in -v target
                \(node) -o update -n node.session.auth.password_in -v another-targets-secret
                """)
            let refused = try await guest.run("\(node) --login")
            #expect(!refused.isSuccess && refused.output.contains("non-retryable iSCSI login failure"), "\(refused)")
            try await guest.check("\(node) -o delete")
        }

        /// What is deleted and trimmed in the guest is a hole at home.
        static func trim(_ guest: Guest, _ lab: Lab) async throws {
            let byteCount = 24 << 20
            try await guest.check(
                """
                for name in ext4 xfs; do
                  head -c \(byteCount) /dev/urandom >/mnt/$name/large
                  cp -r /usr/lib/udev /mnt/$name/kept
                done
                sync
                """, seconds: 240)
            for name in ["ext4", "xfs"] { try await lab.seal(name) }
            let before = (try lab.allocatedByteCount("ext4"), try lab.allocatedByteCount("xfs"))
            try await guest.check("rm /mnt/*/large; sync; fstrim -v /mnt/ext4; fstrim -v /mnt/xfs; sync", seconds: 240)
            for name in ["ext4", "xfs"] { try await lab.seal(name) }
            let after = (try lab.allocatedByteCount("ext4"), try lab.allocatedByteCount("xfs"))
            #expect(after.0 <= before.0 - byteCount * 9 / 10, "ext4: \(before.0) bytes before, \(after.0) after")
            #expect(after.1 <= before.1 - byteCount * 9 / 10, "xfs: \(before.1) bytes before, \(after.1) after")
            try await guest.check("for name in ext4 xfs; do busybox diff -r /usr/lib/udev /mnt/$name/kept; done")
        }

        /// Verified writes go on over a kill of the cloud edge and a cut of the link.
        static func outlastKillAndCut(_ guest: Guest, _ lab: Lab, disk: String) async throws {
            let writes = try guest.startVerifiedWrites(to: "/mnt/ext4/verified", byteCount: 16 << 20)
            for _ in 0..<Guest.rounds {
                try await guest.untilWritten(100, to: disk)
                try await lab.kill(.cloud)
                try await lab.restart(.cloud)
                try await guest.untilWritten(100, to: disk)
                try await lab.relay("cut")
                try await Lab.untilTrue(seconds: 30, "the cut to be noticed") { try await lab.status("ext4").state == .linkDown }
                try await guest.untilWritten(100, to: disk)
                try await lab.relay("restore")
            }
            let result = try await guest.endVerifiedWrites(writes)
            #expect(result.isSuccess, "\(result)")
            #expect(result.output.contains("err= 0"), "\(result)")
        }
    }
}
