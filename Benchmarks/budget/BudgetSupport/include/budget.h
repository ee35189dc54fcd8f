#ifndef CAUSEWAY_BUDGET_H
#define CAUSEWAY_BUDGET_H

#include <stdint.h>

// What the budget of the data path is measured with: a count of allocations, and an initiator that costs next to nothing.

/// Starts or stops the count of the calling thread's allocations. The count itself goes on from where it was.
void budget_count_allocations(int is_on);

/// How many times the calling thread has asked for memory (malloc, calloc, realloc, aligned_alloc and their kin) while it counted.
uint64_t budget_allocations(void);

/// Connects to 127.0.0.1 and logs in to a target without CHAP and without digests.
/// Returns the socket, or -1 with a text on standard error.
int budget_connect(uint16_t port, const char *_Nonnull target_name);

enum budget_kind { BUDGET_READ, BUDGET_WRITE };

/// Does `rounds` times: sends `depth` commands of 4 KiB (a write's data go with it) in one call, and takes all their answers. The positions are
/// spread over the first `blocks` blocks of 4 KiB. Returns 0, or -1 with a text on standard error, also when an answer is not GOOD.
int budget_run(int socket, enum budget_kind kind, uint32_t depth, uint32_t rounds, uint32_t blocks);

/// A place where callgrind ends one profile and begins the next.
void budget_mark(void);

#endif
