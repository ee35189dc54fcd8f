import APIModels
import EdgeConfiguration
import Files
import ManagementAPI
import NIOCore

/// The write logs' size, which may change while machines write: by the API of this edge, by home's, and by the configuration. It
/// is this edge's own matter, because a log fills when home can't be reached.
extension CloudEdge {
    /// Changes the one thing of a volume that is decided here. All else is home's.
    func changeVolume(named name: String, _ change: VolumeChange) async throws -> APIModels.Volume {
        // Whatever else a change may ever be able to say is home's too.
        var rest = change
        rest.writeLogSizeBytes = nil
        guard rest == VolumeChange() else { throw APIError.wrongRole(.onprem) }
        if let byteCount = change.writeLogSizeBytes { try await resizeLog(ofVolume: name, to: byteCount) }
        return try await volume(named: name)
    }

    /// Gives the write log of a volume another size, at once and for good; 0 for the edge's own.
    func resizeLog(ofVolume name: String, to byteCount: UInt64) async throws {
        guard byteCount == 0 || LogSize.range.contains(byteCount) else {
            throw APIError.invalid("writeLogSizeBytes", "must be 0, or from \(LogSize.range.lowerBound) to \(LogSize.range.upperBound)")
        }
        let plane = try needPlane()
        guard let identifier = try await plane.run({ $0.entry(named: name)?.volume.identifier }) else {
            throw APIError.notFound("volume", name)
        }
        let own = byteCount == 0 ? nil : byteCount
        do throws(FileSystemError) {
            try LogSize.keep(own, in: try OpenDirectory("\(environment.directory.path)/\(Self.volumesDirectory)/\(identifier)"))
        } catch {
            throw Problem(
                status: 507, code: "state_directory", title: "The size can't be kept", detail: "\(error)",
                action: "make room in the state directory, or mend its file system")
        }
        let size = own ?? cloud.writeLogSizeBytes
        try await plane.run { plane in
            guard let entry = plane.served[identifier] else { return }
            entry.ownLogBytes = own
            plane.resizeLog(of: entry, to: size)
        }
        environment.recorder.record(
            "log.resized", subject: name, logSubject: identifier.description, "the write log may take \(ByteSize.rounded(size)) now")
    }

    /// Takes over what may change of the configuration: the size of the cache, and of the write logs, that have none of their own.
    func reload(_ fresh: Configuration.Cloud) async {
        if fresh.cacheSizeBytes != cloud.cacheSizeBytes {
            cloud.cacheSizeBytes = fresh.cacheSizeBytes
            await configuredCacheSizeChanged()
        }
        let size = fresh.writeLogSizeBytes
        guard size != cloud.writeLogSizeBytes else { return }
        cloud.writeLogSizeBytes = size
        plane?.send { plane in
            plane.stateSpace.edgeLogBytes = size
            for entry in plane.served.values where entry.ownLogBytes == nil { plane.resizeLog(of: entry, to: size) }
        }
        environment.recorder.record("log.resized", "write logs without a size of their own may take \(ByteSize.rounded(size)) now")
    }
}
