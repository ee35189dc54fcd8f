import Blocks
import NIOCore
import StorageTarget

/// An export as its owner describes it.
public struct NetworkBlockExport {
    /// What clients call it. Names are compared byte by byte.
    public var name: String
    /// What log lines call it, since its name belongs to the customer.
    public var label: String
    public var unit: LogicalUnit
    /// The names of which a client's certificate must bear one; nil lets in everyone that the server lets in.
    public var allowedClients: Set<String>?

    public init(name: String, label: String, unit: LogicalUnit, allowedClients: Set<String>? = nil) {
        self.name = name
        self.label = label
        self.unit = unit
        self.allowedClients = allowedClients
    }

    /// The size of the disk now.
    var byteCount: UInt64 {
        let (byteCount, overflow) = unit.device.sectorCount.multipliedReportingOverflow(by: UInt64(BlockGeometry.sectorBytes))
        return overflow ? 0 : byteCount
    }
}

/// Why an export was not added, or the server does not listen.
public enum NetworkBlockServerError: Error, Equatable, Sendable {
    /// There is an export of that name.
    case nameInUse
    /// A name is empty or longer than the protocol's 4096 bytes.
    case invalidName
    /// As many exports as `NetworkBlockLimits.exports`.
    case tooManyExports
    /// The server was stopped.
    case stopped
}

/// The limits of a server, by name, with what happens at each.
public struct NetworkBlockLimits: Sendable {
    /// Connections; one more is closed at once.
    public var connections = 512
    /// Exports; one more is refused by `addExport`.
    public var exports = 1024
    /// From the connection to the transmission phase, with TLS; then it is closed.
    public var handshakeTime = TimeAmount.seconds(10)
    /// How long the payload of a write may stand still; then the connection is closed.
    public var payloadTime = TimeAmount.seconds(30)
    /// How long a client may stand still while others wait for the memory that it keeps: one whose payload does not come, or
    /// who takes no answers. Then the connection is closed.
    public var contendedTime = TimeAmount.seconds(10)
    /// How long `stop` and `removeExport` wait for requests in flight before they close connections all the same.
    public var stopTime = TimeAmount.seconds(30)
    /// How long a request is tried again that could not be done for want of the link or of room. NBD has no word for "busy",
    /// and its clients hand an error to the file system at once, so the server is as patient as Linux is with an iSCSI disk.
    public var retryTime = TimeAmount.seconds(180)
    /// The pause between two tries.
    public var retryPause = TimeAmount.milliseconds(250)
    /// Requests of one connection in flight; beyond it nothing more is read from it.
    public var requests = 256
    /// Requests of all connections that are with logical units; beyond it requests wait.
    public var runningRequests = 768
    /// The longest piece in which data goes to or comes from a device, in bytes, as for an iSCSI command.
    public var pieceByteCount = 4 << 20
    /// The longest run that is made a hole at a time, in bytes, as for WRITE SAME.
    public var holeByteCount = 32 << 20
    /// The most extents that a request for block status is answered with; the client asks again for the rest.
    public var extents = 1024
    /// Bytes of writes in memory; beyond it nothing more is read from the connections that want to write.
    public var writeByteCount = 64 << 20
    /// Bytes of reads in memory; beyond it reads wait.
    public var readByteCount = 64 << 20
    /// Bytes of reads in memory for one connection; beyond it its reads wait, so that one that takes no answers does not keep
    /// the others waiting. A longer read of a client without structured replies is done alone.
    public var connectionReadByteCount = 4 << 20
    /// Bytes of answers that wait in one connection's socket before nothing more is read from it.
    public var outboundByteCount = 1 << 20

    public init() {}
}

/// A connection as an operator sees it.
public struct NetworkBlockConnectionDescription: Equatable, Sendable {
    public var remoteAddress: String
    public var isEncrypted: Bool
    public var requestsInFlight: Int
}
