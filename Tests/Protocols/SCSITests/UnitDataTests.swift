import NIOCore
import Testing

@testable import SCSI

let identity = LogicalUnitIdentity(
    uniqueHigh: 0x0123_4567_89AB_CDEF, uniqueLow: 0xFEDC_BA98_7654_3210, targetName: "iqn.2026-01.example.causeway:disk")

@Suite("What a unit says about itself")
struct UnitDataTests {
    @Test("Standard INQUIRY data")
    func standardInquiry() {
        let data = InquiryData.standard(identity)
        let bytes = Array(data.readableBytesView)
        #expect(bytes.count == 96 && bytes[4] == 91)
        #expect(bytes[0] == 0 && bytes[2] == 6 && bytes[3] & 0x0F == 2 && bytes[7] & 0x02 != 0)
        #expect(String(decoding: bytes[8..<36], as: UTF8.self) == "CAUSEWAYVOLUME          0001")
        #expect(bytes[58..<66] == [0x00, 0xA0, 0x04, 0x60, 0x04, 0xC0, 0x09, 0x60])
        #expect(InquiryData.standard(identity, isPresent: false).getInteger(at: 0, as: UInt8.self) == 0x7F)
    }

    @Test("Text outside ASCII becomes spaces")
    func inquiryText() {
        let odd = LogicalUnitIdentity(
            vendor: "Ä\u{7}x", product: "a very long product name", uniqueHigh: 1, uniqueLow: 2, targetName: "n")
        let bytes = Array(InquiryData.standard(odd).readableBytesView)
        #expect(bytes[8..<32].allSatisfy { $0 >= 0x20 && $0 <= 0x7E })
        #expect(bytes[10] == 0x20 && bytes[11] == UInt8(ascii: "x"))
    }

    @Test("Every supported page has its code and its length", arguments: VitalProductData.supportedPages)
    func pages(code: UInt8) throws {
        let page = try #require(VitalProductData.page(code, identity: identity, limits: BlockLimits()))
        #expect(page.getInteger(at: 1, as: UInt8.self) == code)
        #expect(page.getInteger(at: 2, as: UInt16.self) == UInt16(page.readableBytes - 4))
    }

    @Test("Pages that there are not")
    func absentPages() {
        for code in UInt8.min...UInt8.max where !VitalProductData.supportedPages.contains(code) {
            #expect(VitalProductData.page(code, identity: identity, limits: BlockLimits()) == nil)
        }
    }

