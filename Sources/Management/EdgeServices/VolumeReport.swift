import APIModels
import Blocks
import CloudOnlyDisk
import LocalFiles
import ManagementAPI
import NIOCore
import SecureCache
import Volumes

/// A served volume as the API, home and the metrics see it. All is called on the data loop.
enum VolumeReport {
    static func status(
        of entry: CloudPlane.Served, cache: SecureCache<LocalDirectory>?, portals: [String], networkBlock: String? = nil, failure: String?
    ) -> VolumeStatus {
        let volume = entry.volume
        let unsent = volume.unsent
        let points = volume.pointNumbers
        var state: APIModels.Volume.State
        var message = failure
        switch volume.state {
        case .serving: state = .serving
        case .linkDown: state = .linkDown
        case .fenced: state = .fenced
        case .stopped(let reason):
            state = .stopped
            message = reason
        }
        if volume.isServable {
            switch volume.logObstacle {
            case .readOnly:
                message =
                    "the file system of this edge's state directory takes no changes: nothing that was acknowledged is lost, writers wait"
            case .noSpace:
                message = "the file system of this edge's state directory is full: free space there; nothing that was acknowledged is lost"
            case nil where volume.isLogFull:
                message =
                    (volume.logFill.sizeBytes < entry.logSizeBytes
                        ? "the write log is full, and its file system has no room for a larger one" : "the write log is full")
                    + (volume.state == .linkDown ? ", and the link is down" : ": writers wait")
            case nil: break
            }
        }
        if volume.isServable {
            if entry.isReleasing {
                state = .detaching
            } else if !entry.isExported {
                state = .attaching
            } else if volume.isLogFull {
                state = .full
            }
        }
        let blocks = cache?.blocksHeld(of: volume.identifier) ?? 0
        return VolumeStatus(
            identifier: volume.identifier.description, state: state, message: message,
            unsent: .init(
                bytes: unsent.bytes, points: unsent.points,
                oldestSeconds: unsent.oldestAppendAt.map { Double((NIODeadline.now() - $0).nanoseconds) / 1e9 }),
            writeLog: writeLog(of: entry),
            points: .init(lastSealed: points.lastSealed, received: points.received, applied: points.applied),
            cache: .init(
                blocks: blocks, bytes: blocks * UInt64(BlockGeometry.blockBytes), hits: volume.statistics.hitBlocks,
                misses: volume.statistics.missedBlocks, corrupt: cache?.statistics.corrupt ?? 0),
            io: .init(
                readBytes: volume.statistics.readBytes, writtenBytes: volume.statistics.writtenBytes, reads: volume.statistics.reads,
                writes: volume.statistics.writes, sentBytes: volume.statistics.pointBytesSent),
            cloudOnlyBytes: volume.hasCloudOnlyDisk ? volume.cloudOnlyBytes(in: SectorRange(from: 0, to: volume.sectorCount)) : nil,
            policy: .init(
                recoveryPointObjectiveSeconds: Double(volume.policy.recoveryPointObjective.nanoseconds) / 1e9,
                sealBytes: UInt64(clamping: volume.policy.sealBytes)),
            limits: entry.grant.limits, throttle: throttle(of: entry), isReadOnly: volume.isWriteProtected,
            keyGeneration: entry.keys.newest, portals: portals,
            nbdURL: networkBlock.map { "\($0)/\(entry.grant.name)" })
    }

    private static func writeLog(of entry: CloudPlane.Served) -> APIModels.Volume.WriteLog {
        let (fill, waits) = (entry.volume.logFill, entry.volume.logWaits)
        return .init(
            usedBytes: fill.usedBytes, sizeBytes: fill.sizeBytes, isOwnSize: entry.ownLogBytes != nil,
            fullInSeconds: fill.timeUntilFull.map { Double($0.nanoseconds) / 1e9 }, waitedWrites: waits.writes,
            waitSeconds: Double(waits.time.nanoseconds) / 1e9, indexBytes: UInt64(clamping: entry.volume.logMemory.indexBytes))
    }

    private static func throttle(of entry: CloudPlane.Served) -> APIModels.Volume.Throttle {
        let statistics = entry.device.throttleStatistics
        return .init(
            operations: statistics.operations, waitSeconds: Double(statistics.waitNanoseconds) / 1e9, refused: statistics.refused,
            waiting: entry.device.waitingCount)
    }

