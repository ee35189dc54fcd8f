import APIModels
import Hummingbird
import ServiceLifecycle

extension RouteTable {
    /// How long a seal waits when the request does not say, in seconds.
    static let defaultSealTimeoutSeconds = 60
    /// The longest that a seal waits, in seconds.
    static let longestSealTimeoutSeconds = 3_600

    /// How far a seal waits, and how long.
    static let sealQuery: [Route.Parameter] = [
        .init(
            name: "wait", schema: .words("How far the point must come before the answer; sealed when left out.", SealResult.State.self)),
        .init(name: "timeoutSeconds", schema: .count("How long to wait; 60 when left out.", 1...Int64(longestSealTimeoutSeconds))),
    ]

    static func sealAnswers(_ schema: String) -> [Route.Answer] {
        [
            .init(status: 200, content: [.json(schema)], summary: "The point came as far as asked."),
            .init(status: 202, content: [.json(schema)], summary: "The time was over first: “state” tells how far it came."),
        ]
    }

    static func sealWait(_ call: Call) -> (wait: SealResult.State, timeout: Duration) {
        let seconds = call.query["timeoutSeconds"].flatMap { Int($0) } ?? defaultSealTimeoutSeconds
        return (call.query["wait"].flatMap(SealResult.State.init) ?? .sealed, .seconds(seconds))
    }

