import Blocks
import CloudOnlyDisk
import NIOCore

// The layer of a volume that holds what never goes home, and what is under way there. A volume without cloud-only writes has none.
//
// A sector that the disk holds hides the log, the cache and home. So a sector may only begin to be written to the log again when the
// disk has let go of it durably; else a crash would bring an older write back over a newer one that was flushed. Whoever takes sectors
// out of the disk, to bring them home or to discard them, holds writes to them back meanwhile:
//
//     hold(range) ──► writes under way to it end ──► [copy to the log ──► log flushed] ──► removed from the disk ──► disk flushed ──► let go
//
// One range at a time is held. Its writers wait for one flush of each log, and get an error at the volume's deadline. A removal that the
// disk has no room for is tried until it is durable.

final class CloudOnlyLayer<Directory: StorageDirectory> {
    let disk: CloudOnlyDisk<Directory>
    var table: RegionTable
    /// Writes to the disk that were not answered, by number.
    private var writes: [UInt64: SectorRange] = [:]
    private var lastWrite: UInt64 = 0
    /// The range that is being taken out of the disk.
    private(set) var held: SectorRange?
    private var waiting: [(since: NIODeadline, resume: () -> Void, fail: (BlockDeviceError) -> Void)] = []
    private var onWritesEnded: (() -> Void)?
    /// Tries again to take the held range out of the disk, after there was no room for that.
    var retryRemoval: (() -> Void)?
    /// Discards that wait until the range before them is let go, and how many may.
    static var waitingHoldsMax: Int { 16 }
    var waitingHolds: [() -> Void] = []

    /// The way of imaging, see `Volume+Imaging.swift`.
    var imaging = ImagingState()

    init(disk: CloudOnlyDisk<Directory>, table: RegionTable) {
        self.disk = disk
        self.table = table
    }

    // MARK: Writes under way

    func began(_ range: SectorRange) -> UInt64 {
        lastWrite &+= 1
        writes[lastWrite] = range
        return lastWrite
    }

    func ended(_ write: UInt64) {
        writes[write] = nil
        guard let held, let resume = onWritesEnded, !isWriting(held) else { return }
        onWritesEnded = nil
        resume()
    }

    // MARK: Holding

    /// Tries the removal again that there was no room for.
    func retryRemovalIfDue() {
        let retry = retryRemoval
        retryRemoval = nil
        retry?()
    }

    /// True while a write to some sector of a range is on its way to the disk.
    func isWriting(_ range: SectorRange) -> Bool { writes.values.contains { $0.overlaps(range) } }

    /// Holds writes to a range back, and calls when those that are under way have ended. Nothing else may be held.
    func hold(_ range: SectorRange, then next: @escaping () -> Void) {
        held = range
        if !isWriting(range) { return next() }
        onWritesEnded = next
    }

    /// Keeps a write that falls into the held range; false when it does not.
    func keepsBack(
        _ range: SectorRange, now: NIODeadline, resume: @escaping () -> Void, fail: @escaping (BlockDeviceError) -> Void
    ) -> Bool {
        guard let held, held.overlaps(range) else { return false }
        waiting.append((now, resume, fail))
        return true
    }

    /// Lets the writes go on that were held back, in their order.
    func letGo() {
        held = nil
        let resumed = waiting
        waiting = []
        for write in resumed { write.resume() }
        guard held == nil, !waitingHolds.isEmpty else { return }
        waitingHolds.removeFirst()()
    }

    /// Fails the writes that were held back before a time.
    func failKeptBack(since deadline: NIODeadline, _ error: BlockDeviceError) {
        let expired = waiting.filter { $0.since < deadline }
        if expired.isEmpty { return }
        waiting.removeAll { $0.since < deadline }
        for write in expired { write.fail(error) }
    }
}
