import APIModels
import Hummingbird

/// Every operation of the API.
enum RouteTable {
    static func all(openMetrics: Bool) -> [Route] {
        service(openMetrics: openMetrics) + edges + disks + volumes + keys + groups + brackets + cache + tunnels + pairing + events
    }

    private static func service(openMetrics: Bool) -> [Route] {
        [
            Route(
                method: .get, path: "/healthz", identifier: "getHealth", tag: "service",
                summary: "Whether the edge does its work.",
                open: true,
                answers: [
                    .init(status: 200, content: [.json("Health")], summary: "It does."),
                    .init(status: 503, content: [.json("Health")], summary: "It does not, or not yet."),
                ]
            ) { call in
                let health = await call.controller.health()
                return try .json(health, status: health.healthy ? .ok : .serviceUnavailable)
            },
            Route(
                method: .get, path: "/metrics", identifier: "getMetrics", tag: "service", summary: "Numbers for Prometheus.",
                open: openMetrics,
                answers: [
                    .init(
                        status: 200, content: [.other("text/plain", "The Prometheus text format.")], summary: "The numbers now.")
                ]
            ) { call in
                .text(MetricsText.render(await call.controller.metrics()), type: MetricsText.contentType)
            },
            Route(
                method: .get, path: "/openapi.json", identifier: "getDocument", tag: "service", summary: "This document.",
                open: true,
                answers: [.init(status: 200, content: [.other("application/json", "OpenAPI 3.1.")], summary: "The document.")]
            ) { call in
                try .json(call.services.document)
            },
        ]
    }

    private static let edges: [Route] = [
        Route(
            method: .get, path: "/v1/edge", identifier: "getEdge", tag: "edges", summary: "The edge that answers.",
            answers: [.init(status: 200, content: [.json("EdgeStatus")], summary: "The edge.")]
        ) { try .json(try await $0.controller.edge()) },
        Route(
            method: .get, path: "/v1/edges", identifier: "listEdges", tag: "edges",
            summary: "The edges that are or were paired with this one.",
            query: Paging.parameters,
            answers: [.init(status: 200, content: [.json("PeerEdgePage")], summary: "A page of edges.")],
            errors: [409]
        ) { try Paging.page($0, try await $0.controller.edges(), by: \.identifier) },
        Route(
            method: .delete, path: "/v1/edges/{identifier}", identifier: "revokeEdge", tag: "edges",
            summary: "Revoke an edge: its certificate is refused from now on, and its link is cut.",
            answers: [.init(status: 204, content: [.none], summary: "It is revoked.")], errors: [409]
        ) { call in
            try await call.controller.revokeEdge(identifier: call.parameter("identifier"))
            return Response(status: .noContent)
        },
        Route(
            method: .patch, path: "/v1/edges/{identifier}", identifier: "changeEdge", tag: "edges",
            summary: "Change where this edge dials a peer, or that the peer dials. On-prem edges only.", body: .init(schema: "EdgeChange"),
            answers: [.init(status: 200, content: [.json("PeerEdge")], summary: "The peer.")], errors: [409]
        ) { call in
            let change = try call.decode(EdgeChange.self)
            return try .json(try await call.controller.changeEdge(identifier: call.parameter("identifier"), change))
        },
        Route(
            method: .get, path: "/v1/links", identifier: "listLinks", tag: "links", summary: "The connections to peers.",
            query: Paging.parameters + [.init(name: "state", schema: .words("Only links in this state.", Link.State.self))],
            answers: [.init(status: 200, content: [.json("LinkPage")], summary: "A page of links.")], errors: [409]
        ) { call in
            let state = call.query["state"]
            return try Paging.page(
                call, try await call.controller.links().filter { state == nil || $0.state.rawValue == state }, by: \.peer)
        },
        Route(
            method: .patch, path: "/v1/links/{peer}", identifier: "changeLink", tag: "links",
            summary: "Change what this edge sends to a peer at most, also while it is sending. The other direction is the peer's matter.",
            body: .init(schema: "LinkChange"),
            answers: [.init(status: 200, content: [.json("Link")], summary: "The link as it is now.")], errors: [503, 507]
        ) { call in
            let change = try call.decode(LinkChange.self)
            return try .json(try await call.controller.changeLink(peer: call.parameter("peer"), change))
        },
        Route(
            method: .get, path: "/v1/links/{peer}/history", identifier: "getLinkHistory", tag: "links",
            summary: "What passed over a link, and how the line was: by the second for an hour, by the minute for a month.",
            query: [
                .init(name: "lastSeconds", schema: .count("How far back; an hour when left out.", 1...2_678_400)),
                .init(name: "samples", schema: .count("How many steps at most; 600 when left out.", 1...3_600)),
            ],
            answers: [.init(status: 200, content: [.json("LinkHistory")], summary: "The steps of which something is known.")],
            errors: [404, 409]
        ) { call in
            let seconds = call.query["lastSeconds"].flatMap { Int($0) } ?? 3_600
            let samples = call.query["samples"].flatMap { Int($0) } ?? 600
            return try .json(try await call.controller.linkHistory(peer: call.parameter("peer"), seconds: seconds, samples: samples))
        },
    ]

