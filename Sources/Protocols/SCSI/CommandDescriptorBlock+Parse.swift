extension CommandDescriptorBlock {
    /// The command in this block, or the sense data that says what is wrong with it.
    public func parse() -> Result<SCSICommand, SenseData> {
        do throws(SenseData) {
            return .success(try command())
        } catch {
            return .failure(error)
        }
    }

    /// The command in `bytes`, or the sense data that says what is wrong with it.
    public static func parse(_ bytes: some Sequence<UInt8>) -> Result<SCSICommand, SenseData> {
        CommandDescriptorBlock(bytes).parse()
    }

    /// The blocks of a plain READ (10) or (16), without any flag; nil for every other command. It is what a cached read
    /// takes instead of `parse`, so it only has to be right, not complete.
    public var plainRead: BlockTransfer? {
        switch (operationCode, self[1]) {
        case (0x28, 0):
            guard self[9] == 0 else { return nil }
            return plainTransfer(cdbByteCount: 10)
        case (0x88, 0):
            guard self[15] == 0 else { return nil }
            return plainTransfer(cdbByteCount: 16)
        default: return nil
        }
    }

    private func plainTransfer(cdbByteCount: UInt8) -> BlockTransfer {
        cdbByteCount == 10
            ? BlockTransfer(logicalBlockAddress: UInt64(uint32(at: 2)), blockCount: UInt32(uint16(at: 7)), cdbByteCount: 10)
            : BlockTransfer(logicalBlockAddress: uint64(at: 2), blockCount: uint32(at: 10), cdbByteCount: 16)
    }

    private func command() throws(SenseData) -> SCSICommand {
        guard let code = OperationCode(rawValue: operationCode), let byteCount else { throw .invalidOperationCode }
        // NACA asks for an auto contingent allegiance, which NORMACA in our INQUIRY data says we lack (SAM-5).
        if bit(2, at: byteCount - 1) { throw .invalidFieldInCDB(byte: byteCount - 1, bit: 2) }
        if let command = try primaryCommand(code) { return command }
        if let command = try transferCommand(code) { return command }
        return try maintenanceCommand(code)
    }

    /// Commands of SPC-4 that every device has.
    private func primaryCommand(_ code: OperationCode) throws(SenseData) -> SCSICommand? {
        switch code {
        case .testUnitReady: return .testUnitReady
        case .inquiry:
            if bit(0, at: 1) { return .inquiry(vitalProductDataPage: self[2], allocationByteCount: uint16(at: 3)) }
            // CMDDT is obsolete, and a page without EVPD means nothing (SPC-4, 6.6.1).
            if bit(1, at: 1) { throw .invalidFieldInCDB(byte: 1, bit: 1) }
            if self[2] != 0 { throw .invalidFieldInCDB(byte: 2) }
            return .inquiry(vitalProductDataPage: nil, allocationByteCount: uint16(at: 3))
        case .requestSense: return .requestSense(format: bit(0, at: 1) ? .descriptor : .fixed, allocationByteCount: self[4])
        case .reportLUNs: return .reportLUNs(selectReport: self[2], allocationByteCount: uint32(at: 6))
        case .modeSense6, .modeSense10: return .modeSense(try modeSense(isTenByte: code == .modeSense10))
        case .modeSelect6, .modeSelect10: return try modeSelect(isTenByte: code == .modeSelect10)
        case .reserve6: return .reserve6
        case .release6: return .release6
        case .persistentReserveIn:
            guard let action = PersistentReserveIn(rawValue: self[1] & 0x1F) else { throw .invalidFieldInCDB(byte: 1, bit: 4) }
            return .persistentReserveIn(action, allocationByteCount: uint16(at: 7))
        case .persistentReserveOut:
            guard let action = PersistentReserveOut.ServiceAction(rawValue: self[1] & 0x1F) else {
                throw .invalidFieldInCDB(byte: 1, bit: 4)
            }
            // A longer list is refused before memory is set aside for it.
            if uint32(at: 5) > UInt32(PersistentReserveParameters.maximumByteCount) { throw .parameterListLength }
            return .persistentReserveOut(
                PersistentReserveOut(
                    serviceAction: action, scope: self[2] >> 4, type: self[2] & 0x0F, parameterListByteCount: uint32(at: 5)))
        case .extendedCopy:
            // Service action 00h is the LID1 form, the only one here.
            if self[1] & 0x1F != 0 { throw .invalidFieldInCDB(byte: 1, bit: 4) }
            if uint32(at: 10) > UInt32(CopyLimits.maximumParameterListByteCount) { throw .parameterListLength }
            return .extendedCopy(parameterListByteCount: uint32(at: 10))
        case .receiveCopyResults:
            guard let action = ReceiveCopyResultsAction(rawValue: self[1] & 0x1F) else {
                throw .invalidFieldInCDB(byte: 1, bit: 4)
            }
            return .receiveCopyResults(action, listIdentifier: self[2], allocationByteCount: uint32(at: 10))
        case .startStopUnit:
            return .startStopUnit(
                StartStopUnit(
                    isImmediate: bit(0, at: 1), powerCondition: self[4] >> 4, noFlush: bit(2, at: 4), loadEject: bit(1, at: 4),
                    start: bit(0, at: 4)))
        case .preventAllowMediumRemoval:
            // 10b and 11b are obsolete (SBC-3, 5.10).
            if bit(1, at: 4) { throw .invalidFieldInCDB(byte: 4, bit: 1) }
            return .preventAllowMediumRemoval(prevent: bit(0, at: 4))
        case .sendDiagnostic: return try sendDiagnostic()
        default: return nil
        }
    }

    /// Commands of SBC-3 that name blocks.
    private func transferCommand(_ code: OperationCode) throws(SenseData) -> SCSICommand? {
        switch code {
        case .read6: return .read(sixByteTransfer)
        case .write6: return .write(sixByteTransfer)
        case .read10, .read12, .read16: return .read(try protectedTransfer())
        case .write10, .write12, .write16: return .write(try protectedTransfer())
        case .writeAtomic16: return .writeAtomic(try atomicTransfer())
        case .orWrite16: return .orWrite(try protectedTransfer())
        case .writeAndVerify10, .writeAndVerify12, .writeAndVerify16:
            let check = try byteCheck()
            // One block for all is defined for VERIFY only.
            if check == .oneBlock { throw .invalidFieldInCDB(byte: 1, bit: 2) }
            return .writeAndVerify(try protectedTransfer(hasForceUnitAccess: false), byteCheck: check)
        case .verify10, .verify12, .verify16:
            return .verify(try protectedTransfer(hasForceUnitAccess: false), byteCheck: try byteCheck())
        case .compareAndWrite:
            try checkProtection()
            return .compareAndWrite(
                BlockTransfer(
                    logicalBlockAddress: uint64(at: 2), blockCount: UInt32(self[13]), forceUnitAccess: bit(3, at: 1),
                    disablePageOut: bit(4, at: 1)))
        case .prefetch10, .prefetch16: return .prefetch(plainTransferByLength, isImmediate: bit(1, at: 1))
        case .synchronizeCache10, .synchronizeCache16:
            return .synchronizeCache(plainTransferByLength, isImmediate: bit(1, at: 1))
        case .writeSame10, .writeSame16: return try writeSame(isSixteenByte: code == .writeSame16)
        case .unmap:
            // ANCHOR: VPD page B2h says that we do not anchor.
            if bit(0, at: 1) { throw .invalidFieldInCDB(byte: 1, bit: 0) }
            return .unmap(parameterListByteCount: uint16(at: 7))
        case .sanitize: return .sanitize(try sanitize())
        case .formatUnit: return try formatUnit()
        default: return nil
        }
    }

    /// Commands that ask a unit about itself.
    private func maintenanceCommand(_ code: OperationCode) throws(SenseData) -> SCSICommand {
        switch code {
        case .readCapacity10:
            // An address without PMI is refused (SBC-3, 5.15.1); PMI itself asks nothing of a disk without slow borders.
            if !bit(0, at: 8) && uint32(at: 2) != 0 { throw .invalidFieldInCDB(byte: 2) }
            return .readCapacity10
        case .serviceActionIn16:
            switch ServiceActionIn(rawValue: self[1] & 0x1F) {
            case .readCapacity16:
                if !bit(0, at: 14) && uint64(at: 2) != 0 { throw .invalidFieldInCDB(byte: 2) }
                return .readCapacity16(allocationByteCount: uint32(at: 10))
            case .getLBAStatus:
                return .getLBAStatus(logicalBlockAddress: uint64(at: 2), allocationByteCount: uint32(at: 10))
            case nil: throw .invalidFieldInCDB(byte: 1, bit: 4)
            }
        case .maintenanceIn:
            switch MaintenanceIn(rawValue: self[1] & 0x1F) {
            case .reportTargetPortGroups:
                // PARAMETER DATA FORMAT: 0 is the short header, 1 the extended one.
                let format = self[1] >> 5
                if format > 1 { throw .invalidFieldInCDB(byte: 1, bit: 7) }
                return .reportTargetPortGroups(hasExtendedHeader: format == 1, allocationByteCount: uint32(at: 6))
            case .reportSupportedOperationCodes:
                guard let options = ReportSupportedOperationCodes.Options(rawValue: self[2] & 0x07) else {
                    throw .invalidFieldInCDB(byte: 2, bit: 2)
                }
                return .reportSupportedOperationCodes(
                    ReportSupportedOperationCodes(
                        options: options, withTimeouts: bit(7, at: 2), operationCode: self[3], serviceAction: uint16(at: 4),
                        allocationByteCount: uint32(at: 6)))
            case .reportSupportedTaskManagementFunctions:
                return .reportSupportedTaskManagementFunctions(isExtended: bit(7, at: 2), allocationByteCount: uint32(at: 6))
            case nil: throw .invalidFieldInCDB(byte: 1, bit: 4)
            }
        case .readDefectData10:
            return .readDefectData(
                ReadDefectData(
                    isTwelveByte: false, lists: self[2] >> 3 & 0x03, format: self[2] & 0x07,
                    allocationByteCount: UInt32(uint16(at: 7))))
        case .readDefectData12:
            return .readDefectData(
                ReadDefectData(
                    isTwelveByte: true, lists: self[1] >> 3 & 0x03, format: self[1] & 0x07, allocationByteCount: uint32(at: 6)))
        default: throw .invalidOperationCode
        }
    }

    // MARK: - Fields

    /// READ (6) and WRITE (6): 21 bits of address, and a length of zero means 256 (SBC-2).
    private var sixByteTransfer: BlockTransfer {
        BlockTransfer(
            logicalBlockAddress: field(at: 1, byteCount: 3) & 0x1F_FFFF, blockCount: self[4] == 0 ? 256 : UInt32(self[4]),
            cdbByteCount: 6)
    }

    /// Address and length where CDBs of 10, 12 and 16 bytes have them.
    private var plainTransferByLength: BlockTransfer {
        switch byteCount {
        case 10: plainTransfer(cdbByteCount: 10)
        case 12:
            BlockTransfer(logicalBlockAddress: UInt64(uint32(at: 2)), blockCount: uint32(at: 6), cdbByteCount: 12)
        default: plainTransfer(cdbByteCount: 16)
        }
    }

    /// A transfer with the bits RDPROTECT or WRPROTECT, DPO and FUA in its second byte.
    private func protectedTransfer(hasForceUnitAccess: Bool = true) throws(SenseData) -> BlockTransfer {
        try checkProtection()
        var transfer = plainTransferByLength
        transfer.disablePageOut = bit(4, at: 1)
        transfer.forceUnitAccess = hasForceUnitAccess && bit(3, at: 1)
        return transfer
    }

    /// WRITE ATOMIC (16) has its length where others have the lower half of theirs, behind an ATOMIC BOUNDARY, of which page
    /// B0h says that there is none.
    private func atomicTransfer() throws(SenseData) -> BlockTransfer {
        try checkProtection()
        if uint16(at: 10) != 0 { throw .invalidFieldInCDB(byte: 10) }
        return BlockTransfer(
            logicalBlockAddress: uint64(at: 2), blockCount: UInt32(uint16(at: 12)), forceUnitAccess: bit(3, at: 1),
            disablePageOut: bit(4, at: 1))
    }

    private func sanitize() throws(SenseData) -> Sanitize {
        guard let action = Sanitize.ServiceAction(rawValue: self[1] & 0x1F) else { throw .invalidFieldInCDB(byte: 1, bit: 4) }
        if bit(6, at: 1) { throw .invalidFieldInCDB(byte: 1, bit: 6) }
        for index in 2..<7 where self[index] != 0 { throw .invalidFieldInCDB(byte: index) }
        let request = Sanitize(
            serviceAction: action, isImmediate: bit(7, at: 1), allowsUnrestrictedExit: bit(5, at: 1),
            parameterListByteCount: uint16(at: 7))
        // OVERWRITE brings a header and at least one byte of pattern; the others bring nothing.
        let isRightLength = action == .overwrite ? request.parameterListByteCount > 4 : request.parameterListByteCount == 0
        if !isRightLength { throw .invalidFieldInCDB(byte: 7) }
        return request
    }

    /// FORMAT UNIT (SBC-3, 5.3.2): no protection information, and no defect list, because there are no defects.
    private func formatUnit() throws(SenseData) -> SCSICommand {
        if self[1] & 0xC0 != 0 { throw .invalidFieldInCDB(byte: 1, bit: 7) }
        if self[1] & 0x0F != 0 { throw .invalidFieldInCDB(byte: 1, bit: 3) }
        return .formatUnit(hasParameterList: bit(4, at: 1), isLongList: bit(5, at: 1))
    }

    /// SEND DIAGNOSTIC (SPC-4, 6.42): the default self-test, which finds nothing, and no page.
    private func sendDiagnostic() throws(SenseData) -> SCSICommand {
        if self[1] & 0xE0 != 0 { throw .invalidFieldInCDB(byte: 1, bit: 7) }
        if uint16(at: 3) != 0 { throw .invalidFieldInCDB(byte: 3) }
        return .sendDiagnostic
    }

    /// We keep no protection information, so only zero is a valid RDPROTECT, WRPROTECT or VRPROTECT.
    private func checkProtection() throws(SenseData) {
        if self[1] & 0xE0 != 0 { throw .invalidFieldInCDB(byte: 1, bit: 7) }
    }

    private func byteCheck() throws(SenseData) -> ByteCheck {
        guard let check = ByteCheck(rawValue: self[1] >> 1 & 0x03) else { throw .invalidFieldInCDB(byte: 1, bit: 2) }
        return check
    }

    private func writeSame(isSixteenByte: Bool) throws(SenseData) -> SCSICommand {
        try checkProtection()
        if bit(4, at: 1) { throw .invalidFieldInCDB(byte: 1, bit: 4) }
        // PBDATA and LBDATA are obsolete; LBDATA's place in WRITE SAME (16) is not, but its neighbour NDOB is bit 0.
        if bit(2, at: 1) { throw .invalidFieldInCDB(byte: 1, bit: 2) }
        if bit(1, at: 1) { throw .invalidFieldInCDB(byte: 1, bit: 1) }
        let hasNoData = isSixteenByte && bit(0, at: 1)
        return .writeSame(plainTransferByLength, unmap: bit(3, at: 1), hasDataOut: !hasNoData)
    }

    private func modeSense(isTenByte: Bool) throws(SenseData) -> ModeSense {
        guard let control = ModeSense.PageControl(rawValue: self[2] >> 6) else { throw .invalidFieldInCDB(byte: 2, bit: 7) }
        return ModeSense(
            isTenByte: isTenByte, disableBlockDescriptors: bit(3, at: 1), pageControl: control, pageCode: self[2] & 0x3F,
            subpageCode: self[3], allocationByteCount: isTenByte ? uint16(at: 7) : UInt16(self[4]))
    }

    private func modeSelect(isTenByte: Bool) throws(SenseData) -> SCSICommand {
        // Without PF the pages are vendor specific, and SP asks to save what we do not save (SPC-4, 6.11).
        if !bit(4, at: 1) { throw .invalidFieldInCDB(byte: 1, bit: 4) }
        if bit(0, at: 1) { throw .invalidFieldInCDB(byte: 1, bit: 0) }
        return .modeSelect(parameterListByteCount: isTenByte ? uint16(at: 7) : UInt16(self[4]), isTenByte: isTenByte)
    }
}
