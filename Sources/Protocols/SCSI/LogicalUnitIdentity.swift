/// Who a logical unit and its target say that they are, in INQUIRY and vital product data.
public struct LogicalUnitIdentity: Hashable, Sendable {
    /// T10 VENDOR IDENTIFICATION; eight characters are shown.
    public var vendor: String
    /// PRODUCT IDENTIFICATION; sixteen characters are shown.
    public var product: String
    /// PRODUCT REVISION LEVEL; four characters are shown.
    public var revision: String
    /// PRODUCT SERIAL NUMBER.
    public var serialNumber: String
    /// Sixteen bytes that name the disk and nothing else, wherever it is served.
    public var uniqueHigh: UInt64
    public var uniqueLow: UInt64
    /// The iSCSI name of the target, which names the target device and its port.
    public var targetName: String
    /// RELATIVE TARGET PORT IDENTIFIER.
    public var relativeTargetPort: UInt16
    /// TARGET PORT GROUP, which is the portal group tag in iSCSI.
    public var targetPortGroup: UInt16
    /// RMB: the medium can be ejected and loaded.
    public var isRemovable: Bool

    /// - Parameter serialNumber: the hexadecimal digits of the unique bytes when nil.
    public init(
        vendor: String = "CAUSEWAY", product: String = "VOLUME", revision: String = "0001", serialNumber: String? = nil,
        uniqueHigh: UInt64, uniqueLow: UInt64, targetName: String, relativeTargetPort: UInt16 = 1, targetPortGroup: UInt16 = 1,
        isRemovable: Bool = false
    ) {
        self.vendor = vendor
        self.product = product
        self.revision = revision
        self.serialNumber = serialNumber ?? Self.hexadecimal(uniqueHigh) + Self.hexadecimal(uniqueLow)
        self.uniqueHigh = uniqueHigh
        self.uniqueLow = uniqueLow
        self.targetName = targetName
        self.relativeTargetPort = relativeTargetPort
        self.targetPortGroup = targetPortGroup
        self.isRemovable = isRemovable
    }

    /// NAA of the locally assigned kind (SPC-4, 7.8.6.6.4): 60 bits, because we own no company identifier.
    public var nameAddressAuthority: UInt64 { 0x3 << 60 | (uniqueHigh ^ uniqueLow.byteSwapped) & 0x0FFF_FFFF_FFFF_FFFF }

    static func hexadecimal(_ value: UInt64) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }
}
