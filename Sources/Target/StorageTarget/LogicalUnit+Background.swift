import Blocks
import NIOCore
import SCSI

// SANITIZE and FORMAT UNIT (SBC-3). Both hold the whole disk alone, change all of it, and end when it is changed at home too.
//
//   none --command--> waits for the tasks before it --> passes over the disk --> settles at home --> none
//     ^                                                      |                        |
//     |                                                      +---- the disk fails ----+--> failed
//     +--- EXIT FAILURE MODE (with AUSE) or another command that succeeds <-------------------+
//
// A reset, a lost session or an abort of the command ends none of this; only the answer is given up. A link that is down or a
// log that is full makes it wait. When the unit is served no more, it stops where it is.

/// What one pass over the disk does.
enum LogicalUnitPass {
    case zeroes
    /// Repeats a logical block.
    case pattern(ByteBuffer)
}

/// A SANITIZE or FORMAT UNIT that is under way, or has failed.
struct LogicalUnitBackgroundOperation {
    enum Kind: Equatable {
        case sanitize(allowsUnrestrictedExit: Bool)
        case format
    }

    let kind: Kind
    /// Blocks to write over all passes, and those that were.
    var totalBlocks: UInt64
    var doneBlocks: UInt64 = 0
    var hasFailed = false

    /// In 65,536ths, as sense data has it.
    var progress: UInt16 {
        UInt16(clamping: UInt128(doneBlocks) * 65_536 / UInt128(max(1, totalBlocks)))
    }

    /// What every command is told that may not pass.
    var sense: SenseData {
        switch (kind, hasFailed) {
        case (.sanitize, false): SenseData(.notReady, .sanitizeInProgress, progress: progress)
        case (.format, false): SenseData(.notReady, .formatInProgress, progress: progress)
        case (.sanitize, true): SenseData(.mediumError, .sanitizeCommandFailed)
        case (.format, true): SenseData(.mediumError, .formatCommandFailed)
        }
    }

    /// Whether a command is carried out nevertheless.
    func admits(_ command: SCSICommand) -> Bool {
        if command.passesBackgroundOperation { return true }
        guard hasFailed else { return false }
        switch command {
        case .sanitize: return true
        case .formatUnit: return kind == .format
        default: return false
        }
    }
}

extension LogicalUnit {
    /// The most blocks that one write of a pass carries: 1 MiB.
    private static var passBlocks: UInt64 { 2048 }
    /// How long one such write and the pause behind it take at least: 32 MiB/s, so that a sanitize of one volume leaves the
    /// log and the line to the others.
    private static var passInterval: TimeAmount { .microseconds(31_250) }
    /// How long an operation waits before it tries again what had no room or no link.
    private static var retryInterval: TimeAmount { .seconds(1) }

    func sanitize(_ task: SCSITask, _ request: Sanitize, _ completion: @escaping (SCSIResponse) -> Void) {
        let passes: [LogicalUnitPass]
        switch request.serviceAction {
        case .exitFailureMode: return completion(formatted(exitFailureMode()))
        case .blockErase, .cryptographicErase: passes = [.zeroes]
        case .overwrite:
            do throws(SenseData) {
                let parameters = try OverwriteParameters.parse(
                    task.dataOut ?? ByteBuffer(), statedByteCount: Int(request.parameterListByteCount), blockBytes: Self.blockBytes)
                passes = (0..<parameters.passCount).map { .pattern(parameters.block(pass: $0, byteCount: Self.blockBytes)) }
            } catch {
                return completion(formatted(.checkCondition(error)))
            }
        }
        runInBackground(
            task, .sanitize(allowsUnrestrictedExit: request.allowsUnrestrictedExit), passes, isImmediate: request.isImmediate,
            completion)
    }

    /// A failure that AUSE made leavable is left; any other needs a SANITIZE that succeeds.
    private func exitFailureMode() -> SCSIResponse {
        guard let operation = backgroundOperation else { return .good }
        guard case .sanitize(allowsUnrestrictedExit: true) = operation.kind else {
            return .checkCondition(.invalidFieldInCDB(byte: 1, bit: 4))
        }
        backgroundOperation = nil
        return .good
    }

