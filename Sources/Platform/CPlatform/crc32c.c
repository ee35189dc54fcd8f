// CRC-32C by the CPU's own instruction where there is one, else by a table of eight slices.
//
// The instruction takes three cycles and a new one can start in each, so long inputs are cut into three lanes side by side:
//
//     | lane a, n bytes | lane b, n bytes | lane c, n bytes |      crc = a * x^(16 n) + b * x^(8 n) + c   (mod P)
//
// To multiply by a power of x takes a carry-less multiplication and one more crc32: for a 64-bit v it gives v * x^33 mod P
// when both factors are bit-reflected, so the constants below are x^(8 n - 33) and x^(16 n - 33) mod P, reflected.

#include "crc32c.h"

#include <stdatomic.h>
#include <string.h>

#define CASTAGNOLI_REVERSED 0x82f63b78u

static uint32_t table[8][256];
static _Atomic int table_ready;

static void make_table(void) {
    // Two threads may both fill the table: they write the same values.
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) ? (crc >> 1) ^ CASTAGNOLI_REVERSED : crc >> 1;
        }
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (int slice = 1; slice < 8; slice++) {
            table[slice][byte] = (table[slice - 1][byte] >> 8) ^ table[0][table[slice - 1][byte] & 0xff];
        }
    }
    atomic_store(&table_ready, 1);
}

static uint32_t by_table(uint32_t crc, const uint8_t *bytes, size_t length) {
    if (!atomic_load(&table_ready)) {
        make_table();
    }
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        word ^= crc;
        crc = table[7][word & 0xff] ^ table[6][(word >> 8) & 0xff] ^ table[5][(word >> 16) & 0xff] ^
              table[4][(word >> 24) & 0xff] ^ table[3][(word >> 32) & 0xff] ^ table[2][(word >> 40) & 0xff] ^
              table[1][(word >> 48) & 0xff] ^ table[0][word >> 56];
        bytes += 8;
        length -= 8;
    }
    while (length-- > 0) {
        crc = (crc >> 8) ^ table[0][(crc ^ *bytes++) & 0xff];
    }
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>

/// Lanes of n bytes, and what brings the first and the second of three to their places.
struct lanes {
    size_t byte_count;
    uint64_t first, second;
};

// Three long lanes are 4,080 bytes: one block of ours. Three short ones are 504: one sector.
static const struct lanes long_lanes = {1360, 0x5aa1f3cf, 0x3f70cc6f};
static const struct lanes short_lanes = {168, 0xa60ce07b, 0x1b3d8f29};

static inline uint64_t word_at(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

/// Three lanes that begin at `bytes`.
__attribute__((target("sse4.2,pclmul"))) static inline uint32_t by_lanes(
    uint32_t crc, const uint8_t *bytes, struct lanes lanes) {
    const size_t n = lanes.byte_count;
    uint64_t a = crc, b = 0, c = 0;
    for (const uint8_t *end = bytes + n; bytes < end; bytes += 8) {
        a = _mm_crc32_u64(a, word_at(bytes));
        b = _mm_crc32_u64(b, word_at(bytes + n));
        c = _mm_crc32_u64(c, word_at(bytes + 2 * n));
    }
    const __m128i first = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)a), _mm_cvtsi64_si128((int64_t)lanes.first), 0);
    const __m128i second = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)b), _mm_cvtsi64_si128((int64_t)lanes.second), 0);
    return (uint32_t)(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(first, second))) ^ c);
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t by_three_lanes(uint32_t crc, const uint8_t **bytes, size_t *length) {
    for (; *length >= 3 * long_lanes.byte_count; *length -= 3 * long_lanes.byte_count) {
        crc = by_lanes(crc, *bytes, long_lanes);
        *bytes += 3 * long_lanes.byte_count;
    }
    for (; *length >= 3 * short_lanes.byte_count; *length -= 3 * short_lanes.byte_count) {
        crc = by_lanes(crc, *bytes, short_lanes);
        *bytes += 3 * short_lanes.byte_count;
    }
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *bytes, size_t length) {
    uint64_t wide = crc;
    while (length >= 8) {
        wide = _mm_crc32_u64(wide, word_at(bytes));
        bytes += 8;
        length -= 8;
    }
    crc = (uint32_t)wide;
    while (length-- > 0) {
        crc = _mm_crc32_u8(crc, *bytes++);
    }
    return crc;
}
#endif

uint32_t causeway_crc32c(uint32_t crc, const void *bytes, size_t length) { return causeway_crc32c_by(crc, bytes, length, 2); }

uint32_t causeway_crc32c_by(uint32_t crc, const void *bytes, size_t length, int way) {
    const uint8_t *rest = bytes;
    crc = ~crc;
#if defined(__x86_64__)
    if (way > 0 && __builtin_cpu_supports("sse4.2")) {
        if (way > 1 && length >= 3 * short_lanes.byte_count && __builtin_cpu_supports("pclmul")) {
            crc = by_three_lanes(crc, &rest, &length);
        }
        return ~by_instruction(crc, rest, length);
    }
#endif
    (void)way;
    return ~by_table(crc, rest, length);
}
