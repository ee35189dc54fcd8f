import APIModels
import ArgumentParser
import EdgeConfiguration

extension VolumeCommand {
    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a volume of a disk and serve it at a cloud edge.",
            discussion: "The CHAP user and secret are made at random unless they are given: see causeway volume credentials.")

        @Argument(help: "The name that the volume gets.")
        var name: String

        @Option(help: "The name of the disk. (default: the volume's own name)")
        var disk: String?

        @Option(help: "The identifier or name of the cloud edge. (default: the only one)")
        var edge: String?

        @Option(help: "The target that it joins, or that is made: volumes of one machine share one. (default: one of its own)")
        var target: String?

        @Option(name: .customLong("lun"), help: "The logical unit number in the target, 0 to 255. (default: the lowest free one)")
        var logicalUnit: Int?

        @Option(help: "The user that initiators log in as.")
        var chapUser: String?

        @Option(help: "The file that holds their secret, 12 to 255 bytes.", completion: .file())
        var chapSecretFile: String?

        @Option(help: "The user that the target proves to be, for mutual CHAP.")
        var mutualChapUser: String?

        @Option(help: "The file that holds the target's secret, another one of 12 to 255 bytes.", completion: .file())
        var mutualChapSecretFile: String?

        @Option(name: .customLong("initiator"), help: "The name of an initiator that may log in; may be repeated. (default: all)")
        var initiators: [String] = []

        @Option(help: "How often a point is sealed while there are writes, like 5s.", transform: Quantities.duration)
        var recoveryPointObjective: Duration?

        @Option(help: "How much written data seals a point at once, like 64MiB.", transform: Quantities.size)
        var sealSize: UInt64?

        @OptionGroup var keeping: KeepingOptions

        @OptionGroup var limits: LimitOptions

        @Flag(help: "Machines may only read it.")
        var readOnly = false

        @Flag(help: "Machines may eject its medium and load it, as that of a drive for images.")
        var removable = false

        @Flag(help: "Only make it; causeway volume attach serves it.")
        var noAttach = false

        @OptionGroup var connection: ConnectionOptions

        func validate() throws {
            if (chapUser == nil) != (chapSecretFile == nil) {
                throw ValidationError("Give --chap-user and --chap-secret-file together.")
            }
            if (mutualChapUser == nil) != (mutualChapSecretFile == nil) || (mutualChapUser != nil && chapUser == nil) {
                throw ValidationError("Give --mutual-chap-user and --mutual-chap-secret-file together, and --chap-user with them.")
            }
        }

        func run() async throws {
            var request = VolumeCreate(
                name: name, disk: disk ?? name, edge: edge, target: target, logicalUnit: logicalUnit, limits: limits.limits,
                readOnly: readOnly ? true : nil, removable: removable ? true : nil, attach: !noAttach)
            if let chapUser, let chapSecretFile {
                request.chap = .init(
                    user: chapUser, secret: try readSecret(chapSecretFile, what: "secret"), mutualUser: mutualChapUser,
                    mutualSecret: try mutualChapSecretFile.map { try readSecret($0, what: "secret") })
            }
            if !initiators.isEmpty { request.allowedInitiators = initiators }
            if recoveryPointObjective != nil || sealSize != nil {
                var policy = Volume.Policy()
                if let recoveryPointObjective { policy.recoveryPointObjectiveSeconds = recoveryPointObjective.inSeconds }
                if let sealSize { policy.sealBytes = sealSize }
                request.policy = policy
            }
            if !keeping.isEmpty { request.keeping = keeping.changing(nil) }
            let volume: Volume = try await connection.client().post("/v1/volumes", request)
            try VolumeCommand.show(volume, connection.output)
        }
    }
}
