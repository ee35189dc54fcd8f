import ArgumentParser
import Ciphers

/// What sealing and opening cost, in nanoseconds for one text on one core.
struct CipherCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cipher", abstract: "Seals and opens texts in memory; prints which library does it, and its time.")

    @Option(help: "How much of each size is sealed and opened, in MiB.")
    var mebibytes = 512

    private struct Result: Encodable {
        struct Size: Encodable {
            let bytes: Int
            let sealNanoseconds: Double
            let openNanoseconds: Double
        }

        /// What a shared block of 4 KiB costs: its signature when it comes in, and opening it under its own key.
        struct Shared: Encodable {
            let signNanoseconds: Double
            let openNanoseconds: Double
        }

        let library: String
        let sizes: [Size]
        let shared: Shared
    }

    func run() throws {
        let cipher = BlockCipher(key: try SecretKey.random())
        let context = CipherContext(1, 2, 3, 4, 5)
        let sizes = try [512, 4096, 131_072].map { bytes in
            let text = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
            let sealed = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes + BlockCipher.tagByteCount, alignment: 64)
            defer {
                text.deallocate()
                sealed.deallocate()
            }
            text.initializeMemory(as: UInt8.self, repeating: 7)
            let rounds = max(1, mebibytes << 20 / bytes)
            func nanoseconds(_ body: () -> Bool) throws -> Double {
                let start = ContinuousClock.now
                for _ in 0..<rounds where !body() { throw ValidationError("the cipher refused") }
                return (Bench.seconds(since: start) * 1e9 / Double(rounds) * 10).rounded() / 10
            }
            let nonce = CipherNonce(sequence: 1, index: UInt32(truncatingIfNeeded: bytes))
            return Result.Size(
                bytes: bytes,
                sealNanoseconds: try nanoseconds {
                    cipher.seal(UnsafeRawBufferPointer(text), nonce: nonce, context: context, into: sealed)
                },
                openNanoseconds: try nanoseconds {
                    cipher.open(UnsafeRawBufferPointer(sealed), nonce: nonce, context: context, into: text)
                })
        }
        try Bench.print(Result(library: BlockCipher.library, sizes: sizes, shared: try measureShared()))
    }

    private func measureShared() throws -> Result.Shared {
        let key = try SecretKey.random()
        guard let authenticator = MessageAuthenticator(key: key), let cipher = DerivingCipher() else {
            throw ValidationError("the library refused")
        }
        let rounds = max(1, mebibytes << 8)
        func nanoseconds(_ body: () -> Bool) throws -> Double {
            let start = ContinuousClock.now
            for _ in 0..<rounds where !body() { throw ValidationError("the cipher refused") }
            return (Bench.seconds(since: start) * 1e9 / Double(rounds) * 10).rounded() / 10
        }
        let (root, name) = (SharedBlockCipher(key: key), CipherNonce(sequence: 3, index: 4))
        var text = [UInt8](repeating: 7, count: 4096)
        var sealed = [UInt8](repeating: 0, count: text.count + BlockCipher.tagByteCount)
        let (nonce, context) = (CipherNonce(sequence: 1, index: 2), CipherContext(1, 2, 3, 4, 5))
        let isSealed = text.withUnsafeBytes { text in
            sealed.withUnsafeMutableBytes { sealed in
                cipher.withCipher(of: name, root: root) { $0.seal(text, nonce: nonce, context: context, into: sealed) }
            }
        }
        guard isSealed == true else { throw ValidationError("the cipher refused") }
        return Result.Shared(
            signNanoseconds: try text.withUnsafeBytes { text in try nanoseconds { authenticator.shortCode(of: text) != nil } },
            openNanoseconds: try text.withUnsafeMutableBytes { text in
                try sealed.withUnsafeBytes { sealed in
                    try nanoseconds {
                        cipher.withCipher(of: name, root: root) { $0.open(sealed, nonce: nonce, context: context, into: text) } == true
                    }
                }
            })
    }
}
