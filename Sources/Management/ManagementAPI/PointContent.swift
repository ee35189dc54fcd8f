import APIModels
import Hummingbird
import NIOCore
import ServiceLifecycle

/// A disk as it was at a point, for one reader; it is given back when nobody holds it any more.
public protocol PointContent: Sendable {
    /// Its size.
    var byteCount: UInt64 { get }
    /// Reads `byteCount` bytes, at most `PointContentStream.pieceBytes`, which lie within the disk.
    func read(at offset: UInt64, byteCount: Int) async throws -> ByteBuffer
}

/// GET /v1/volumes/{name}/points/{point}/content: the bytes of the disk from its first to its last. An answer that is shorter than its
/// Content-Length broke off.
public enum PointContentStream {
    /// How much is read at once.
    public static let pieceBytes = 1 << 20
    /// How many are served at a time; one more is told to come back.
    static let mostStreams = 4

    static func response(_ call: Call) async throws -> Response {
        guard let point = UInt64(call.parameter("point")) else { throw APIError.invalid("point", "must be the number of a point") }
        guard call.services.contents.enter() else {
            throw APIError.unavailable(
                "too_many_streams", "Too many disks are being read", detail: "\(mostStreams) past points are being read.",
                action: "Wait for one of them.")
        }
        let lease = StreamLease(streams: call.services.contents)
        let content = try await call.controller.content(ofVolume: call.parameter("name"), at: point)
        let body = ResponseBody(contentLength: Int(clamping: content.byteCount)) { writer in
            defer { lease.end() }
            try await write(content) { try await writer.write($0) }
            try await writer.finish(nil)
        }
        return Response(status: .ok, headers: [.contentType: "application/octet-stream"], body: body)
    }

    private static func write(_ content: any PointContent, _ write: (ByteBuffer) async throws -> Void) async throws {
        var offset: UInt64 = 0
        while offset < content.byteCount {
            // A large disk must not keep the edge from stopping.
            if Task.isShuttingDownGracefully { throw CancellationError() }
            let piece = try await content.read(at: offset, byteCount: Int(min(content.byteCount - offset, UInt64(pieceBytes))))
            offset += UInt64(piece.readableBytes)
            try await write(piece)
        }
    }
}
