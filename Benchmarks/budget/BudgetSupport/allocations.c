// Every allocation of the process comes through here, because an executable's symbols go before the C library's.

#define _GNU_SOURCE
#include "budget.h"

#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

// Of the program itself, so that reaching them allocates nothing.
static __thread int is_counting __attribute__((tls_model("initial-exec")));
static __thread uint64_t count __attribute__((tls_model("initial-exec")));

void budget_count_allocations(int is_on) { is_counting = is_on; }
uint64_t budget_allocations(void) { return count; }

void *malloc(size_t size) {
    count += (uint64_t)is_counting;
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    count += (uint64_t)is_counting;
    return __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size) {
    count += (uint64_t)is_counting;
    return __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size) {
    count += (uint64_t)is_counting;
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **memory, size_t alignment, size_t size) {
    void *found = memalign(alignment, size);
    if (!found) return ENOMEM;
    *memory = found;
    return 0;
}

void free(void *memory) { __libc_free(memory); }
