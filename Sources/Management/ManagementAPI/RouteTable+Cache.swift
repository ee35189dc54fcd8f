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
            summary: "Give the cache another size, also while it serves. Cloud edges only.",
            body: .init(schema: "CacheChange"),
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
        Route(
            method: .put, path: "/v1/cache/partitions/{name}", identifier: "setCachePartition", tag: "cache",
            summary: "Make a part of the cache that only those volumes use that are given it, or give it another size. Cloud edges only.",
            body: .init(schema: "CachePartitionSize"),
            answers: [.init(status: 200, content: [.json("EdgeCache")], summary: "The cache as it is divided now.")],
            errors: [409, 503, 507]
        ) { call in
            let name = call.parameter("name")
            if let problem = Schema.TextRule.name.problem(name) { throw APIError.invalid("name", problem) }
            if name == CachePartition.sharedName {
                throw APIError.invalid("name", "“\(name)” is what the part outside of all partitions is called: choose another one")
            }
            let size = try call.decode(CachePartitionSize.self).sizeBytes
            return try .json(try await call.controller.setCachePartition(named: name, to: size))
        },
        Route(
            method: .delete, path: "/v1/cache/partitions/{name}", identifier: "deleteCachePartition", tag: "cache",
            summary: "Take a partition away, which no volume uses. What is in it is the shared one's. Cloud edges only.",
            answers: [.init(status: 200, content: [.json("EdgeCache")], summary: "The cache as it is divided now.")],
            errors: [409, 503, 507]
        ) { try .json(try await $0.controller.setCachePartition(named: $0.parameter("name"), to: nil)) },
        Route(
            method: .get, path: "/v1/volumes/{name}/cache", identifier: "getCacheShare", tag: "cache",
            summary: "What a volume may have of the cache, what is pinned, and what it has. Cloud edges only.",
            answers: [.init(status: 200, content: [.json("CacheShare")], summary: "Its share.")], errors: [409, 503]
        ) { try .json(try await $0.controller.cacheShare(ofVolume: $0.parameter("name"))) },
        Route(
            method: .patch, path: "/v1/volumes/{name}/cache", identifier: "changeCacheShare", tag: "cache",
            summary: "Change what a volume may have of the cache, and what of it is pinned, also while it serves. Cloud edges only.",
            body: .init(schema: "CacheShareChange"),
            answers: [.init(status: 200, content: [.json("CacheShare")], summary: "Its share as it is now.")], errors: [409, 503, 507]
        ) { call in
            let change = try call.decode(CacheShareChange.self)
            return try .json(try await call.controller.changeCacheShare(ofVolume: call.parameter("name"), change))
        },
    ]
}
