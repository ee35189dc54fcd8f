import Glibc

/// A session for programs that want one answer at a time: each call returns when the target has answered.
public final class BlockingInitiator {
    /// The size of the unit.
    public let capacity: LogicalUnitCapacity
    private let session: ISCSIInitiatorSession
    private let loop: InitiatorLoop
    private let timeoutSeconds: Int

    /// Connects, logs in and asks for the size.
    public init(
        url: String, options: ISCSIInitiatorSession.Options = .init(), timeoutSeconds: Int = 30
    ) throws(InitiatorError) {
        let session = ISCSIInitiatorSession(url: url, options: options)
        let loop = InitiatorLoop()
        loop.add(session)
        var connected: Result<Void, InitiatorError>?
        try session.connect { connected = $0 }
        try Self.wait(loop, timeoutSeconds) { connected != nil }
        if case .failure(let error) = connected { throw error }
        var answer: Result<LogicalUnitCapacity, InitiatorError>?
        session.readCapacity { answer = $0 }
        try Self.wait(loop, timeoutSeconds) { answer != nil }
        switch answer {
        case .success(let capacity): self.capacity = capacity
        case .failure(let error): throw error
        case nil: throw .timedOut
        }
        self.session = session
        self.loop = loop
        self.timeoutSeconds = timeoutSeconds
    }

    deinit { session.close() }

    /// Reads whole logical blocks.
    public func read(block: UInt64, blockCount: Int) throws(InitiatorError) -> [UInt8] {
        let (byteCount, overflow) = blockCount.multipliedReportingOverflow(by: capacity.blockBytes)
        guard !overflow, byteCount > 0 else { throw .commandFailed(.failed(status: 0)) }
        let command = InitiatorCommand(byteCount: byteCount)
        try perform(command) { session.read(command, block: block, blockCount: blockCount, blockBytes: capacity.blockBytes) }
        return [UInt8](command.buffer)
    }

    /// Writes whole logical blocks.
    public func write(block: UInt64, data: [UInt8], forceUnitAccess: Bool = false) throws(InitiatorError) {
        let command = InitiatorCommand(byteCount: data.count)
        command.buffer.copyBytes(from: data)
        try perform(command) {
            session.write(
                command, block: block, blockCount: data.count / capacity.blockBytes, blockBytes: capacity.blockBytes,
                forceUnitAccess: forceUnitAccess)
        }
    }

    /// Makes all acknowledged writes durable.
    public func synchronizeCache() throws(InitiatorError) {
        let command = InitiatorCommand(byteCount: 0)
        try perform(command) { session.synchronizeCache(command) }
    }

    /// Gives blocks back.
    public func unmap(block: UInt64, blockCount: UInt32) throws(InitiatorError) {
        let command = InitiatorCommand(byteCount: 0)
        try perform(command) { session.unmap(command, block: block, blockCount: blockCount) }
    }

    /// Carries out any command by its CDB.
    /// - Returns: the Data-In.
    public func execute(cdb: [UInt8], dataOut: [UInt8] = [], dataInByteCount: Int = 0) throws(InitiatorError) -> [UInt8] {
        let command = InitiatorCommand(byteCount: dataOut.count)
        command.buffer.copyBytes(from: dataOut)
        var dataIn: [UInt8] = []
        try perform(command) {
            session.execute(command, cdb: cdb, dataOutByteCount: dataOut.count, dataInByteCount: dataInByteCount) { dataIn = $0 }
        }
        return dataIn
    }

    private func perform(_ command: InitiatorCommand, _ start: () -> Bool) throws(InitiatorError) {
        var outcome: CommandOutcome?
        command.handler = { _, result in outcome = result }
        guard start() else { throw .sessionLost("the command could not be started") }
        do {
            try Self.wait(loop, timeoutSeconds) { outcome != nil }
        } catch {
            session.close()
            throw error
        }
        switch outcome {
        case .good: return
        case .lost: throw .sessionLost("the connection was closed")
        case .some(let other): throw .commandFailed(other)
        case nil: throw .timedOut
        }
    }

    private static func wait(_ loop: InitiatorLoop, _ seconds: Int, until isDone: () -> Bool) throws(InitiatorError) {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let deadline = now.tv_sec + seconds
        while !isDone() {
            clock_gettime(CLOCK_MONOTONIC, &now)
            if now.tv_sec > deadline { throw .timedOut }
            loop.turn(timeoutNanoseconds: 100_000_000)
        }
    }
}
