/// An export as the handshake tells it to a client.
public struct NBDExport: Equatable, Sendable {
    /// The name under which `NBD_OPT_LIST` shows it.
    public var name: String
    public var byteCount: UInt64
    public var isReadOnly: Bool

    public init(name: String, byteCount: UInt64, isReadOnly: Bool) {
        self.name = name
        self.byteCount = byteCount
        self.isReadOnly = isReadOnly
    }

    /// The unit of the medium, in bytes. Clients that ask are told, and must keep to it; for others smaller requests are done
    /// by reading the sector and writing it back.
    public static let minimumBlockByteCount: UInt32 = 512
    /// The unit of caching, in bytes.
    public static let preferredBlockByteCount: UInt32 = 4096
    /// The longest read or write, in bytes: what the protocol has every client expect.
    public static let maximumBlockByteCount: UInt32 = 32 << 20

    func transmissionFlags(usesStructuredReplies: Bool) -> NBDTransmissionFlags {
        var flags: NBDTransmissionFlags = [.hasFlags, .sendFlush, .canMultipleConnections, .sendCache]
        if isReadOnly {
            flags.insert(.readOnly)
        } else {
            flags.formUnion([.sendForceUnitAccess, .sendTrim, .sendWriteZeroes, .sendFastZero])
        }
        if usesStructuredReplies { flags.insert(.sendDontFragment) }
        return flags
    }
}

/// What a handshake has agreed on.
public struct NBDTerms: Equatable, Sendable {
    public var export: NBDExport
    /// Reads are answered by chunks.
    public var usesStructuredReplies = false
    /// The client has chosen `base:allocation`.
    public var reportsAllocation = false
    /// The client has asked for the block size and was told it.
    public var knowsBlockSize = false

    public init(
        export: NBDExport, usesStructuredReplies: Bool = false, reportsAllocation: Bool = false, knowsBlockSize: Bool = false
    ) {
        self.export = export
        self.usesStructuredReplies = usesStructuredReplies
        self.reportsAllocation = reportsAllocation
        self.knowsBlockSize = knowsBlockSize
    }
}

/// What the owner of the exports says to a name.
public enum NBDLookup: Equatable, Sendable {
    case found(NBDExport)
    /// There is none, or this client may not use it: it is not told which.
    case unknown
    /// Exports are missing that will be there soon.
    case notReady
}
