import APIModels
import Hummingbird
import ServiceLifecycle

extension RouteTable {
    static let groups: [Route] = [
        Route(
            method: .get, path: "/v1/groups", identifier: "listGroups", tag: "groups",
            summary: "The groups of volumes that have their points together.", query: Paging.parameters,
            answers: [.init(status: 200, content: [.json("VolumeGroupPage")], summary: "A page of groups.")]
        ) { try Paging.page($0, try await $0.controller.groups(), by: \.name) },
        Route(
            method: .post, path: "/v1/groups", identifier: "createGroup", tag: "groups",
            summary: "Make a group of volumes, also while they are served.", body: .init(schema: "GroupCreate"), idempotent: true,
            answers: [.init(status: 201, content: [.json("VolumeGroup")], summary: "The group.")], errors: [409]
        ) { call in
            let group = try await call.controller.createGroup(call.decode(GroupCreate.self))
            return try .created(group, at: "/v1/groups/\(pathSegment(group.name))")
        },
        Route(
            method: .get, path: "/v1/groups/{name}", identifier: "getGroup", tag: "groups", summary: "One group.",
            answers: [.init(status: 200, content: [.json("VolumeGroup")], summary: "The group.")]
        ) { try .json(try await $0.controller.group(named: $0.parameter("name"))) },
        Route(
            method: .patch, path: "/v1/groups/{name}", identifier: "changeGroup", tag: "groups",
            summary: "Change a group's volumes or policy, also while they are served.", body: .init(schema: "GroupChange"),
            answers: [.init(status: 200, content: [.json("VolumeGroup")], summary: "The group.")], errors: [409]
        ) { call in
            try .json(try await call.controller.changeGroup(named: call.parameter("name"), call.decode(GroupChange.self)))
        },
        Route(
            method: .delete, path: "/v1/groups/{name}", identifier: "deleteGroup", tag: "groups",
            summary: "Delete a group. Its volumes stay, and have points of their own again.",
            answers: [.init(status: 204, content: [.none], summary: "It is deleted.")], errors: [409]
        ) { call in
            try await call.controller.deleteGroup(named: call.parameter("name"))
            return Response(status: .noContent)
        },
        Route(
            method: .post, path: "/v1/groups/{name}/detach", identifier: "detachGroup", tag: "groups",
            summary:
                "Stop serving all volumes of a group, after their writes came home; by force at the last point that they have in common.",
            body: .init(schema: "DetachRequest", required: false),
            answers: [.init(status: 200, content: [.json("GroupDetachResult")], summary: "They are detached.")], errors: [409, 503]
        ) { call in
            let request = try call.decode(DetachRequest.self)
            if request.toPoint != nil { throw APIError.invalid("toPoint", "is for one volume: each has points of its own") }
            return try .json(try await call.controller.detachGroup(named: call.parameter("name"), force: request.force ?? false))
        },
        Route(
            method: .post, path: "/v1/groups/{name}/seal", identifier: "sealGroup", tag: "groups",
            summary: "Seal a point of all volumes of a group at one instant, and wait for it.", query: sealQuery,
            answers: sealAnswers("GroupSealResult"), errors: [409, 503]
        ) { call in
            let (wait, timeout) = sealWait(call)
            let name = call.parameter("name")
            // A wait must not keep the edge from stopping.
            let result = try await cancelWhenGracefulShutdown {
                try await call.controller.sealGroup(named: name, wait: wait, timeout: timeout)
            }
            return try .json(result, status: result.state >= wait ? .ok : .accepted)
        },
    ]
}
