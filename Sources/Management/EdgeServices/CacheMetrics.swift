import APIModels
import LocalFiles
import ManagementAPI
import SecureCache

/// The cache as `/metrics` shows it. Partitions are as many as the cache can have at most, so there are no more series than that.
struct CacheMetrics: Sendable {
    struct Partition: Sendable {
        var name: String
        /// Nil for the shared one, which has what the others leave.
        var sizeBytes: UInt64?
        var heldBytes: UInt64
        var counts: CacheTally.Counts
    }

    var statistics: CacheStatistics
    var counts: CacheTally.Counts
    var isLoosened: Bool
    var partitions: [Partition]

    var samples: [MetricSample] { ofAll + partitions.flatMap(Self.samples) }

    private var ofAll: [MetricSample] {
        let gauge = { (name: String, help: String, value: UInt64) in
            MetricSample("causeway_cache_\(name)", help: help, kind: .gauge, value: Double(value))
        }
        let counter = { (name: String, help: String, value: UInt64) in
            MetricSample("causeway_cache_\(name)_total", help: help, kind: .counter, value: Double(value))
        }
        return [
            gauge("blocks", "Blocks in the cache.", statistics.blocksHeld),
            gauge("shared_blocks", "Blocks that are stored once for several places.", statistics.sharedBlocks),
            gauge("shared_references", "Places that have a shared block.", statistics.sharedReferences),
            counter("shared", "Blocks that came in and took no room, because others had them.", statistics.shared),
            counter("corrupt", "Blocks that were not what had been written, and were fetched again.", statistics.corrupt),
            counter("read_errors", "Reads that the cache's device failed.", statistics.readErrors),
            counter("hit_blocks", "Blocks that reads of volumes found here.", counts.hits),
            counter("missed_blocks", "Blocks that reads of volumes had to fetch.", counts.misses),
            gauge("size_bytes", "The size of the cache in force.", statistics.byteCount),
            gauge("wanted_size_bytes", "The size that the cache is coming to.", statistics.byteCountWanted),
            gauge("to_empty_bytes", "What is behind the end that the cache gets, and has not left yet.", statistics.bytesToEmpty),
            gauge("index_bytes", "The memory of the cache's index.", UInt64(statistics.indexBytes)),
            gauge("usable", "1 while the cache's disk takes blocks, else 0.", statistics.isDegraded ? 0 : 1),
            gauge("loosened", "1 while the cache has too little room for its partitions, shares and pins, else 0.", isLoosened ? 1 : 0),
            counter("evicted", "Blocks that were evicted.", statistics.evicted),
            counter("zeroes", "Blocks of zeroes that came as data and took no room.", statistics.zeroes),
        ]
    }

    private static func samples(of partition: Partition) -> [MetricSample] {
        let sample = { (name: String, help: String, kind: MetricSample.Kind, value: UInt64) in
            MetricSample(
                "causeway_cache_partition_\(name)", help: help, kind: kind, labels: [("partition", partition.name)], value: Double(value))
        }
        let size = partition.sizeBytes.map { sample("size_bytes", "The size of the partition, as it was set.", .gauge, $0) }
        return (size.map { [$0] } ?? []) + [
            sample("held_bytes", "What is used of the cache by the partition.", .gauge, partition.heldBytes),
            sample("hit_blocks_total", "Blocks that reads of its volumes found here.", .counter, partition.counts.hits),
            sample("missed_blocks_total", "Blocks that reads of its volumes had to fetch.", .counter, partition.counts.misses),
        ]
    }
}

extension CloudPlane {
    /// The cache in numbers; nil before there is one.
    func cacheMetrics() -> CacheMetrics? {
        guard let cache else { return nil }
        countReads()
        let partition = { [self] (name: String?, size: UInt64?) in
            CacheMetrics.Partition(
                name: name ?? CachePartition.sharedName, sizeBytes: size,
                heldBytes: cache.statistics(ofPartition: name)?.heldBytes ?? 0, counts: cacheTally[name])
        }
        let partitions = cache.division.partitions.sorted { $0.key < $1.key }.map { partition($0.key, $0.value) }
        return CacheMetrics(
            statistics: cache.statistics, counts: cacheTally.total, isLoosened: cache.isLoosened && !cache.isUnusable,
            partitions: [partition(nil, nil)] + partitions)
    }

    // MARK: Reads

    /// Counts what the volumes have read since they were counted last.
    func countReads() {
        for entry in served.values { countReads(of: entry) }
        if let cache { cacheTally.keepPartitions { cache.division.partitions[$0] != nil } }
    }

    /// Counts what a volume has read, for the partition that it is in.
    func countReads(of entry: Served) {
        let (identifier, statistics) = (entry.volume.identifier, entry.volume.statistics)
        cacheTally.count(
            identifier, in: cache?.division.shares[identifier]?.partition,
            .init(hits: statistics.hitBlocks, misses: statistics.missedBlocks))
    }
}
