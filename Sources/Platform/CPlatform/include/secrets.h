#ifndef CAUSEWAY_SECRETS_H
#define CAUSEWAY_SECRETS_H

#include <stddef.h>

/// The length of a key, in bytes.
#define CAUSEWAY_SECRET_BYTES 32
/// Room for a key that a cipher expanded.
#define CAUSEWAY_EXPANDED_KEY_BYTES 1024

/// Room for one secret, aligned to its length, in memory that is locked, left out of core files and empty after a fork.
/// Secrets of one length share pages, so that many fit into a small RLIMIT_MEMLOCK. It costs the same however many there are.
/// The length is a power of two, from CAUSEWAY_SECRET_BYTES up to a page of 4096. Returns NULL when it is not, and when there is
/// no memory.
void *_Nullable causeway_secret_allocate(size_t bytes);

/// Wipes the secret and gives its room back, to secrets of any length once its page is empty.
void causeway_secret_free(void *_Nonnull secret);

/// How many pages of secrets could not be locked, so that they might reach a swap device: 0 is well.
size_t causeway_secret_unlocked_pages(void);

/// How many pages there are for secrets, in use or not: as many as were ever needed at one time.
size_t causeway_secret_pages(void);

#endif
