import Blocks
import Logging
import NIOCore
import NIOPosix
import SCSI
import StorageTarget
import Testing

@testable import NBD
@testable import NetworkBlockServer

/// A disk in memory that answers at once, or, while `isHolding`, only when it is told to.
final class MemoryDisk: BlockDevice {
    var bytes: [UInt8]
    var isWriteProtected = false
    /// False makes `readIfResident` say no.
    var isResident = true
    var isHolding = false
    var error: BlockDeviceError?
    var durableWrites = 0
    var flushes = 0
    var zeroedRanges: [SectorRange] = []
    private var pending: [() -> Void] = []

    init(sectorCount: Int) { bytes = (0..<sectorCount * 512).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 | 1) } }

    var sectorCount: UInt64 { UInt64(bytes.count / 512) }
    var pendingCount: Int { pending.count }

    func answerAll() {
        isHolding = false
        while !pending.isEmpty { pending.removeFirst()() }
    }

    private func serve<Value>(_ completion: @escaping (Result<Value, BlockDeviceError>) -> Void, _ body: @escaping () -> Value) {
        let work = { [self] in completion(error.map { .failure($0) } ?? .success(body())) }
        if isHolding { pending.append(work) } else { work() }
    }

    private func indices(_ range: SectorRange) -> Range<Int> { Int(range.start) * 512..<Int(range.end) * 512 }

    func readIfResident(_ range: SectorRange, into buffer: inout ByteBuffer) -> Bool {
        guard isResident else { return false }
        buffer.writeBytes(bytes[indices(range)])
        return true
    }

    func read(_ range: SectorRange, completion: @escaping (Result<ByteBuffer, BlockDeviceError>) -> Void) {
        serve(completion) { ByteBuffer(bytes: self.bytes[self.indices(range)]) }
    }

    func write(
        _ range: SectorRange, data: ByteBuffer, durability: WriteDurability,
        completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        #expect(data.readableBytes == range.byteCount)
        serve(completion) {
            if durability == .durable { self.durableWrites += 1 }
            self.bytes.replaceSubrange(self.indices(range), with: data.readableBytesView)
        }
    }

    func writeZeroes(
        _ range: SectorRange, durability: WriteDurability, completion: @escaping (Result<Void, BlockDeviceError>) -> Void
    ) {
        serve(completion) {
            if durability == .durable { self.durableWrites += 1 }
            self.zeroedRanges.append(range)
            for index in self.indices(range) { self.bytes[index] = 0 }
        }
    }

    /// Blocks of 4 KiB that are all zeroes are holes.
    func allocation(of range: SectorRange, completion: @escaping (Result<[AllocationExtent], BlockDeviceError>) -> Void) {
        serve(completion) {
            var extents = AllocationExtents()
            for block in range.blocks {
                let sectors = SectorRange(block: block).intersection(range)
                extents.append(sectors, self.bytes[self.indices(sectors)].allSatisfy { $0 == 0 } ? .deallocated : .mapped)
            }
            return extents.extents
        }
    }

    func flush(completion: @escaping (Result<Void, BlockDeviceError>) -> Void) {
        serve(completion) { self.flushes += 1 }
    }
}

/// A server on a loop of its own, with one export, `disk`, on a disk in memory.
final class ServerFixture: Sendable {
    struct Parts {
        let server: NetworkBlockServer
        let unit: LogicalUnit
        let disk: MemoryDisk
    }

    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop: any EventLoop
    let parts: NIOLoopBound<Parts>
    let address: SocketAddress