    @Test("The designators of page 83h")
    func designators() throws {
        var page = try #require(VitalProductData.page(0x83, identity: identity, limits: BlockLimits()))
        page.moveReaderIndex(forwardBy: 4)
        var found: [UInt8: ByteBuffer] = [:]
        while let codeSet: UInt8 = page.readInteger(), let kind: UInt8 = page.readInteger(),
            page.readInteger(as: UInt8.self) != nil,
            let length: UInt8 = page.readInteger(), let name = page.readSlice(length: Int(length))
        {
            if kind & 0x80 != 0 { #expect(codeSet >> 4 == 5) }
            found[kind & 0x3F] = name
        }
        #expect(page.readableBytes == 0)
        let authority: UInt64? = found[0x03]?.getInteger(at: found[0x03]?.readerIndex ?? 0)
        #expect(authority.map { $0 >> 60 } == 3)
        #expect(found[0x14]?.readableBytes == 4 && found[0x15]?.readableBytes == 4)
        #expect(found[0x01].map { String(buffer: $0) } == "CAUSEWAY0123456789abcdeffedcba9876543210")
        let port = found[0x18].map { String(buffer: $0) }
        #expect(port?.hasPrefix("iqn.2026-01.example.causeway:disk,t,0x0001\0") == true)
        #expect(found[0x28].map { $0.readableBytes % 4 } == 0)
    }

    @Test("Block limits and provisioning")
    func limits() throws {
        let page = try #require(VitalProductData.page(0xB0, identity: identity, limits: BlockLimits()))
        #expect(page.readableBytes == 64)
        #expect(page.getInteger(at: 4, as: UInt8.self) == 1 && page.getInteger(at: 5, as: UInt8.self) == 255)
        #expect(page.getInteger(at: 8, as: UInt32.self) == 8192)
        #expect(page.getInteger(at: 20, as: UInt32.self) == 1 << 20)
        #expect(page.getInteger(at: 36, as: UInt64.self) == 32768)
        #expect(page.getInteger(at: 44, as: UInt32.self) == 8192 && page.getInteger(at: 48, as: UInt32.self) == 0)
        let provisioning = try #require(VitalProductData.page(0xB2, identity: identity, limits: BlockLimits()))
        #expect(provisioning.getInteger(at: 5, as: UInt8.self) == 0xE4)
    }

    @Test("Capacity, with the last block of a large disk")
    func capacity() {
        #expect(CapacityData.short(blockCount: 100, blockBytes: 512).getInteger(at: 0, as: UInt32.self) == 99)
        #expect(CapacityData.short(blockCount: 1 << 40, blockBytes: 512).getInteger(at: 0, as: UInt32.self) == .max)
        let long = CapacityData.long(blockCount: 1 << 40, blockBytes: 512)
        #expect(long.readableBytes == 32 && long.getInteger(at: 0, as: UInt64.self) == 1 << 40 - 1)
        #expect(long.getInteger(at: 13, as: UInt8.self) == 0 && long.getInteger(at: 14, as: UInt8.self) == 0xC0)
    }

    @Test("Logical unit numbers", arguments: [0, 1, 255, 256, 300, 16383])
    func numbers(index: Int) throws {
        let number = try #require(LogicalUnitNumber(index: index))
        #expect(number.index == index)
        #expect(LogicalUnitNumber(rawValue: number.rawValue | 1).index == nil)
        #expect(LogicalUnitNumber(index: 16384) == nil && LogicalUnitNumber(index: -1) == nil)
    }

    @Test("REPORT LUNS")
    func numberList() throws {
        let numbers = [0, 1].compactMap { LogicalUnitNumber(index: $0) }
        #expect(try LogicalUnitList.report(numbers, selectReport: 0).getInteger(at: 0, as: UInt32.self) == 16)
        #expect(try LogicalUnitList.report(numbers, selectReport: 1).readableBytes == 8)
        #expect(throws: SenseData.invalidFieldInCDB(byte: 2)) { try LogicalUnitList.report(numbers, selectReport: 3) }
    }

    @Test("Supported operation codes agree with the parser")
    func supportedOperations() throws {
        let codes = Set(SupportedOperations.all.map(\.code))
        #expect(codes == Set(OperationCode.allCases))
        for operation in SupportedOperations.all {
            let bare = CommandDescriptorBlock([operation.code.rawValue])
            #expect(operation.usage.count == bare.byteCount)
            let request = ReportSupportedOperationCodes(
                options: operation.serviceAction == nil ? .operationCode : .serviceAction, withTimeouts: false,
                operationCode: operation.code.rawValue, serviceAction: operation.serviceAction ?? 0, allocationByteCount: 255)
            let report = try SupportedOperations.report(request)
            #expect(report.getInteger(at: 1, as: UInt8.self) == 3)
            #expect(report.getInteger(at: 4, as: UInt8.self) == operation.code.rawValue)
            var wrong = request
            wrong.options = operation.serviceAction == nil ? .serviceAction : .operationCode
            #expect(throws: SenseData.invalidFieldInCDB(byte: 2, bit: 2)) { try SupportedOperations.report(wrong) }
        }
        let all = ReportSupportedOperationCodes(
            options: .all, withTimeouts: true, operationCode: 0, serviceAction: 0, allocationByteCount: 65535)
        #expect(try SupportedOperations.report(all).readableBytes == 4 + 20 * SupportedOperations.all.count)
        let unknown = ReportSupportedOperationCodes(
            options: .operationCode, withTimeouts: false, operationCode: 0x07, serviceAction: 0, allocationByteCount: 255)
        #expect(try SupportedOperations.report(unknown).getInteger(at: 1, as: UInt8.self) == 1)
    }
}
