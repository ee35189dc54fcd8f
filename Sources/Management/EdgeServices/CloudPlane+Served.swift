import APIModels
import Blocks
import NIOCore
import Volumes

// What becomes of a volume that is served: what it tells, and how it is given back.

extension CloudPlane {
    func handle(_ event: VolumeEvent, of entry: Served) {
        let identifier = entry.volume.identifier.description
        switch event {
        case .needsOpen: openAtHome(entry)
        case .point: break
        case .fenced:
            withdraw(entry)
            recorder.record(
                "volume.fenced", subject: entry.grant.name, logSubject: identifier, severity: .error,
                "another edge has the lease on this volume; it is no longer served here")
        case .stopped(let reason):
            recorder.record("volume.stopped", subject: entry.grant.name, logSubject: identifier, severity: .error, reason)
        case .pointDelayed(let point, let refusal):
            // It is tried again each second; a minute of that is one event.
            if let last = entry.delayTold, last.refusal == refusal, NIODeadline.now() - last.at < Self.retellInterval { return }
            entry.delayTold = (refusal, .now())
            recorder.record(
                "point.delayed", subject: entry.grant.name, logSubject: identifier, severity: .warning,
                "home could not take point \(point) (\(refusal)); it is sent again until it can: look at the on-prem edge")
        case .logObstructed(let obstacle): logObstructed(entry, obstacle)
        case .logUnobstructed(let time): logUnobstructed(entry, after: time)
        case .cacheFailed: cacheFailed()
        case .logFilling(let fill): logFills(entry, fill)
        case .logEased(let fill): logEased(entry, fill)
        case .unsentLate(let age): unsentIsLate(entry, age)
        case .unsentCaughtUp: unsentHasCaughtUp(entry)
        case .imaged(let range): imaged(range, of: entry)
        case .logFull: logIsFull(entry)
        }
    }

    // MARK: Giving back

    /// Takes the target away, brings every write home, and holds the volume so until home takes the grant back.
    func release(_ entry: Served, completion: @escaping (Result<Void, any Error>) -> Void) {
        if entry.volume.hasCloudOnlyWrites {
            return completion(.failure(Problem.hasCloudOnlyWrites(of: entry.volume, name: entry.grant.name)))
        }
        entry.releasedAfterGrants = grantsAsked
        withdraw(entry) { [self] in
            entry.volume.seal(until: .applied) { [self] result in
                if case .failure(let error) = result {
                    resume(entry)
                    return completion(.failure(Problem(describing: error, volume: entry.grant.name)))
                }
                // Home may have given up waiting meanwhile, and the volume may be served again.
                guard entry.isReleasing, !entry.isExported else { return completion(.failure(Problem.notOpenHere)) }
                if entry.volume.hasCloudOnlyWrites {
                    // Written after the look above, while the target was being withdrawn.
                    resume(entry)
                    return completion(.failure(Problem.hasCloudOnlyWrites(of: entry.volume, name: entry.grant.name)))
                }
                guard entry.volume.isAllHome else { return completion(.failure(Problem.notOpenHere)) }
                completion(.success(()))
            }
        }
    }

    /// Home has kept the grant after all: the volume is served again.
    func resume(_ entry: Served) {
        entry.releasedAfterGrants = nil
        if entry.wasOpened, entry.volume.isServable { export(entry) }
    }

    /// Lets go of a volume whose grant is gone; `completion` is told whether all that was written to it was at home.
    func close(_ identifier: VolumeIdentifier, completion: @escaping (Bool) -> Void) {
        guard let entry = remove(identifier) else { return completion(true) }
        takeFromGroup(entry.volume)
        withdraw(entry) { [self] in
            let isAllHome = entry.volume.isAllHome
            entry.volume.close(reason: "the volume was detached") { [self] in
                forgetInCache(identifier)
                completion(isAllHome)
            }
        }
    }
}
