import APIModels
import ArgumentParser
import EdgeConfiguration

/// The options of a volume's limits.
struct LimitOptions: ParsableArguments {
    @Option(name: .customLong("iops"), help: "How many reads and writes a second, whatever their size.")
    var operationsPerSecond: UInt64?

    @Option(
        name: .customLong("iops-burst"),
        help: "How many of them a volume that was quiet may do at once. (default: a tenth of a second's worth)")
    var burstOperations: UInt64?

    @Option(
        name: .customLong("bandwidth"), help: "How much may be read and written a second, like 50MiB.", transform: Quantities.size)
    var bytesPerSecond: UInt64?

    @Option(
        name: .customLong("bandwidth-burst"),
        help: "How much of it a volume that was quiet may move at once, like 500MiB. (default: a tenth of a second's worth)",
        transform: Quantities.size)
    var burstBytes: UInt64?

    func validate() throws {
        if burstOperations != nil, operationsPerSecond == nil { throw ValidationError("Give --iops with --iops-burst.") }
        if burstBytes != nil, bytesPerSecond == nil { throw ValidationError("Give --bandwidth with --bandwidth-burst.") }
    }

    /// Nil when none is given.
    var limits: Volume.Limits? {
        let limits = Volume.Limits(
            operationsPerSecond: operationsPerSecond, burstOperations: burstOperations, bytesPerSecond: bytesPerSecond,
            burstBytes: burstBytes)
        return limits.isEmpty ? nil : limits
    }
}

/// How many past points are kept.
struct KeepingOptions: ParsableArguments {
    @Option(help: "How many of the points that its disk was at are kept at home, to be read or gone back to; 0 for none.")
    var keepPoints: UInt64?

    @Option(help: "What they may take in the on-prem edge's state directory, like 32GiB.", transform: Quantities.size)
    var keepSize: UInt64?

    var isEmpty: Bool { keepPoints == nil && keepSize == nil }

    /// What is kept from now on.
    func changing(_ keeping: Volume.Keeping?) -> Volume.Keeping {
        var changed = keeping ?? .init(points: 0)
        if let keepPoints { changed.points = keepPoints }
        if let keepSize { changed.bytes = keepSize }
        return changed
    }
}

extension VolumeCommand {
    struct Limit: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Limit what machines may ask of a volume, also while it is served.",
            discussion: "The options are all the limits that the volume has from now on: what is not given is not limited.")

        @Argument(help: "The name of the volume.")
        var name: String

        @OptionGroup var limits: LimitOptions

        @Flag(help: "Lift all limits.")
        var none = false

        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            if none, limits.limits != nil { throw ValidationError("--none lifts the limits: give it without --iops and --bandwidth.") }
            if !none, limits.limits == nil { throw ValidationError("Give --iops, --bandwidth or both; or --none to lift the limits.") }
        }

        func run() async throws {
            let change = VolumeChange(limits: limits.limits ?? .init())
            try VolumeCommand.show(try await connection.client().change(name, change), connection.output)
        }
    }

    struct Set: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change how a volume is served, also while it is: what is not given stays as it is.")

        @Argument(help: "The name of the volume.")
        var name: String

        @Flag(inversion: .prefixedNo, help: "Machines may only read it, or may write to it again.")
        var readOnly: Bool?

        @Option(help: "How often a point is sealed while there are writes, like 5s.", transform: Quantities.duration)
        var recoveryPointObjective: Duration?

        @Option(help: "How much written data seals a point at once, like 64MiB.", transform: Quantities.size)
        var sealSize: UInt64?

        @Option(
            help: "How large its write log may grow, like 16GiB; 0 for the edge's own size. The cloud edge takes this option too.",
            transform: Quantities.size)
        var logSize: UInt64?

        @OptionGroup var keeping: KeepingOptions

        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            if readOnly == nil, recoveryPointObjective == nil, sealSize == nil, logSize == nil, keeping.isEmpty {
                throw ValidationError("Say what is to change.")
            }
        }

        func run() async throws {
            let client = try connection.client()
            var change = VolumeChange(readOnly: readOnly, writeLogSizeBytes: logSize)
            if recoveryPointObjective != nil || sealSize != nil {
                var policy = try await client.volume(name).policy
                if let recoveryPointObjective { policy.recoveryPointObjectiveSeconds = recoveryPointObjective.inSeconds }
                if let sealSize { policy.sealBytes = sealSize }
                change.policy = policy
            }
            if !keeping.isEmpty { change.keeping = keeping.changing(try await client.volume(name).keeping) }
            try VolumeCommand.show(try await client.change(name, change), connection.output)
        }
    }
}
