// The process as a whole: no core files, memory that is kept, and open files.
// Where secrets live: pages of slots of one length that are locked into memory and left out of core files.

#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#if defined(__linux__)
#include <sys/prctl.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define PAGE_BYTES 4096
#define SLOTS_PER_PAGE_MAX (PAGE_BYTES / CAUSEWAY_SECRET_BYTES)

int causeway_forbid_core_dumps(void) {
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0) {
        return errno;
    }
#if defined(__linux__)
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return errno;
    }
#endif
    const int crashes[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGQUIT, SIGSEGV, SIGSYS, SIGTRAP};
    for (size_t index = 0; index < sizeof crashes / sizeof crashes[0]; index++) {
        if (signal(crashes[index], SIG_DFL) == SIG_ERR) {
            return errno;
        }
    }
    return 0;
}

void causeway_keep_freed_memory(void) {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    // Threads of the pool free what the loop allocated and the other way round: few heaps find their holes again.
    mallopt(M_ARENA_MAX, 4);
#endif
}

int causeway_raise_file_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        return errno;
    }
    files.rlim_cur = files.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &files) == 0 ? 0 : errno;
}

struct secret_page {
    struct secret_page *next;
    uint8_t *bytes;
    size_t slot_bytes;
    uint64_t used[SLOTS_PER_PAGE_MAX / 64];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct secret_page *pages;
static size_t unlocked_pages;

static struct secret_page *add_page(size_t slot_bytes) {
    struct secret_page *page = calloc(1, sizeof *page);
    if (page == NULL) {
        return NULL;
    }
    page->bytes = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page->bytes == MAP_FAILED) {
        free(page);
        return NULL;
    }
#if defined(MADV_DONTDUMP)
    (void)madvise(page->bytes, PAGE_BYTES, MADV_DONTDUMP);
#endif
#if defined(MADV_WIPEONFORK)
    (void)madvise(page->bytes, PAGE_BYTES, MADV_WIPEONFORK);
#endif
    if (mlock(page->bytes, PAGE_BYTES) != 0) {
        unlocked_pages++;
    }
    page->slot_bytes = slot_bytes;
    // Slots beyond the page's end are taken for ever.
    for (size_t slot = PAGE_BYTES / slot_bytes; slot < SLOTS_PER_PAGE_MAX; slot++) {
        page->used[slot / 64] |= UINT64_C(1) << (slot % 64);
    }
    page->next = pages;
    pages = page;
    return page;
}

static void *take_slot(struct secret_page *page) {
    for (size_t word = 0; word < SLOTS_PER_PAGE_MAX / 64; word++) {
        if (page->used[word] != UINT64_MAX) {
            unsigned bit = (unsigned)__builtin_ctzll(~page->used[word]);
            page->used[word] |= UINT64_C(1) << bit;
            return page->bytes + (word * 64 + bit) * page->slot_bytes;
        }
    }
    return NULL;
}

void *causeway_secret_allocate(size_t bytes) {
    if (bytes < CAUSEWAY_SECRET_BYTES || bytes > PAGE_BYTES || (bytes & (bytes - 1)) != 0) {
        return NULL;
    }
    void *slot = NULL;
    pthread_mutex_lock(&lock);
    for (struct secret_page *page = pages; page != NULL && slot == NULL; page = page->next) {
        if (page->slot_bytes == bytes) {
            slot = take_slot(page);
        }
    }
    if (slot == NULL) {
        struct secret_page *page = add_page(bytes);
        if (page != NULL) {
            slot = take_slot(page);
        }
    }
    pthread_mutex_unlock(&lock);
    return slot;
}

void causeway_secret_free(void *secret) {
    volatile uint8_t *bytes = secret;
    pthread_mutex_lock(&lock);
    for (struct secret_page *page = pages; page != NULL; page = page->next) {
        uint8_t *first = page->bytes;
        if ((uint8_t *)secret >= first && (uint8_t *)secret < first + PAGE_BYTES) {
            for (size_t index = 0; index < page->slot_bytes; index++) {
                bytes[index] = 0;
            }
            size_t slot = (size_t)((uint8_t *)secret - first) / page->slot_bytes;
            page->used[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

size_t causeway_secret_unlocked_pages(void) {
    pthread_mutex_lock(&lock);
    size_t count = unlocked_pages;
    pthread_mutex_unlock(&lock);
    return count;
}
