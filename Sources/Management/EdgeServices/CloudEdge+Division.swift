import APIModels
import Blocks
import EdgeConfiguration
import ManagementAPI
import NIOCore
import SecureCache

/// What volumes may have of the cache (C4): this edge's own matter, as the cache is.
extension CloudEdge {
    func cacheShare(ofVolume name: String) async throws -> CacheShare {
        let share = try await needPlane().run { plane in
            try plane.entry(named: name).map { CacheShare(name, $0.volume.identifier, try plane.needCache()) }
        }
        guard let share else { throw APIError.notFound("volume", name) }
        return share
    }

    func changeCacheShare(ofVolume name: String, _ change: CacheShareChange) async throws -> CacheShare {
        let changed = try await needPlane().call {
            (plane: CloudPlane, completion: @escaping (Result<VolumeIdentifier?, any Error>) -> Void) in
            guard let entry = plane.entry(named: name) else { return completion(.failure(APIError.notFound("volume", name))) }
            let (identifier, sectorCount) = (entry.volume.identifier, entry.volume.sectorCount)
            plane.divideCache({ [unowned plane] division in
                if plane.served[identifier] == nil { throw APIError.notFound("volume", name) }
                var share = division.shares[identifier] ?? CacheDivision.Share()
                try share.change(change, sectorCount: sectorCount)
                division.shares[identifier] = share.isEmpty ? nil : share
            }) { completion($0.map { $0 ? identifier : nil }) }
        }
        let share = try await cacheShare(ofVolume: name)
        if let changed {
            let sizes =
                "guaranteed: \(ByteSize.rounded(share.guaranteedBytes)), at most: \(share.mostBytes.map { ByteSize.rounded($0) } ?? "all there is"), "
                + "pinned: \(ByteSize.rounded(share.pinnedBytes))"
            environment.recorder.record(
                "cache.share_changed", subject: name, logSubject: changed.description,
                "partition: \(share.partition ?? "the shared one"), \(sizes)",
                logMessage: "partition: \(share.partition == nil ? "the shared one" : "another one"), \(sizes)")
        }
        return share
    }

    /// Makes a partition of the cache, or gives it another size; none takes it away.
    func setCachePartition(named name: String, to byteCount: UInt64?) async throws -> EdgeCache {
        let isChanged = try await needPlane().call { (plane: CloudPlane, completion: @escaping (Result<Bool, any Error>) -> Void) in
            plane.divideCache(
                { division in
                    if byteCount == nil, division.partitions[name] == nil { throw APIError.noPartition(name) }
                    division.partitions[name] = byteCount
                }, completion: completion)
        }
        if isChanged {
            environment.recorder.record(
                "cache.divided", subject: name, logSubject: "a partition",
                byteCount.map { "the partition of the cache has \(ByteSize.rounded($0))" } ?? "the partition of the cache is no more")
        }
        return try await cache()
    }
}

extension APIError {
    fileprivate static func noPartition(_ name: String) -> APIError {
        APIError(
            Problem(
                status: 404, code: "partition_not_found", title: "There is no such partition",
                detail: "There is no partition “\(name)” of the cache.", action: "See `causeway cache show`."))
    }
}

extension CachePartition {
    /// The partitions of a cache.
    static func all<Directory>(of cache: SecureCache<Directory>) -> [CachePartition] {
        cache.division.partitions.sorted { $0.key < $1.key }.map {
            CachePartition(name: $0.key, sizeBytes: $0.value, heldBytes: cache.statistics(ofPartition: $0.key)?.heldBytes ?? 0)
        }
    }
}

extension CacheShare {
    /// What a volume has and may have of a cache.
    fileprivate init<Directory>(_ name: String, _ identifier: VolumeIdentifier, _ cache: SecureCache<Directory>) {
        let share = cache.division.shares[identifier] ?? CacheDivision.Share()
        let blockBytes = UInt64(BlockGeometry.blockBytes)
        self.init(
            volume: name, partition: share.partition, guaranteedBytes: share.guaranteedBytes, mostBytes: share.bytesMax,
            pins: share.pins.map { Pin(startBytes: $0.lowerBound * blockBytes, sizeBytes: UInt64($0.count) * blockBytes) },
            pinnedBytes: share.pinnedBlocks * blockBytes, pinnedHeldBytes: cache.pinnedBlocksHeld(of: identifier) * blockBytes,
            heldBytes: cache.blocksHeld(of: identifier) * blockBytes)
    }
}

extension CacheDivision.Share {
    /// Takes over what somebody wants, as far as there can be such ranges on the volume.
    mutating func change(_ change: CacheShareChange, sectorCount: UInt64) throws {
        if let name = change.partition { partition = name.isEmpty ? nil : name }
        if let byteCount = change.guaranteedBytes { guaranteedBytes = byteCount }
        if let byteCount = change.mostBytes { bytesMax = byteCount == 0 ? nil : byteCount }
        for (field, ranges) in [("unpin", change.unpin ?? []), ("pin", change.pin ?? [])] {
            for range in ranges {
                let (end, isOver) = range.startBytes.addingReportingOverflow(range.sizeBytes)
                guard range.sizeBytes > 0, !isOver, end <= sectorCount * UInt64(BlockGeometry.sectorBytes) else {
                    throw APIError.invalid(
                        field, "must lie on the volume, which has \(ByteSize.text(sectorCount * UInt64(BlockGeometry.sectorBytes)))")
                }
                let blockBytes = UInt64(BlockGeometry.blockBytes)
                let blocks = range.startBytes / blockBytes..<(end - 1) / blockBytes + 1
                if field == "pin" { pin(blocks) } else { unpin(blocks) }
            }
        }
    }
}
