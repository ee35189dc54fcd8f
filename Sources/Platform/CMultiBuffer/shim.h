// AES-256-GCM of Intel's multi-buffer library (libipsec-mb): the choice of its functions. They are called from
// MultiBufferCipher.swift; the library's manager, a struct of 200 KiB, stays here.

#include <intel-ipsec-mb.h>
#include <stdbool.h>
#include <stddef.h>

/// What AES-256-GCM takes on this processor.
struct causeway_gcm {
    aes_gcm_pre_t _Nullable expand;
    aes_gcm_enc_dec_t _Nullable seal;
    aes_gcm_enc_dec_t _Nullable open;
    /// The version of the library, and the instructions that the functions are made of.
    const char *_Nullable version;
    const char *_Nullable instructions;
};

/// Finds the functions. False when there is no memory, when this processor lacks what makes them fast, when the library's own self
/// test failed, or when it was built to leave what it knew of a key on the stack and in registers.
static inline bool causeway_gcm_find(struct causeway_gcm *_Nonnull functions) {
    IMB_MGR *manager = alloc_mb_mgr(0);
    if (manager == NULL) {
        return false;
    }
    init_mb_mgr_auto(manager, NULL);
    const uint64_t needed = IMB_CPUFLAGS_AVX | IMB_FEATURE_SAFE_DATA | IMB_FEATURE_SELF_TEST_PASS;
    const uint64_t wide = IMB_CPUFLAGS_AVX512 | IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ;
    const bool is_usable = imb_get_errno(manager) == 0 && (manager->features & needed) == needed;
    if (is_usable) {
        functions->expand = manager->gcm256_pre;
        functions->seal = manager->gcm256_enc;
        functions->open = manager->gcm256_dec;
        functions->version = imb_get_version_str();
        functions->instructions = (manager->features & wide) == wide ? "VAES and AVX-512" : "AES-NI and AVX";
    }
    // The manager is not needed any more: it only says where the functions are, and GCM's are called without it.
    free_mb_mgr(manager);
    return is_usable;
}
