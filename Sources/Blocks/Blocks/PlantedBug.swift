// Bugs that are put in on purpose, so that the simulator proves that it finds such bugs.
//
// Each is one line in a core, at the place where somebody might make that mistake. Only the build of the simulator that `make test`
// makes for itself knows of them (Package.swift defines PLANTED_BUGS): everywhere else `isPlanted` is the constant false, and the line
// is gone. Where they are known nothing is planted either, until `PlantedBug.$current` says so, for one task.

/// A known bug that the simulator can be told to have.
public enum PlantedBug: String, CaseIterable, Sendable {
    // The write log.
    /// A flush is answered before the log's files are synchronised.
    case acknowledgesBeforeSync
    /// A write is acknowledged when it has its place in memory, before a file has it.
    case acknowledgesBeforeWritten
    /// The log's files are synchronised, but never the directory that holds their names.
    case forgetsDirectorySync
    /// Recovery goes on in the file that it has found, behind its torn end, under the same salt: a nonce may seal a second text.
    case reusesSaltAfterRecovery
    /// A batch that the file system had no room for is sealed anew for the next try, with another header under the same nonce.
    case reusesNonceForRetry
    /// Recovery leaves a torn batch out and takes the batches behind it.
    case recoversBeyondHole
    /// Recovery removes the rest of an epoch whose first files are gone, before that is durable.
    case trustsNamesThatAreGone
    /// The header of a released file is removed before the directory knows that the file is no longer the epoch's.
    case blanksBeforeTheNameIsGone
    /// A released file becomes the next epoch's before its old header is durably gone.
    case takesSpareBeforeItIsBlank
    /// Recovery does not take records of zeroes: what was unmapped is there again.
    case forgetsZeroesInRecovery
    /// What the index takes of memory counts nothing.
    case ignoresIndexSize
    /// A rotated key counts as needed no more while files under it are being removed.
    case forgetsKeysOfReleases
    /// Recovery takes what the page cache has of a log for what is on the medium, after a sync that failed.
    case trustsMemoryAfterFailedSync

    // The cache.
    /// The cache forgets blocks in memory only, without an entry in its tables.
    case dropsTombstones
    /// A cache is trusted even when it is older than the volume: an old copy that was put back brings older blocks.
    case trustsOldCache
    /// A segment behind the end that the cache is to have is emptied without a record of it.
    case emptiesWithoutRecord
    /// While the cache is divided, a segment is emptied without a record of it.
    case emptiesPoolWithoutRecord
    /// A block is shared with one that was equal once, without a look whether it still is.
    case sharesWithoutLooking

    // The volume at the cloud edge.
    /// Reads look into the cache before they look for unsent writes.
    case readsCacheBeforeLog
    /// Unsent zeroes do not hide what is below them.
    case readsThroughZeroes
    /// A fetch that home may have answered before it received a point is still joined, and cached.
    case cachesStaleFetch
    /// A block that the end of the disk cuts is cached, its rest filled with zeroes; the disk grows later.
    case cachesCutBlock
    /// The volumes of a group are sealed one by one, each when the one before is durable.
    case sealsGroupOneByOne
    /// What was moved from the cloud-only disk into the log may be written to the log again before the disk has durably let go of it.
    case letsGoBeforeRemovalIsDurable
    /// A group has cuts without its volumes that have stopped, or that are not served after a restart.
    case cutsWithoutStoppedVolume
    /// A cut is taken for whole though a volume lost its part of it in a crash.
    case trustsPartOfCut
    /// A point goes home without the ranges that it sets to zeroes.
    case sendsPointWithoutZeroes
    /// A block that home takes for equal is taken without a look at it.
    case trustsReferences

    // The disk at home, and its journal.
    /// What is read again and again of a disk stays in memory when it is overwritten.
    case keepsOverwrittenInReadCache
    /// A point says that it is received before its file is durable, and is applied at once.
    case appliesBeforeJournalIsDurable
    /// Of two points that wait, the later one is applied first.
    case appliesOutOfOrder
    /// One piece of a point gets lost, and neither count nor digest are compared.
    case losesPiece
    /// Recovery takes received points for leftovers, and does not apply them.
    case forgetsReceivedPoints
    /// Points are taken whatever generation they carry.
    case skipsFence
    /// Of a group, each disk is given its points as they come, whether the others have theirs or not.
    case appliesBeforeGroupIsReceived
    /// A disk that is detached by force is given all that home has received for it, whether the others of its group have theirs or not.
    case appliesHeldPointsOnDetach
    /// The disk is written before what is overwritten is durably kept.
    case appliesBeforeUndoIsDurable
    /// After a crash, what a half applied point has overwritten is kept anew, from the disk that has half of it.
    case capturesHalfAppliedPoint
    /// While the disk has no room for a point, reads show the part of it that got there, and no later point.
    case readsDiskWithoutRoom
    /// An edge may write to a disk that lacks points which the edge has let go of.
    case acceptsOldDisk

    /// The one that is planted for the running task; nil for none.
    #if PLANTED_BUGS
        @TaskLocal public static var current: PlantedBug?
    #endif
}

/// True when `bug` was planted for the running task: never outside of the simulator's own build.
@inlinable
@inline(__always)
public func isPlanted(_ bug: PlantedBug) -> Bool {
    #if PLANTED_BUGS
        PlantedBug.current == bug
    #else
        false
    #endif
}
