import NIOCore

/// The parameter list of UNMAP (SBC-3, UNMAP parameter list).
public enum UnmapParameterList {
    /// One block descriptor.
    public struct Extent: Hashable, Sendable {
        public var logicalBlockAddress: UInt64
        public var blockCount: UInt32

        public init(logicalBlockAddress: UInt64, blockCount: UInt32) {
            self.logicalBlockAddress = logicalBlockAddress
            self.blockCount = blockCount
        }
    }

    private static let headerByteCount = 8
    private static let descriptorByteCount = 16

    /// The descriptors of a list, or the sense data that says what is wrong with it.
    ///
    /// A list of zero bytes is no error; more descriptors, or more blocks in them, than `limits` allow is one. A descriptor
    /// that the stated length cuts off is ignored, as the standard asks.
    public static func parse(_ buffer: ByteBuffer, limits: BlockLimits) throws(SenseData) -> [Extent] {
        if buffer.readableBytes == 0 { return [] }
        let start = buffer.readerIndex
        guard buffer.readableBytes >= headerByteCount, let stated: UInt16 = buffer.getInteger(at: start + 2) else {
            throw .parameterListLength
        }
        guard Int(stated) <= buffer.readableBytes - headerByteCount else { throw .parameterListLength }
        let count = Int(stated) / descriptorByteCount
        if count > Int(limits.maximumUnmapDescriptors) { throw .invalidFieldInParameterList(byte: 2) }

        var extents: [Extent] = []
        extents.reserveCapacity(count)
        var total: UInt64 = 0
        for index in 0..<count {
            let offset = headerByteCount + index * descriptorByteCount
            guard let address: UInt64 = buffer.getInteger(at: start + offset),
                let blocks: UInt32 = buffer.getInteger(at: start + offset + 8)
            else { throw .parameterListLength }
            total += UInt64(blocks)
            if total > UInt64(limits.maximumUnmap) { throw .invalidFieldInParameterList(byte: offset + 8) }
            extents.append(Extent(logicalBlockAddress: address, blockCount: blocks))
        }
        return extents
    }
}
