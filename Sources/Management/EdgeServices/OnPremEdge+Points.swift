import APIModels
import Blocks
import Disks
import Foundation
import LocalFiles
import ManagementAPI
import NIOCore
import ReadCache
import StateStore

/// Points that a volume's disk was at, and that are kept: how many, which, their content.
extension OnPremEdge {
    /// How many the journal of a volume keeps.
    static func keeping(of record: VolumeRecord) -> PointKeeping {
        PointKeeping(pointsMax: Int(clamping: record.keptPoints), bytesMax: record.keptBytes)
    }

    /// The same as the API shows it; nil when none are kept.
    static func keptPoints(of record: VolumeRecord) -> APIModels.Volume.Keeping? {
        record.keptPoints == 0 ? nil : .init(points: record.keptPoints, bytes: record.keptBytes)
    }

    static func set(_ keeping: APIModels.Volume.Keeping, in record: inout VolumeRecord) {
        record.keptPoints = min(keeping.points, APIModels.Volume.Keeping.pointsMax)
        record.keptBytes = keeping.bytes
    }

    /// Has the journal of an attached volume keep as many points as its record says. One that is not open learns of it when it is.
    func keepPoints(of record: VolumeRecord) async throws {
        guard let identifier = VolumeIdentifier(hexadecimal: record.identifier) else { return }
        let keeping = Self.keeping(of: record)
        try await needPlane().run { $0.journal(of: identifier)?.keep(keeping) }
    }

    func points(ofVolume name: String) async throws -> KeptPoints {
        let record = try volumeRecord(name)
        guard let identifier = VolumeIdentifier(hexadecimal: record.identifier), record.state == .attached else {
            throw Problem.nothingKept(of: name)
        }
        let kept = try await needPlane().run { plane in
            plane.journal(of: identifier).map { (applied: $0.position.applied, past: $0.pastPoints) }
        }
        guard let kept else { throw Problem.notServed }
        return KeptPoints(
            volume: name, keeping: Self.keptPoints(of: record), onDisk: kept.applied,
            past: kept.past.map { past in
                APIModels.PastPoint(
                    point: past.point, leftAt: Date(timeIntervalSince1970: Double(past.leftAtMilliseconds) / 1_000), bytes: past.byteCount,
                    label: past.attributes.flatMap { $0.label.isEmpty ? nil : $0.label }, cut: past.attributes?.group?.number)
            })
    }

    /// Refuses a way back that can't be gone, before the volume is detached for it.
    func pinKept(_ point: UInt64, _ record: VolumeRecord, _ identifier: VolumeIdentifier) async throws {
        let kept = try await needPlane().run { plane in
            plane.journal(of: identifier).map { journal in
                let isKept = journal.position.applied == point || journal.pastPoints.contains { $0.point == point }
                if isKept { journal.pin(point) }
                return isKept
            }
        }
        guard let kept else { throw Problem.notServed }
        if !kept { throw Problem.notKept(point, of: "volume \(record.name)") }
    }

    /// What was pinned for a way back goes as all others do.
    func unpin(_ identifier: VolumeIdentifier) async throws {
        try await needPlane().run { $0.journal(of: identifier)?.pin(nil) }
    }

    func content(ofVolume name: String, at point: UInt64) async throws -> any PointContent {
        let record = try volumeRecord(name)
        guard let identifier = VolumeIdentifier(hexadecimal: record.identifier), record.state == .attached else {
            throw Problem.nothingKept(of: name)
        }
        let plane = try needPlane()
        return try await plane.call { (plane: HomePlane, completion: @escaping (Result<ViewContent, any Error>) -> Void) in
            guard let journal = plane.journal(of: identifier) else { return completion(.failure(Problem.notServed)) }
            journal.openPast(point) { result in
                completion(
                    result.map { ViewContent($0, eventLoop: plane.eventLoop) }.mapError { error in
                        if case .notKept = error { return Problem.notKept(point, of: "volume \(name)") }
                        return Problem(describing: error, disk: record.disk)
                    })
            }
        }
    }
}

/// A view of a past point, for a reader elsewhere. It is closed when that has let go of it.
private final class ViewContent: PointContent {
    typealias View = PastView<CachedDisk<LocalDisk>, LocalDirectory>

    let byteCount: UInt64
    private let view: NIOLoopBound<View>
    private let eventLoop: any EventLoop

    /// Made on the loop.
    init(_ view: View, eventLoop: any EventLoop) {
        byteCount = view.sectorCount * UInt64(BlockGeometry.sectorBytes)
        self.view = NIOLoopBound(view, eventLoop: eventLoop)
        self.eventLoop = eventLoop
    }

    deinit {
        eventLoop.execute { [view] in view.value.close() }
    }

    func read(at offset: UInt64, byteCount: Int) async throws -> ByteBuffer {
        let sectorBytes = UInt64(BlockGeometry.sectorBytes)
        guard offset % sectorBytes == 0, let range = SectorRange(start: offset / sectorBytes, count: UInt64(byteCount) / sectorBytes) else {
            throw PointJournalError.outOfRange(SectorRange(from: 0, to: 0))
        }
        return try await withCheckedThrowingContinuation { continuation in
            eventLoop.execute { [view] in view.value.read(range) { continuation.resume(with: $0.mapError { $0 }) } }
        }
    }
}

extension Problem {
    static func nothingKept(of volume: String) -> Problem {
        Problem(
            status: 409, code: "volume_detached", title: "The volume is detached",
            detail: "points are kept of a volume while it is attached, and \(volume) is not: its disk may have been changed since",
            action: "attach it; `causeway volume set \(volume) --keep-points` says how many are kept from then on")
    }

    static func notKept(_ point: UInt64, of subject: String) -> Problem {
        Problem(
            status: 409, code: "point_not_kept", title: "The point is not kept",
            detail: "point \(point) of \(subject) can't be had again",
            action: "see `causeway volume point list` for those that are kept")
    }
}
