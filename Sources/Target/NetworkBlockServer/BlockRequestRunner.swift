import Blocks
import NBD
import NIOCore
import StorageTarget

/// Gives the requests of a connection to a logical unit, and gives them again while what stands in the way passes by itself.
///
///   perform --room among the running ones--> unit --done, or an error that stays--> completion
///                                             |  ^
///                                             v  | after a pause, or at once when it was aborted by an initiator
///                                       busy, unreachable, no space
final class BlockRequestRunner {
    private let server: NetworkBlockServer
    private let unit: LogicalUnit
    private let nexus: NexusIdentifier
    /// Set when the client is gone: nothing more is begun.
    private var isStopped = false

    init(server: NetworkBlockServer, unit: LogicalUnit, nexus: NexusIdentifier) {
        self.server = server
        self.unit = unit
        self.nexus = nexus
    }

    /// Does a request; `completion` runs once, perhaps before this returns.
    func perform(_ request: BlockRequest, completion: @escaping (Result<ByteBuffer, BlockRequestError>) -> Void) {
        perform(request, until: server.eventLoop.now + server.limits.retryTime, completion)
    }

    private func perform(
        _ request: BlockRequest, until deadline: NIODeadline, _ completion: @escaping (Result<ByteBuffer, BlockRequestError>) -> Void
    ) {
        if server.running.reserve(1) { return attempt(request, deadline, completion) }
        server.running.wait(for: 1) { [self] in
            attempt(request, deadline, completion)
            return true
        }
    }

    private func attempt(
        _ request: BlockRequest, _ deadline: NIODeadline, _ completion: @escaping (Result<ByteBuffer, BlockRequestError>) -> Void
    ) {
        if isStopped { return end(.failure(.aborted), completion) }
        unit.perform(request, nexus: nexus) { [self] result in
            switch result {
            case .failure(.aborted) where !isStopped: attempt(request, deadline, completion)
            case .failure(.busy), .failure(.device(.busy)), .failure(.device(.unreachable)), .failure(.device(.noSpace)):
                if isStopped || server.eventLoop.now >= deadline { return end(result, completion) }
                // The place is for others meanwhile: they may not need what this one waits for.
                server.running.release(1)
                let again: () -> Void = { [self] in perform(request, until: deadline, completion) }
                let bound = NIOLoopBound(again, eventLoop: server.eventLoop)
                server.eventLoop.scheduleTask(in: server.limits.retryPause) { bound.value() }
            default: end(result, completion)
            }
        }
    }

    /// The answer comes first: who waits for the place comes after it.
    private func end(
        _ result: Result<ByteBuffer, BlockRequestError>, _ completion: (Result<ByteBuffer, BlockRequestError>) -> Void
    ) {
        completion(result)
        server.running.release(1)
    }

    /// Begins nothing more and gives up what waits for its turn in the unit.
    func stop() {
        isStopped = true
        unit.abortTasks(.nexus(nexus)) {}
    }
}

extension NBDErrorNumber {
    /// What a client is told when a logical unit did not do a request.
    init(_ error: BlockRequestError) {
        self =
            switch error {
            case .reserved, .device(.writeProtected): .notPermitted
            case .device(.outOfRange): .invalid
            case .device(.noSpace): .noSpace
            case .device(.stopped): .shuttingDown
            case .device(.unreachable), .device(.busy), .device(.medium), .notReady, .busy, .aborted: .inputOutput
            }
    }
}

extension BlockRequestError {
    /// What a client is told along with the number. The device's own words name volumes, and stay here.
    var message: String {
        switch self {
        case .reserved: "the volume is reserved by another machine"
        case .device(.writeProtected): "the volume is write protected"
        case .device(.outOfRange): "beyond the end of the volume"
        case .device(.noSpace): "there is no room for the write"
        case .device(.stopped): "the volume is not served any more"
        case .device(.unreachable): "the other site could not be reached in time"
        case .device(.medium): "the medium failed"
        case .device(.busy), .busy: "too many requests"
        case .notReady: "the medium is not ready: it is ejected, or is being sanitized or formatted"
        case .aborted: "the request was aborted"
        }
    }
}

/// Runs steps one after the other, also when one of them ends at once: a loop, not a recursion.
final class StepLoop {
    private var isInside = false
    private var isWanted = false
    private let step: (StepLoop) -> Void

    /// - Parameter step: does one step, and then calls `next`, or does not when it was the last.
    init(_ step: @escaping (StepLoop) -> Void) { self.step = step }

    func next() {
        isWanted = true
        if isInside { return }
        isInside = true
        defer { isInside = false }
        while isWanted {
            isWanted = false
            step(self)
        }
    }
}
