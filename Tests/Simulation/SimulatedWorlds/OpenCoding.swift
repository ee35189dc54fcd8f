import NIOCore
import Volumes

/// The open call in the simulator's own plain coding; the daemon's is JSON, and tested elsewhere.
enum OpenCoding {
    /// The statuses of answers: the volume is open; home has not opened its disk yet; home refuses, and says why.
    static let done: UInt16 = 200
    static let later: UInt16 = 503
    static let refused: UInt16 = 409

    static func encode(_ request: VolumeOpenRequest) -> ByteBuffer {
        var buffer = ByteBuffer(string: request.volume + request.logIdentifier)
        buffer.writeInteger(request.incarnation)
        buffer.writeInteger(request.oldestPoint)
        buffer.writeInteger(request.lastSealedPoint)
        return buffer
    }

    static func request(from buffer: ByteBuffer) -> VolumeOpenRequest? {
        var buffer = buffer
        guard let volume = buffer.readString(length: 32), let log = buffer.readString(length: 32),
            let incarnation = buffer.readInteger(as: UInt64.self), let oldest = buffer.readInteger(as: UInt64.self),
            let lastSealed = buffer.readInteger(as: UInt64.self)
        else { return nil }
        return VolumeOpenRequest(
            volume: volume, logIdentifier: log, incarnation: incarnation, oldestPoint: oldest, lastSealedPoint: lastSealed)
    }

    static func encode(_ reply: VolumeOpenReply) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(reply.generation)
        buffer.writeInteger(reply.receivedPoint)
        buffer.writeInteger(reply.appliedPoint)
        return buffer
    }

    static func reply(from buffer: ByteBuffer) -> VolumeOpenReply? {
        var buffer = buffer
        guard let generation = buffer.readInteger(as: UInt64.self), let received = buffer.readInteger(as: UInt64.self),
            let applied = buffer.readInteger(as: UInt64.self)
        else { return nil }
        return VolumeOpenReply(generation: generation, receivedPoint: received, appliedPoint: applied)
    }
}
