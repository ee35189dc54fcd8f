import Blocks

// A file whose epoch is gone is not removed: the next epoch overwrites it. What it costs to give a file its first pages and blocks, and
// to make a file durable that has grown, is paid once.
//
//     epoch file ──rename, directory synced──► spare ──blank header, synced──► ready ──rename──► file of a new epoch, header written
//                                                │
//                                                └ there is no room for it: cut, or removed
//
// Each state is one that a recovery knows already. Before the directory is synced the file is one that was to be removed and is still
// there. A spare is no file of the row. And under its next name it has no header or the new one, as a new file does, because the old one
// is gone from the medium before it gets that name. Whoever still reads what it held reads through the `LogFile` of that time, and as long
// as that lives the spare is not taken.
//
// With its header a file loses its salt, and so the key of all it still holds: nobody can open that again, whatever keys he has.

/// A file of the log's directory that waits for an epoch.
final class LogSpare {
    enum State {
        /// The header of the epoch that it held may be there.
        case used
        /// It has no header, durably.
        case ready
        /// Something failed on it: it is removed.
        case spoilt
    }

    let name: String
    let file: any StorageFile
    var state = State.used
    /// What it takes.
    var byteCount: UInt64
    /// What may still be read of what it held.
    private weak var reader: LogFile?

    init(file: any StorageFile, name: String, byteCount: UInt64, reader: LogFile? = nil) {
        self.file = file
        self.name = name
        self.byteCount = byteCount
        self.reader = reader
    }

    /// Somebody still reads what it held.
    var isRead: Bool { reader != nil }
    /// It may become the file of an epoch.
    var isReady: Bool { state == .ready && !isRead }

    /// Gives the open file back, now or when nobody reads it any more.
    func close() {
        if let reader { reader.isKept = false } else { file.close() }
    }
}
