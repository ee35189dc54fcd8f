#ifndef CAUSEWAY_CRC32C_H
#define CAUSEWAY_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `length` bytes, continued from `crc`.
/// A computation starts with 0 and may be cut anywhere: the result of one part is the `crc` of the next.
uint32_t causeway_crc32c(uint32_t crc, const void *_Nullable bytes, size_t length);

/// The same by one of the ways there are, so that tests can hold them against each other: 0 by tables, 1 by the
/// instruction, 2 by three lanes of it. A way that the CPU lacks falls back to the one before.
uint32_t causeway_crc32c_by(uint32_t crc, const void *_Nullable bytes, size_t length, int way);

#endif