    init(
        security: NetworkBlockSecurity = NetworkBlockSecurity(), allowed: Set<String>? = nil, sectorCount: Int = 4096,
        _ change: @escaping @Sendable (inout NetworkBlockLimits) -> Void = { _ in }
    ) async throws {
        let loop = group.next()
        self.loop = loop
        parts = try await loop.submit {
            var limits = NetworkBlockLimits()
            // On a busy machine a test may have to wait longer than a client would be given.
            limits.handshakeTime = .seconds(300)
            // So that little data makes many pieces.
            limits.pieceByteCount = 65_536
            change(&limits)
            var logger = Logger(label: "test")
            logger.logLevel = .critical
            let server = NetworkBlockServer(eventLoop: loop, limits: limits, security: security, logger: logger)
            let disk = MemoryDisk(sectorCount: sectorCount)
            let unit = LogicalUnit(
                device: disk, identity: LogicalUnitIdentity(uniqueHigh: 1, uniqueLow: 2, targetName: "iqn.2026-11.test:disk"))
            try server.addExport(NetworkBlockExport(name: "disk", label: "1", unit: unit, allowedClients: allowed))
            return NIOLoopBound(Parts(server: server, unit: unit, disk: disk), eventLoop: loop)
        }.get()
        let parts = parts
        address = try await loop.flatSubmit { parts.value.server.listen(host: "127.0.0.1", port: 0) }.get()
    }

    /// Runs on the server's loop.
    @discardableResult
    func run<Value: Sendable>(_ body: @escaping @Sendable (Parts) throws -> Value) async throws -> Value {
        try await loop.submit { [parts] in try body(parts.value) }.get()
    }

    /// Waits until `condition` holds on the loop.
    func until(_ condition: @escaping @Sendable (Parts) -> Bool) async throws {
        let deadline = NIODeadline.now() + .seconds(60)
        while try await !run(condition) {
            try #require(NIODeadline.now() < deadline, "the condition never held")
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    /// Stops the server and sees that nothing is left.
    func stop() async throws {
        let promise = loop.makePromise(of: Void.self)
        try await run { parts in
            parts.disk.answerAll()
            parts.server.stop { promise.succeed() }
        }
        try await promise.futureResult.get()
        #expect(try await run { $0.server.connectionCount } == 0)
        #expect(
            try await run { $0.server.reads.heldByteCount + $0.server.writes.heldByteCount + $0.server.running.heldByteCount } == 0)
        try await group.shutdownGracefully()
    }
}

/// A client that sends what it is told and shows what comes back.
final class TestClient {
    private let channel: any Channel
    private var bytes: AsyncStream<ByteBuffer>.AsyncIterator
    private var received = ByteBuffer()
    private var isStructured = false

    private final class Receiver: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let continuation: AsyncStream<ByteBuffer>.Continuation

