// Mode pages (SPC-4, 7.5; SBC-3). Three are kept: caching (08h), control (0Ah) and informational exceptions (1Ch).
// A MODE SELECT may change four bits: WCE of the caching page, D_SENSE and SWP of the control page; every other bit must
// be sent as MODE SENSE gave it.

import NIOCore

/// What an initiator may set by MODE SELECT. It is not saved: a reset brings the defaults back.
public struct ModeParameters: Hashable, Sendable {
    /// WCE: a write is acknowledged when the cache has it. Clear, every write goes through to durable storage.
    public var isWriteCacheEnabled = true
    /// D_SENSE: sense data is in descriptor format.
    public var usesDescriptorSense = false
    /// SWP: writes are refused.
    public var isSoftwareWriteProtected = false

    public init() {}

    private static let pageCodes: [UInt8] = [0x08, 0x0A, 0x1C]

    /// The bytes of a page, with its two bytes of header; nil for a page that is not kept.
    func page(_ code: UInt8, control: ModeSense.PageControl) -> [UInt8]? {
        let values: ModeParameters =
            switch control {
            case .defaults, .saved: ModeParameters()
            case .current, .changeable: self
            }
        let isMask = control == .changeable
        switch code {
        case 0x08:
            var page = [UInt8](repeating: 0, count: 20)
            page[0] = 0x08
            page[1] = 18
            page[2] = isMask || values.isWriteCacheEnabled ? 0x04 : 0
            return page
        case 0x0A:
            var page = [UInt8](repeating: 0, count: 12)
            page[0] = 0x0A
            page[1] = 10
            if isMask {
                page[2] = 0x04
                page[4] = 0x08
                return page
            }
            // GLTSD; unrestricted reordering, which SIMPLE tasks permit; TAS, so that a task that another initiator
            // aborts is answered; no busy time-out.
            page[2] = 0x02 | (values.usesDescriptorSense ? 0x04 : 0)
            page[3] = 0x10
            page[4] = values.isSoftwareWriteProtected ? 0x08 : 0
            page[5] = 0x40
            page[8] = 0xFF
            page[9] = 0xFF
            return page
        case 0x1C:
            var page = [UInt8](repeating: 0, count: 12)
            page[0] = 0x1C
            page[1] = 10
            // DEXCPT: no exception is ever reported.
            page[2] = isMask ? 0 : 0x08
            return page
        default: return nil
        }
    }

    /// The answer to MODE SENSE, whole; the caller cuts it to the allocation length.
    public func sense(_ request: ModeSense, blockCount: UInt64, blockBytes: UInt32, isWriteProtected: Bool) throws(SenseData)
        -> ByteBuffer
    {
        if request.pageControl == .saved { throw SenseData(.illegalRequest, .savingParametersNotSupported) }
        // No page has subpages, so only "none" and "all of them" name something.
        if request.subpageCode != 0 && request.subpageCode != 0xFF { throw .invalidFieldInCDB(byte: 3) }
        let codes = request.pageCode == 0x3F ? Self.pageCodes : [request.pageCode]
        var pages: [UInt8] = []
        for code in codes {
            guard let page = page(code, control: request.pageControl) else { throw .invalidFieldInCDB(byte: 2, bit: 5) }
            pages += page
        }

        let descriptorBytes = request.disableBlockDescriptors ? 0 : 8
        // WP and DPOFUA of the device specific parameter (SBC-3, Mode parameters).
        let specific: UInt8 = (isWriteProtected || isSoftwareWriteProtected ? 0x80 : 0) | 0x10
        var buffer = ByteBuffer()
        if request.isTenByte {
            buffer.writeInteger(UInt16(clamping: 6 + descriptorBytes + pages.count))
            buffer.writeInteger(UInt8(0))
            buffer.writeInteger(specific)
            buffer.writeInteger(UInt16(0))
            buffer.writeInteger(UInt16(descriptorBytes))
        } else {
            buffer.writeInteger(UInt8(clamping: 3 + descriptorBytes + pages.count))
            buffer.writeInteger(UInt8(0))
            buffer.writeInteger(specific)
            buffer.writeInteger(UInt8(descriptorBytes))
        }
        if descriptorBytes > 0 {
            buffer.writeInteger(UInt32(clamping: blockCount))
            buffer.writeInteger(blockBytes & 0x00FF_FFFF)
        }
        buffer.writeBytes(pages)
        return buffer
    }

    /// What a MODE SELECT parameter list makes of these parameters, or the sense data that says what is wrong with it
    /// (SPC-4, 6.11 and 7.5). A list is taken whole or not at all.
    public func selecting(_ list: ByteBuffer, isTenByte: Bool, blockBytes: UInt32) throws(SenseData) -> ModeParameters {
        // Nothing sent is nothing changed, and no error.
        if list.readableBytes == 0 { return self }
        let bytes = list.readableBytesView
        let base = bytes.startIndex
        let headerBytes = isTenByte ? 8 : 4
        guard bytes.count >= headerBytes else { throw .parameterListLength }
        let mediumTypeIndex = isTenByte ? 2 : 1
        if bytes[base + mediumTypeIndex] != 0 { throw .invalidFieldInParameterList(byte: mediumTypeIndex) }
        let descriptorBytes = isTenByte ? Int(bytes[base + 6]) << 8 | Int(bytes[base + 7]) : Int(bytes[base + 3])
        guard bytes.count >= headerBytes + descriptorBytes else { throw .parameterListLength }
        try Self.checkDescriptor(list, at: headerBytes, byteCount: descriptorBytes, blockBytes: blockBytes)

        var result = self
        var offset = headerBytes + descriptorBytes
        while offset < bytes.count {
            guard offset + 2 <= bytes.count else { throw .parameterListLength }
            // PS is reserved in a MODE SELECT; initiators send back what they read, so it is passed over.
            let code = bytes[base + offset] & 0x3F
            if bytes[base + offset] & 0x40 != 0 { throw .invalidFieldInParameterList(byte: offset, bit: 6) }
            guard let current = page(code, control: .current), let mask = page(code, control: .changeable) else {
                throw .invalidFieldInParameterList(byte: offset, bit: 5)
            }
            guard Int(bytes[base + offset + 1]) == current.count - 2 else {
                throw .invalidFieldInParameterList(byte: offset + 1)
            }
            guard offset + current.count <= bytes.count else { throw .parameterListLength }
            for index in 2..<current.count where (bytes[base + offset + index] ^ current[index]) & ~mask[index] != 0 {
                throw .invalidFieldInParameterList(byte: offset + index)
            }
            if code == 0x08 { result.isWriteCacheEnabled = bytes[base + offset + 2] & 0x04 != 0 }
            if code == 0x0A {
                result.usesDescriptorSense = bytes[base + offset + 2] & 0x04 != 0
                result.isSoftwareWriteProtected = bytes[base + offset + 4] & 0x08 != 0
            }
            offset += current.count
        }
        return result
    }

    /// A short block descriptor may be sent back, with the block length that we have.
    private static func checkDescriptor(_ list: ByteBuffer, at offset: Int, byteCount: Int, blockBytes: UInt32) throws(SenseData) {
        if byteCount == 0 { return }
        guard byteCount == 8, let length: UInt32 = list.getInteger(at: list.readerIndex + offset + 4),
            length & 0x00FF_FFFF == blockBytes
        else { throw .invalidFieldInParameterList(byte: offset) }
    }
}
