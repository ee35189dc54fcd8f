import NIOCore
import Testing

@testable import SCSI

/// SplitMix64, seeded, so that a failure comes again.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func bytes(upTo limit: Int) -> [UInt8] {
        (0..<Int.random(in: 0...limit, using: &self)).map { _ in UInt8.random(in: .min ... .max, using: &self) }
    }
}

@Suite("Hostile bytes")
struct SCSIFuzzTests {
    @Test("No block traps, and every one is a command or an illegal request")
    func blocks() {
        var random = SeededGenerator(state: 1)
        var parsed = 0
        for _ in 0..<20_000 {
            var bytes = random.bytes(upTo: 20)
            // Half of the blocks begin with a code that is known.
            if Bool.random(using: &random), !bytes.isEmpty, let code = OperationCode.allCases.randomElement(using: &random) {
                bytes[0] = code.rawValue
            }
            switch CommandDescriptorBlock.parse(bytes) {
            case .success(let command):
                parsed += 1
                let transfer = command.dataTransfer(blockBytes: 512)
                #expect(transfer.byteCount >= 0 && (transfer.byteCount == 0) == (transfer.direction == .none))
            case .failure(let sense): #expect(sense.key == .illegalRequest)
            }
        }
        #expect(parsed > 1000)
    }

    @Test("No parameter list traps")
    func parameterLists() {
        var random = SeededGenerator(state: 2)
        let limits = BlockLimits()
        var refused = 0
        for _ in 0..<10_000 {
            var list = ByteBuffer(bytes: [7, 7, 7] + random.bytes(upTo: 80))
            list.moveReaderIndex(forwardBy: 3)
            // A header whose lengths are nearly right gets further in.
            if list.readableBytes >= 8, Bool.random(using: &random) {
                list.setInteger(UInt16(clamping: list.readableBytes - 8), at: list.readerIndex + 2)
            }
            do throws(SenseData) {
                let extents = try UnmapParameterList.parse(list, limits: limits)
                #expect(extents.count <= Int(limits.maximumUnmapDescriptors))
            } catch { refused += 1 }
            do throws(SenseData) {
                _ = try ModeParameters().selecting(list, isTenByte: Bool.random(using: &random), blockBytes: 512)
            } catch { refused += 1 }
            do throws(SenseData) {
                _ = try PersistentReserveParameters.parse(list, for: PersistentReserveOut(serviceAction: .register))
            } catch { refused += 1 }
            if let sense = SenseData(parsing: list) { #expect(SenseKey(rawValue: sense.key.rawValue) == sense.key) }
        }
        #expect(refused > 1000)
    }

    @Test("A list of mode pages survives changes of single bytes")
    func mutatedModePages() throws {
        var random = SeededGenerator(state: 3)
        let request = ModeSense(
            isTenByte: false, disableBlockDescriptors: true, pageControl: .current, pageCode: 0x3F, subpageCode: 0,
            allocationByteCount: 255)
        let good = try ModeParameters().sense(request, blockCount: 8, blockBytes: 512, isWriteProtected: false)
        var accepted = 0
        for _ in 0..<5_000 {
            var list = good
            let index = Int.random(in: 0..<list.readableBytes, using: &random)
            list.setInteger(UInt8.random(in: .min ... .max, using: &random), at: index)
            if (try? ModeParameters().selecting(list, isTenByte: false, blockBytes: 512)) != nil { accepted += 1 }
        }
        #expect(accepted > 0)
    }
}

@Suite("The UNMAP parameter list")
struct UnmapParameterListTests {
    func list(_ extents: [(UInt64, UInt32)], stated: Int? = nil) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt16(extents.count * 16 + 6))
        buffer.writeInteger(UInt16(stated ?? extents.count * 16))
        buffer.writeInteger(UInt32(0))
        for (address, count) in extents {
            buffer.writeInteger(address)
            buffer.writeInteger(count)
            buffer.writeInteger(UInt32(0))
        }
        return buffer
    }

    @Test("Descriptors, limits and lengths")
    func parsing() throws {
        let limits = BlockLimits()
        #expect(
            try UnmapParameterList.parse(list([(1, 2), (3, 4)]), limits: limits) == [
                .init(logicalBlockAddress: 1, blockCount: 2), .init(logicalBlockAddress: 3, blockCount: 4),
            ])
        #expect(try UnmapParameterList.parse(ByteBuffer(), limits: limits) == [])
        #expect(throws: SenseData.parameterListLength) {
            try UnmapParameterList.parse(list([(1, 2)], stated: 32), limits: limits)
        }
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 24 + 8)) {
            try UnmapParameterList.parse(list([(0, limits.maximumUnmap), (0, 1)]), limits: limits)
        }
        let many = [(UInt64, UInt32)](repeating: (0, 1), count: Int(limits.maximumUnmapDescriptors) + 1)
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 2)) {
            try UnmapParameterList.parse(list(many), limits: limits)
        }
    }
}
