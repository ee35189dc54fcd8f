import Blocks

/// The changes of files and names that are under way, for whoever closes what makes them: a close waits for them, also after a failure,
/// because what came late would be done to a file of whoever opens the same directory next.
package final class ChangesInFlight {
    package private(set) var count = 0
    private var whenNone: (() -> Void)?

    package init() {}

    /// A change begins; `end` follows, once, when it and what follows from it at once are done.
    package func begin() { count += 1 }

    package func end() {
        count -= 1
        guard count == 0, let ended = whenNone else { return }
        whenNone = nil
        ended()
    }

    /// Makes a change, and counts it until `next` has run.
    package func make(
        _ change: (@escaping (Result<Void, StorageFileError>) -> Void) -> Void,
        then next: @escaping (Result<Void, StorageFileError>) -> Void
    ) {
        begin()
        change { [self] result in
            next(result)
            end()
        }
    }

    /// Runs `body` when no change is in flight any more: now, or then. Only the last that was given is.
    package func whenEnded(_ body: @escaping () -> Void) {
        if count == 0 { body() } else { whenNone = body }
    }
}
