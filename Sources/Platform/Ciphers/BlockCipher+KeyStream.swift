import NIOCore

extension BlockCipher {
    /// Combines `text` with the key stream of a nonce: what is plain is hidden by it, and what is hidden is plain again. Nothing
    /// authenticates the result, so it must stand inside of something that is authenticated. The nonce is used up as by `seal`, for this
    /// text only.
    /// - Returns: nil when the library refused, which no input brings about.
    public func combine(_ text: ByteBuffer, nonce: CipherNonce) -> ByteBuffer? {
        var result = ByteBuffer()
        result.reserveCapacity(text.readableBytes + Self.tagByteCount)
        // GCM encrypts by counter mode, in which both directions are the same. The tag is of no use.
        let isDone = text.withUnsafeReadableBytes { seal($0, nonce: nonce, context: CipherContext(0, 0, 0, 0, 0), appendingTo: &result) }
        guard isDone else { return nil }
        result.moveWriterIndex(to: result.writerIndex - Self.tagByteCount)
        return result
    }
}
