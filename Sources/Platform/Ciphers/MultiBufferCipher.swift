// AES-256-GCM by Intel's multi-buffer library, which uses the wide instructions (VAES, VPCLMULQDQ, AVX-512) that OpenSSL learnt
// in version 3.1 only, and whose calls cost little: a sector and a block of 4 KiB take a quarter of OpenSSL 3.0's time.
//
// Threads. All that the direct calls of GCM work on are their arguments: the expanded key, which is const to all but the call that
// fills it, and a context, which each call here has on its stack; the macros of the header call the manager's pointers without the
// manager. There is one thing beside: each call stores 0 in the library's own error number, which nobody here reads. So one
// expanded key serves any number of threads at once.
//
// Secrets. The expanded key lies where keys lie: in locked memory, which core files leave out and which is wiped at the end. The
// library is used only when it was built with SAFE_DATA, as Debian's is: registers and the stack are wiped before a call returns,
// and the context then holds the nonce and lengths.

#if arch(x86_64) && os(Linux)
    import CLibCrypto
    import CMultiBuffer
    import CPlatform

    /// AES-256-GCM under one key, by Intel's multi-buffer library.
    ///
    /// Sendable although it holds a pointer: what it points to is written in the initialiser, and wiped in the deinitialiser; `take` is for
    /// who has it alone.
    final class MultiBufferCipher: @unchecked Sendable {
        let expandedKey: UnsafeMutablePointer<gcm_key_data>
        private let sealing: aes_gcm_enc_dec_t
        private let opening: aes_gcm_enc_dec_t

        /// Nil when this processor is not one for the library, or there is no memory for the expanded key.
        init?(key: SecretKey) {
            guard let library = Self.library, let expand = library.expand, let seal = library.seal, let open = library.open,
                MemoryLayout<gcm_key_data>.size <= Int(CAUSEWAY_EXPANDED_KEY_BYTES),
                let place = causeway_secret_allocate(Int(CAUSEWAY_EXPANDED_KEY_BYTES))
            else { return nil }
            expandedKey = place.bindMemory(to: gcm_key_data.self, capacity: 1)
            (sealing, opening) = (seal, open)
            key.withUnsafeBytes { expand($0.baseAddress, expandedKey) }
        }

        deinit { causeway_secret_free(expandedKey) }

        /// Puts another key in the place of this one.
        func take(_ key: UnsafeRawBufferPointer) -> Bool {
            guard let expand = Self.library?.expand else { return false }
            expand(key.baseAddress, expandedKey)
            return true
        }

        /// Encrypts `text` to `output`, which may be where the text is, and writes its tag.
        func seal(
            _ text: UnsafeRawBufferPointer, nonce: UnsafeRawBufferPointer, authenticating data: UnsafeRawBufferPointer,
            into output: UnsafeMutableRawPointer, tag: UnsafeMutableRawPointer
        ) -> Bool {
            var context = gcm_context_data()
            sealing(
                expandedKey, &context, output.bytes, text.bytes, UInt64(text.count), nonce.bytes, data.bytes, UInt64(data.count),
                tag.bytes, UInt64(BlockCipher.tagByteCount))
            return true
        }

        /// Decrypts `text` to `output`, which may be where the text is; false when its tag is another.
        func open(
            _ text: UnsafeRawBufferPointer, nonce: UnsafeRawBufferPointer, authenticating data: UnsafeRawBufferPointer,
            into output: UnsafeMutableRawPointer?, tag: UnsafeRawPointer
        ) -> Bool {
            var context = gcm_context_data()
            let expected = tag.loadUnaligned(as: Tag.self)
            // Not the tag that is expected, whatever that is: a call that did nothing would not pass.
            var actual = Tag(~expected.first, ~expected.second)
            return withUnsafeMutableBytes(of: &actual) { actual in
                opening(
                    expandedKey, &context, output?.bytes, text.bytes, UInt64(text.count), nonce.bytes, data.bytes, UInt64(data.count),
                    actual.baseAddress?.bytes, UInt64(BlockCipher.tagByteCount))
                return CRYPTO_memcmp(actual.baseAddress, tag, BlockCipher.tagByteCount) == 0
            }
        }

        private struct Tag {
            let first: UInt64
            let second: UInt64

            init(_ first: UInt64, _ second: UInt64) { (self.first, self.second) = (first, second) }
        }

        // MARK: The library

        /// The library's functions on this processor; nil when they are not to be used. Unsafe says only that the pointers to
        /// functions and constant texts in it are imported without a promise.
        nonisolated(unsafe) private static let library: causeway_gcm? = {
            var found = causeway_gcm()
            return causeway_gcm_find(&found) ? found : nil
        }()

        /// What the library calls itself, and what it uses here.
        static let name: String? = {
            guard let version = library?.version, let instructions = library?.instructions else { return nil }
            return "Intel's multi-buffer library \(String(cString: version)) with \(String(cString: instructions))"
        }()
    }

    extension UnsafeMutableRawPointer {
        /// Itself, as C wants it.
        fileprivate var bytes: UnsafeMutablePointer<UInt8> { assumingMemoryBound(to: UInt8.self) }
    }
#else
    /// The multi-buffer library is for x86-64 only.
    final class MultiBufferCipher: Sendable {
        static let name: String? = nil

        init?(key: SecretKey) { return nil }

        func take(_ key: UnsafeRawBufferPointer) -> Bool { false }

        func seal(
            _ text: UnsafeRawBufferPointer, nonce: UnsafeRawBufferPointer, authenticating data: UnsafeRawBufferPointer,
            into output: UnsafeMutableRawPointer, tag: UnsafeMutableRawPointer
        ) -> Bool { false }

        func open(
            _ text: UnsafeRawBufferPointer, nonce: UnsafeRawBufferPointer, authenticating data: UnsafeRawBufferPointer,
            into output: UnsafeMutableRawPointer?, tag: UnsafeRawPointer
        ) -> Bool { false }
    }
#endif
