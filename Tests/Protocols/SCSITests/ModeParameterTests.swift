import NIOCore
import Testing

@testable import SCSI

@Suite("Mode parameters")
struct ModeParameterTests {
    let parameters = ModeParameters()

    func request(_ code: UInt8, _ control: ModeSense.PageControl = .current, isTenByte: Bool = false) -> ModeSense {
        ModeSense(
            isTenByte: isTenByte, disableBlockDescriptors: false, pageControl: control, pageCode: code, subpageCode: 0,
            allocationByteCount: 255)
    }

    func sensed(_ request: ModeSense, _ parameters: ModeParameters? = nil) throws -> [UInt8] {
        let data = try (parameters ?? self.parameters).sense(
            request, blockCount: 1000, blockBytes: 512, isWriteProtected: false)
        return Array(data.readableBytesView)
    }

    @Test("All pages, both lengths of header")
    func allPages() throws {
        let six = try sensed(request(0x3F))
        #expect(Int(six[0]) == six.count - 1 && six[2] == 0x10 && six[3] == 8)
        #expect(six[12] == 0x08 && six[14] & 0x04 != 0 && six[32] == 0x0A && six[44] == 0x1C && six.count == 56)
        let ten = try sensed(request(0x3F, isTenByte: true))
        #expect(Int(ten[0]) << 8 | Int(ten[1]) == ten.count - 2 && ten[7] == 8)
        #expect(ten[8...] == six[4...])
    }

    @Test("Pages that there are not, and saved values")
    func refusals() {
        #expect(throws: SenseData.invalidFieldInCDB(byte: 2, bit: 5)) { try sensed(request(0x02)) }
        #expect(throws: SenseData(.illegalRequest, .savingParametersNotSupported)) { try sensed(request(0x08, .saved)) }
        var subpage = request(0x08)
        subpage.subpageCode = 1
        #expect(throws: SenseData.invalidFieldInCDB(byte: 3)) { try sensed(subpage) }
    }

    @Test("What was sensed can be selected again, with each changeable bit", arguments: [false, true])
    func selecting(isTenByte: Bool) throws {
        var list = try sensed(request(0x3F, isTenByte: isTenByte))
        let pages = isTenByte ? 16 : 12
        #expect(try parameters.selecting(ByteBuffer(bytes: list), isTenByte: isTenByte, blockBytes: 512) == parameters)
        list[pages + 2] &= ~0x04
        list[pages + 20 + 2] |= 0x04
        list[pages + 20 + 4] |= 0x08
        let changed = try parameters.selecting(ByteBuffer(bytes: list), isTenByte: isTenByte, blockBytes: 512)
        #expect(!changed.isWriteCacheEnabled && changed.usesDescriptorSense && changed.isSoftwareWriteProtected)
        #expect(try sensed(request(0x08), changed)[14] & 0x04 == 0)
        #expect(try sensed(request(0x08, .defaults), changed)[14] & 0x04 != 0)
        #expect(try sensed(request(0x08), changed)[2] & 0x80 != 0)
    }

    @Test("Lists that are wrong change nothing")
    func wrongLists() throws {
        func select(_ bytes: [UInt8]) throws -> ModeParameters {
            try parameters.selecting(ByteBuffer(bytes: bytes), isTenByte: false, blockBytes: 512)
        }
        let list = try sensed(request(0x08))
        #expect(throws: SenseData.parameterListLength) { try select(Array(list.dropLast())) }
        #expect(throws: SenseData.parameterListLength) { try select([0, 0]) }
        var unchangeable = list
        unchangeable[14] |= 0x01
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 14)) { try select(unchangeable) }
        var wrongLength = list
        wrongLength[13] = 4
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 13)) { try select(wrongLength) }
        var wrongBlock = list
        wrongBlock[10] = 0x10
        #expect(throws: SenseData.invalidFieldInParameterList(byte: 4)) { try select(wrongBlock) }
        #expect(try select([]) == parameters)
    }
}
