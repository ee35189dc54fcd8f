import APIModels

extension APIClient {
    func volume(_ name: String) async throws -> Volume { try await get("/v1/volumes/\(Self.part(name))") }

    func change(_ name: String, _ change: VolumeChange) async throws -> Volume {
        try await patch("/v1/volumes/\(Self.part(name))", change)
    }

    func regions(_ name: String) async throws -> VolumeRegions { try await get("/v1/volumes/\(Self.part(name))/regions") }

    func changeRegions(_ name: String, _ change: RegionChange) async throws -> VolumeRegions {
        try await patch("/v1/volumes/\(Self.part(name))/regions", change)
    }

    func cacheShare(_ name: String) async throws -> CacheShare { try await get("/v1/volumes/\(Self.part(name))/cache") }

    func changeCacheShare(_ name: String, _ change: CacheShareChange) async throws -> CacheShare {
        try await patch("/v1/volumes/\(Self.part(name))/cache", change)
    }

    func credentials(_ name: String) async throws -> VolumeCredentials {
        try await get("/v1/volumes/\(Self.part(name))/credentials")
    }

    /// The data keys of one volume, or of all, with those that were destroyed.
    func dataKeys(ofVolume name: String?) async throws -> [DataKey] {
        try await list("/v1/keys", query: name.map { ["volume": $0] } ?? [:])
    }

    /// Closes a point and returns as soon as it is closed.
    func seal(_ name: String) async throws -> SealResult {
        try await post("/v1/volumes/\(Self.part(name))/seal", nil as String?, query: ["wait": "sealed"])
    }

    /// Waits until a sealed point is on the disk at home, or the deadline has come.
    ///
    /// It asks again and again, so that it shows what is left and survives a restart of the edge meanwhile.
    /// - Returns: how far the point has come.
    func waitUntilHome(
        _ sealed: SealResult, deadline: ContinuousClock.Instant, progress: (Volume) -> Void
    ) async throws -> SealResult.State {
        var state = sealed.state
        var pause = Duration.milliseconds(10)
        while state != .applied {
            do {
                let volume = try await volume(sealed.volume)
                progress(volume)
                if volume.points.applied >= sealed.point {
                    state = .applied
                } else if volume.points.received >= sealed.point {
                    state = .received
                }
            } catch let failure as CommandFailure where failure.status == .unreachable && ContinuousClock.now < deadline {}
            if state == .applied || ContinuousClock.now >= deadline { return state }
            try await Task.sleep(for: pause)
            pause = min(pause * 2, .milliseconds(250))
        }
        return state
    }
}
