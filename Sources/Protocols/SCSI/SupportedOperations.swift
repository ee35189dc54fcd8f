import NIOCore

/// One command in the answer to REPORT SUPPORTED OPERATION CODES (SPC-4, 6.35).
public struct SupportedOperation: Sendable {
    public let code: OperationCode
    /// The service action, for commands that have them.
    public let serviceAction: UInt16?
    /// CDB USAGE DATA: the bits of the CDB that are looked at, with operation code and service action in their places.
    public let usage: [UInt8]

    fileprivate init(_ code: OperationCode, serviceAction: UInt16? = nil, _ fields: [UInt8]) {
        self.code = code
        self.serviceAction = serviceAction
        usage = [code.rawValue] + fields
    }
}

/// The one table of the commands that are implemented.
public enum SupportedOperations {
    /// Every command, in the order of operation codes.
    public static let all: [SupportedOperation] = sixByte + tenByte + thirdPartyCopy + sixteenByte + twelveByte

    private static let naca: UInt8 = 0x04
    private static func ones(_ count: Int) -> [UInt8] { [UInt8](repeating: 0xFF, count: count) }
    private static func zeroes(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

    private static let sixByte: [SupportedOperation] = [
        SupportedOperation(.testUnitReady, zeroes(4) + [naca]),
        SupportedOperation(.requestSense, [0x01, 0, 0, 0xFF, naca]),
        SupportedOperation(.formatUnit, [0x30, 0, 0, 0, naca]),
        SupportedOperation(.read6, [0x1F, 0xFF, 0xFF, 0xFF, naca]),
        SupportedOperation(.write6, [0x1F, 0xFF, 0xFF, 0xFF, naca]),
        SupportedOperation(.inquiry, [0x03, 0xFF, 0xFF, 0xFF, naca]),
        SupportedOperation(.modeSelect6, [0x11, 0, 0, 0xFF, naca]),
        SupportedOperation(.reserve6, zeroes(4) + [naca]),
        SupportedOperation(.release6, zeroes(4) + [naca]),
        SupportedOperation(.modeSense6, [0x08, 0xFF, 0xFF, 0xFF, naca]),
        SupportedOperation(.startStopUnit, [0x01, 0, 0, 0xF7, naca]),
        SupportedOperation(.sendDiagnostic, [0x17, 0, 0xFF, 0xFF, naca]),
        SupportedOperation(.preventAllowMediumRemoval, [0, 0, 0, 0x03, naca]),
    ]

    private static func tenByteTransfer(_ code: OperationCode, flags: UInt8) -> SupportedOperation {
        SupportedOperation(code, [flags] + ones(4) + [0, 0xFF, 0xFF, naca])
    }

    private static let tenByte: [SupportedOperation] =
        [
            SupportedOperation(.readCapacity10, [0] + ones(4) + [0, 0, 0x01, naca]),
            tenByteTransfer(.read10, flags: 0xF8),
            tenByteTransfer(.write10, flags: 0xF8),
            tenByteTransfer(.writeAndVerify10, flags: 0xF6),
            tenByteTransfer(.verify10, flags: 0xF6),
            tenByteTransfer(.prefetch10, flags: 0x02),
            tenByteTransfer(.synchronizeCache10, flags: 0x02),
            SupportedOperation(.readDefectData10, [0, 0x1F] + zeroes(4) + [0xFF, 0xFF, naca]),
            tenByteTransfer(.writeSame10, flags: 0xFE),
            SupportedOperation(.unmap, [0x01] + zeroes(5) + [0xFF, 0xFF, naca]),
        ]
        + [0x01, 0x02, 0x03, 0x1F].map { (action: UInt8) in
            SupportedOperation(
                .sanitize, serviceAction: UInt16(action), [0xA0 | action] + zeroes(5) + [0xFF, 0xFF, naca])
        }
        + [
            SupportedOperation(.modeSelect10, [0x11] + zeroes(5) + [0xFF, 0xFF, naca]),
            SupportedOperation(.modeSense10, [0x08, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, naca]),
        ]
        + (UInt8(0)...3).map { action in
            SupportedOperation(
                .persistentReserveIn, serviceAction: UInt16(action), [action] + zeroes(5) + [0xFF, 0xFF, naca])
        }
        + (UInt8(0)...7).map { action in
            SupportedOperation(
                .persistentReserveOut, serviceAction: UInt16(action), [action, 0xFF, 0, 0] + ones(4) + [naca])
        }

    private static func sixteenByteTransfer(_ code: OperationCode, flags: UInt8) -> SupportedOperation {
        SupportedOperation(code, [flags] + ones(12) + [0, naca])
    }

    private static let thirdPartyCopy: [SupportedOperation] =
        [SupportedOperation(.extendedCopy, serviceAction: 0, [0x1F] + zeroes(8) + ones(4) + [0, naca])]
        + ReceiveCopyResultsAction.allCases.map { action in
            SupportedOperation(
                .receiveCopyResults, serviceAction: UInt16(action.rawValue),
                [action.rawValue, 0xFF] + zeroes(7) + ones(4) + [0, naca])
        }

    private static let sixteenByte: [SupportedOperation] = [
        sixteenByteTransfer(.read16, flags: 0xF8),
        SupportedOperation(.compareAndWrite, [0xF8] + ones(8) + [0, 0, 0, 0xFF, 0, naca]),
        sixteenByteTransfer(.write16, flags: 0xF8),
        sixteenByteTransfer(.orWrite16, flags: 0xF8),
        sixteenByteTransfer(.writeAndVerify16, flags: 0xF6),
        sixteenByteTransfer(.verify16, flags: 0xF6),
        sixteenByteTransfer(.prefetch16, flags: 0x02),
        sixteenByteTransfer(.synchronizeCache16, flags: 0x02),
        sixteenByteTransfer(.writeSame16, flags: 0xFF),
        sixteenByteTransfer(.writeAtomic16, flags: 0xF8),
        SupportedOperation(.serviceActionIn16, serviceAction: 0x10, [0x10] + ones(12) + [0x01, naca]),
        SupportedOperation(.serviceActionIn16, serviceAction: 0x12, [0x12] + ones(12) + [0, naca]),
    ]

    private static let twelveByte: [SupportedOperation] = [
        SupportedOperation(.reportLUNs, [0, 0xFF, 0, 0, 0] + ones(4) + [0, naca]),
        SupportedOperation(.maintenanceIn, serviceAction: 0x0A, [0xEA, 0, 0, 0, 0] + ones(4) + [0, naca]),
        SupportedOperation(.maintenanceIn, serviceAction: 0x0C, [0x0C, 0x87] + ones(7) + [0, naca]),
        SupportedOperation(.maintenanceIn, serviceAction: 0x0D, [0x0D, 0x80, 0, 0, 0] + ones(4) + [0, naca]),
        SupportedOperation(.read12, [0xF8] + ones(8) + [0, naca]),
        SupportedOperation(.write12, [0xF8] + ones(8) + [0, naca]),
        SupportedOperation(.writeAndVerify12, [0xF6] + ones(8) + [0, naca]),
        SupportedOperation(.verify12, [0xF6] + ones(8) + [0, naca]),
        SupportedOperation(.readDefectData12, [0x1F, 0, 0, 0, 0] + ones(4) + [0, naca]),
    ]

    /// The answer to REPORT SUPPORTED OPERATION CODES, whole; the caller cuts it to the allocation length.
    public static func report(_ request: ReportSupportedOperationCodes) throws(SenseData) -> ByteBuffer {
        if request.options == .all { return reportAll(withTimeouts: request.withTimeouts) }
        let sameCode = all.filter { $0.code.rawValue == request.operationCode }
        let hasServiceActions = sameCode.contains { $0.serviceAction != nil }
        let found: SupportedOperation?
        switch request.options {
        case .operationCode:
            if hasServiceActions { throw .invalidFieldInCDB(byte: 2, bit: 2) }
            found = sameCode.first
        case .serviceAction:
            if !sameCode.isEmpty && !hasServiceActions { throw .invalidFieldInCDB(byte: 2, bit: 2) }
            found = sameCode.first { $0.serviceAction == request.serviceAction }
        case .operationCodeAndServiceAction, .all:
            found = sameCode.first { ($0.serviceAction ?? 0) == request.serviceAction }
        }
        return reportOne(found, withTimeouts: request.withTimeouts)
    }

    private static func reportAll(withTimeouts: Bool) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt32(all.count * (withTimeouts ? 20 : 8)))
        for operation in all {
            buffer.writeInteger(operation.code.rawValue)
            buffer.writeInteger(UInt8(0))
            buffer.writeInteger(operation.serviceAction ?? 0)
            buffer.writeInteger(UInt8(0))
            buffer.writeInteger(UInt8((withTimeouts ? 0x02 : 0) | (operation.serviceAction != nil ? 0x01 : 0)))
            buffer.writeInteger(UInt16(operation.usage.count))
            if withTimeouts { writeTimeouts(into: &buffer) }
        }
        return buffer
    }

    private static func reportOne(_ operation: SupportedOperation?, withTimeouts: Bool) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt8(0))
        guard let operation else {
            // SUPPORT 001b: not supported; nothing follows.
            buffer.writeInteger(UInt8(0x01))
            buffer.writeInteger(UInt16(0))
            return buffer
        }
        buffer.writeInteger(UInt8(0x03 | (withTimeouts ? 0x80 : 0)))
        buffer.writeInteger(UInt16(operation.usage.count))
        buffer.writeBytes(operation.usage)
        if withTimeouts { writeTimeouts(into: &buffer) }
        return buffer
    }

    /// A command timeouts descriptor that names no times (SPC-4, 6.35.4).
    private static func writeTimeouts(into buffer: inout ByteBuffer) {
        buffer.writeInteger(UInt16(0x000A))
        buffer.writeRepeatingByte(0, count: 10)
    }
}
