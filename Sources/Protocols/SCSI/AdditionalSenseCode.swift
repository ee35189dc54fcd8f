/// An additional sense code and its qualifier (SPC-4, 4.5.2.1, and the list at t10.org).
public struct AdditionalSenseCode: Hashable, Sendable, CustomStringConvertible {
    public let code: UInt8
    public let qualifier: UInt8

    public init(_ code: UInt8, _ qualifier: UInt8) {
        self.code = code
        self.qualifier = qualifier
    }

    /// Both bytes in hexadecimal, as the standards print them: `24h/00h`.
    public var description: String { "\(Self.digits(code))h/\(Self.digits(qualifier))h" }

    private static func digits(_ value: UInt8) -> String {
        let text = String(value, radix: 16, uppercase: true)
        return text.count == 1 ? "0" + text : text
    }

    public static let noAdditionalSenseInformation = Self(0x00, 0x00)
    public static let operationInProgress = Self(0x00, 0x16)
    public static let logicalUnitIsInProcessOfBecomingReady = Self(0x04, 0x01)
    public static let logicalUnitNotReadyManualInterventionRequired = Self(0x04, 0x03)
    public static let formatInProgress = Self(0x04, 0x04)
    public static let sanitizeInProgress = Self(0x04, 0x1B)
    public static let unreachableCopyTarget = Self(0x08, 0x04)
    public static let writeError = Self(0x0C, 0x00)
    public static let thirdPartyDeviceFailure = Self(0x0D, 0x01)
    public static let copyTargetDeviceNotReachable = Self(0x0D, 0x02)
    public static let incorrectCopyTargetDeviceType = Self(0x0D, 0x03)
    public static let invalidFieldInCommandInformationUnit = Self(0x0E, 0x03)
    public static let unrecoveredReadError = Self(0x11, 0x00)
    public static let parameterListLengthError = Self(0x1A, 0x00)
    public static let miscompareDuringVerifyOperation = Self(0x1D, 0x00)
    public static let invalidCommandOperationCode = Self(0x20, 0x00)
    public static let logicalBlockAddressOutOfRange = Self(0x21, 0x00)
    public static let invalidFieldInCDB = Self(0x24, 0x00)
    public static let logicalUnitNotSupported = Self(0x25, 0x00)
    public static let invalidFieldInParameterList = Self(0x26, 0x00)
    public static let invalidReleaseOfPersistentReservation = Self(0x26, 0x04)
    public static let tooManyTargetDescriptors = Self(0x26, 0x06)
    public static let unsupportedTargetDescriptorTypeCode = Self(0x26, 0x07)
    public static let tooManySegmentDescriptors = Self(0x26, 0x08)
    public static let unsupportedSegmentDescriptorTypeCode = Self(0x26, 0x09)
    public static let inlineDataLengthExceeded = Self(0x26, 0x0B)
    public static let writeProtected = Self(0x27, 0x00)
    public static let logicalUnitSoftwareWriteProtected = Self(0x27, 0x02)
    public static let spaceAllocationFailedWriteProtect = Self(0x27, 0x07)
    public static let mediumMayHaveChanged = Self(0x28, 0x00)
    public static let powerOnResetOrBusDeviceReset = Self(0x29, 0x00)
    public static let busDeviceResetFunctionOccurred = Self(0x29, 0x03)
    public static let nexusLossOccurred = Self(0x29, 0x07)
    public static let modeParametersChanged = Self(0x2A, 0x01)
    public static let reservationsPreempted = Self(0x2A, 0x03)
    public static let reservationsReleased = Self(0x2A, 0x04)
    public static let registrationsPreempted = Self(0x2A, 0x05)
    public static let capacityDataHasChanged = Self(0x2A, 0x09)
    public static let formatCommandFailed = Self(0x31, 0x01)
    public static let sanitizeCommandFailed = Self(0x31, 0x03)
    public static let savingParametersNotSupported = Self(0x39, 0x00)
    public static let mediumNotPresent = Self(0x3A, 0x00)
    public static let reportedLUNsDataHasChanged = Self(0x3F, 0x0E)
    public static let internalTargetFailure = Self(0x44, 0x00)
    public static let mediumRemovalPrevented = Self(0x53, 0x02)
    public static let insufficientRegistrationResources = Self(0x55, 0x04)

    /// True for the unit attentions of a reset or a lost nexus (29h). They are told even to an initiator that another one has
    /// shut out by a reservation (SAM-5, status precedence).
    public var tellsOfReset: Bool { code == 0x29 }
}
