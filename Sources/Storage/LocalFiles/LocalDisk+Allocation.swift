import Blocks
import Files
import NIOCore

extension LocalDisk: DiskFile {
    /// A file is asked for its holes (SEEK_DATA, SEEK_HOLE), on the thread pool. What a block device has under it nobody tells.
    public func allocation(
        of range: SectorRange, extentsMax: Int, completion: @escaping (Result<[AllocationExtent], StorageFileError>) -> Void
    ) {
        let isFile = kind == .rawFile
        run(range.byteOffset, UInt64(range.byteCount), completion) { access throws(FileSystemError) in
            guard isFile, !range.isEmpty else { return range.isEmpty ? [] : [AllocationExtent(range: range, allocation: .mapped)] }
            switch access {
            case .buffered(let file): return try file.allocation(of: range, extentsMax: extentsMax)
            case .direct(let file): return try file.allocation(of: range, extentsMax: extentsMax)
            }
        }
    }
}

extension OpenFile {
    /// The data and the holes of a regular file, from the start of `range` on. A hole counts in whole sectors.
    ///
    /// Others may write and free meanwhile; each sector is told as it was at some moment.
    func allocation(of range: SectorRange, extentsMax: Int) throws(FileSystemError) -> [AllocationExtent] {
        let sector = UInt64(BlockGeometry.sectorBytes)
        var extents = AllocationExtents(extentsMax: extentsMax)
        var position = range.start
        // Each round finds a hole and the data behind it, unless somebody changes the file just there.
        for _ in 0...extentsMax where position < range.end && !extents.isFull {
            let data = try nextData(from: position * sector).map { min($0 / sector, range.end) } ?? range.end
            extents.append(SectorRange(from: position, to: data), .deallocated)
            if data == range.end { return extents.extents }
            let hole = min((try nextHole(from: data * sector) + sector - 1) / sector, range.end)
            extents.append(SectorRange(from: data, to: hole), .mapped)
            position = hole
        }
        return extents.extents.isEmpty ? [AllocationExtent(range: range, allocation: .mapped)] : extents.extents
    }
}
