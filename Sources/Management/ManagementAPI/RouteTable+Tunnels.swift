import APIModels
import Hummingbird

extension RouteTable {
    static let tunnels: [Route] = [
        Route(
            method: .get, path: "/v1/tunnels", identifier: "listTunnels", tag: "tunnels",
            summary: "The TCP services that are reached over links.", query: Paging.parameters,
            answers: [.init(status: 200, content: [.json("TunnelPage")], summary: "A page of tunnels.")], errors: [409]
        ) { try Paging.page($0, try await $0.controller.tunnels(), by: \.name) },
        Route(
            method: .post, path: "/v1/tunnels", identifier: "createTunnel", tag: "tunnels",
            summary: "Let a TCP service be reached over the link to a cloud edge. On-prem edges only.", body: .init(schema: "TunnelCreate"),
            idempotent: true,
            answers: [.init(status: 201, content: [.json("Tunnel")], summary: "The tunnel.")], errors: [409]
        ) { call in
            let tunnel = try await call.controller.createTunnel(call.decode(TunnelCreate.self))
            return try .created(tunnel, at: "/v1/tunnels/\(pathSegment(tunnel.name))")
        },
        Route(
            method: .get, path: "/v1/tunnels/{name}", identifier: "getTunnel", tag: "tunnels", summary: "One tunnel.",
            answers: [.init(status: 200, content: [.json("Tunnel")], summary: "The tunnel.")], errors: [409]
        ) { try .json(try await $0.controller.tunnel(named: $0.parameter("name"))) },
        Route(
            method: .delete, path: "/v1/tunnels/{name}", identifier: "deleteTunnel", tag: "tunnels",
            summary: "Remove a tunnel. Its connections are reset. On-prem edges only.",
            answers: [.init(status: 204, content: [.none], summary: "It is removed.")], errors: [409]
        ) { call in
            try await call.controller.deleteTunnel(named: call.parameter("name"))
            return Response(status: .noContent)
        },
    ]
}