    static func volume(_ grant: VolumeGrant, _ status: VolumeStatus?, edge: String?, generation: UInt64, failure: String?)
        -> APIModels.Volume
    {
        APIModels.Volume(
            name: grant.name, identifier: grant.identifier, disk: grant.disk, edge: edge,
            state: status?.state ?? (failure == nil ? .attaching : .stopped), message: status?.message ?? failure,
            sizeBytes: grant.sectorCount * UInt64(BlockGeometry.sectorBytes),
            target: .init(
                name: grant.targetName, iqn: grant.target, logicalUnit: grant.logicalUnit ?? 0, portals: status?.portals ?? [],
                chapUser: grant.chap.user, mutual: grant.chap.mutualUser != nil),
            url: status?.portals.first.map { "iscsi://\(grant.chap.user)@\($0)/\(grant.target)/\(grant.logicalUnit ?? 0)" },
            nbdURL: status?.nbdURL,
            generation: generation,
            points: status?.points ?? .init(), unsent: status?.unsent, writeLog: status?.writeLog, cache: status?.cache,
            cloudOnlyBytes: status?.cloudOnlyBytes,
            policy: status?.policy ?? grant.policy ?? .init(), limits: grant.limits, throttle: status?.throttle,
            readOnly: status?.isReadOnly ?? grant.isReadOnly ?? false, removable: grant.isRemovable ?? false, io: status?.io ?? .init())
    }

    /// What is cloud-only of a volume.
    static func metrics(ofVolume name: String, _ statistics: CloudOnlyStatistics) -> [MetricSample] {
        let gauge = { (metric: String, help: String, value: UInt64) in
            MetricSample(
                "causeway_volume_cloud_only_\(metric)", help: help, kind: .gauge, labels: [("volume", name)], value: Double(value))
        }
        return [
            gauge("stored_bytes", "Bytes of cloud-only writes on the cloud-only disk.", statistics.storedBytes),
            gauge("journal_bytes", "Bytes that the journal of the cloud-only disk takes.", statistics.journalBytes),
            gauge("journal_size_bytes", "Bytes that it may take; beyond them writers wait.", statistics.journalBytesMax),
        ]
    }

    static func metrics(of volumes: [APIModels.Volume]) -> [MetricSample] {
        volumes.flatMap { volume in
            let labels = [("volume", volume.name)]
            let gauge = { (name: String, help: String, value: Double) in
                MetricSample("causeway_volume_\(name)", help: help, kind: .gauge, labels: labels, value: value)
            }
            let counter = { (name: String, help: String, value: UInt64) in
                MetricSample("causeway_volume_\(name)_total", help: help, kind: .counter, labels: labels, value: Double(value))
            }
            let seconds = { (name: String, help: String, value: Double) in
                MetricSample("causeway_volume_\(name)_total", help: help, kind: .counter, labels: labels, value: value)
            }
            // Nothing is known of what an edge has not sent that has not opened the volume, or can't be asked: no sample says 0 then.
            let unsent = volume.unsent.map { unsent in
                [
                    gauge("unsent_bytes", "Bytes that are not durable at home.", Double(unsent.bytes)),
                    gauge("unsent_points", "Sealed points that home has not received.", Double(unsent.points)),
                    gauge("unsent_oldest_seconds", "The age of the oldest write that is not durable at home.", unsent.oldestSeconds ?? 0),
                ]
            }
            return (unsent ?? []) + [
                gauge("serving", "1 while the volume serves and the link is up.", volume.state == .serving ? 1 : 0),
                gauge(
                    "log_used_bytes", "Bytes of writes in the write log, as they stand on disk, or eight times those of its index.",
                    Double(volume.writeLog?.usedBytes ?? 0)),
                gauge("log_index_bytes", "Bytes that the write log's index takes of memory.", Double(volume.writeLog?.indexBytes ?? 0)),
                gauge("log_size_bytes", "Bytes that the write log may take.", Double(volume.writeLog?.sizeBytes ?? 0)),
                counter(
                    "log_waited_writes", "Writes that had to wait because the write log was full or nearly so.",
                    volume.writeLog?.waitedWrites ?? 0),
                seconds("log_wait_seconds", "How long they waited.", volume.writeLog?.waitSeconds ?? 0),
                gauge("point_sealed", "The last sealed point.", Double(volume.points.lastSealed)),
                gauge("point_received", "The last point that is durable at home.", Double(volume.points.received)),
                gauge("point_applied", "The last point that is on the disk at home.", Double(volume.points.applied)),
                gauge("cache_blocks", "Blocks in the cache.", Double(volume.cache?.blocks ?? 0)),
                counter("cache_hit_blocks", "Blocks that reads found here.", volume.cache?.hits ?? 0),
                counter("cache_missed_blocks", "Blocks that reads had to fetch.", volume.cache?.misses ?? 0),
                counter("read_bytes", "Bytes read by initiators.", volume.io.readBytes),
                counter("sent_bytes", "Bytes of points that were prepared for the link, before compression.", volume.io.sentBytes),
                counter("written_bytes", "Bytes written by initiators.", volume.io.writtenBytes),
                counter("throttled_operations", "Operations that had to wait for the volume's limits.", volume.throttle?.operations ?? 0),
                counter(
                    "throttle_refusals", "Operations that waited too long, and that the initiator was told to repeat.",
                    volume.throttle?.refused ?? 0),
                seconds("throttle_wait_seconds", "How long operations waited for the volume's limits.", volume.throttle?.waitSeconds ?? 0),
                counter("reads", "Reads of initiators.", volume.io.reads),
                counter("writes", "Writes of initiators.", volume.io.writes),
            ]
        }
    }
}
