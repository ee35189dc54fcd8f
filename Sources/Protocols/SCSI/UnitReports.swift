import NIOCore

/// The answer to READ DEFECT DATA of SBC-3. A volume has no place that it knows to be bad: what its parts cannot store, they
/// put elsewhere, so both lists are empty.
public enum DefectList {
    public static func report(_ request: ReadDefectData) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt8(0))
        // PLISTV and GLISTV, where the request has its own bits, and the format that was asked for.
        buffer.writeInteger(request.lists << 3 | request.format)
        // The longer header has a generation code here, which never changes; both then have a length of zero.
        buffer.writeInteger(UInt16(0))
        if request.isTwelveByte { buffer.writeInteger(UInt32(0)) }
        return buffer
    }
}

/// The answer to REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4, 6.36).
public enum SupportedTaskManagementFunctions {
    /// - Parameter isExtended: REPD, which asks for the longer form with its time-outs, of which none is named.
    public static func report(isExtended: Bool) -> ByteBuffer {
        var buffer = ByteBuffer()
        // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET and QUERY TASK.
        buffer.writeInteger(UInt8(0xDC))
        // QUERY ASYNCHRONOUS EVENT, QUERY TASK SET and I_T NEXUS RESET.
        buffer.writeInteger(UInt8(0x07))
        buffer.writeInteger(UInt8(0))
        buffer.writeInteger(UInt8(isExtended ? 12 : 0))
        if isExtended { buffer.writeRepeatingByte(0, count: 12) }
        return buffer
    }
}
