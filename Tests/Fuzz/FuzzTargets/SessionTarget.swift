import ISCSI
import NIOCore

// Input: options (bits 0 to 2: InitialR2T, ImmediateData, small bursts; bit 3: a discovery session; bit 4: commands
// end late), then the stream of the initiator without digests.

/// The full feature phase of a session, with an owner that runs the commands without a disk.
public final class SessionTarget: FuzzTarget {
    public static let name = "session"
    public static let dictionary: [[UInt8]] =
        (0...6).map { [0x40 | $0, 0x80] } + [[0xFF, 0xFF, 0xFF, 0xFF], [0x10, 0x80], [0x02, 0x82]]

    public init() {}

    public static func seeds() -> [[UInt8]] {
        let encoder = PDUEncoder()
        var seeds: [[UInt8]] = []
        for options in [UInt8(0), 1, 4, 16, 8, 2] {
            seeds.append([options] + encoder.bytes(InitiatorSamples.all.dropLast()))
        }
        // Two writes whose data is asked for: the tags of R2Ts count from 1.
        var stream: [InitiatorPDU] = []
        for number in UInt32(0)..<2 {
            var write = SCSICommandPDU()
            write.writes = true
            write.initiatorTaskTag = 100 + number
            write.expectedDataTransferLength = 1024
            write.cmdSN = 1 + number
            stream.append(.scsiCommand(write))
        }
        for number in UInt32(0)..<2 {
            var data = DataOut()
            data.initiatorTaskTag = 100 + number
            data.targetTransferTag = 1 + number
            data.isFinal = true
            data.data = ByteBuffer(repeating: 7, count: 1024)
            stream.append(.dataOut(data))
        }
        stream += [InitiatorSamples.abort, InitiatorSamples.ping]
        seeds.append([17] + encoder.bytes(stream))
        return seeds
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let options = reader.byte()
        var owner = try SessionOwner(options: options)
        var decoder = PDUDecoder(maximumDataByteCount: 8192)
        decoder.append(ByteBuffer(bytes: reader.rest()))
        do {
            while !owner.isClosed, let frame = try decoder.next() { try owner.receive(frame) }
        } catch let error as PDUError {
            owner.fingerprint.add(String(describing: error))
        }
        try owner.end()
        return owner.fingerprint.value
    }

    /// The numbers of commands follow one another, as the session wants them.
    public func repair(_ input: inout [UInt8]) {
        PDURepair.fitLast(&input, from: 1)
        var position = 1
        var cmdSN: UInt32 = 1
        while position + 48 <= input.count {
            let opcode = input[position] & 0x3F
            for byte in 0..<4 where opcode <= 6 && opcode != 5 {
                input[position + 24 + byte] = UInt8(truncatingIfNeeded: cmdSN >> UInt32(24 - 8 * byte))
            }
            if input[position] & 0x40 == 0, opcode <= 6, opcode != 5 { cmdSN &+= 1 }
            let data = Int(input[position + 5]) << 16 | Int(input[position + 6]) << 8 | Int(input[position + 7])
            position += 48 + Int(input[position + 4]) * 4 + (data + 3) & ~3
        }
    }
}

/// Does what a target does with the actions of a session, and counts that each command ends once.
private struct SessionOwner {
    private var session: TargetSession
    private let limits: SessionLimits
    private let endsLate: Bool
    private var open: Set<TaskHandle> = []
    private var late: [TaskHandle] = []
    private(set) var isClosed = false
    var fingerprint = Fingerprint()