    static let volumes: [Route] = [
        Route(
            method: .get, path: "/v1/volumes", identifier: "listVolumes", tag: "volumes",
            summary: "The volumes that this edge knows.",
            query: Paging.parameters + [
                .init(name: "state", schema: .words("Only volumes in this state.", Volume.State.self)),
                .init(name: "edge", schema: .text("Only volumes that this cloud edge serves, by identifier.")),
            ], answers: [.init(status: 200, content: [.json("VolumePage")], summary: "A page of volumes.")]
        ) { call in
            let (state, edge) = (call.query["state"], call.query["edge"])
            let volumes = try await call.controller.volumes().filter {
                (state == nil || $0.state.rawValue == state) && (edge == nil || $0.edge == edge)
            }
            return try Paging.page(call, volumes, by: \.name)
        },
        Route(
            method: .post, path: "/v1/volumes", identifier: "createVolume", tag: "volumes",
            summary: "Make a volume of a disk, and serve it unless “attach” is false.", body: .init(schema: "VolumeCreate"),
            idempotent: true, answers: [.init(status: 201, content: [.json("Volume")], summary: "The volume.")],
            errors: [409, 422, 503]
        ) { call in
            let request = try call.decode(VolumeCreate.self)
            try check(request.chap)
            try check(request.limits)
            let volume = try await call.controller.createVolume(request)
            return try .created(volume, at: "/v1/volumes/\(pathSegment(volume.name))")
        },
        Route(
            method: .get, path: "/v1/volumes/{name}", identifier: "getVolume", tag: "volumes", summary: "One volume.",
            answers: [.init(status: 200, content: [.json("Volume")], summary: "The volume.")]
        ) { try .json(try await $0.controller.volume(named: $0.parameter("name"))) },
        Route(
            method: .patch, path: "/v1/volumes/{name}", identifier: "changeVolume", tag: "volumes",
            summary: "Change a volume's policy, limits, write protection, write log or kept points, also while it is served.",
            body: .init(schema: "VolumeChange"),
            answers: [.init(status: 200, content: [.json("Volume")], summary: "The volume.")], errors: [409, 503]
        ) { call in
            let change = try call.decode(VolumeChange.self)
            try check(change.limits)
            return try .json(try await call.controller.changeVolume(named: call.parameter("name"), change))
        },
        Route(
            method: .delete, path: "/v1/volumes/{name}", identifier: "deleteVolume", tag: "volumes",
            summary: "Delete a detached volume. Its disk stays.",
            answers: [.init(status: 204, content: [.none], summary: "It is deleted.")],
            errors: [409]
        ) { call in
            try await call.controller.deleteVolume(named: call.parameter("name"))
            return Response(status: .noContent)
        },
        Route(
            method: .post, path: "/v1/volumes/{name}/attach", identifier: "attachVolume", tag: "volumes",
            summary: "Serve a volume at a cloud edge.", body: .init(schema: "AttachRequest", required: false),
            answers: [
                .init(status: 200, content: [.json("Volume")], summary: "It is served."),
                .init(status: 202, content: [.json("Volume")], summary: "It will be served: see its state."),
            ], errors: [409, 503]
        ) { call in
            let volume = try await call.controller.attachVolume(named: call.parameter("name"), call.decode(AttachRequest.self))
            return try .json(volume, status: volume.state == .serving || volume.state == .full ? .ok : .accepted)
        },
        Route(
            method: .post, path: "/v1/volumes/{name}/detach", identifier: "detachVolume", tag: "volumes",
            summary: "Stop serving a volume, after its writes came home unless forced.",
            body: .init(schema: "DetachRequest", required: false),
            answers: [.init(status: 200, content: [.json("DetachResult")], summary: "It is detached.")], errors: [409, 503]
        ) { call in
            let request = try call.decode(DetachRequest.self)
            return try .json(
                try await call.controller.detachVolume(
                    named: call.parameter("name"), force: request.force ?? false, toPoint: request.toPoint))
        },
        Route(
            method: .get, path: "/v1/volumes/{name}/points", identifier: "getPoints", tag: "volumes",
            summary: "The points that a volume's disk was at and that are kept.",
            answers: [.init(status: 200, content: [.json("KeptPoints")], summary: "The points.")], errors: [409]
        ) { try .json(try await $0.controller.points(ofVolume: $0.parameter("name"))) },
        Route(
            method: .get, path: "/v1/volumes/{name}/points/{point}/content", identifier: "getPointContent", tag: "volumes",
            summary: "The bytes of a volume's disk as it was at a point that is kept, while the volume goes on.",
            answers: [
                .init(status: 200, content: [.other("application/octet-stream", "The disk's bytes.")], summary: "The whole disk.")
            ], errors: [409, 503]
        ) { try await PointContentStream.response($0) },
        Route(
            method: .post, path: "/v1/volumes/{name}/seal", identifier: "sealVolume", tag: "volumes",
            summary: "Seal a consistency point of a volume, and wait for it.",
            query: sealQuery,
            answers: sealAnswers("SealResult"), errors: [409, 503]
        ) { call in
            let (wait, timeout) = sealWait(call)
            let name = call.parameter("name")
            // A wait must not keep the edge from stopping.
            let result = try await cancelWhenGracefulShutdown {
                try await call.controller.sealVolume(named: name, wait: wait, timeout: timeout)
            }
            return try .json(result, status: result.state >= wait ? .ok : .accepted)
        },
        Route(
            method: .get, path: "/v1/volumes/{name}/regions", identifier: "getRegions", tag: "volumes",
            summary: "Which writes of a volume go home, by region, and how much is at the cloud edge only.",
            answers: [.init(status: 200, content: [.json("VolumeRegions")], summary: "The regions.")], errors: [409, 503]
        ) { try .json(try await $0.controller.regions(ofVolume: $0.parameter("name"))) },
        Route(
            method: .patch, path: "/v1/volumes/{name}/regions", identifier: "changeRegions", tag: "volumes",
            summary:
                "Change the write policy of one range, or of the volume, and what becomes of cloud-only writes there; also while it is served.",
            body: .init(schema: "RegionChange"),
            answers: [.init(status: 200, content: [.json("VolumeRegions")], summary: "The regions as they are now.")],
            errors: [409, 503, 507]
        ) { call in
            let change = try call.decode(RegionChange.self)
            return try .json(try await call.controller.changeRegions(ofVolume: call.parameter("name"), change))
        },
        Route(
            method: .get, path: "/v1/volumes/{name}/credentials", identifier: "getCredentials", tag: "volumes",
            summary: "How a machine logs in to a volume: user, secret and URL.",
            answers: [.init(status: 200, content: [.json("VolumeCredentials")], summary: "The credentials.")], errors: [409]
        ) { try .json(try await $0.controller.credentials(ofVolume: $0.parameter("name"))) },
        Route(
            method: .post, path: "/v1/volumes/{name}/recovery-key", identifier: "exportRecoveryKey", tag: "volumes",
            summary: "The key that opens a volume's unsent writes without this edge. Leaves an event.",
            answers: [.init(status: 200, content: [.json("RecoveryKeys")], summary: "The key; who has it can read the volume.")],
            errors: [409]
        ) { try .json(try await $0.controller.exportRecoveryKeys(ofVolume: $0.parameter("name"))) },
        Route(
            method: .post, path: "/v1/recovery-keys", identifier: "exportRecoveryKeys", tag: "volumes",
            summary: "The recovery keys of all volumes, and those of the cloud edges' caches. Leaves an event.",
            answers: [.init(status: 200, content: [.json("RecoveryKeys")], summary: "The keys; who has them can read all volumes.")],
            errors: [409]
        ) { try .json(try await $0.controller.exportRecoveryKeys(ofVolume: nil)) },
    ]

    /// What the single fields cannot show.
    private static func check(_ chap: VolumeCreate.Chap?) throws {
        guard let chap else { return }
        if (chap.mutualUser == nil) != (chap.mutualSecret == nil) {
            throw APIError.invalid(
                chap.mutualUser == nil ? "chap.mutualUser" : "chap.mutualSecret", "is missing: mutual CHAP needs both")
        }
        if chap.mutualSecret == chap.secret {
            throw APIError.invalid(
                "chap.mutualSecret", "must differ from chap.secret: with one secret for both, either side can pose as the other")
        }
    }
    private static func check(_ limits: Volume.Limits?) throws {
        guard let limits else { return }
        if limits.burstOperations != nil, limits.operationsPerSecond == nil {
            throw APIError.invalid("limits.operationsPerSecond", "is missing: a burst belongs to a rate")
        }
        if limits.burstBytes != nil, limits.bytesPerSecond == nil {
            throw APIError.invalid("limits.bytesPerSecond", "is missing: a burst belongs to a rate")
        }
    }
}
