#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A host and a port, as in `127.0.0.1:3260`, `[::1]:0` or `edge.example.com:7481`.
public struct NetworkAddress: Sendable, Hashable, CustomStringConvertible {
    /// A name or an address; IPv6 addresses without brackets.
    public var host: String
    /// Zero lets the system choose, where one listens.
    public var port: UInt16

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// `host:port`, with brackets around an IPv6 address.
    public var description: String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    /// True for addresses that only this machine reaches.
    public var isLoopback: Bool {
        host == "localhost" || host == "::1" || (Self.isIPv4(host) && host.hasPrefix("127."))
    }

    /// Parses `host:port`.
    public init(parsing text: String) throws(ValueError) {
        let example = "write host:port, for example 127.0.0.1:3260 or [::1]:3260"
        let hostText: Substring
        let portText: Substring
        if text.hasPrefix("[") {
            guard let close = text.firstIndex(of: "]") else {
                throw ValueError("“\(text)” has no closing bracket", hint: example)
            }
            hostText = text[text.index(after: text.startIndex)..<close]
            let rest = text[text.index(after: close)...]
            guard rest.hasPrefix(":") else { throw ValueError("“\(text)” has no port", hint: example) }
            portText = rest.dropFirst()
            guard Self.isIPv6(String(hostText)) else { throw ValueError("“\(hostText)” is not an IPv6 address", hint: example) }
        } else {
            guard let colon = text.lastIndex(of: ":") else { throw ValueError("“\(text)” has no port", hint: example) }
            hostText = text[..<colon]
            portText = text[text.index(after: colon)...]
            if hostText.contains(":") {
                throw ValueError(
                    "“\(text)” is not host:port", hint: "put brackets around an IPv6 address, for example [::1]:3260")
            }
            if hostText.isEmpty || hostText == "*" {
                throw ValueError(
                    "“\(text)” has no host",
                    hint: "write 0.0.0.0:\(portText) or [::]:\(portText) for every address of this machine")
            }
            guard Self.isHost(String(hostText)) else {
                throw ValueError("“\(hostText)” is not a host name or an IPv4 address", hint: example)
            }
        }
        guard !portText.isEmpty, portText.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }),
            let port = UInt16(portText)
        else { throw ValueError("“\(portText)” is not a port", hint: "use a number from 0 to 65535") }
        self.init(host: String(hostText), port: port)
    }

    /// Reads an address to connect to.
    /// - Throws: also when its port is 0.
    public init(dialling text: String) throws(ValueError) {
        try self.init(parsing: text)
        if port == 0 { throw ValueError("one cannot connect to port 0", hint: "write the port of the other edge's link.listen") }
    }

    private static func isHost(_ text: String) -> Bool {
        guard text.utf8.count <= 253 else { return false }
        // What consists of digits and points alone is an address, or nothing: no host name ends in a number.
        if text.utf8.allSatisfy({ ($0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9")) || $0 == UInt8(ascii: ".") }) {
            return isIPv4(text)
        }
        return text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            (1...63).contains(label.utf8.count) && !label.hasPrefix("-") && !label.hasSuffix("-")
                && label.utf8.allSatisfy { NameRule.isAlphanumeric($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") }
        }
    }

    private static func isIPv4(_ text: String) -> Bool {
        var address = in_addr()
        return !text.utf8.contains(0) && inet_pton(AF_INET, text, &address) == 1
    }

    private static func isIPv6(_ text: String) -> Bool {
        var address = in6_addr()
        return !text.utf8.contains(0) && inet_pton(AF_INET6, text, &address) == 1
    }
}

/// What edges, disks and volumes may be called: it goes into URLs, iSCSI names and file names.
public enum NameRule {
    /// The longest name, in bytes.
    public static let longest = 63

    /// Nil when the name may be used, else what is wrong with it.
    public static func problem(_ name: String) -> ValueError? {
        let hint = "use 1 to \(longest) letters, digits, “-”, “.” and “_”, and begin with a letter or a digit"
        let bytes = Array(name.utf8)
        guard (1...longest).contains(bytes.count) else {
            return ValueError(bytes.isEmpty ? "a name cannot be empty" : "the name has \(bytes.count) bytes", hint: hint)
        }
        guard isAlphanumeric(bytes[0]), bytes.allSatisfy({ isAlphanumeric($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x5F }) else {
            return ValueError("“\(name)” is not a name", hint: hint)
        }
        return nil
    }

    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
    }
}