    /// FORMAT UNIT: a thin disk that was formatted holds no block (SBC-3, 4.7.3).
    func format(_ task: SCSITask, hasList: Bool, isLong: Bool, _ completion: @escaping (SCSIResponse) -> Void) {
        var isImmediate = false
        if hasList {
            do throws(SenseData) {
                isImmediate = try FormatParameterList.isImmediate(task.dataOut ?? ByteBuffer(), isLong: isLong)
            } catch {
                return completion(formatted(.checkCondition(error)))
            }
        }
        runInBackground(task, .format, [.zeroes], isImmediate: isImmediate, completion)
    }

    private func runInBackground(
        _ task: SCSITask, _ kind: LogicalUnitBackgroundOperation.Kind, _ passes: [LogicalUnitPass], isImmediate: Bool,
        _ completion: @escaping (SCSIResponse) -> Void
    ) {
        let blocks = device.sectorCount
        backgroundOperation = LogicalUnitBackgroundOperation(
            kind: kind, totalBlocks: blocks.multipliedReportingOverflow(by: UInt64(passes.count)).partialValue)
        // The command is one task, which may be aborted; the work is another, which nobody can abort.
        let waiter = isImmediate ? nil : register(task, completion) { _ in }
        if isImmediate { completion(.good) }
        let worker = register(task, { _ in }) { worker in
            self.run(passes[...], on: SectorRange(from: 0, to: blocks)) { error in
                if error == nil { self.backgroundOperation = nil } else { self.backgroundOperation?.hasFailed = true }
                self.finish(worker, .good)
                guard let waiter, self.runningTasks[waiter.identifier] != nil else { return }
                waiter.body = nil
                self.finish(waiter, error.map { self.failure($0) } ?? .good)
            }
        }
        worker.isAbortable = false
        if locks.acquire(worker.identifier, LogicalUnitRangeLocks.everything, .exclusive) { start([worker.identifier]) }
    }

    private func failure(_ error: BlockDeviceError) -> SCSIResponse {
        backgroundOperation.map { .checkCondition($0.sense) } ?? response(to: error, isWrite: true)
    }

    /// Runs pass after pass; each is on the medium at home before the next begins, so that each is a pass.
    private func run(_ passes: ArraySlice<LogicalUnitPass>, on disk: SectorRange, then done: @escaping (BlockDeviceError?) -> Void) {
        guard let pass = passes.first else { return done(nil) }
        let settle: () -> Void = {
            self.persist({ self.device.settle(completion: $0) }, orFail: done) {
                self.run(passes.dropFirst(), on: disk, then: done)
            }
        }
        switch pass {
        case .zeroes:
            persist({ self.device.writeZeroes(disk, durability: .ordered, completion: $0) }, orFail: done) {
                self.backgroundOperation?.doneBlocks += disk.count
                settle()
            }
        case .pattern(let block):
            var piece = ByteBuffer()
            let count = min(disk.count, Self.passBlocks)
            piece.reserveCapacity(Int(count) * Self.blockBytes)
            for _ in 0..<count { piece.writeImmutableBuffer(block) }
            overwrite(disk, with: piece, orFail: done, then: settle)
        }
    }

    private func overwrite(
        _ range: SectorRange, with pattern: ByteBuffer, orFail fail: @escaping (BlockDeviceError?) -> Void,
        then done: @escaping () -> Void
    ) {
        if range.isEmpty { return done() }
        let piece = SectorRange(from: range.start, to: min(range.end, range.start + Self.passBlocks))
        let data = pattern.truncated(to: piece.byteCount)
        persist({ self.device.write(piece, data: data, durability: .ordered, completion: $0) }, orFail: fail) {
            self.backgroundOperation?.doneBlocks += piece.count
            self.after(Self.passInterval) {
                self.overwrite(SectorRange(from: piece.end, to: range.end), with: pattern, orFail: fail, then: done)
            }
        }
    }

    /// Does a step again and again as long as only the link, the log or a limit is in the way.
    private func persist(
        _ step: @escaping (@escaping (Result<Void, BlockDeviceError>) -> Void) -> Void,
        orFail fail: @escaping (BlockDeviceError?) -> Void, then next: @escaping () -> Void
    ) {
        if isRetired { return fail(.stopped("the unit is served no more")) }
        step { result in
            switch result {
            case .success: next()
            case .failure(.unreachable), .failure(.noSpace), .failure(.busy):
                self.after(Self.retryInterval) { self.persist(step, orFail: fail, then: next) }
            case .failure(let error): fail(error)
            }
        }
    }

    /// Runs `work` later, or at once where nobody gave the unit a clock.
    private func after(_ time: TimeAmount, _ work: @escaping () -> Void) {
        if let delay { delay(time, work) } else { work() }
    }
}
