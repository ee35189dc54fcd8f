import Blocks
import Testing

@testable import SimulatedWorlds

/// What the worlds' search for plaintext finds, so that its silence means something.
@Suite struct ConfidentialityCheckTests {
    private let noise = (0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 167 ^ $0 >> 3) }

    @Test("a sector that a machine has written is found wherever it stands", arguments: [0, 1, 77, 4096, 8192 - 512])
    func stamped(offset: Int) {
        var bytes = noise
        let sector = Stamp(pattern: 0).data(SectorRange(from: 3, to: 4), write: 17)
        bytes.replaceSubrange(offset..<offset + 512, with: sector.readableBytesView)
        #expect(Stamp.isPlain(in: bytes))
    }

    @Test("noise, zeroes and short files are not taken for it")
    func others() {
        #expect(!Stamp.isPlain(in: noise))
        #expect(!Stamp.isPlain(in: [UInt8](repeating: 0, count: 8192)))
        for count in [0, 1, 63, 64, 65] { #expect(!Stamp.isPlain(in: [UInt8](repeating: 0, count: count))) }
    }

    @Test("a key is found at the beginning, in the middle and at the end")
    func keys() {
        let key = (0..<32).map { UInt8($0 + 200) }
        for offset in [0, 4000, noise.count - 32] {
            var bytes = noise
            bytes.replaceSubrange(offset..<offset + 32, with: key)
            #expect(bytes.holds(key))
        }
        #expect(!noise.holds(key))
        #expect(!noise.prefix(31).map { $0 }.holds(key))
    }
}