    init(options: UInt8) throws {
        guard LoginSamples.logins.count == 2 else { throw FuzzFinding("a good login fails") }
        var parameters = SessionParameters()
        parameters.initialR2T = options & 1 != 0
        parameters.immediateData = options & 2 == 0
        if options & 4 != 0 {
            parameters.firstBurstLength = 512
            parameters.maxBurstLength = 1024
            parameters.initiatorMaxRecvDataSegmentLength = 512
            parameters.maxOutstandingR2T = 2
        }
        endsLate = options & 16 != 0
        var limits = SessionLimits()
        limits.commandWindow = 8
        limits.immediateCommands = 4
        self.limits = limits
        var login = LoginSamples.logins[Int(options >> 3 & 1)]
        login.parameters = parameters
        session = TargetSession(login, limits: limits) { name in
            ["iqn.2026-11.test:t", "iqn.2026-11.test:u"].filter { name == nil || name == $0 }.map {
                DiscoveredTarget(name: $0, addresses: ["127.0.0.1:3260,1"])
            }
        }
    }

    mutating func receive(_ frame: PDUFrame) throws {
        session.receive(frame)
        try drain()
        if late.count > 3 { try complete(late.removeFirst()) }
        if session.taskCount > Int(limits.commandWindow) + limits.immediateCommands {
            throw FuzzFinding("\(session.taskCount) commands are in flight")
        }
    }

    /// The connection is gone: what runs ends.
    mutating func end() throws {
        while let handle = late.popLast() { try complete(handle) }
        _ = session.abortTasks(onLUN: nil)
        try drain()
        while let handle = late.popLast() { try complete(handle) }
        if !open.isEmpty { throw FuzzFinding("\(open.count) commands never ended") }
    }

    private mutating func drain() throws {
        while let action = session.popAction() {
            switch action {
            case .send(let pdu): try check(pdu)
            case .started(let handle):
                fingerprint.add(1)
                guard open.insert(handle).inserted else { throw FuzzFinding("a command began twice") }
                guard let task = session.task(handle) else { throw FuzzFinding("a command began that is not there") }
                // As much as the first byte of its CDB says, in blocks; more than the initiator offers, too.
                let wanted = Int(task.cdbHigh >> 56 & 7) * 512
                if session.heldByteCount(handle, wanted: wanted) > max(task.expectedByteCount, 8192) {
                    throw FuzzFinding("a command holds more than its initiator may send")
                }
                session.prepare(handle, wanted: wanted)
            case .execute(let handle):
                fingerprint.add(2)
                if session.takeData(handle).readableBytes > 8 * 512 { throw FuzzFinding("a command got more data than it wanted") }
                if endsLate { late.append(handle) } else { try complete(handle) }
            case .failed(let handle, let failure):
                fingerprint.add(String(describing: failure))
                // It may fail at once, before it was started.
                open.insert(handle)
                try complete(handle)
            case .dropped(let handle):
                guard open.remove(handle) != nil else { throw FuzzFinding("a command was dropped that had not begun") }
            case .abort(let handle):
                fingerprint.add(3)
                guard open.contains(handle) else { throw FuzzFinding("a command was aborted that does not run") }
                if !late.contains(handle) { late.append(handle) }
            case .taskManagement(let request):
                fingerprint.add(4)
                session.answerTaskManagement(request, .functionComplete)
            case .aborted: fingerprint.add(5)
            case .close(let end):
                fingerprint.add(end == .logout ? 6 : 7)
                isClosed = true
            }
        }
    }

    private mutating func complete(_ handle: TaskHandle) throws {
        guard open.remove(handle) != nil else { throw FuzzFinding("a command ended twice") }
        let reads = session.task(handle)?.reads ?? false
        session.complete(
            handle, .init(status: 0, dataIn: reads ? ByteBuffer(repeating: 1, count: 1024) : ByteBuffer(), transferByteCount: 1024))
        try drain()
    }

    private mutating func check(_ pdu: TargetPDU) throws {
        let frame = pdu.frame
        fingerprint.add(UInt64(frame.header.opcode) | 0x100)
        if case .reject(let reject) = pdu { fingerprint.add(reject.reasonCode) }
        if frame.data.readableBytes > max(session.parameters.initiatorMaxRecvDataSegmentLength, 512) {
            throw FuzzFinding("a PDU of \(frame.data.readableBytes) bytes is longer than the initiator takes")
        }
    }
}
