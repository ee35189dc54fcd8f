import LinkProtocol
import NIOCore

/// What the peer says, and what the channels say.
extension TunnelEnd {
    // MARK: What the peer says

    /// A message of a tunnel has come.
    public func receive(_ message: LinkMessage) {
        switch message {
        case .tunnelOpen(let identifier, let window, let name): open(identifier, window: window, name: name)
        case .tunnelReset(let identifier, let reason):
            guard let stream = streams[identifier] else { return }
            note(reason, on: stream)
            forget(stream)
        case .tunnelOpened(let identifier, _), .tunnelData(let identifier, _, _), .tunnelCredit(let identifier, _),
            .tunnelFinish(let identifier):
            // What was on its way when its connection ended is of no use.
            guard let stream = streams[identifier] else { return }
            if !take(message, stream) { reset(stream, .violation) }
            pump(stream.trafficClass)
        default: break
        }
        for trafficClass in [TrafficClass.control, .migration] where resets[trafficClass]?.isEmpty == false { pump(trafficClass) }
    }

    func note(_ reason: TunnelReset, on stream: Stream) {
        let text: String?
        switch reason {
        case .aborted: text = nil
        case .unknown: text = "the other edge knows no such tunnel"
        case .unreachable: text = "the other edge can't reach the service"
        case .busy: text = "the other edge has too many connections"
        case .violation: text = "the other edge has ended a connection that broke the rules"
        }
        guard let text else { return }
        stream.tunnel.statistics.refusedTotal += 1
        note(text, of: stream.tunnel)
    }

    /// - Returns: false when the message makes no sense.
    func take(_ message: LinkMessage, _ stream: Stream) -> Bool {
        switch message {
        case .tunnelOpened(_, let window):
            guard stream.state.opened(window: window) else { return false }
            stream.tunnel.problem = nil
            makeReady(stream)
        case .tunnelCredit(_, let byteCount):
            guard stream.state.credited(byteCount) else { return false }
            makeReady(stream)
        case .tunnelData(_, let isShort, let data):
            guard stream.channel != nil, stream.state.received(data.readableBytes, isShort: isShort) else { return false }
            stream.tunnel.statistics.receivedBytes &+= UInt64(data.readableBytes)
            // However small the pieces are, one write is under way and one buffer waits.
            if stream.unwritten.readableBytes == 0 { stream.unwritten = data } else { stream.unwritten.writeImmutableBuffer(data) }
            write(stream)
        case .tunnelFinish:
            guard stream.channel != nil, stream.state.receivedEnd() else { return false }
            closeOutput(stream)
        default: return false
        }
        return true
    }

    // MARK: What the channels say

    func read(_ bytes: ByteBuffer, _ stream: Stream) {
        stream.state.read(bytes)
        stream.tunnel.statistics.sentBytes &+= UInt64(bytes.readableBytes)
        makeReady(stream)
    }

    /// All that was there has been read.
    func readComplete(_ stream: Stream) {
        stream.isReading = false
        pump(stream.trafficClass)
        readMore(stream)
    }

    func readEnd(_ stream: Stream) {
        stream.state.readEnd()
        makeReady(stream)
        pump(stream.trafficClass)
    }

    /// The channel is closed, by whomever.
    /// - Parameter isBroken: by an error.
    func inactive(_ stream: Stream, isBroken: Bool) {
        guard streams[stream.identifier] === stream else { return }
        stream.channel = nil
        if stream.isOutputClosed, !isBroken {
            // It was closed as it should be: its input has ended behind its output. What it said may still wait for the link.
            if !stream.state.localHasEnded { readEnd(stream) }
            return
        }
        reset(stream, .aborted)
        pump(stream.trafficClass)
    }

    /// Hands over what has arrived, unless a write is under way.
    func write(_ stream: Stream) {
        let byteCount = stream.unwritten.readableBytes
        guard let channel = stream.channel, !stream.isWriting, byteCount > 0 else { return }
        stream.isWriting = true
        let bound = NIOLoopBound((end: self, stream: stream), eventLoop: eventLoop)
        let bytes = stream.unwritten
        stream.unwritten = ByteBuffer()
        channel.writeAndFlush(bytes).assumeIsolated().whenSuccess { bound.value.end.wrote(byteCount, bound.value.stream) }
    }

    func wrote(_ byteCount: Int, _ stream: Stream) {
        guard streams[stream.identifier] === stream else { return }
        stream.isWriting = false
        write(stream)
        if let grant = stream.state.wrote(byteCount, budget) {
            // It may send no more than a window before it has been told of more.
            guard stream.owedGrant <= UInt32(TunnelStream.windowBytesMax), grant <= UInt32(TunnelStream.windowBytesMax) else {
                reset(stream, .violation)
                return pump(stream.trafficClass)
            }
            stream.owedGrant += grant
            makeReady(stream)
        }
        closeOutput(stream)
        pump(stream.trafficClass)
    }

    func closeOutput(_ stream: Stream) {
        guard stream.state.outputHasEnded, !stream.isOutputClosed else { return }
        stream.isOutputClosed = true
        if stream.state.isDone { end(stream) } else { stream.channel?.close(mode: .output, promise: nil) }
    }

    /// Asks the channel for more, if there is room for it.
    func readMore(_ stream: Stream) {
        guard let channel = stream.channel, !stream.isReading, stream.state.wantsToRead else { return }
        stream.isReading = true
        channel.read()
    }
}

/// Hands what a channel says to the end of its tunnel.
final class TunnelChannelHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let end: TunnelEnd
    private let stream: TunnelEnd.Stream
    private var isBroken = false

    init(_ end: TunnelEnd, _ stream: TunnelEnd.Stream) {
        self.end = end
        self.stream = stream
    }

    func handlerAdded(context: ChannelHandlerContext) { if context.channel.isActive { end.readMore(stream) } }
    func channelActive(context: ChannelHandlerContext) { end.readMore(stream) }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { end.read(unwrapInboundIn(data), stream) }
    func channelReadComplete(context: ChannelHandlerContext) { end.readComplete(stream) }
    func channelInactive(context: ChannelHandlerContext) { end.inactive(stream, isBroken: isBroken) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if (error as? ChannelError) != .eof { isBroken = true }
        context.close(promise: nil)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { end.readEnd(stream) }
        context.fireUserInboundEventTriggered(event)
    }
}
