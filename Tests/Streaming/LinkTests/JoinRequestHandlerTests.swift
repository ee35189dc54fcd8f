import NIOCore
import NIOEmbedded
import NIOTLS
import Testing

@testable import Link

/// What an edge that joins takes for an answer.
struct JoinRequestHandlerTests {
    private let eventLoop = EmbeddedEventLoop()

    /// How the wait has ended; nil while it has not.
    private func outcome(_ body: (EmbeddedChannel) throws -> Void) throws -> Result<ByteBuffer, any Error>? {
        let answer = eventLoop.makePromise(of: ByteBuffer.self)
        let handler = JoinRequestHandler(ByteBuffer(string: "edge"), answer) { _ in true }
        let channel = EmbeddedChannel(loop: eventLoop)
        try channel.pipeline.syncOperations.addHandlers(handler, FailureHandler(answer))
        var outcome: Result<ByteBuffer, any Error>?
        answer.futureResult.assumeIsolated().whenComplete { outcome = $0 }
        try body(channel)
        eventLoop.run()
        let result = outcome
        answer.fail(LinkJoinError.noAnswer)
        return result
    }

    @Test func anAnswerBeforeTheCertificateWasLookedAtIsNone() throws {
        let outcome = try outcome { channel in
            try channel.writeInbound(LengthPrefixedMessage.encode(ByteBuffer(string: "trust me")))
            // NIO tells of it late when the channel ends in the writing of TLS's last word.
            channel.pipeline.fireUserInboundEventTriggered(TLSUserEvent.handshakeCompleted(negotiatedProtocol: nil))
        }
        #expect(throws: LinkJoinError.self) { try outcome?.get() }
        #expect(outcome != nil)
    }

    @Test func whoShowsNoCertificateIsNotAsked() throws {
        var sent: ByteBuffer?
        let outcome = try outcome { channel in
            channel.pipeline.fireUserInboundEventTriggered(TLSUserEvent.handshakeCompleted(negotiatedProtocol: nil))
            sent = try? channel.readOutbound(as: ByteBuffer.self)
        }
        #expect(throws: LinkJoinError.otherEdge) { try outcome?.get() }
        #expect(sent == nil)
    }
}
