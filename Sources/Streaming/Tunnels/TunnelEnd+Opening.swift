import LinkProtocol
import NIOCore
import NIOPosix

/// Connections that begin: a client has come here, or to the peer.
extension TunnelEnd {
    /// A client has come.
    func accepted(_ channel: any Channel, _ tunnel: Tunnel) {
        guard isAvailable(), !tunnel.isRemoved, let stream = add(nextIdentifier, tunnel, TunnelStream()) else {
            tunnel.statistics.refusedTotal += 1
            return Self.abort(channel)
        }
        nextIdentifier += 2
        stream.owedOpening = .tunnelOpen(
            stream: stream.identifier, window: UInt32(clamping: TunnelStream.firstWindowBytes), name: tunnel.settings.name)
        attach(channel, to: stream)
        stream.patience = eventLoop.assumeIsolated().scheduleTask(in: Self.openPatience) { [weak self, weak stream] in
            guard let self, let stream, self.streams[stream.identifier] === stream, stream.state.phase == .opening else { return }
            self.note("the other edge did not answer in time", of: stream.tunnel)
            self.reset(stream, .aborted)
            self.pump(stream.trafficClass)
        }
        makeReady(stream)
        pump(stream.trafficClass)
    }

    /// The peer has a client: connects to the service.
    func open(_ identifier: UInt64, window: UInt32, name: String) {
        guard let tunnel = tunnels[name], case .connects(let host, let port) = tunnel.settings.part else {
            return queueReset(identifier, .unknown, .control)
        }
        let trafficClass = tunnel.settings.precedence.trafficClass
        guard identifier % 2 != nextIdentifier % 2, streams[identifier] == nil else {
            return queueReset(identifier, .violation, trafficClass)
        }
        guard connecting < Self.connectsMax, tunnel.connecting < Self.connectsOfTunnelMax,
            let stream = add(identifier, tunnel, TunnelStream(sendCredit: window))
        else {
            tunnel.statistics.refusedTotal += 1
            return queueReset(identifier, .busy, trafficClass)
        }
        connecting += 1
        tunnel.connecting += 1
        let bound = NIOLoopBound((end: self, stream: stream), eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(Self.connectTimeout)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.readBytes))
            .connect(host: host, port: port)
            .whenComplete { bound.value.end.connected(bound.value.stream, $0) }
    }

    func connected(_ stream: Stream, _ result: Result<any Channel, any Error>) {
        connecting -= 1
        stream.tunnel.connecting -= 1
        let isThere = streams[stream.identifier] === stream
        switch result {
        case .success(let channel) where isThere:
            stream.tunnel.problem = nil
            stream.owedOpening = .tunnelOpened(stream: stream.identifier, window: UInt32(clamping: TunnelStream.firstWindowBytes))
            attach(channel, to: stream)
            makeReady(stream)
        case .success(let channel): Self.abort(channel)
        case .failure(let error):
            if !isThere { return }
            stream.tunnel.statistics.refusedTotal += 1
            if case .connects(let host, let port) = stream.tunnel.settings.part {
                note("can't connect to \(host):\(port): \(error)", of: stream.tunnel)
            }
            reset(stream, .unreachable)
        }
        pump(stream.trafficClass)
    }

    func add(_ identifier: UInt64, _ tunnel: Tunnel, _ state: TunnelStream) -> Stream? {
        let share = budget.byteCountMax / 2 / TunnelStream.firstWindowBytes
        guard streams.count < min(Self.connectionsMax, share), budget.take(TunnelStream.firstWindowBytes) else { return nil }
        let stream = Stream(identifier, tunnel, state)
        streams[identifier] = stream
        tunnel.statistics.connections += 1
        tunnel.statistics.connectionsTotal += 1
        return stream
    }

    func attach(_ channel: any Channel, to stream: Stream) {
        stream.channel = channel
        do {
            try channel.syncOptions?.setOption(.tcpOption(.tcp_nodelay), value: 1)
            try channel.syncOptions?.setOption(.socketOption(.so_keepalive), value: 1)
            for (option, value) in Self.keepAlive {
                try channel.syncOptions?.setOption(.tcpOption(NIOBSDSocket.Option(rawValue: option)), value: value)
            }
            // At its end a channel hands over at once what the kernel has, asked or not.
            try channel.syncOptions?.setOption(.socketOption(.so_rcvbuf), value: Self.receiveBufferBytes)
            try channel.pipeline.syncOperations.addHandler(TunnelChannelHandler(self, stream))
        } catch {
            reset(stream, .aborted)
        }
    }
}
