import Blocks
import NIOCore
import SCSI

// The way of front ends that do not speak SCSI. What they ask for takes the same locks and meets the same reservations,
// write protection and mode parameters as a command of an I_T nexus that has not registered.

/// What a front end asks of a logical unit.
public enum BlockRequest: Sendable {
    case read(SectorRange)
    case write(SectorRange, data: ByteBuffer, forceUnitAccess: Bool)
    /// Replaces some bytes of one sector, with nothing in between.
    case update(sector: UInt64, offset: Int, data: ByteBuffer, forceUnitAccess: Bool)
    case writeZeroes(SectorRange, forceUnitAccess: Bool)
    case flush
}

/// Why a logical unit did not do what a front end asked.
public enum BlockRequestError: Error, Equatable, Sendable {
    case device(BlockDeviceError)
    /// Somebody holds the unit, by a reservation that keeps this request out.
    case reserved
    /// The medium is ejected, or is being sanitized or formatted, or was and that failed.
    case notReady
    /// As many tasks as `LogicalUnit.maximumTasks`; trying again helps.
    case busy
    /// A task management function of an initiator ended the request before the device did what was asked.
    case aborted
}

extension LogicalUnit {
    /// True when writes are refused now: by the device, or by the control mode page.
    public var isWriteProtected: Bool { device.isWriteProtected || parameters.isSoftwareWriteProtected }

    /// Does what is asked for; `completion` runs once, perhaps before this returns, with data after a read.
    /// - Parameter nexus: names the front end's connection, for `abortTasks`. It is not one of `addNexus`.
    public func perform(
        _ request: BlockRequest, nexus: NexusIdentifier, completion: @escaping (Result<ByteBuffer, BlockRequestError>) -> Void
    ) {
        if let refusal = refusal(of: request) { return completion(.failure(refusal)) }
        let mode: LogicalUnitRangeLocks.Mode = if case .update = request { .exclusive } else { .shared }
        // The task layer speaks SCSI; what the device said goes past it.
        var outcome: Result<ByteBuffer, BlockRequestError>?
        let ended: (SCSIResponse) -> Void = { response in
            completion(outcome ?? .failure(response.status == .taskSetFull ? .busy : .aborted))
        }
        runOnMedium(nexus: nexus, request.range, mode, completion: ended) { running in
            self.carryOut(request, running) { result in
                outcome = result.mapError { .device($0) }
                self.finish(running, .good)
            }
        }
    }

    private func carryOut(
        _ request: BlockRequest, _ running: LogicalUnitRunningTask,
        _ completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void
    ) {
        let done: (Result<Void, BlockDeviceError>) -> Void = { completion($0.map { ByteBuffer() }) }
        switch request {
        case .read(let range): device.read(range, completion: completion)
        case .write(let range, let data, let force):
            device.write(range, data: data, durability: durability(forceUnitAccess: force), completion: done)
        case .writeZeroes(let range, let force):
            device.writeZeroes(range, durability: durability(forceUnitAccess: force), completion: done)
        case .flush: device.flush(completion: done)
        case .update(_, let offset, let data, let force):
            device.read(request.range) { result in
                switch result {
                case .failure(let error): completion(.failure(error))
                case .success where running.isAborted: self.finish(running, SCSIResponse(status: .taskAborted))
                case .success(var sector):
                    sector.setBuffer(data, at: sector.readerIndex + offset)
                    let durability = self.durability(forceUnitAccess: force)
                    self.device.write(request.range, data: sector, durability: durability, completion: done)
                }
            }
        }
    }

    private func refusal(of request: BlockRequest) -> BlockRequestError? {
        if isReserved(against: request.access) { return .reserved }
        if !isReady { return .notReady }
        if request.changesMedium, isWriteProtected { return .device(.writeProtected) }
        guard request.range.end <= device.sectorCount else { return .device(.outOfRange) }
        if case .update(_, let offset, let data, _) = request {
            guard offset >= 0, data.readableBytes <= Self.blockBytes - offset else { return .device(.outOfRange) }
        }
        return nil
    }

    private var isReady: Bool { isMediumLoaded && backgroundOperation == nil }

    /// True when somebody's reservation keeps out a front end, which can never have registered.
    private func isReserved(against access: ReservationAccess) -> Bool {
        legacyHolder != nil || reservations.conflicts(access, by: Registrant(initiatorPortName: ""))
    }

    /// Says which sectors of a range hold bytes and which are deallocated, that is, read as zeroes.
    /// - Parameters:
    ///   - limit: how many extents are wanted at most.
    ///   - completion: gets extents that follow one another from the start of the range on, and cover at least its first
    ///     sector; what is behind the last of them is for the next call.
    public func allocation(
        of range: SectorRange, limit: Int,
        completion: @escaping (Result<[(range: SectorRange, isDeallocated: Bool)], BlockRequestError>) -> Void
    ) {
        if isReserved(against: .read) { return completion(.failure(.reserved)) }
        if !isReady { return completion(.failure(.notReady)) }
        guard !range.isEmpty, range.end <= device.sectorCount else { return completion(.failure(.device(.outOfRange))) }
        device.allocation(of: range) { result in
            completion(
                result.map { $0.prefix(max(1, limit)).map { ($0.range, $0.allocation == .deallocated) } }.mapError { .device($0) })
        }
    }

    /// Appends the bytes of a range to `buffer`, when nothing stands in the way and every byte is at hand.
    /// - Returns: false, with `buffer` unchanged, when the request must go through `perform`.
    public func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        guard !restrictsReads, !locks.hasExclusive, isReady, range.end <= device.sectorCount
        else { return false }
        return device.readIfResident(range, into: &buffer)
    }
}

extension BlockRequest {
    /// The sectors that the request is about; a flush is about none.
    public var range: SectorRange {
        switch self {
        case .read(let range), .write(let range, _, _), .writeZeroes(let range, _): range
        case .update(let sector, _, _, _): SectorRange(start: sector, count: 1) ?? SectorRange(from: 0, to: .max)
        case .flush: SectorRange(from: 0, to: 0)
        }
    }

    /// Which reservations stand in its way, as for READ, WRITE and SYNCHRONIZE CACHE (SPC-4, 5.13.1; SBC-3, Reservations).
    var access: ReservationAccess { if case .read = self { .read } else { .write } }

    var changesMedium: Bool {
        switch self {
        case .write, .update, .writeZeroes: true
        case .read, .flush: false
        }
    }
}
