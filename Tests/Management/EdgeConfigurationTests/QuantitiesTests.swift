import Testing

@testable import EdgeConfiguration

@Suite struct QuantitiesTests {
    @Test(arguments: [
        ("4096", UInt64(4_096)), ("64MiB", 67_108_864), ("10GB", 10_000_000_000), ("1.5GiB", 1_610_612_736), ("0", 0),
        ("1 TiB", 1 << 40), ("7kB", 7_000),
    ])
    func sizes(text: String, bytes: UInt64) throws {
        #expect(try ByteSize.parse(text) == bytes)
    }

    @Test(arguments: [
        "", "MiB", "-1", "1.", ".5GiB", "1.5", "64 Mi B", "10G", "64mib", "99999999999999999999", "18446744073709551615KiB",
        "1.0000000001GB", "١GB", "1e3",
    ])
    func wrongSizes(text: String) {
        #expect(throws: ValueError.self) { try ByteSize.parse(text) }
    }

    @Test func sizeHintsNameTheUnit() {
        #expect(throws: ValueError("“mib” is not a unit of size", hint: "write MiB")) { try ByteSize.parse("64mib") }
        #expect(throws: ValueError("“G” is not a unit of size", hint: "write GiB for powers of 1,024 or GB for powers of 1,000")) {
            try ByteSize.parse("10G")
        }
    }

    @Test(arguments: [
        ("5s", Duration.seconds(5)), ("40ms", .milliseconds(40)), ("1.5h", .seconds(5_400)), ("2m", .seconds(120)),
        ("0.5us", .nanoseconds(500)),
        ("1d", .seconds(86_400)),
    ])
    func durations(text: String, duration: Duration) throws {
        #expect(try TimeSpan.parse(text) == duration)
    }

    @Test(arguments: ["5", "s", "5 seconds", "-5s", "300000d", "0.5ns"])
    func wrongDurations(text: String) {
        #expect(throws: ValueError.self) { try TimeSpan.parse(text) }
    }

    @Test(arguments: [
        ("100mbit", UInt64(100_000_000)), ("1.5Gbit", 1_500_000_000), ("64kbit/s", 64_000), ("9Mbitps", 9_000_000), ("8bit", 8),
    ])
    func rates(text: String, bits: UInt64) throws {
        #expect(try BitRate.parse(text) == bits)
    }

    @Test(arguments: ["100", "100MB", "0mbit", "mbit", "0.1bit", "99999999999gbit"])
    func wrongRates(text: String) {
        #expect(throws: ValueError.self) { try BitRate.parse(text) }
    }

    @Test func textsParseBack() throws {
        for bytes in [0, 1, 1_023, 1_024, 67_108_864, 10_000_000_000, UInt64.max] {
            #expect(try ByteSize.parse(ByteSize.text(bytes)) == bytes)
        }
        for duration in [Duration.zero, .nanoseconds(1), .milliseconds(40), .seconds(5), .seconds(5_400), .seconds(86_400)] {
            #expect(try TimeSpan.parse(TimeSpan.text(duration)) == duration)
        }
    }

    @Test(arguments: [
        ("127.0.0.1:3260", "127.0.0.1", UInt16(3_260)), ("[::1]:0", "::1", 0),
        ("edge.example.com:7481", "edge.example.com", 7_481),
        ("localhost:65535", "localhost", 65_535), ("[fe80::1]:1", "fe80::1", 1),
    ])
    func addresses(text: String, host: String, port: UInt16) throws {
        let address = try NetworkAddress(parsing: text)
        #expect(address == NetworkAddress(host: host, port: port))
        #expect(address.description == text)
    }

    @Test(arguments: [
        "", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1", "256.0.0.1:1", "1.2.3:1",
        "::1:3260", "[::1]", "[::1:3260",
        "[::1]3260", "[zz]:1", "*:3260", ":3260", "a..b:1", "-a:1", "ho st:1", "http://a:1",
    ])
    func wrongAddresses(text: String) {
        #expect(throws: ValueError.self) { try NetworkAddress(parsing: text) }
    }

    @Test func loopback() throws {
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"] {
            #expect(try NetworkAddress(parsing: text).isLoopback)
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.example.com:1"] {
            #expect(try !NetworkAddress(parsing: text).isLoopback)
        }
    }

    @Test func sizesAsPeopleReadThem() {
        for (bytes, text) in [
            (0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (1_536, "1.5 KiB"), (102_399, "100 KiB"), (1_047_552, "1023 KiB"),
            ((1 << 20) - 1, "1.0 MiB"), (5 << 20, "5.0 MiB"), (250 << 20, "250 MiB"), ((1 << 30) - 1, "1.0 GiB"), (3 << 39, "1.5 TiB"),
            (.max, "16.0 EiB"),
        ] as [(UInt64, String)] {
            #expect(ByteSize.rounded(bytes) == text, "\(bytes)")
        }
        for (rate, text) in [(0, "0 bit/s"), (125, "1 kbit/s"), (6_250_000, "50 Mbit/s"), (1_562_500_000, "12.5 Gbit/s")]
            as [(UInt64, String)]
        {
            #expect(BitRate.rounded(bytesPerSecond: rate) == text)
        }
    }

    @Test func negativeTextsAreCalledThat() {
        for text in ["-5", "-5MiB", "-1.5GiB"] {
            #expect(throws: ValueError("“\(text)” is negative: a size never is", hint: "write for example 64MiB")) {
                try ByteSize.parse(text)
            }
        }
        #expect(throws: ValueError("“-5s” is negative: a duration never is", hint: "write for example 5s")) { try TimeSpan.parse("-5s") }
    }

    /// Random texts from the letters that mean something to the parsers: none may trap, and what parses must be written back the same.
    @Test func randomTexts() throws {
        var seed: UInt64 = 0x9E37_79B9_7F4A_7C15
        let letters = Array("0123456789.:[]-+ kKmMgGtTiBbdhsunpe/*é\u{0}")
        for _ in 0..<20_000 {
            var text = ""
            for _ in 0..<Int(seed % 12) {
                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                text.append(letters[Int((seed >> 33) % UInt64(letters.count))])
            }
            seed = seed &* 6_364_136_223_846_793_005 &+ 1
            if let bytes = try? ByteSize.parse(text) { #expect(try ByteSize.parse(ByteSize.text(bytes)) == bytes) }
            if let duration = try? TimeSpan.parse(text) { #expect(try TimeSpan.parse(TimeSpan.text(duration)) == duration) }
            if let address = try? NetworkAddress(parsing: text) {
                #expect(try NetworkAddress(parsing: address.description) == address)
            }
            _ = try? BitRate.parse(text)
        }
    }
}
