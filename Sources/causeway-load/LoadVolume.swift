import Initiator
import LoadGenerator

/// One I/O that can be outstanding, with all that is known about it.
final class LoadSlot {
    let command: InitiatorCommand
    unowned let connection: LoadConnection
    var kind = OperationKind.read
    var startedAt: UInt64 = 0
    /// The position in logical blocks of the target.
    var block: UInt64 = 0
    /// With verification: the units of the ledger.
    var units = 0..<0
    var generation: UInt64 = 0
    var durable = false
    var expectation = ReadExpectation()
    var ticket = WriteLedger.FlushTicket(sequence: 0, epoch: 0)
    /// When to try again after a transient error, and for how long.
    var retryAt: UInt64 = 0
    var retryPeriod = RetryPeriod(nanoseconds: 0)

    init(connection: LoadConnection, byteCount: Int) {
        self.connection = connection
        command = InitiatorCommand(byteCount: byteCount)
    }
}

/// One session with a volume.
final class LoadConnection {
    let session: ISCSIInitiatorSession
    unowned let volume: LoadVolume
    var idle: [LoadSlot] = []
    var nextAttempt: UInt64 = 0
    var connectingSince: UInt64 = 0
    var lastFailure = ""

    init(session: ISCSIInitiatorSession, volume: LoadVolume) {
        self.session = session
        self.volume = volume
    }
}

/// One volume under load.
final class LoadVolume {
    let url: String
    let blockBytes: Int
    let firstByte: UInt64
    var positions: PositionGenerator
    var connections: [LoadConnection] = []
    var store: VerificationStore?
    var writesSinceFlush = 0
    /// Set by a session that broke; the runner then ends all sessions of the volume.
    var lossReason: String?
    /// Since when not all sessions are up, and when to give up.
    var outageStart: UInt64?
    var outageDeadline: UInt64 = 0

    init(url: String, blockBytes: Int, firstByte: UInt64, positions: PositionGenerator) {
        self.url = url
        self.blockBytes = blockBytes
        self.firstByte = firstByte
        self.positions = positions
    }
}
