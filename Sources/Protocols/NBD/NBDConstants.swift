// The numbers of the NBD protocol, by the names of doc/proto.md without their prefixes. Numbers that clients send are open
// enumerations (`RawRepresentable` structures), because a later client may send one that we do not know.

/// The magic numbers.
enum NBDMagic {
    /// `NBDMAGIC`, the first bytes of a server.
    static let initial: UInt64 = 0x4E42_444D_4147_4943
    /// `IHAVEOPT`, in the greeting and before each option.
    static let option: UInt64 = 0x4948_4156_454F_5054
    static let optionReply: UInt64 = 0x0003_E889_0455_65A9
    static let request: UInt32 = 0x2560_9513
    static let simpleReply: UInt32 = 0x6744_6698
    static let structuredReply: UInt32 = 0x668E_33EF
}

/// An option of the handshake (`NBD_OPT_`).
public struct NBDOption: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let exportName = NBDOption(rawValue: 1)
    public static let abort = NBDOption(rawValue: 2)
    public static let list = NBDOption(rawValue: 3)
    public static let startTLS = NBDOption(rawValue: 5)
    public static let info = NBDOption(rawValue: 6)
    public static let go = NBDOption(rawValue: 7)
    public static let structuredReply = NBDOption(rawValue: 8)
    public static let listMetadataContext = NBDOption(rawValue: 9)
    public static let setMetadataContext = NBDOption(rawValue: 10)
    /// Not offered: it is answered as an unknown option is, and clients go on without it.
    public static let extendedHeaders = NBDOption(rawValue: 11)
}

/// The type of a reply to an option (`NBD_REP_`).
public enum NBDOptionReply: UInt32, Sendable {
    case acknowledged = 1
    case server = 2
    case information = 3
    case metadataContext = 4
    /// The server does not know the option.
    case unsupported = 0x8000_0001
    /// The server knows it, and is not to do it.
    case policy = 0x8000_0002
    /// The data of the option is not what it should be.
    case invalid = 0x8000_0003
    /// Nothing goes on before TLS does.
    case tlsRequired = 0x8000_0005
    /// There is no such export.
    case unknownExport = 0x8000_0006
    case shuttingDown = 0x8000_0007
    /// The option or its reply is too long.
    case tooBig = 0x8000_0009
}

/// What a client may want to know of an export (`NBD_INFO_`).
enum NBDInformation {
    static let export: UInt16 = 0
    static let name: UInt16 = 1
    static let description: UInt16 = 2
    static let blockSize: UInt16 = 3
}

/// The type of a request (`NBD_CMD_`).
public struct NBDCommand: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let read = NBDCommand(rawValue: 0)
    public static let write = NBDCommand(rawValue: 1)
    public static let disconnect = NBDCommand(rawValue: 2)
    public static let flush = NBDCommand(rawValue: 3)
    public static let trim = NBDCommand(rawValue: 4)
    public static let cache = NBDCommand(rawValue: 5)
    public static let writeZeroes = NBDCommand(rawValue: 6)
    public static let blockStatus = NBDCommand(rawValue: 7)
}

/// The type of a chunk of a structured reply (`NBD_REPLY_TYPE_`).
enum NBDChunk {
    static let none: UInt16 = 0
    static let offsetData: UInt16 = 1
    static let offsetHole: UInt16 = 2
    static let blockStatus: UInt16 = 5
    static let error: UInt16 = 0x8001
}

/// The errors that a client may be told. The numbers are those of Linux, and fixed by the protocol.
public enum NBDErrorNumber: UInt32, Sendable {
    /// EPERM: the export is read-only, or reserved by somebody else.
    case notPermitted = 1
    /// EIO
    case inputOutput = 5
    /// EINVAL
    case invalid = 22
    /// ENOSPC: a write beyond the end, or no room for it.
    case noSpace = 28
    /// ENOTSUP: zeroes cannot be written faster than data.
    case notSupported = 95
    /// ESHUTDOWN
    case shuttingDown = 108
}
