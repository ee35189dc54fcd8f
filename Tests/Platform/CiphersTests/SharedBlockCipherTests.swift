import Testing

@testable import Ciphers

@Suite struct SharedBlockCipherTests {
    private func sealed(_ cipher: BlockCipher, _ number: UInt64) -> [UInt8] {
        let plaintext = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 512)
        var text = [UInt8](repeating: 0, count: plaintext.count + BlockCipher.tagByteCount)
        let isSealed = plaintext.withUnsafeBytes { plaintext in
            text.withUnsafeMutableBytes {
                cipher.seal(
                    plaintext, nonce: CipherNonce(sequence: number, index: 1), context: CipherContext(number, 2, 3, 4, 5), into: $0)
            }
        }
        return isSealed ? text : []
    }

    /// More tasks than ciphers that are kept, and borrowers that borrow again.
    @Test(arguments: CipherLibrary.allCases) func everyBorrowerSealsAsIfAlone(_ library: CipherLibrary) async throws {
        let key = try SecretKey([UInt8](repeating: 9, count: 32))
        guard let cipher = library.cipher(key) else { return }
        let shared = cipher.shared()
        let expected = (0..<64).map { sealed(BlockCipher(.openSSL(OpenSSLCipher(key: key))), $0) }
        #expect(expected.allSatisfy { !$0.isEmpty })
        await withTaskGroup(of: Bool.self) { group in
            for task in 0..<4 * SharedBlockCipher.ciphersMax {
                group.addTask {
                    (0..<200 as Range<Int>).allSatisfy { turn in
                        let number = UInt64((task + turn) % 64)
                        return shared.withCipher { self.sealed($0, number) } == expected[Int(number)]
                    }
                }
            }
            for await isRight in group { #expect(isRight) }
        }
    }

    @Test func borrowersBeyondThoseThatAreKeptGetTheirOwn() throws {
        let shared = BlockCipher(.openSSL(OpenSSLCipher(key: try SecretKey([UInt8](repeating: 9, count: 32))))).shared()
        func borrow(_ depth: Int, _ held: [ObjectIdentifier]) -> Bool {
            shared.withCipher { cipher in
                let isNew = !held.contains(ObjectIdentifier(cipher))
                return depth == 0 ? isNew : isNew && borrow(depth - 1, held + [ObjectIdentifier(cipher)])
            }
        }
        #expect(borrow(SharedBlockCipher.ciphersMax + 3, []))
    }
}
