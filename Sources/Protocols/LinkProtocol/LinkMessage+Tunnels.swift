import NIOCore

/// The messages of tunnels as bytes.
extension LinkMessage {
    func encodeTunnel(into buffer: inout ByteBuffer) {
        switch self {
        case .tunnelOpen(let stream, let window, let name):
            buffer.writeMultipleIntegers(MessageKind.tunnelOpen.rawValue, stream, window)
            buffer.writeString(name)
        case .tunnelOpened(let stream, let window): buffer.writeMultipleIntegers(MessageKind.tunnelOpened.rawValue, stream, window)
        case .tunnelData(let stream, let isShort, let data):
            buffer.writeMultipleIntegers(MessageKind.tunnelData.rawValue, stream, UInt8(isShort ? 1 : 0))
            buffer.writeImmutableBuffer(data)
        case .tunnelCredit(let stream, let byteCount):
            buffer.writeMultipleIntegers(MessageKind.tunnelCredit.rawValue, stream, byteCount)
        case .tunnelFinish(let stream): buffer.writeMultipleIntegers(MessageKind.tunnelFinish.rawValue, stream)
        case .tunnelReset(let stream, let reason):
            buffer.writeMultipleIntegers(MessageKind.tunnelReset.rawValue, stream, reason.rawValue)
        default: break
        }
    }

    static func decodeTunnel(_ kind: MessageKind, from buffer: inout ByteBuffer) -> LinkMessage? {
        guard let stream = buffer.readInteger(as: UInt64.self) else { return nil }
        let message: LinkMessage
        switch kind {
        case .tunnelOpen:
            guard let window = buffer.readInteger(as: UInt32.self) else { return nil }
            let bytes = rest(of: &buffer)
            guard bytes.readableBytes <= LinkLimits.tunnelNameBytes,
                let name = String(validating: bytes.readableBytesView, as: UTF8.self)
            else { return nil }
            message = .tunnelOpen(stream: stream, window: window, name: name)
        case .tunnelOpened:
            guard let window = buffer.readInteger(as: UInt32.self) else { return nil }
            message = .tunnelOpened(stream: stream, window: window)
        case .tunnelData:
            guard let short = buffer.readInteger(as: UInt8.self), short <= 1 else { return nil }
            message = .tunnelData(stream: stream, isShort: short == 1, data: rest(of: &buffer))
        case .tunnelCredit:
            guard let byteCount = buffer.readInteger(as: UInt32.self) else { return nil }
            message = .tunnelCredit(stream: stream, byteCount: byteCount)
        case .tunnelFinish: message = .tunnelFinish(stream: stream)
        case .tunnelReset:
            guard let byte = buffer.readInteger(as: UInt8.self), let reason = TunnelReset(rawValue: byte) else { return nil }
            message = .tunnelReset(stream: stream, reason: reason)
        default: return nil
        }
        return message.isEncodable ? message : nil
    }
}
