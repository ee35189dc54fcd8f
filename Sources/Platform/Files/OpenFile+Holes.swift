import CPlatform
import Glibc

extension OpenFile {
    /// Where the first data at or behind `offset` begins; nil when there is none up to the end of the file.
    ///
    /// Of a regular file only. A file system that does not keep holes says that everything is data.
    public func nextData(from offset: UInt64) throws(FileSystemError) -> UInt64? {
        let found = causeway_next_data(descriptor, offset)
        if found == -Int64(ENXIO) { return nil }
        try check(CInt(truncatingIfNeeded: min(found, 0)), "lseek(SEEK_DATA)", path)
        return UInt64(found)
    }

    /// Where the first hole at or behind `offset`, which lies in the file, begins. The end of the file counts as one.
    public func nextHole(from offset: UInt64) throws(FileSystemError) -> UInt64 {
        let found = causeway_next_hole(descriptor, offset)
        try check(CInt(truncatingIfNeeded: min(found, 0)), "lseek(SEEK_HOLE)", path)
        return UInt64(found)
    }
}
