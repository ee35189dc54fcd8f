/// What the server offers in its greeting (`NBD_FLAG_FIXED_NEWSTYLE`, `NBD_FLAG_NO_ZEROES`) and the client takes up.
struct NBDHandshakeFlags: OptionSet {
    let rawValue: UInt32

    static let fixedNewstyle = NBDHandshakeFlags(rawValue: 1 << 0)
    static let noZeroes = NBDHandshakeFlags(rawValue: 1 << 1)
    static let offered: NBDHandshakeFlags = [.fixedNewstyle, .noZeroes]
}

/// What an export can do (`NBD_FLAG_`).
public struct NBDTransmissionFlags: OptionSet, Sendable {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let hasFlags = NBDTransmissionFlags(rawValue: 1 << 0)
    public static let readOnly = NBDTransmissionFlags(rawValue: 1 << 1)
    public static let sendFlush = NBDTransmissionFlags(rawValue: 1 << 2)
    public static let sendForceUnitAccess = NBDTransmissionFlags(rawValue: 1 << 3)
    public static let rotational = NBDTransmissionFlags(rawValue: 1 << 4)
    public static let sendTrim = NBDTransmissionFlags(rawValue: 1 << 5)
    public static let sendWriteZeroes = NBDTransmissionFlags(rawValue: 1 << 6)
    public static let sendDontFragment = NBDTransmissionFlags(rawValue: 1 << 7)
    /// A flush on one connection covers the writes of all, and all see the same bytes.
    public static let canMultipleConnections = NBDTransmissionFlags(rawValue: 1 << 8)
    public static let sendCache = NBDTransmissionFlags(rawValue: 1 << 10)
    public static let sendFastZero = NBDTransmissionFlags(rawValue: 1 << 11)
}

/// How a request is to be done (`NBD_CMD_FLAG_`).
public struct NBDCommandFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let forceUnitAccess = NBDCommandFlags(rawValue: 1 << 0)
    /// Zeroes are to take up space.
    public static let noHole = NBDCommandFlags(rawValue: 1 << 1)
    /// A read is to be answered by one chunk.
    public static let dontFragment = NBDCommandFlags(rawValue: 1 << 2)
    /// The client wants to know one extent only.
    public static let requestOne = NBDCommandFlags(rawValue: 1 << 3)
    /// Zeroes are to be written only if that is faster than writing data.
    public static let fastZero = NBDCommandFlags(rawValue: 1 << 4)
}

/// What `base:allocation` says of an extent.
public struct NBDAllocation: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Nothing is allocated for it (`NBD_STATE_HOLE`).
    public static let hole = NBDAllocation(rawValue: 1 << 0)
    /// It reads as zeroes (`NBD_STATE_ZERO`).
    public static let zero = NBDAllocation(rawValue: 1 << 1)
}
