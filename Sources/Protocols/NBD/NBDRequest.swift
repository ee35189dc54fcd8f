import NIOCore

/// A request of the transmission phase, as it stands on the wire.
public struct NBDRequest: Equatable, Sendable {
    /// The bytes of a request without its payload.
    public static let headerByteCount = 28

    public var flags: NBDCommandFlags
    public var command: NBDCommand
    /// What the client calls the request; its reply carries it back.
    public var handle: UInt64
    public var offset: UInt64
    public var byteCount: UInt32

    public init(command: NBDCommand, flags: NBDCommandFlags = [], handle: UInt64, offset: UInt64 = 0, byteCount: UInt32 = 0) {
        self.command = command
        self.flags = flags
        self.handle = handle
        self.offset = offset
        self.byteCount = byteCount
    }

    /// How many bytes follow the request.
    public var payloadByteCount: Int { command == .write ? Int(byteCount) : 0 }

    public var forcesUnitAccess: Bool { flags.contains(.forceUnitAccess) }

    /// True for the requests that change what the medium holds.
    public var isWrite: Bool { command == .write || command == .trim || command == .writeZeroes }

    /// Why a request cannot be done, as far as that can be known without the medium (doc/proto.md, Request types and Error
    /// values); nil when it can.
    /// - Parameter exportByteCount: the size of the export now, which may have grown since the handshake.
    public func refusal(under terms: NBDTerms, exportByteCount: UInt64) -> NBDErrorNumber? {
        guard let allowed = allowedFlags(terms), flags.isSubset(of: allowed) else { return .invalid }
        switch command {
        case .disconnect: return nil
        case .flush: return offset == 0 && byteCount == 0 ? nil : .invalid
        default: break
        }
        if isWrite, terms.export.isReadOnly { return .notPermitted }
        let (end, overflow) = offset.addingReportingOverflow(UInt64(byteCount))
        if overflow || end > exportByteCount { return command == .write || command == .writeZeroes ? .noSpace : .invalid }
        if terms.knowsBlockSize {
            let mask = UInt64(NBDExport.minimumBlockByteCount - 1)
            if offset & mask != 0 || UInt64(byteCount) & mask != 0 { return .invalid }
        }
        if command == .blockStatus, byteCount == 0 { return .invalid }
        if command == .read, byteCount > NBDExport.maximumBlockByteCount { return .invalid }
        return nil
    }

    /// The flags that a command may have; nil for a command that is not known or was not negotiated.
    private func allowedFlags(_ terms: NBDTerms) -> NBDCommandFlags? {
        switch command {
        case .read: terms.usesStructuredReplies ? [.forceUnitAccess, .dontFragment] : .forceUnitAccess
        case .write, .flush, .trim, .cache, .disconnect: .forceUnitAccess
        case .writeZeroes: [.forceUnitAccess, .noHole, .fastZero]
        case .blockStatus: terms.reportsAllocation ? [.forceUnitAccess, .requestOne] : nil
        default: nil
        }
    }
}

/// Why a connection cannot go on: its client does not speak the protocol.
public enum NBDTransmissionError: Error, Equatable, Sendable {
    /// What should have been a request does not begin as one.
    case notARequest
    /// A write of more bytes than the protocol lets a client expect to be taken.
    case writeTooLong(byteCount: UInt32)
}

extension NBDTransmissionError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .notARequest: "what should be a request does not begin as one"
        case .writeTooLong(let byteCount): "a write announces \(byteCount) bytes"
        }
    }
}

/// Cuts what arrives into requests and the payloads of writes. What waits in it is a part of a request, and one piece of a
/// payload at most, which its owner has asked for.
public struct NBDRequestDecoder: Sendable {
    private var received = ByteBuffer()
    /// A piece of a payload of which a part has come.
    private var piece: ByteBuffer?

    public init() {}

    /// Bytes that wait.
    public var bufferedByteCount: Int { received.readableBytes + (piece?.readableBytes ?? 0) }

    /// Adds what came from the connection. When nothing waits, the buffer is taken as it is.
    public mutating func append(_ bytes: ByteBuffer) {
        guard received.readableBytes > 0 else { return received = bytes }
        // What waits is short as a rule, and its memory is shared with payloads: to append there would copy all of those.
        var joined = ByteBufferAllocator().buffer(capacity: received.readableBytes + bytes.readableBytes)
        joined.writeImmutableBuffer(received)
        joined.writeImmutableBuffer(bytes)
        received = joined
    }

    /// The next request, or nil when more bytes are needed. The payload of a write is taken next, by `takePayload` or `skip`.
    public mutating func next() throws(NBDTransmissionError) -> NBDRequest? {
        if let magic: UInt32 = received.getInteger(at: received.readerIndex), magic != NBDMagic.request { throw .notARequest }
        guard received.readableBytes >= NBDRequest.headerByteCount,
            let (_, flags, type, handle, offset, byteCount) = received.readMultipleIntegers(
                as: (UInt32, UInt16, UInt16, UInt64, UInt64, UInt32).self)
        else { return nil }
        let request = NBDRequest(
            command: NBDCommand(rawValue: type), flags: NBDCommandFlags(rawValue: flags), handle: handle, offset: offset,
            byteCount: byteCount)
        if request.command == .write, byteCount > NBDExport.maximumBlockByteCount { throw .writeTooLong(byteCount: byteCount) }
        return request
    }

    /// A piece of the payload, when all of it is here. A piece that came with other bytes shares their memory; one that comes
    /// in parts gets a buffer of its own size.
    public mutating func takePayload(_ byteCount: Int) -> ByteBuffer? {
        if piece == nil {
            if let whole = received.readSlice(length: byteCount) { return whole }
            piece = ByteBufferAllocator().buffer(capacity: byteCount)
        }
        let missing = byteCount - (piece?.readableBytes ?? 0)
        if let part = received.readSlice(length: min(missing, received.readableBytes)) { piece?.writeImmutableBuffer(part) }
        guard let whole = piece, whole.readableBytes == byteCount else { return nil }
        piece = nil
        return whole
    }

    /// Throws away up to `byteCount` bytes of a payload that nobody wants.
    /// - Returns: how many were there.
    public mutating func skip(_ byteCount: Int) -> Int {
        let count = min(byteCount, received.readableBytes)
        received.moveReaderIndex(forwardBy: count)
        return count
    }
}

extension NBDRequest {
    /// Appends the request as a client sends it.
    public func write(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(NBDMagic.request, flags.rawValue, command.rawValue, handle, offset, byteCount)
    }
}
