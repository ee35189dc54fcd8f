import NIOCore

extension SenseData {
    /// Reads sense data of either format, as an initiator does; nil when the bytes are neither.
    public init?(parsing buffer: ByteBuffer) {
        let start = buffer.readerIndex
        guard let response: UInt8 = buffer.getInteger(at: start) else { return nil }
        switch response & 0x7F {
        case 0x70, 0x71:
            guard let keyByte: UInt8 = buffer.getInteger(at: start + 2), let key = SenseKey(rawValue: keyByte & 0x0F),
                let code: UInt8 = buffer.getInteger(at: start + 12), let qualifier: UInt8 = buffer.getInteger(at: start + 13)
            else { return nil }
            self.init(key, AdditionalSenseCode(code, qualifier), format: .fixed)
            if response & 0x80 != 0, let value: UInt32 = buffer.getInteger(at: start + 3) { information = UInt64(value) }
            fieldPointer = Self.fieldPointer(in: buffer, at: start + 15, key: key)
            progress = Self.progress(in: buffer, at: start + 15, key: key)
        case 0x72, 0x73:
            guard let keyByte: UInt8 = buffer.getInteger(at: start + 1), let key = SenseKey(rawValue: keyByte & 0x0F),
                let code: UInt8 = buffer.getInteger(at: start + 2), let qualifier: UInt8 = buffer.getInteger(at: start + 3)
            else { return nil }
            self.init(key, AdditionalSenseCode(code, qualifier), format: .descriptor)
            parseDescriptors(of: buffer, from: start + 8)
        default:
            return nil
        }
    }

    private mutating func parseDescriptors(of buffer: ByteBuffer, from first: Int) {
        var index = first
        while let type: UInt8 = buffer.getInteger(at: index), let length: UInt8 = buffer.getInteger(at: index + 1) {
            if type == 0x00, let value: UInt64 = buffer.getInteger(at: index + 4) { information = value }
            if type == 0x02 {
                fieldPointer = Self.fieldPointer(in: buffer, at: index + 4, key: key)
                progress = Self.progress(in: buffer, at: index + 4, key: key)
            }
            index += 2 + Int(length)
        }
    }

    /// NOT READY and NO SENSE carry a progress indication where ILLEGAL REQUEST has its pointer.
    private static func progress(in buffer: ByteBuffer, at index: Int, key: SenseKey) -> UInt16? {
        guard key == .notReady || key == .noSense, let flags: UInt8 = buffer.getInteger(at: index), flags & 0x80 != 0 else {
            return nil
        }
        return buffer.getInteger(at: index + 1)
    }

    private static func fieldPointer(in buffer: ByteBuffer, at index: Int, key: SenseKey) -> FieldPointer? {
        guard key == .illegalRequest, let flags: UInt8 = buffer.getInteger(at: index), flags & 0x80 != 0,
            let byte: UInt16 = buffer.getInteger(at: index + 1)
        else { return nil }
        return FieldPointer(isInCDB: flags & 0x40 != 0, byte: byte, bit: flags & 0x08 != 0 ? flags & 0x07 : nil)
    }
}
