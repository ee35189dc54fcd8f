// An NBD export that encrypts what is written and puts it over the pages that a file has: no log, no map, no checksum, no point, no
// write-back before the kernel's own. What a server that encrypts could do at most. (nbdkit-plugin(3); AES-256-GCM by intel-ipsec-mb.)
#define NBDKIT_API_VERSION 2
#include <fcntl.h>
#include <intel-ipsec-mb.h>
#include <nbdkit-plugin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static char *path;
static int file = -1;
static int64_t size;
static struct gcm_key_data key;
static IMB_MGR *manager;

static int configure(const char *name, const char *value) {
    if (strcmp(name, "file") != 0) {
        nbdkit_error("unknown parameter: %s", name);
        return -1;
    }
    path = nbdkit_realpath(value);
    return path == NULL ? -1 : 0;
}

static int prepare(void) {
    struct stat status;
    if (path == NULL || (file = open(path, O_RDWR | O_CLOEXEC)) < 0 || fstat(file, &status) != 0) {
        nbdkit_error("file=PATH: %m");
        return -1;
    }
    size = status.st_size;
    manager = alloc_mb_mgr(0);
    if (manager == NULL) return -1;
    init_mb_mgr_auto(manager, NULL);
    uint8_t bytes[32] = "a key for one run of a benchmark";
    IMB_AES256_GCM_PRE(manager, bytes, &key);
    return 0;
}

static void *begin(int readonly) { return &file; }
static int64_t byte_count(void *handle) { return size; }

static int read_bytes(void *handle, void *bytes, uint32_t count, uint64_t offset, uint32_t flags) {
    memset(bytes, 0, count);
    return 0;
}

static int write_bytes(void *handle, const void *bytes, uint32_t count, uint64_t offset, uint32_t flags) {
    static __thread uint8_t *sealed;
    static __thread uint32_t room;
    if (room < count) {
        free(sealed);
        sealed = aligned_alloc(4096, (count + 4095) & ~4095u);
        room = sealed == NULL ? 0 : count;
        if (sealed == NULL) return -1;
    }
    struct gcm_context_data context;
    uint8_t nonce[12] = {0}, tag[16];
    memcpy(nonce, &offset, sizeof offset);
    IMB_AES256_GCM_ENC(manager, &key, &context, sealed, bytes, count, nonce, NULL, 0, tag, sizeof tag);
    for (uint32_t done = 0; done < count;) {
        ssize_t taken = pwrite(file, sealed + done, count - done, (off_t)(offset + done));
        if (taken < 0) {
            nbdkit_error("pwrite: %m");
            return -1;
        }
        done += (uint32_t)taken;
    }
    return 0;
}

static int flush_file(void *handle, uint32_t flags) { return fdatasync(file); }

static struct nbdkit_plugin plugin = {
    .name = "encrypting", .config = configure, .get_ready = prepare, .open = begin, .get_size = byte_count,
    .pread = read_bytes, .pwrite = write_bytes, .flush = flush_file,
};
NBDKIT_REGISTER_PLUGIN(plugin)
