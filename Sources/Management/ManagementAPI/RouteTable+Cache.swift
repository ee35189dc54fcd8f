import APIModels

extension RouteTable {
    static let cache: [Route] = [
        Route(
            method: .get, path: "/v1/cache", identifier: "getCache", tag: "cache",
            summary: "The cache of this edge: its size, what it holds, and whether it works. Cloud edges only.",
            answers: [.init(status: 200, content: [.json("EdgeCache")], summary: "The cache.")], errors: [409, 503]
        ) { try .json(try await $0.controller.cache()) },
        Route(
            method: .patch, path: "/v1/cache", identifier: "changeCache", tag: "cache",
            summary: "Give the cache another size, also while it serves. Cloud edges only.", body: .init(schema: "CacheChange"),
            answers: [
                .init(status: 200, content: [.json("EdgeCache")], summary: "The size is in force."),
                .init(
                    status: 202, content: [.json("EdgeCache")],
                    summary: "It is kept, and in force when what is behind the new end has left: see “bytesToEmpty”."),
            ], errors: [409, 503, 507]
        ) { call in
            let cache = try await call.controller.changeCache(call.decode(CacheChange.self))
            return try .json(cache, status: cache.sizeBytes == cache.wantedSizeBytes ? .ok : .accepted)
        },
    ]
}
