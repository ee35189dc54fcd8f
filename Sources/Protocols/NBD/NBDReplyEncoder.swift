import NIOCore

/// Writes replies, simple or structured as was agreed.
///
/// A structured reply is a run of chunks; the one with `isLast` ends it, and no error can come after that. Errors always
/// end a reply here.
public struct NBDReplyEncoder: Sendable {
    private static let done: UInt16 = 1
    /// The bytes in front of the data of a read.
    public var readHeaderByteCount: Int { usesStructuredReplies ? 28 : 16 }

    public let usesStructuredReplies: Bool

    public init(usesStructuredReplies: Bool) {
        self.usesStructuredReplies = usesStructuredReplies
    }

    /// The end of a request that has no data to answer with.
    public func writeSuccess(_ handle: UInt64, into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(NBDMagic.simpleReply, UInt32(0), handle)
    }

    /// The end of a request that failed. The message goes along when there is a place for it.
    public func writeError(_ handle: UInt64, _ error: NBDErrorNumber, _ message: String, into buffer: inout ByteBuffer) {
        guard usesStructuredReplies else {
            buffer.writeMultipleIntegers(NBDMagic.simpleReply, error.rawValue, handle)
            return
        }
        let text = message.utf8.prefix(256)
        writeChunk(NBDChunk.error, handle, isLast: true, byteCount: 6 + text.count, into: &buffer)
        buffer.writeMultipleIntegers(error.rawValue, UInt16(text.count))
        buffer.writeBytes(text)
    }

    /// What goes before `byteCount` bytes of a read. A simple reply has all the data of the request behind it.
    public func writeReadHeader(_ handle: UInt64, offset: UInt64, byteCount: Int, isLast: Bool, into buffer: inout ByteBuffer) {
        guard usesStructuredReplies else { return writeSuccess(handle, into: &buffer) }
        writeChunk(NBDChunk.offsetData, handle, isLast: isLast, byteCount: 8 + byteCount, into: &buffer)
        buffer.writeInteger(offset)
    }

    /// A part of a read that is all zero. Structured replies only.
    public func writeHole(_ handle: UInt64, offset: UInt64, byteCount: Int, isLast: Bool, into buffer: inout ByteBuffer) {
        writeChunk(NBDChunk.offsetHole, handle, isLast: isLast, byteCount: 12, into: &buffer)
        buffer.writeMultipleIntegers(offset, UInt32(byteCount))
    }

    /// The end of a read of nothing. In a structured reply it is a chunk, since a simple one must not answer a read.
    public func writeEmptyRead(_ handle: UInt64, into buffer: inout ByteBuffer) {
        guard usesStructuredReplies else { return writeSuccess(handle, into: &buffer) }
        writeChunk(NBDChunk.none, handle, isLast: true, byteCount: 0, into: &buffer)
    }

    /// What is allocated from the offset of a request on: at least one extent, none of them empty. Structured replies only.
    public func writeAllocation(
        _ handle: UInt64, _ extents: [(byteCount: UInt32, allocation: NBDAllocation)], into buffer: inout ByteBuffer
    ) {
        writeChunk(NBDChunk.blockStatus, handle, isLast: true, byteCount: 4 + 8 * extents.count, into: &buffer)
        buffer.writeInteger(NBDHandshake.allocationContextIdentifier)
        for extent in extents { buffer.writeMultipleIntegers(extent.byteCount, extent.allocation.rawValue) }
    }

    private func writeChunk(_ type: UInt16, _ handle: UInt64, isLast: Bool, byteCount: Int, into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(
            NBDMagic.structuredReply, isLast ? Self.done : 0, type, handle, UInt32(byteCount))
    }
}
