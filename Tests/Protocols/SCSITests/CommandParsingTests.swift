import NIOCore
import Testing

@testable import SCSI

/// A CDB of 16 bytes from its first ones.
func block(_ bytes: UInt8...) -> CommandDescriptorBlock { CommandDescriptorBlock(bytes) }

/// The sense data of a block that does not parse.
func sense(_ block: CommandDescriptorBlock) -> SenseData? {
    guard case .failure(let sense) = block.parse() else { return nil }
    return sense
}

@Suite("Command descriptor blocks")
struct CommandParsingTests {
    @Test("Reads of every length give the same transfer")
    func reads() throws {
        let six = try block(0x08, 0x1F, 0x34, 0x56, 0x00).parse().get()
        #expect(six == .read(BlockTransfer(logicalBlockAddress: 0x1F3456, blockCount: 256, cdbByteCount: 6)))
        let ten = try block(0x28, 0x18, 0x01, 0x02, 0x03, 0x04, 0, 0x05, 0x06, 0).parse().get()
        #expect(
            ten
                == .read(
                    BlockTransfer(
                        logicalBlockAddress: 0x0102_0304, blockCount: 0x0506, forceUnitAccess: true, disablePageOut: true,
                        cdbByteCount: 10)))
        let twelve = try block(0xA8, 0, 0x01, 0x02, 0x03, 0x04, 0x0A, 0x0B, 0x0C, 0x0D).parse().get()
        #expect(twelve == .read(BlockTransfer(logicalBlockAddress: 0x0102_0304, blockCount: 0x0A0B_0C0D, cdbByteCount: 12)))
        let sixteen = try block(0x88, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12).parse().get()
        #expect(
            sixteen
                == .read(
                    BlockTransfer(
                        logicalBlockAddress: 0x0102_0304_0506_0708, blockCount: 0x090A_0B0C, forceUnitAccess: true,
                        cdbByteCount: 16)))
    }

    @Test("A plain read is told at once, one with flags is not")
    func plainRead() {
        let plain = block(0x28, 0, 0, 0, 0, 7, 0, 0, 8).plainRead
        #expect(plain == BlockTransfer(logicalBlockAddress: 7, blockCount: 8, cdbByteCount: 10))
        #expect(block(0x88, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8).plainRead?.blockCount == 8)
        #expect(block(0x28, 0x08, 0, 0, 0, 7, 0, 0, 8).plainRead == nil)
        #expect(block(0x28, 0, 0, 0, 0, 7, 0, 0, 8, 4).plainRead == nil)
        #expect(block(0x2A, 0, 0, 0, 0, 7, 0, 0, 8).plainRead == nil)
    }

    @Test("Writes, verifications and their byte checks")
    func writes() throws {
        #expect(
            try block(0x0A, 0, 0, 1, 2).parse().get() == .write(.init(logicalBlockAddress: 1, blockCount: 2, cdbByteCount: 6)))
        let transfer = BlockTransfer(logicalBlockAddress: 1, blockCount: 2, cdbByteCount: 10)
        #expect(try block(0x2A, 0, 0, 0, 0, 1, 0, 0, 2).parse().get() == .write(transfer))
        #expect(try block(0x2E, 0x02, 0, 0, 0, 1, 0, 0, 2).parse().get() == .writeAndVerify(transfer, byteCheck: .everyBlock))
        #expect(try block(0x2F, 0x06, 0, 0, 0, 1, 0, 0, 2).parse().get() == .verify(transfer, byteCheck: .oneBlock))
        #expect(try block(0x2F, 0, 0, 0, 0, 1, 0, 0, 2).parse().get() == .verify(transfer, byteCheck: .mediumOnly))
        #expect(sense(block(0x2F, 0x04)) == .invalidFieldInCDB(byte: 1, bit: 2))
        #expect(sense(block(0x2E, 0x06)) == .invalidFieldInCDB(byte: 1, bit: 2))
    }

    @Test(
        "Protection bits are refused with a pointer to them",
        arguments: [0x28, 0x2A, 0x2E, 0x2F, 0x41, 0x88, 0x89, 0x8B, 0xA8] as [UInt8])
    func protection(code: UInt8) {
        for value in UInt8(1)...7 {
            #expect(sense(block(code, value << 5)) == .invalidFieldInCDB(byte: 1, bit: 7))
        }
    }

    @Test("The other block commands")
    func otherBlockCommands() throws {
        #expect(
            try block(0x89, 0x08, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3).parse().get()
                == .compareAndWrite(.init(logicalBlockAddress: 9, blockCount: 3, forceUnitAccess: true)))
        #expect(
            try block(0x35, 0x02, 0, 0, 0, 9, 0, 0, 3).parse().get()
                == .synchronizeCache(.init(logicalBlockAddress: 9, blockCount: 3, cdbByteCount: 10), isImmediate: true))
        #expect(
            try block(0x90, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3).parse().get()
                == .prefetch(.init(logicalBlockAddress: 9, blockCount: 3), isImmediate: false))
        #expect(
            try block(0x93, 0x09, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3).parse().get()
                == .writeSame(.init(logicalBlockAddress: 9, blockCount: 3), unmap: true, hasDataOut: false))
        #expect(
            try block(0x41, 0x08, 0, 0, 0, 9, 0, 0, 3).parse().get()
                == .writeSame(.init(logicalBlockAddress: 9, blockCount: 3, cdbByteCount: 10), unmap: true, hasDataOut: true))
        #expect(sense(block(0x41, 0x10)) == .invalidFieldInCDB(byte: 1, bit: 4))
        #expect(try block(0x42, 0, 0, 0, 0, 0, 0, 0, 24).parse().get() == .unmap(parameterListByteCount: 24))
        #expect(sense(block(0x42, 0x01)) == .invalidFieldInCDB(byte: 1, bit: 0))
        #expect(
            try block(0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 24).parse().get()
                == .getLBAStatus(logicalBlockAddress: 9, allocationByteCount: 24))
    }

    @Test("Commands about the unit")
    func unitCommands() throws {
        #expect(try block(0x00).parse().get() == .testUnitReady)
        #expect(
            try block(0x12, 0, 0, 0x01, 0x02).parse().get() == .inquiry(vitalProductDataPage: nil, allocationByteCount: 0x102))
        #expect(try block(0x12, 1, 0x83, 0, 0xFF).parse().get() == .inquiry(vitalProductDataPage: 0x83, allocationByteCount: 255))
        #expect(sense(block(0x12, 0, 0x83)) == .invalidFieldInCDB(byte: 2))
        #expect(
            try block(0xA0, 0, 2, 0, 0, 0, 0, 0, 1, 0).parse().get() == .reportLUNs(selectReport: 2, allocationByteCount: 256))
        #expect(try block(0x03, 1, 0, 0, 252).parse().get() == .requestSense(format: .descriptor, allocationByteCount: 252))
        #expect(try block(0x25).parse().get() == .readCapacity10)
        #expect(sense(block(0x25, 0, 0, 0, 0, 1)) == .invalidFieldInCDB(byte: 2))
        #expect(
            try block(0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32).parse().get() == .readCapacity16(allocationByteCount: 32))
        #expect(sense(block(0x9E, 0x1F)) == .invalidFieldInCDB(byte: 1, bit: 4))
        #expect(
            try block(0x1B, 0x01, 0, 0, 0x01).parse().get()
                == .startStopUnit(.init(isImmediate: true, powerCondition: 0, noFlush: false, loadEject: false, start: true)))
        #expect(try block(0x1E, 0, 0, 0, 1).parse().get() == .preventAllowMediumRemoval(prevent: true))
        #expect(
            try block(0xA3, 0x2A, 0, 0, 0, 0, 0, 0, 0, 64).parse().get()
                == .reportTargetPortGroups(hasExtendedHeader: true, allocationByteCount: 64))
        #expect(try block(0x16).parse().get() == .reserve6)
        #expect(try block(0x17).parse().get() == .release6)
    }

    @Test("Mode commands and reservations")
    func modeAndReservations() throws {
        guard case .modeSense(let six) = try block(0x1A, 0x08, 0x4A, 0, 192).parse().get() else {
            Issue.record("not MODE SENSE")
            return
        }
        #expect(six.disableBlockDescriptors && six.pageControl == .changeable && six.pageCode == 0x0A && !six.isTenByte)
        #expect(six.allocationByteCount == 192)
        #expect(try block(0x15, 0x10, 0, 0, 24).parse().get() == .modeSelect(parameterListByteCount: 24, isTenByte: false))
        #expect(
            try block(0x55, 0x10, 0, 0, 0, 0, 0, 1, 0).parse().get() == .modeSelect(parameterListByteCount: 256, isTenByte: true))
        #expect(sense(block(0x15, 0x00)) == .invalidFieldInCDB(byte: 1, bit: 4))
        #expect(sense(block(0x15, 0x11)) == .invalidFieldInCDB(byte: 1, bit: 0))
        #expect(
            try block(0x5E, 2, 0, 0, 0, 0, 0, 0, 8).parse().get()
                == .persistentReserveIn(.reportCapabilities, allocationByteCount: 8))
        #expect(sense(block(0x5E, 4)) == .invalidFieldInCDB(byte: 1, bit: 4))
        #expect(
            try block(0x5F, 1, 0x05, 0, 0, 0, 0, 0, 24).parse().get()
                == .persistentReserveOut(.init(serviceAction: .reserve, type: 5)))
        #expect(sense(block(0x5F, 8)) == .invalidFieldInCDB(byte: 1, bit: 4))
    }

    @Test("Unknown operation codes and NACA are refused")
    func refusals() {
        for code in UInt8.min...UInt8.max where OperationCode(rawValue: code) == nil {
            #expect(sense(block(code)) == .invalidOperationCode)
        }
        #expect(sense(block(0x00, 0, 0, 0, 0, 0x04)) == .invalidFieldInCDB(byte: 5, bit: 2))
        #expect(sense(block(0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0x04)) == .invalidFieldInCDB(byte: 9, bit: 2))
    }

    @Test("Short blocks are zeroes behind their end, long ones are cut")
    func lengths() {
        #expect(CommandDescriptorBlock([]).bytes == [UInt8](repeating: 0, count: 16))
        #expect(CommandDescriptorBlock([0x12]).bytes == [0x12] + [UInt8](repeating: 0, count: 15))
        #expect(CommandDescriptorBlock((0..<40).map { UInt8($0) }).bytes == (0..<16).map { UInt8($0) })
        let halves = CommandDescriptorBlock(high: 0x0001_0203_0405_0607, low: 0x0809_0A0B_0C0D_0E0F)
        #expect(halves.bytes == (0..<16).map { UInt8($0) })
    }

    @Test("What a command moves")
    func transfers() throws {
        func transfer(_ block: CommandDescriptorBlock) throws -> DataTransfer {
            try block.parse().get().dataTransfer(blockBytes: 512)
        }
        #expect(try transfer(block(0x28, 0, 0, 0, 0, 0, 0, 0, 2)) == DataTransfer(.toInitiator, 1024))
        #expect(try transfer(block(0x2A, 0, 0, 0, 0, 0, 0, 0, 2)) == DataTransfer(.fromInitiator, 1024))
        #expect(try transfer(block(0x2A)) == DataTransfer(.none, 0))
        #expect(try transfer(block(0x2F, 0, 0, 0, 0, 0, 0, 0, 2)) == DataTransfer(.none, 0))
        #expect(try transfer(block(0x2F, 2, 0, 0, 0, 0, 0, 0, 2)) == DataTransfer(.fromInitiator, 1024))
        #expect(try transfer(block(0x2F, 6, 0, 0, 0, 0, 0, 0, 2)) == DataTransfer(.fromInitiator, 512))
        #expect(try transfer(block(0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3)) == DataTransfer(.fromInitiator, 3072))
        #expect(try transfer(block(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3)) == DataTransfer(.none, 0))
        #expect(try transfer(block(0x41, 0, 0, 0, 0, 0, 0, 0, 3)) == DataTransfer(.fromInitiator, 512))
        #expect(try transfer(block(0x25)) == DataTransfer(.toInitiator, 8))
        #expect(try transfer(block(0x5F, 0, 0, 0, 0, 0, 0, 0, 24)) == DataTransfer(.fromInitiator, 24))
        #expect(try transfer(block(0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF)).byteCount == 0xFFFF_FFFF * 512)
    }
}
