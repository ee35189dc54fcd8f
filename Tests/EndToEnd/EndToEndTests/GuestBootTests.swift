import Foundation
import Testing

extension EndToEnd {
    /// A machine whose only disk is a volume.
    @Suite(.serialized)
    struct GuestBoot {
        @Test("iPXE boots a machine from a volume by sanboot; its root is on Linux's initiator, and what it writes comes home")
        func network() async throws {
            try await Self.withMachine { lab in
                let target = try await lab.target("machine")
                let script = """
                    dhcp
                    set username \(target.credentials.user)
                    set password \(target.credentials.secret)
                    sanboot iscsi:\(Guest.host)::\(target.ports[0]):0:\(target.name)
                    """
                try await Self.bootAndWrite(.network(script), rootDevice: "/dev/sda2")
            }
        }

        @Test("QEMU's own iSCSI driver boots a machine from a volume, and what it writes comes home")
        func driver() async throws {
            try await Self.withMachine { lab in
                try await Self.bootAndWrite(.drive("file=\(lab.url("machine")),format=raw"), rootDevice: "/dev/vda2")
            }
        }

        @Test("QEMU's own NBD driver boots a machine from a volume, and what it writes comes home")
        func networkBlockDevice() async throws {
            try await Self.withMachine(options: ["--nbd"]) { lab in
                try await Self.bootAndWrite(.drive("file=\(lab.nbd("machine")),format=raw"), rootDevice: "/dev/vda2")
            }
        }

        /// Runs `body` with a lab that serves a bootable disk, and looks at it at home afterwards.
        static func withMachine(options: [String] = [], _ body: (Lab) async throws -> Void) async throws {
            let image = try await GuestImage.make()
            try await Lab.with(disks: [], copies: [("machine", image.disk)], options: options) { lab in
                try await body(lab)
                try await lab.seal("machine")
                // The second partition, by its offset of 65 MiB.
                let root = "\(lab.disk("machine"))?offset=\(65 << 20)"
                let checked = try await Command.run("e2fsck", ["-fn", root], seconds: 60)
                #expect(checked.isSuccess, "\(checked)")
                let marker = try await Command.check("debugfs", ["-R", "cat /root/marker", root], seconds: 20)
                #expect(marker == "written in the cloud\n")
            }
        }

        static func bootAndWrite(_ boot: Guest.Boot, rootDevice: String) async throws {
            try await Guest.with(boot) { guest in
                let source = try await guest.check("findmnt -n -o SOURCE /")
                #expect(source == rootDevice + "\n")
                try await guest.check("echo 'written in the cloud' >/root/marker; sync")
                try await guest.powerOff()
            }
        }
    }
}
