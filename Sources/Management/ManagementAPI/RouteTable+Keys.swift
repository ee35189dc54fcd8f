import APIModels

extension RouteTable {
    static let keys: [Route] = [
        Route(
            method: .get, path: "/v1/keys", identifier: "listKeys", tag: "keys",
            summary: "The data keys of volumes, by their generations, with those that were destroyed. No key itself.",
            query: Paging.parameters + [
                .init(name: "volume", schema: .text("Only keys of this volume.")),
                .init(name: "state", schema: .words("Only keys in this state.", DataKey.State.self)),
            ], answers: [.init(status: 200, content: [.json("DataKeyPage")], summary: "A page of keys.")]
        ) { call in
            let (volume, state) = (call.query["volume"], call.query["state"])
            let keys = try await call.controller.dataKeys().filter {
                (volume == nil || $0.volume == volume) && (state == nil || $0.state.rawValue == state)
            }
            return try Paging.page(call, keys, by: \.place)
        },
        Route(
            method: .get, path: "/v1/keys/master", identifier: "getMasterKey", tag: "keys",
            summary: "What is known of the key that wraps all others.",
            answers: [.init(status: 200, content: [.json("MasterKey")], summary: "The master key, but for itself.")]
        ) { try .json(try await $0.controller.masterKey()) },
        Route(
            method: .post, path: "/v1/keys/master/rotate", identifier: "rotateMasterKey", tag: "keys",
            summary: "Wrap all keys by a new master key, and destroy the old one. Leaves an event.",
            answers: [.init(status: 200, content: [.json("MasterKey")], summary: "The new master key, but for itself.")],
            errors: [409, 507]
        ) { try .json(try await $0.controller.rotateMasterKey()) },
        Route(
            method: .post, path: "/v1/volumes/{name}/rotate-key", identifier: "rotateKey", tag: "keys",
            summary: "Give a volume a new data key while it is served. The old one is destroyed when nothing is sealed under it any more.",
            answers: [
                .init(status: 200, content: [.json("KeyRotation")], summary: "The new key is in force."),
                .init(status: 202, content: [.json("KeyRotation")], summary: "It will be when the cloud edge hears of it."),
            ], errors: [409]
        ) { call in
            let rotation = try await call.controller.rotateKey(ofVolume: call.parameter("name"))
            return try .json(rotation, status: rotation.inForce ? .ok : .accepted)
        },
        Route(
            method: .post, path: "/v1/volumes/{name}/shred", identifier: "shredVolume", tag: "keys",
            summary: "Destroy all keys of a volume and detach it: nobody can read what cloud edges have of it. Its disk stays.",
            body: .init(schema: "ShredRequest", required: false),
            answers: [.init(status: 200, content: [.json("ShredResult")], summary: "The keys are destroyed.")], errors: [409, 503]
        ) { call in
            let force = try call.decode(ShredRequest.self).force ?? false
            return try .json(try await call.controller.shredVolume(named: call.parameter("name"), force: force))
        },
    ]
}

extension DataKey {
    /// Orders keys by volume, then by generation.
    fileprivate var place: String {
        let digits = String(generation, radix: 16)
        return "\(volume)/\(String(repeating: "0", count: 16 - digits.count))\(digits)"
    }
}
