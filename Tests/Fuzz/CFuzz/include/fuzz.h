#ifndef CAUSEWAY_FUZZ_H
#define CAUSEWAY_FUZZ_H

#include <stddef.h>
#include <stdint.h>

// What must work while the program under test is broken: a signal handler that says which input did it.

/// From now on a crash, or an input that takes longer than `seconds`, is reported with the input in hexadecimal on the standard
/// error output and as a file in `directory` (a string that lives on), and the process ends with status 70 (crash) or 71 (hang).
void causeway_fuzz_watch(const char *_Nonnull directory, unsigned int seconds);

/// The input that is run from now on; `parser` and `bytes` stay valid until the next call. NULL and 0 when none is.
void causeway_fuzz_note(const char *_Nullable parser, const uint8_t *_Nullable bytes, size_t length);

/// Bounds the address space of the process, so that an input that makes it ask for too much crashes. 0, or an errno.
int causeway_fuzz_limit_memory(uint64_t bytes);

/// The resident memory of the process and its highest value, in bytes; 0 when the kernel does not say.
void causeway_fuzz_memory(uint64_t *_Nonnull resident, uint64_t *_Nonnull peak);

/// libFuzzer's loop; in the library that `-sanitize=fuzzer` brings, so only there may it be called.
int LLVMFuzzerRunDriver(
    int *_Nonnull argument_count, char *_Nullable *_Nullable *_Nonnull arguments,
    int (*_Nonnull callback)(const uint8_t *_Nullable bytes, size_t length));

#endif
