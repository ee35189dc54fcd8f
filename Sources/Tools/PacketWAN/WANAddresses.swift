/// Where the two ends of a WAN are. The cloud's end is a device in the network namespace of whoever starts it, home's a
/// device in one of its own. Each WAN of a machine has another number, and with it other addresses.
public struct WANAddresses: Codable, Hashable, Sendable {
    /// The cloud's end.
    public var cloud: String
    /// Home's end. What goes to and from this address goes over the line.
    public var home: String
    /// Home, too, but beside the line: nothing delays it and nothing counts it. For the API of what runs there.
    public var homeBesideLine: String
    /// Home's network namespace, for `LineNamespace.enter`.
    public var namespace: String

    /// How many there may be on a machine: eight addresses for each from 198.18.0.0/16, which RFC 2544 set apart for benchmarks.
    static let numberLimit = 8192
    static let prefixLength: UInt32 = 29

    init(number: Int, namespace: String) {
        func text(_ host: UInt32) -> String {
            let address = Self.address(number: number, host: host)
            return stride(from: 24, through: 0, by: -8).map { String(address >> UInt32($0) & 0xFF) }.joined(separator: ".")
        }
        cloud = text(1)
        home = text(2)
        homeBesideLine = text(3)
        self.namespace = namespace
    }

    static func address(number: Int, host: UInt32) -> UInt32 { 0xC612_0000 + UInt32(clamping: number) * 8 + host }
}
