import NIOCore
import Testing

@testable import SCSI

@Suite("Sense data")
struct SenseDataTests {
    static let samples: [SenseData] = [
        .none, .outOfRange, .invalidOperationCode, .invalidFieldInCDB(byte: 7, bit: 3), .invalidFieldInParameterList(byte: 300),
        SenseData(.miscompare, .miscompareDuringVerifyOperation, information: 511),
        SenseData(.unitAttention, .capacityDataHasChanged), SenseData(.mediumError, .unrecoveredReadError),
    ]

    @Test("What is written is read again, in both formats", arguments: samples)
    func roundTrip(sample: SenseData) {
        for format in [SenseFormat.fixed, .descriptor] {
            var sense = sample
            sense.format = format
            var buffer = ByteBuffer()
            sense.write(into: &buffer)
            #expect(SenseData(parsing: buffer) == sense)
        }
    }

    @Test("The fixed format byte by byte")
    func fixed() {
        var buffer = ByteBuffer()
        SenseData.invalidFieldInCDB(byte: 1, bit: 7).write(into: &buffer)
        #expect(
            Array(buffer.readableBytesView)
                == [0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0x00, 0, 0xCF, 0x00, 0x01])
    }

    @Test("Information beyond four bytes fits only the descriptor format")
    func wideInformation() {
        var sense = SenseData(.miscompare, .miscompareDuringVerifyOperation, information: 1 << 40)
        var buffer = ByteBuffer()
        sense.write(into: &buffer)
        #expect(SenseData(parsing: buffer)?.information == nil)
        sense.format = .descriptor
        buffer.clear()
        sense.write(into: &buffer)
        #expect(SenseData(parsing: buffer)?.information == 1 << 40)
    }

    @Test("Codes print as the standards print them")
    func description() {
        #expect(AdditionalSenseCode.invalidFieldInCDB.description == "24h/00h")
        #expect(AdditionalSenseCode.reportedLUNsDataHasChanged.description == "3Fh/0Eh")
    }
}
