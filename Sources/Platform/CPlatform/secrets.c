// Where secrets live: pages of slots of one length that are locked into memory and left out of core files.
//
// Pages come in blocks of sixteen, aligned to their length, so that the address of a secret leads to what is known of its page.
// That is in the first page of the block, which is ordinary memory; the others are secrets' pages, each locked when it is first
// needed:
//
//     | struct block: what is known of each page | slots | slots | ... | not yet in use |
//
// A page in use is in the list of its slots' length while it has room for another one; an empty page is in the list of those that
// any length may take, and stays locked.

#define _GNU_SOURCE
#include "secrets.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096
#define PAGES_PER_BLOCK 16
#define BLOCK_BYTES ((size_t)PAGES_PER_BLOCK * PAGE_BYTES)
#define SLOTS_PER_PAGE_MAX (PAGE_BYTES / CAUSEWAY_SECRET_BYTES)
#define WORDS_PER_PAGE (SLOTS_PER_PAGE_MAX / 64)
/// One list for each length of a slot, from CAUSEWAY_SECRET_BYTES to PAGE_BYTES.
#define LENGTHS 8

struct page {
    struct page *previous;
    struct page *next;
    uint8_t *bytes;
    size_t slot_bytes;
    size_t used_count;
    /// Slots in use; those beyond the page's end too.
    uint64_t used[WORDS_PER_PAGE];
};

struct block {
    struct page pages[PAGES_PER_BLOCK];
};

_Static_assert(sizeof(struct block) <= PAGE_BYTES, "what is known of the pages fits before them");
_Static_assert((CAUSEWAY_SECRET_BYTES << (LENGTHS - 1)) == PAGE_BYTES, "a list for each length");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct page *with_room[LENGTHS];
static struct page *empty_pages;
/// The block of which pages are not yet in use, and the first of them.
static struct block *newest_block;
static size_t next_in_block = PAGES_PER_BLOCK;
static size_t page_count;
static size_t unlocked_pages;

static void insert(struct page **list, struct page *page) {
    page->previous = NULL;
    page->next = *list;
    if (*list != NULL) {
        (*list)->previous = page;
    }
    *list = page;
}

static void remove_from(struct page **list, struct page *page) {
    if (page->previous != NULL) {
        page->previous->next = page->next;
    } else {
        *list = page->next;
    }
    if (page->next != NULL) {
        page->next->previous = page->previous;
    }
}

static struct page **list_of(size_t slot_bytes) {
    return &with_room[__builtin_ctzll(slot_bytes / CAUSEWAY_SECRET_BYTES)];
}

/// Maps a block at a multiple of its length.
static struct block *map_block(void) {
    uint8_t *bytes = mmap(NULL, 2 * BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) {
        return NULL;
    }
    size_t before = (BLOCK_BYTES - (uintptr_t)bytes % BLOCK_BYTES) % BLOCK_BYTES;
    if (before != 0) {
        (void)munmap(bytes, before);
    }
    (void)munmap(bytes + before + BLOCK_BYTES, BLOCK_BYTES - before);
    return (struct block *)(bytes + before);
}

/// A page that was never in use: locked, and left out of core files and of children.
static struct page *add_page(void) {
    if (next_in_block == PAGES_PER_BLOCK) {
        struct block *block = map_block();
        if (block == NULL) {
            return NULL;
        }
        newest_block = block;
        next_in_block = 1;
    }
    struct page *page = &newest_block->pages[next_in_block];
    page->bytes = (uint8_t *)newest_block + next_in_block * PAGE_BYTES;
    next_in_block++;
    page_count++;
#if defined(MADV_DONTDUMP)
    (void)madvise(page->bytes, PAGE_BYTES, MADV_DONTDUMP);
#endif
#if defined(MADV_WIPEONFORK)
    (void)madvise(page->bytes, PAGE_BYTES, MADV_WIPEONFORK);
#endif
    if (mlock(page->bytes, PAGE_BYTES) != 0) {
        unlocked_pages++;
    }
    return page;
}

/// An empty page for slots of this length, in their list.
static struct page *begin_page(size_t slot_bytes) {
    struct page *page = empty_pages;
    if (page != NULL) {
        remove_from(&empty_pages, page);
    } else {
        page = add_page();
    }
    if (page == NULL) {
        return NULL;
    }
    page->slot_bytes = slot_bytes;
    page->used_count = 0;
    size_t slots = PAGE_BYTES / slot_bytes;
    for (size_t word = 0; word < WORDS_PER_PAGE; word++) {
        size_t first = word * 64;
        page->used[word] = slots >= first + 64 ? 0 : slots <= first ? UINT64_MAX : UINT64_MAX << (slots - first);
    }
    insert(list_of(slot_bytes), page);
    return page;
}

/// A slot of a page that has room. A page that is full then leaves its list.
static void *take_slot(struct page *page) {
    size_t word = 0;
    while (page->used[word] == UINT64_MAX) {
        word++;
    }
    unsigned bit = (unsigned)__builtin_ctzll(~page->used[word]);
    page->used[word] |= UINT64_C(1) << bit;
    page->used_count++;
    if (page->used_count == PAGE_BYTES / page->slot_bytes) {
        remove_from(list_of(page->slot_bytes), page);
    }
    return page->bytes + (word * 64 + bit) * page->slot_bytes;
}

void *causeway_secret_allocate(size_t bytes) {
    if (bytes < CAUSEWAY_SECRET_BYTES || bytes > PAGE_BYTES || (bytes & (bytes - 1)) != 0) {
        return NULL;
    }
    pthread_mutex_lock(&lock);
    struct page *page = *list_of(bytes);
    if (page == NULL) {
        page = begin_page(bytes);
    }
    void *slot = page == NULL ? NULL : take_slot(page);
    pthread_mutex_unlock(&lock);
    return slot;
}

void causeway_secret_free(void *secret) {
    struct block *block = (struct block *)((uintptr_t)secret & ~(uintptr_t)(BLOCK_BYTES - 1));
    size_t offset = (size_t)((uint8_t *)secret - (uint8_t *)block);
    struct page *page = &block->pages[offset / PAGE_BYTES];
    volatile uint64_t *words = secret;
    pthread_mutex_lock(&lock);
    for (size_t index = 0; index < page->slot_bytes / sizeof *words; index++) {
        words[index] = 0;
    }
    size_t slot = offset % PAGE_BYTES / page->slot_bytes;
    bool was_full = page->used_count == PAGE_BYTES / page->slot_bytes;
    page->used[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    page->used_count--;
    struct page **list = list_of(page->slot_bytes);
    if (page->used_count == 0) {
        if (!was_full) {
            remove_from(list, page);
        }
        insert(&empty_pages, page);
    } else if (was_full) {
        insert(list, page);
    }
    pthread_mutex_unlock(&lock);
}

size_t causeway_secret_unlocked_pages(void) {
    pthread_mutex_lock(&lock);
    size_t count = unlocked_pages;
    pthread_mutex_unlock(&lock);
    return count;
}

size_t causeway_secret_pages(void) {
    pthread_mutex_lock(&lock);
    size_t count = page_count;
    pthread_mutex_unlock(&lock);
    return count;
}
