import ArgumentParser
import OfflineRecovery

extension RecoverCommand {
    struct Export: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Put a volume's unsent points over an image.",
            discussion: """
                With --base the result is a copy of that image with the points over it: the disk as the machine had it. The base is \
                the disk at home, or a copy of it, as the point before the log's first one left it. With --in-place the disk itself \
                is written; run it again if it was interrupted. Without either the result has the unsent writes only, and a map of \
                them beside it (OUTPUT.map, in the form of GNU ddrescue).
                """)

        /// The forms of an image.
        enum Format: String, ExpressibleByArgument, CaseIterable {
            case raw
        }

        @OptionGroup var place: StateOptions

        @Option(help: "The name of the volume, or its identifier, or the directory of its log where there are several.")
        var volume: String

        @Option(help: "The image that is made.", completion: .file())
        var output: String?

        @Option(help: "The image or device that is copied before the points are put over it.", completion: .file())
        var base: String?

        @Option(help: "The image or device that the points are put over, in place of a new one.", completion: .file())
        var inPlace: String?

        @Option(help: "The last point that counts. (default: every write up to the last)")
        var through: UInt64?

        @Flag(
            help: """
                End with the last cut of the volume's group that all its volumes' logs hold: images of each that are exported so are of \
                one instant. It needs the keys of all of them.
                """)
        var lastCut = false

        @Option(help: "The form of the image.")
        var format: Format = .raw

        @Flag(
            help:
                "Leave out what is on the cloud-only disk, which is put over the points otherwise; so it is with --through and --last-cut.")
        var withoutCloudOnly = false

        @Flag(help: "Replace the output if it exists.")
        var force = false

        func validate() throws {
            if place.keys.isEmpty { throw ValidationError("Give the key files with --keys.") }
            if (output == nil) == (inPlace == nil) { throw ValidationError("Give --output or --in-place.") }
            if inPlace != nil, base != nil { throw ValidationError("--in-place takes no --base: the image is its own.") }
            if lastCut, through != nil { throw ValidationError("Give --through or --last-cut.") }
        }

        func run() async throws {
            let destination: ExportDestination =
                if let inPlace { .inPlace(path: inPlace) } else { .image(path: output ?? "", base: base, replaces: force) }
            let end: ExportEnd = lastCut ? .lastCut : through.map { .point($0) } ?? .lastWrite
            let result = try await CommandFailure.offline {
                try await place.open().export(volume: volume, through: end, to: destination, cloudOnly: !withoutCloudOnly)
            }
            if let cut = result.cut, let point = result.cutPoint {
                Terminal.print("\(result.image): cut \(cut) of the group of volume \(result.volume), which is at its point \(point) in it")
            }
            let points =
                result.points.first.map { first in
                    let last = result.points[result.points.count - 1]
                    return (first == last ? "point \(first)" : "points \(first) to \(last)") + (result.endsSealed ? "" : ", which was open")
                } ?? "no point"
            Terminal.print(
                "\(result.image): volume \(result.volume), \(points): \(Human.bytes(result.writtenBytes)) written, "
                    + "\(Human.bytes(result.zeroedBytes)) made zero, of \(Human.bytes(result.imageBytes))")
            if result.cloudOnlyBytes > 0 { Terminal.print("\(Human.bytes(result.cloudOnlyBytes)) of it are cloud-only writes") }
            if result.lacksCloudOnlyWrites { Terminal.error("\(result.volume): the writes on its cloud-only disk are not in it") }
            if let map = result.map { Terminal.print("\(map): which ranges are in it; the others are as on the disk at home") }
            if let first = result.points.first, result.map == nil {
                Terminal.error("the base has to be as point \(first - 1) left it: causeway verify journal shows how far a disk at home is")
            } else if let point = result.cutPoint, result.points.isEmpty {
                Terminal.error("home has all of it: the base has to be as point \(point) left it")
            }
        }
    }
}
