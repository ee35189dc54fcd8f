import ArgumentParser
import EdgeConfiguration
import OfflineRecovery
import Synchronization

extension VerifyCommand {
    struct Cache: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Read every block of a cloud edge's cache that the keys open, and its records.",
            discussion: """
                What is damaged costs a fetch and nothing else: a daemon forgets it when it is read. Blocks that a daemon that was \
                killed had not written yet are told, and are no damage. It takes as much memory as the daemon's index.
                """)

        @Option(help: "The state directory of the cloud edge, or a copy of it.", completion: .directory)
        var state: String

        @Option(help: "The file or device of the cache. (default: STATE/\(Configuration.defaultCacheFile))", completion: .file())
        var cache: String?

        @Option(
            parsing: .upToNextOption, help: "Files with recovery keys, one with the cache's among them (volume recovery-key --all).",
            completion: .file())
        var keys: [String]

        @OptionGroup var outputOptions: OutputOptions

        func run() async throws {
            let files = try RecoveryKeyFiles(keys)
            guard !files.caches.isEmpty else {
                throw CommandFailure(
                    "there is no key of a cache in the key files", action: "causeway volume recovery-key --all writes them, too.")
            }
            let progress = Mutex(ProgressLine("reading", output: outputOptions.output))
            let found = try await CommandFailure.offline {
                try await CacheScrub().verify(
                    state: state, path: cache ?? "\(state)/\(Configuration.defaultCacheFile)", keys: files.caches, volumes: files.volumes,
                    onProgress: { left in progress.withLock { $0.update(remainingBytes: left) } })
            }
            progress.withLock { $0.finish() }
            if outputOptions.output == .json { try Terminal.json(found) } else { show(found) }
            // What is unread is no damage, and says nothing of being whole either.
            let lack = found.lackOfKeys
            if !found.isWhole {
                if let lack { Terminal.error(lack) }
                throw CommandFailure(
                    "the cache \(found.path) is damaged",
                    action: "Nothing is lost: causewayd fetches again what it can't read. When damage comes back, look at the device.")
            }
            if let lack {
                throw CommandFailure(
                    lack,
                    action:
                        "causeway volume recovery-key --all at the on-prem edge writes the keys of all volumes, of each generation that is in use. "
                        + "A volume that was detached meanwhile has none any more: causewayd forgets it when it starts.")
            }
        }

        private func show(_ found: OfflineCache) {
            var table = Table([
                .init("volume"), .init("identifier"), .init("point", isNumber: true), .init("blocks", isNumber: true),
                .init("zeroes", isNumber: true), .init("authentic", isNumber: true), .init("damaged", isNumber: true),
                .init("not written", isNumber: true),
            ])
            for volume in found.volumes {
                let counts = [volume.blocks, volume.zeroBlocks, volume.authentic, volume.damaged, volume.unwritten]
                    .map { volume.isHidden ? "no key" : String($0) }
                table.add(
                    volume.name, volume.identifier, String(volume.point), counts[0], counts[1], counts[2], counts[3], counts[4])
            }
            Terminal.print(table.text)
            for file in found.recordFiles {
                Terminal.print("\(file.name): \(file.state.rawValue), \(file.fragments) fragments, \(Human.bytes(file.bytes))")
            }
            if let loss = found.loss { Terminal.error("the records tell nothing: \(loss); causewayd begins without blocks") }
            for damage in found.damages { Terminal.error("\(damage.file) at \(damage.offset): \(damage.message)") }
            for block in found.blockDamages {
                Terminal.error("\(found.path) at \(block.offset): block \(block.block) of \(block.volume) is \(block.kind.rawValue)")
            }
            let counted = found.damagedBlocks.values.reduce(0, +)
            if counted > UInt64(found.blockDamages.count) {
                let kinds = found.damagedBlocks.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
                Terminal.error("and more: \(kinds.joined(separator: ", ")) in all")
            }
        }
    }
}
