import Blocks
import NIOCore
import SCSI
import StorageTarget

// Input: commands, each of
//
//   1   bit 0: which initiator; bits 1 and 2: the attribute; bit 3: the device holds its answers from now on;
//       bits 4 to 6: 1 abort this initiator's tasks, 2 abort one task, 3 reset, 4 answer one request, 5 answer all;
//       bit 7: the initiator offers less than it sends
//   16  the CDB
//   2   how many bytes of data
//   n   the data

/// CDBs: parsed, admitted and carried out by a logical unit on a disk in memory.
public final class CommandTarget: FuzzTarget {
    public static let name = "command"
    public static let dictionary: [[UInt8]] =
        OperationCode.allCases.map { [0, $0.rawValue] } + [
            [0x9E, 0x10], [0x9E, 0x12], [0xA3, 0x0A], [0xA3, 0x0C], [0x5F, 0x06], [0x7F],
        ]
    private static let commandsMax = 32

    private let device = FuzzDevice()
    private var responses = 0

    public init() {}

    public static func seeds() -> [[UInt8]] {
        func program(_ cdb: [UInt8], _ data: [UInt8] = [], _ options: UInt8 = 0) -> [UInt8] {
            [options] + cdb + [UInt8](repeating: 0, count: 16 - cdb.count) + [UInt8(data.count >> 8), UInt8(data.count & 255)] + data
        }
        let block = [UInt8](repeating: 0x5A, count: 512)
        let unmapList: [UInt8] = [0, 22, 0, 16, 0, 0, 0, 0] + [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]
        let register: [UInt8] = [UInt8](repeating: 0, count: 8) + [0, 0, 0, 0, 0, 0, 0, 1] + [UInt8](repeating: 0, count: 8)
        let reserve: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 1] + [UInt8](repeating: 0, count: 16)
        var seeds = OperationCode.allCases.map { program([$0.rawValue]) }
        seeds += [
            program([0x12, 0, 0, 0, 255]), program([0x12, 1, 0x83, 0, 255]), program([0x12, 1, 0xB0, 0, 255]),
            program([0x12, 1, 0xB2, 0, 255]),
            program([0x25]), program([0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]),
            program([0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64]), program([0x28, 0, 0, 0, 0, 0, 0, 0, 8]),
            program([0x2A, 0, 0, 0, 0, 4, 0, 0, 1], block), program([0x8A, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1], block),
            program([0x41, 8, 0, 0, 0, 8, 0, 0, 8], block), program([0x93, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8]),
            program([0x42, 0, 0, 0, 0, 0, 0, 0, 24], unmapList), program([0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], block + block),
            program([0x8B, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], block), program([0x2F, 2, 0, 0, 0, 0, 0, 0, 1], block),
            program([0x2E, 2, 0, 0, 0, 0, 0, 0, 1], block), program([0x34, 0, 0, 0, 0, 0, 0, 0, 8]), program([0x35]), program([0x91]),
            program([0x1A, 0, 0x3F, 0, 255]), program([0x5A, 0, 0x3F, 255, 0, 0, 0, 1, 0]), program([0x15, 0x10, 0, 0, 4], [0, 0, 0, 0]),
            program([0x55, 0x10, 0, 0, 0, 0, 0, 0, 8], [UInt8](repeating: 0, count: 8)), program([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64]),
            program([0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 2, 0]), program([0xA3, 0x0C, 0x81, 0x28, 0, 0, 0, 0, 2, 0]),
            program([0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 64]), program([0x16]) + program([0x28], [], 1) + program([0x17]),
            program([0x5F, 0, 0, 0, 0, 0, 0, 0, 24], register) + program([0x5F, 1, 1, 0, 0, 0, 0, 0, 24], reserve)
                + program([0x5E, 0, 0, 0, 0, 0, 0, 1, 0]) + program([0x5E, 3, 0, 0, 0, 0, 0, 1, 0], [], 1)
                + program([0x2A, 0, 0, 0, 0, 4, 0, 0, 1], block, 1),
            program([0x2A, 0, 0, 0, 0, 4, 0, 0, 8], block + block, 8)
                + program([0x89, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1], block + block, 4)
                + program([0x28, 0, 0, 0, 0, 4, 0, 0, 8], [], 0x41) + program([0, 0], [], 0x50),
            program([0x41, 0, 0, 0, 0, 0, 0, 4, 0], block, 8) + program([0x12, 0, 0, 0, 36], [], 0x10) + program([0], [], 0x30),
        ]
        return seeds
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        device.reset()
        responses = 0
        var reader = ByteReader(input)
        var fingerprint = Fingerprint()
        let unit = LogicalUnit(
            device: device, identity: LogicalUnitIdentity(uniqueHigh: 1, uniqueLow: 2, targetName: "iqn.2026-11.test:t"))
        let nexuses = [NexusIdentifier(1), NexusIdentifier(2)]
        for nexus in nexuses {
            _ = unit.addNexus(nexus, initiatorPortName: "iqn.2026-11.test:i,i,0x\(nexus.rawValue)")
            // TEST UNIT READY takes the unit attention of power on.
            _ = unit.admit(CommandDescriptorBlock([0]), nexus: nexus)
        }
        var sent = 0
        var outcomes = [UInt64](repeating: 0, count: Self.commandsMax)
        while !reader.isAtEnd, sent < Self.commandsMax {
            let options = reader.byte()
            let cdb = reader.bytes(16)
            let data = reader.bytes(reader.number())
            let nexus = nexuses[Int(options & 1)]
            if options & 8 != 0 { device.isHolding = true }
            try disturb(unit, nexus, options >> 4 & 7)
            let index = sent
            send(unit, cdb, data, nexus, options, tag: UInt64(index)) { outcomes[index] = $0 }
            sent += 1
        }
        try device.answerAll()
        if responses != sent { throw FuzzFinding("\(sent) commands had \(responses) answers") }
        for outcome in outcomes.prefix(sent) { fingerprint.add(outcome) }
        return fingerprint.value
    }

    private func disturb(_ unit: LogicalUnit, _ nexus: NexusIdentifier, _ what: UInt8) throws {
        switch what {
        case 1: unit.abortTasks(.nexus(nexus)) {}
        case 2: unit.abortTasks(.task(nexus: nexus, tag: 0)) {}
        case 3: unit.reset {}
        case 4: device.answerOne()
        case 5: try device.answerAll()
        default: break
        }
    }

    private func send(
        _ unit: LogicalUnit, _ cdb: [UInt8], _ data: [UInt8], _ nexus: NexusIdentifier, _ options: UInt8, tag: UInt64,
        _ outcome: @escaping (UInt64) -> Void
    ) {
        let attributes: [SCSITask.Attribute] = [.simple, .ordered, .headOfQueue, .simple]
        let offered = options & 0x80 != 0 ? data.count / 2 : data.count
        let complete: (SCSIResponse) -> Void = { response in
            self.responses += 1
            var fingerprint = Fingerprint()
            fingerprint.add(cdb.first ?? 0)
            fingerprint.add(response.status.rawValue)
            if let sense = response.sense {
                var bytes = ByteBuffer()
                sense.write(into: &bytes)
                for byte in bytes.readableBytesView { fingerprint.add(byte) }
            }
            fingerprint.add(response.dataIn.map { UInt64(63 - ($0.readableBytes | 1).leadingZeroBitCount) } ?? 64)
            outcome(fingerprint.value)
        }
        switch unit.admit(
            CommandDescriptorBlock(cdb), nexus: nexus, tag: tag, attribute: attributes[Int(options >> 1 & 3)],
            offeredByteCount: data.isEmpty ? nil : offered)
        {
        case .rejected(let response): complete(response)
        case .accepted(var task):
            // No more than the command asks for is ever collected.
            let wanted = unit.expectedTransfer(of: task.command)
            if wanted.direction == .fromInitiator, !data.isEmpty {
                task.dataOut = ByteBuffer(bytes: data.prefix(min(wanted.byteCount, offered)))
            }
            unit.execute(task, completion: complete)
        }
    }
}