        init(_ continuation: AsyncStream<ByteBuffer>.Continuation) { self.continuation = continuation }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { continuation.finish() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    init(_ fixture: ServerFixture) async throws {
        let (stream, continuation) = AsyncStream.makeStream(of: ByteBuffer.self)
        bytes = stream.makeAsyncIterator()
        channel = try await ClientBootstrap(group: fixture.group)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Receiver(continuation)) }
            }
            .connect(to: fixture.address).get()
    }

    /// A client in the transmission phase of `disk`.
    static func transmitting(_ fixture: ServerFixture, structured: Bool = true, blockSize: Bool = false) async throws -> TestClient {
        let client = try await TestClient(fixture)
        try await client.greet()
        if structured {
            try await client.send(option: .structuredReply)
            #expect(try await client.optionReply()?.type == .acknowledged)
            try await client.send(option: .setMetadataContext, Self.contexts("disk"))
            #expect(try await client.optionReply()?.type == .metadataContext)
            #expect(try await client.optionReply()?.type == .acknowledged)
        }
        client.isStructured = structured
        try await client.send(option: .go, Self.information("disk", blockSize ? [3] : []))
        while let reply = try await client.optionReply(), reply.type != .acknowledged { #expect(reply.type == .information) }
        return client
    }

    static func information(_ name: String, _ wanted: [UInt16] = []) -> ByteBuffer {
        var data = ByteBuffer(integer: UInt32(name.utf8.count))
        data.writeString(name)
        data.writeInteger(UInt16(wanted.count))
        for kind in wanted { data.writeInteger(kind) }
        return data
    }

    private static func contexts(_ name: String) -> ByteBuffer {
        var data = ByteBuffer(integer: UInt32(name.utf8.count))
        data.writeString(name)
        data.writeMultipleIntegers(UInt32(1), UInt32(15))
        data.writeString("base:allocation")
        return data
    }

    func greet() async throws {
        _ = try #require(await receive(18))
        try await send(ByteBuffer(integer: UInt32(3)))
    }

    func send(_ buffer: ByteBuffer) async throws { try await channel.writeAndFlush(buffer).get() }

    func send(option: NBDOption, _ data: ByteBuffer = ByteBuffer()) async throws {
        var buffer = ByteBuffer()
        buffer.writeMultipleIntegers(NBDMagic.option, option.rawValue, UInt32(data.readableBytes))
        buffer.writeImmutableBuffer(data)
        try await send(buffer)
    }

    func send(_ request: NBDRequest, _ payload: ByteBuffer = ByteBuffer()) async throws {
        var buffer = ByteBuffer()
        request.write(into: &buffer)
        buffer.writeImmutableBuffer(payload)
        try await send(buffer)
    }

    /// The next bytes; nil when the server has closed before they came.
    func receive(_ count: Int) async throws -> ByteBuffer? {
        while received.readableBytes < count {
            guard var next = await bytes.next() else { return nil }
            received.writeBuffer(&next)
        }
        return received.readSlice(length: count)
    }

    func optionReply() async throws -> (type: NBDOptionReply?, data: ByteBuffer)? {
        guard var header = try await receive(20) else { return nil }
        let (magic, _, type, count) = try unwrap(header.readMultipleIntegers(as: (UInt64, UInt32, UInt32, UInt32).self))
        #expect(magic == NBDMagic.optionReply)
        return (NBDOptionReply(rawValue: type), try #require(await receive(Int(count))))
    }

    /// A whole reply: its handle, its error, and its data, in which holes are zeroes.
    struct Reply: Equatable {
        var handle: UInt64
        var error: UInt32 = 0
        var data = ByteBuffer()
        var holes = 0
        var chunks = 0
        /// From BLOCK_STATUS: lengths and flags in turn.
        var allocation: [UInt32] = []
    }

    /// The next reply, when its chunks come one after the other.
    func reply(readByteCount: Int = 0) async throws -> Reply? {
        var reply: Reply?
        while true {
            guard let magic: UInt32 = try await receive(4)?.getInteger(at: 0) ?? nil else { return nil }
            if magic == NBDMagic.simpleReply {
                var header = try #require(await receive(12))
                let (error, handle) = try unwrap(header.readMultipleIntegers(as: (UInt32, UInt64).self))
                let count = error == 0 ? readByteCount : 0
                return Reply(handle: handle, error: error, data: try #require(await receive(count)))
            }
            #expect(magic == NBDMagic.structuredReply)
            var header = try #require(await receive(16))
            let (flags, type, handle, count) = try unwrap(header.readMultipleIntegers(as: (UInt16, UInt16, UInt64, UInt32).self))
            var payload = try #require(await receive(Int(count)))
            var current = reply ?? Reply(handle: handle)
            #expect(current.handle == handle)
            current.chunks += 1
            switch type {
            case NBDChunk.offsetData:
                _ = payload.readInteger(as: UInt64.self)
                current.data.writeImmutableBuffer(payload)
            case NBDChunk.offsetHole:
                let (_, length) = try unwrap(payload.readMultipleIntegers(as: (UInt64, UInt32).self))
                current.data.writeRepeatingByte(0, count: Int(length))
                current.holes += 1
            case NBDChunk.error: current.error = try unwrap(payload.readInteger())
            case NBDChunk.blockStatus:
                #expect(payload.readInteger() == UInt32(1))
                while let value: UInt32 = payload.readInteger() { current.allocation.append(value) }
            default: break
            }
            if flags & 1 == 1 { return current }
            reply = current
        }
    }

    /// True when the server closes the connection without another byte.
    func isClosed() async throws -> Bool { try await receive(1) == nil }

    func close() { channel.close(promise: nil) }
}

/// A value that must be there. What is read from a buffer changes the buffer, which `#require` does not allow.
func unwrap<Value>(_ value: Value?, sourceLocation: SourceLocation = #_sourceLocation) throws -> Value {
    try #require(value, sourceLocation: sourceLocation)
}
