import Foundation

/// The machine that guest tests boot, as `Tests/EndToEnd/TestGuest/build` makes it.
struct GuestImage {
    /// The kernel, for a boot without a boot loader.
    let kernel: String
    /// What finds the root and hands over to it.
    let initramfs: String
    /// A whole disk: boot loader, kernel, initramfs and the root with the agent.
    let disk: String

    private static let package = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// The image, from `.build/guest` unless its recipe has changed.
    static func make() async throws -> GuestImage {
        let recipe = package.appendingPathComponent("Tests/EndToEnd/TestGuest/build").path
        let cache = package.appendingPathComponent(".build/guest").path
        let output = try await Command.check(recipe, [cache], seconds: 300)
        let directory = URL(fileURLWithPath: output.trimmingCharacters(in: .whitespacesAndNewlines))
        func path(_ name: String) -> String { directory.appendingPathComponent(name).path }
        return GuestImage(kernel: path("vmlinuz"), initramfs: path("initramfs.img"), disk: path("disk.img"))
    }
}
