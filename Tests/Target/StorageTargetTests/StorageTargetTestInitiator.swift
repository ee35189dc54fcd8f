import Blocks
import Ciphers
import Logging
import NIOCore
import NIOPosix
import SCSI
import Testing

@testable import ISCSI
@testable import StorageTarget

/// A server on a loop of its own, with one target on a disk in memory.
final class ServerFixture: Sendable {
    static let targetName = "iqn.2026-11.test:disk"

    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop: any EventLoop
    let server: NIOLoopBound<StorageTargetServer>
    let device: NIOLoopBound<MemoryDevice>
    let address: SocketAddress

    init(
        chap: CHAPCredentials? = nil, allowed: [String]? = nil, discovery: DiscoveryAuthentication = .optional,
        _ change: @escaping @Sendable (inout StorageTargetLimits) -> Void = { _ in }
    ) async throws {
        let loop = group.next()
        self.loop = loop
        (server, device) = try await loop.submit {
            var limits = StorageTargetLimits()
            // On a busy machine a test may have to wait longer than an initiator would be given.
            limits.loginTime = .seconds(300)
            limits.logoutTime = .milliseconds(50)
            change(&limits)
            var logger = Logger(label: "test")
            logger.logLevel = .critical
            let server = StorageTargetServer(
                eventLoop: loop, limits: limits, logger: logger, discovery: discovery)
            let device = MemoryDevice(sectorCount: 8192)
            for index in device.bytes.indices { device.bytes[index] = UInt8(truncatingIfNeeded: index / 512 &+ index) }
            try Self.addTarget(Self.targetName, device, to: server, chap: chap, allowed: allowed)
            return (NIOLoopBound(server, eventLoop: loop), NIOLoopBound(device, eventLoop: loop))
        }.get()
        let server = server
        address = try await loop.flatSubmit { server.value.listen(host: "127.0.0.1", port: 0) }.get()
    }

    static func addTarget(
        _ name: String, _ device: MemoryDevice, to server: StorageTargetServer, chap: CHAPCredentials? = nil,
        allowed: [String]? = nil
    ) throws {
        let unit = LogicalUnit(device: device, identity: LogicalUnitIdentity(uniqueHigh: 1, uniqueLow: 2, targetName: name))
        try server.addTarget(
            TargetDescription(name: name, label: "disk", units: [(0, unit)], chap: chap, allowedInitiators: allowed))
    }

    /// Runs on the server's loop.
    func run<Value: Sendable>(_ body: @escaping @Sendable (StorageTargetServer, MemoryDevice) throws -> Value)
        async throws
        -> Value
    {
        try await loop.submit { [server, device] in try body(server.value, device.value) }.get()
    }

