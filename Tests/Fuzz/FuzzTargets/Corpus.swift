import Foundation

/// The checked-in inputs of a parser: one file each, in a folder of the parser's name.
public struct Corpus {
    /// The folder of all parsers.
    public let directory: URL

    public init(path: String) { directory = URL(fileURLWithPath: path, isDirectory: true) }

    /// The inputs of a parser, in the order of their names; none when there is no folder.
    public func inputs(of parser: String) throws -> [[UInt8]] {
        let folder = directory.appendingPathComponent(parser, isDirectory: true)
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return try names.sorted().map { [UInt8](try Data(contentsOf: folder.appendingPathComponent($0))) }
    }

    /// Writes the seeds of every parser, named by what is in them; inputs that are there stay. No input at all needs no file: runs begin with it where
    /// it is a seed.
    public func writeSeeds() throws {
        for target in FuzzTargets.all {
            let folder = directory.appendingPathComponent(target.name, isDirectory: true)
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            for seed in try target.seeds() where !seed.isEmpty {
                var fingerprint = Fingerprint()
                for byte in seed { fingerprint.add(byte) }
                let digits = String(fingerprint.value, radix: 16)
                let name = "seed-" + String(repeating: "0", count: 16 - digits.count) + digits
                try Data(seed).write(to: folder.appendingPathComponent(name))
            }
        }
    }
}