    private static let disks: [Route] = [
        Route(
            method: .get, path: "/v1/disks", identifier: "listDisks", tag: "disks", summary: "The disks of this edge.",
            query: Paging.parameters + [.init(name: "state", schema: .words("Only disks in this state.", Disk.State.self))],
            answers: [.init(status: 200, content: [.json("DiskPage")], summary: "A page of disks.")], errors: [409]
        ) { call in
            let state = call.query["state"]
            return try Paging.page(
                call, try await call.controller.disks().filter { state == nil || $0.state.rawValue == state }, by: \.name)
        },
        Route(
            method: .post, path: "/v1/disks", identifier: "createDisk", tag: "disks", summary: "Add a disk.",
            body: .init(schema: "DiskCreate"), idempotent: true,
            answers: [.init(status: 201, content: [.json("Disk")], summary: "The disk.")], errors: [409, 422]
        ) { call in
            let disk = try await call.controller.createDisk(call.decode(DiskCreate.self))
            return try .created(disk, at: "/v1/disks/\(pathSegment(disk.name))")
        },
        Route(
            method: .get, path: "/v1/disks/{name}", identifier: "getDisk", tag: "disks", summary: "One disk.",
            answers: [.init(status: 200, content: [.json("Disk")], summary: "The disk.")], errors: [409]
        ) { try .json(try await $0.controller.disk(named: $0.parameter("name"))) },
        Route(
            method: .patch, path: "/v1/disks/{name}", identifier: "changeDisk", tag: "disks",
            summary: "Make a disk that is a file larger, also while it is served. It never shrinks.", body: .init(schema: "DiskChange"),
            answers: [.init(status: 200, content: [.json("Disk")], summary: "The disk.")], errors: [409]
        ) { call in
            let change = try call.decode(DiskChange.self)
            if change.sizeBytes % 512 != 0 { throw APIError.invalid("sizeBytes", "must be a multiple of 512") }
            return try .json(try await call.controller.changeDisk(named: call.parameter("name"), change))
        },
        Route(
            method: .post, path: "/v1/disks/{name}/rescan", identifier: "rescanDisk", tag: "disks",
            summary: "Look at a disk's size again, after it was made larger, and serve it as it is now.",
            answers: [.init(status: 200, content: [.json("Disk")], summary: "The disk.")], errors: [409]
        ) { try .json(try await $0.controller.rescanDisk(named: $0.parameter("name"))) },
        Route(
            method: .delete, path: "/v1/disks/{name}", identifier: "deleteDisk", tag: "disks",
            summary: "Forget a disk. What is on it stays.",
            answers: [.init(status: 204, content: [.none], summary: "It is forgotten.")],
            errors: [409]
        ) { call in
            try await call.controller.deleteDisk(named: call.parameter("name"))
            return Response(status: .noContent)
        },
    ]

    private static let pairing: [Route] = [
        Route(
            method: .post, path: "/v1/pairing/tokens", identifier: "createPairingToken", tag: "pairing",
            summary: "Make a token that lets one cloud edge join, once. On-prem edges only.",
            body: .init(schema: "PairingTokenCreate", required: false),
            answers: [.init(status: 201, content: [.json("PairingToken")], summary: "The token.")], errors: [409]
        ) { call in
            try .json(try await call.controller.createPairingToken(call.decode(PairingTokenCreate.self)), status: .created)
        },
        Route(
            method: .post, path: "/v1/pairing/join", identifier: "join", tag: "pairing",
            summary: "Join the on-prem edge that made the token. Cloud edges only.", body: .init(schema: "JoinRequestBody"),
            answers: [.init(status: 200, content: [.json("PeerEdge")], summary: "The edge that joined.")], errors: [409, 503]
        ) { call in
            try .json(try await call.controller.join(call.decode(JoinRequestBody.self)))
        },
    ]

    private static let events: [Route] = [
        Route(
            method: .get, path: "/v1/events", identifier: "listEvents", tag: "events",
            summary: "Events, oldest first: a page of the newest that are kept, or a stream with “Accept: text/event-stream”. "
                + "A stream begins after “Last-Event-ID” or “after”, else with the next event.",
            query: Paging.parameters + [
                .init(name: "subject", schema: .text("Only events of this subject, for example volume/mail.")),
                .init(name: "severity", schema: .words("Only events of this severity.", Event.Severity.self)),
            ],
            answers: [
                .init(
                    status: 200,
                    content: [.json("EventPage"), .other("text/event-stream", "One server-sent event for each event.")],
                    summary: "A page, or a stream.")
            ], errors: [503]
        ) { call in
            if let after = call.query["after"], UInt64(after) == nil {
                throw APIError.invalid("after", "must be a sequence number")
            }
            guard call.headers[.accept]?.lowercased().contains("text/event-stream") == true else {
                return try Paging.events(call)
            }
            return try EventStream.response(call)
        }
    ]
}