    /// Waits until `condition` holds on the loop; each look is a turn of the loop.
    func until(_ condition: @escaping @Sendable (StorageTargetServer, MemoryDevice) -> Bool) async throws {
        let deadline = NIODeadline.now() + .seconds(60)
        while try await !run(condition) {
            try #require(NIODeadline.now() < deadline, "the condition never held")
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    func stop() async throws {
        let promise = loop.makePromise(of: Void.self)
        try await run { server, device in
            device.answerAll()
            server.stop { promise.succeed() }
        }
        try await promise.futureResult.get()
        #expect(try await run { server, _ in server.connectionCount } == 0)
        #expect(try await run { server, _ in server.dataIn.heldByteCount + server.dataOut.heldByteCount } == 0)
        try await group.shutdownGracefully()
    }
}

/// An initiator that sends what it is told and shows what comes back.
final class TestInitiator {
    let channel: any Channel
    private var frames: AsyncStream<PDUFrame>.AsyncIterator
    var cmdSN: UInt32 = 1
    var tag: UInt32 = 1
    var isid: UInt64 = 0x4000_0000_0001
    /// Where commands go.
    var lun: UInt64 = 0

    /// Cuts what arrives into frames, on the channel's loop.
    private final class Receiver: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        var decoder = PDUDecoder(maximumDataByteCount: 1 << 24)
        let continuation: AsyncStream<PDUFrame>.Continuation

        init(_ continuation: AsyncStream<PDUFrame>.Continuation) { self.continuation = continuation }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            decoder.append(unwrapInboundIn(data))
            while let frame = try? decoder.next() {
                // The digests hold from the PDU behind the last login response on.
                if case .loginResponse(let response)? = try? TargetPDU(frame), response.nextStageCode == 3, response.transits,
                    let pairs = try? TextKeys.parse(response.data)
                {
                    decoder.digests.header = pairs.contains(TextPair("HeaderDigest", "CRC32C"))
                    decoder.digests.data = pairs.contains(TextPair("DataDigest", "CRC32C"))
                }
                continuation.yield(frame)
            }
        }

        func channelInactive(context: ChannelHandlerContext) { continuation.finish() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    var sendDigests = Digests()

    private init(channel: any Channel, frames: AsyncStream<PDUFrame>) {
        self.channel = channel
        self.frames = frames.makeAsyncIterator()
    }

    /// Connects to the fixture's first address, or to another one.
    static func connect(_ fixture: ServerFixture, at address: SocketAddress? = nil) async throws -> TestInitiator {
        let (stream, continuation) = AsyncStream<PDUFrame>.makeStream()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            // What the kernel takes for a peer that does not read must be little.
            .channelOption(.socketOption(.so_rcvbuf), value: 262_144)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Receiver(continuation)) }
            }
            .connect(to: address ?? fixture.address).get()
        // A test that waits for what never comes ends with the connection.
        channel.eventLoop.scheduleTask(in: .seconds(30)) { channel.close(promise: nil) }
        return TestInitiator(channel: channel, frames: stream)
    }

    func send(_ pdu: InitiatorPDU) async throws {
        var wire = ByteBuffer()
        PDUEncoder(digests: sendDigests).write(pdu.frame, into: &wire)
        try await channel.writeAndFlush(wire)
    }

    func sendBytes(_ bytes: ByteBuffer) async throws { try await channel.writeAndFlush(bytes) }

    /// The next PDU; nil when the connection has ended.
    func receive() async throws -> TargetPDU? {
        guard let frame = await frames.next() else { return nil }
        return try TargetPDU(frame)
    }

    func close() { channel.close(promise: nil) }

    // MARK: Login

    func login(
        _ extra: [TextPair] = [], target: String? = ServerFixture.targetName, name: String = "iqn.2026-11.test:initiator",
        tsih: UInt16 = 0, connection: UInt16 = 0
    ) async throws -> LoginResponse {
        let response = try await tryLogin(extra, target: target, name: name, tsih: tsih, connection: connection)
        if response == nil { Issue.record("no login response") }
        return response ?? LoginResponse()
    }

    /// The same; nil when the connection ends instead of an answer.
    func tryLogin(
        _ extra: [TextPair] = [], target: String? = ServerFixture.targetName, name: String = "iqn.2026-11.test:initiator",
        tsih: UInt16 = 0, connection: UInt16 = 0
    ) async throws -> LoginResponse? {
        try await sendLogin(extra, target: target, name: name, tsih: tsih, connection: connection)
        guard case .loginResponse(let response)? = try await receive() else { return nil }
        if response.status == .success {
            sendDigests = Digests(
                header: extra.contains { $0.key == "HeaderDigest" }, data: extra.contains { $0.key == "DataDigest" })
        }
        return response
    }

    /// The request alone, whose answer is another PDU to receive.
    func sendLogin(
        _ extra: [TextPair] = [], target: String? = ServerFixture.targetName, name: String = "iqn.2026-11.test:initiator",
        tsih: UInt16 = 0, connection: UInt16 = 0
    ) async throws {
        var request = LoginRequest()
        request.transits = true
        request.currentStageCode = 1
        request.nextStageCode = 3
        request.isid = InitiatorSessionIdentifier(isid)
        request.tsih = tsih
        request.connectionIdentifier = connection
        request.cmdSN = cmdSN
        var pairs = [TextPair("InitiatorName", name)]
        pairs.append(target.map { TextPair("TargetName", $0) } ?? TextPair("SessionType", "Discovery"))
        TextKeys.write(pairs + extra, into: &request.data)
        try await send(.loginRequest(request))
    }

    /// Logs in by CHAP with MD5.
    func login(user: String, secret: String, target: String?, name: String = "iqn.2026-11.test:initiator") async throws
        -> LoginResponse
    {
        var request = LoginRequest()
        request.isid = InitiatorSessionIdentifier(isid)
        request.cmdSN = cmdSN
        func step(_ pairs: [TextPair], _ next: UInt8?) async throws -> LoginResponse {
            request.data = ByteBuffer()
            (request.transits, request.nextStageCode) = (next != nil, next ?? 0)
            TextKeys.write(pairs, into: &request.data)
            try await send(.loginRequest(request))
            guard case .loginResponse(let response)? = try await receive() else { throw ChannelError.eof }
            return response
        }
        let names = [
            TextPair("InitiatorName", name), target.map { TextPair("TargetName", $0) } ?? TextPair("SessionType", "Discovery"),
        ]
        let method = try await step(names + [TextPair("AuthMethod", "CHAP,None")], 3)
        guard method.status == .success, !method.transits else { return method }
        let challenge = try TextKeys.parse(try await step([TextPair("CHAP_A", "5")], nil).data)
        func value(_ key: String) throws -> String { try #require(challenge.first { $0.key == key }?.value) }
        let proof = CHAPAlgorithm.md5.response(
            identifier: try #require(UInt8(try value("CHAP_I"))), secret: try SecretText(secret),
            challenge: try #require(CHAP.binary(try value("CHAP_C"))))
        return try await step([TextPair("CHAP_N", user), TextPair("CHAP_R", CHAP.hexadecimal(try #require(proof)))], 3)
    }

    /// SendTargets=All.
    func sendTargets() async throws -> [TextPair] {
        var request = TextRequest()
        request.initiatorTaskTag = 5
        request.cmdSN = cmdSN
        cmdSN += 1
        TextKeys.write([TextPair("SendTargets", "All")], into: &request.data)
        try await send(.textRequest(request))
        guard case .textResponse(let response)? = try await receive() else {
            Issue.record("no text")
            return []
        }
        return try TextKeys.parse(response.data)
    }

    /// Logs in, and takes the unit attention of a new nexus.
    static func session(
        _ fixture: ServerFixture, _ extra: [TextPair] = [], isid: UInt64 = 0x4000_0000_0001, receivesByItself: Bool = true
    )
        async throws -> TestInitiator
    {
        let initiator = try await connect(fixture)
        initiator.isid = isid
        #expect(try await initiator.login(extra).status == .success)
        try await initiator.command([0x00])
        guard case .scsiResponse(let attention)? = try await initiator.receive() else {
            Issue.record("no unit attention")
            return initiator
        }
        #expect(attention.status == 2)
        if !receivesByItself { try await initiator.channel.setOption(.autoRead, value: false).get() }
        return initiator
    }

    // MARK: Commands

    @discardableResult
    func command(
        _ cdb: [UInt8], reads: Int = 0, writes: Int = 0, immediate: ByteBuffer = ByteBuffer(), attribute: UInt8 = 0
    ) async throws -> UInt32 {
        var command = SCSICommandPDU()
        command.attribute = attribute
        command.reads = reads > 0
        command.writes = writes > 0
        command.lun = lun
        command.expectedDataTransferLength = UInt32(max(reads, writes))
        command.initiatorTaskTag = tag
        command.cmdSN = cmdSN
        let padded = cdb + [UInt8](repeating: 0, count: 16 - cdb.count)
        command.cdbHigh = padded[..<8].reduce(0) { $0 << 8 | UInt64($1) }
        command.cdbLow = padded[8...].reduce(0) { $0 << 8 | UInt64($1) }
        command.data = immediate
        tag += 1
        cmdSN += 1
        try await send(.scsiCommand(command))
        return tag - 1
    }

    @discardableResult
    func read(_ start: UInt32, _ count: UInt16) async throws -> UInt32 {
        try await command(Self.cdb(0x28, start, count), reads: Int(count) * 512)
    }

    @discardableResult
    func write(
        _ start: UInt32, _ count: UInt16, immediate: ByteBuffer = ByteBuffer(), attribute: UInt8 = 0
    ) async throws -> UInt32 {
        try await command(Self.cdb(0x2A, start, count), writes: Int(count) * 512, immediate: immediate, attribute: attribute)
    }

    private static func cdb(_ code: UInt8, _ start: UInt32, _ count: UInt16) -> [UInt8] {
        [code, 0] + (0..<4).map { UInt8(truncatingIfNeeded: start >> (24 - 8 * $0)) } + [
            0, UInt8(count >> 8), UInt8(count & 255), 0,
        ]
    }

    /// Sends a command without data and gives status, sense code and qualifier.
    func outcome(_ cdb: [UInt8]) async throws -> (status: UInt8, sense: UInt16?) {
        try await command(cdb)
        guard case .scsiResponse(let response)? = try await receive() else {
            Issue.record("no response")
            return (0xFF, nil)
        }
        return (response.status, response.sense.getInteger(at: response.sense.readerIndex + 12))
    }

    /// Gathers the data of one read until its status.
    func readData() async throws -> ByteBuffer? {
        var data = ByteBuffer()
        while let pdu = try await receive() {
            guard case .dataIn(let part) = pdu else { return nil }
            #expect(Int(part.bufferOffset) == data.readableBytes)
            data.writeImmutableBuffer(part.data)
            if part.status == 0 { return data }
        }
        return nil
    }

    /// Answers an R2T with all that it asks for.
    func answer(_ r2t: ReadyToTransfer, from source: ByteBuffer, pieceByteCount: Int = 65_536) async throws {
        var offset = Int(r2t.bufferOffset)
        let end = offset + Int(r2t.desiredLength)
        var dataSN: UInt32 = 0
        while offset < end {
            var pdu = DataOut()
            pdu.initiatorTaskTag = r2t.initiatorTaskTag
            pdu.targetTransferTag = r2t.targetTransferTag
            pdu.bufferOffset = UInt32(offset)
            pdu.dataSN = dataSN
            let length = min(pieceByteCount, end - offset)
            pdu.data = try #require(source.getSlice(at: source.readerIndex + offset, length: length))
            offset += length
            dataSN += 1
            pdu.isFinal = offset == end
            try await send(.dataOut(pdu))
        }
    }

    func manage(_ function: TaskManagementRequest.Function, task: UInt32 = BasicHeader.reservedTag) async throws {
        var request = TaskManagementRequest()
        request.isImmediate = true
        request.functionCode = function.rawValue
        request.initiatorTaskTag = 0x9000
        request.referencedTaskTag = task
        request.lun = lun
        request.cmdSN = cmdSN
        try await send(.taskManagementRequest(request))
    }
}
