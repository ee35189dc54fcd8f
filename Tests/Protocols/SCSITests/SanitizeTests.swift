import NIOCore
import Testing

@testable import SCSI

@Suite("SANITIZE, FORMAT UNIT and what else is asked of a unit")
struct SanitizeTests {
    @Test("The service actions of SANITIZE, with their bits")
    func actions() throws {
        #expect(
            try block(0x48, 0xA1, 0, 0, 0, 0, 0, 0, 8, 0).parse().get()
                == .sanitize(
                    Sanitize(serviceAction: .overwrite, isImmediate: true, allowsUnrestrictedExit: true, parameterListByteCount: 8)))
        for action in [Sanitize.ServiceAction.blockErase, .cryptographicErase, .exitFailureMode] {
            #expect(try block(0x48, action.rawValue).parse().get() == .sanitize(Sanitize(serviceAction: action)))
            // They bring no parameters.
            #expect(sense(block(0x48, action.rawValue, 0, 0, 0, 0, 0, 0, 8)) == .invalidFieldInCDB(byte: 7))
        }
        for action in (UInt8.min...0x1F) where Sanitize.ServiceAction(rawValue: action) == nil {
            #expect(sense(block(0x48, action)) == .invalidFieldInCDB(byte: 1, bit: 4))
        }
    }

    @Test("Reserved fields of SANITIZE are refused")
    func reserved() {
        #expect(sense(block(0x48, 0x42)) == .invalidFieldInCDB(byte: 1, bit: 6))
        for index in 2..<7 {
            var bytes: [UInt8] = [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0]
            bytes[index] = 1
            #expect(sense(CommandDescriptorBlock(bytes)) == .invalidFieldInCDB(byte: index))
        }
        for length in UInt8.min...4 {
            #expect(sense(block(0x48, 0x01, 0, 0, 0, 0, 0, 0, length)) == .invalidFieldInCDB(byte: 7))
        }
    }

    func overwrite(_ bytes: [UInt8]) throws(SenseData) -> OverwriteParameters {
        try OverwriteParameters.parse(ByteBuffer(bytes: bytes), statedByteCount: bytes.count, blockBytes: 512)
    }

    @Test("A pattern is repeated through a block, and inverted from pass to pass")
    func pattern() throws {
        let parameters = try overwrite([0x83, 0, 0, 3, 1, 2, 3])
        #expect(parameters.passCount == 3 && parameters.inverts)
        #expect(Array(parameters.block(pass: 0, byteCount: 8).readableBytesView) == [1, 2, 3, 1, 2, 3, 1, 2])
        #expect(Array(parameters.block(pass: 1, byteCount: 4).readableBytesView) == [0xFE, 0xFD, 0xFC, 0xFE])
        #expect(try overwrite([0x01, 0, 0, 1, 9]).block(pass: 1, byteCount: 2).readableBytesView.elementsEqual([9, 9]))
    }

    @Test("Lists that OVERWRITE does not take")
    func wrongLists() {
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 0, bit: 4)) { try overwrite([0, 0, 0, 1, 1]) }
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 0, bit: 6)) { try overwrite([0x21, 0, 0, 1, 1]) }
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 2)) { try overwrite([1, 0, 0, 0, 1]) }
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 2)) { try overwrite([1, 0, 2, 1, 1]) }
        #expect(throws: SenseData.parameterListLength) { try overwrite([1, 0, 0, 2, 1]) }
        #expect(throws: SenseData.parameterListLength) {
            try OverwriteParameters.parse(ByteBuffer(), statedByteCount: 5, blockBytes: 512)
        }
    }

    @Test("FORMAT UNIT takes a header that asks for nothing, and no protection")
    func formatting() throws {
        #expect(try block(0x04).parse().get() == .formatUnit(hasParameterList: false, isLongList: false))
        #expect(try block(0x04, 0x30).parse().get() == .formatUnit(hasParameterList: true, isLongList: true))
        #expect(sense(block(0x04, 0x80)) == .invalidFieldInCDB(byte: 1, bit: 7))
        #expect(sense(block(0x04, 0x18)) == .invalidFieldInCDB(byte: 1, bit: 3))
        #expect(try FormatParameterList.isImmediate(ByteBuffer(bytes: [0, 0x82, 0, 0] as [UInt8]), isLong: false))
        #expect(try !FormatParameterList.isImmediate(ByteBuffer(bytes: [UInt8](repeating: 0, count: 8)), isLong: true))
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 3)) {
            try FormatParameterList.isImmediate(ByteBuffer(bytes: [0, 0, 0, 8] as [UInt8]), isLong: false)
        }
        #expect(throws: SenseData.parameterListLength) { try FormatParameterList.isImmediate(ByteBuffer(), isLong: false) }
    }

    @Test("WRITE ATOMIC has its length at 12, and no boundary")
    func writeAtomic() throws {
        let bytes: [UInt8] = [0x9C, 0x18, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 1, 2, 0, 0]
        #expect(
            try CommandDescriptorBlock.parse(bytes).get()
                == .writeAtomic(
                    BlockTransfer(logicalBlockAddress: 9, blockCount: 258, forceUnitAccess: true, disablePageOut: true)))
        var bounded = bytes
        bounded[11] = 8
        #expect(sense(CommandDescriptorBlock(bounded)) == .invalidFieldInCDB(byte: 10))
        #expect(sense(block(0x9C, 0x20)) == .invalidFieldInCDB(byte: 1, bit: 7))
    }

    @Test("Defect lists are empty, in the shape that was asked for")
    func defects() throws {
        guard case .readDefectData(let ten) = try block(0x37, 0, 0x1D, 0, 0, 0, 0, 0, 32).parse().get(),
            case .readDefectData(let twelve) = try block(0xB7, 0x0D, 0, 0, 0, 0, 0, 0, 0, 32).parse().get()
        else {
            Issue.record("READ DEFECT DATA was not parsed")
            return
        }
        #expect(Array(DefectList.report(ten).readableBytesView) == [0, 0x1D, 0, 0])
        #expect(Array(DefectList.report(twelve).readableBytesView) == [0, 0x0D, 0, 0, 0, 0, 0, 0])
    }

    @Test("Obsolete and unknown requests to a unit are refused")
    func refusals() throws {
        #expect(try block(0x1E, 0, 0, 0, 1).parse().get() == .preventAllowMediumRemoval(prevent: true))
        #expect(sense(block(0x1E, 0, 0, 0, 2)) == .invalidFieldInCDB(byte: 4, bit: 1))
        #expect(try block(0x1D, 0x04).parse().get() == .sendDiagnostic)
        #expect(sense(block(0x1D, 0x20)) == .invalidFieldInCDB(byte: 1, bit: 7))
        #expect(sense(block(0x1D, 0x10, 0, 0, 4)) == .invalidFieldInCDB(byte: 3))
    }

    @Test("Supported task management functions")
    func taskManagementFunctions() {
        #expect(Array(SupportedTaskManagementFunctions.report(isExtended: false).readableBytesView) == [0xDC, 0x07, 0, 0])
        let long = SupportedTaskManagementFunctions.report(isExtended: true)
        #expect(long.readableBytes == 16 && long.getInteger(at: 3, as: UInt8.self) == 12)
    }

    @Test("A progress indication is read back as written", arguments: [SenseFormat.fixed, .descriptor])
    func progress(format: SenseFormat) {
        let sense = SenseData(.notReady, .sanitizeInProgress, progress: 0x1234, format: format)
        var buffer = ByteBuffer()
        sense.write(into: &buffer)
        #expect(SenseData(parsing: buffer) == sense)
    }
}
