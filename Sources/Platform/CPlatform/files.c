#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

static int result(int value) { return value < 0 ? -errno : 0; }

/// Repeats a call that a signal interrupted.
#define RETRY(value, call)                                                                                                  \
    do {                                                                                                                    \
        value = (call);                                                                                                     \
    } while (value < 0 && errno == EINTR)

int causeway_open(int directory, const char *path, int flags, unsigned int mode) {
    int bits = O_CLOEXEC | ((flags & CAUSEWAY_OPEN_WRITE) ? O_RDWR : O_RDONLY);
    if (flags & CAUSEWAY_OPEN_CREATE) bits |= O_CREAT;
    if (flags & CAUSEWAY_OPEN_EXCLUSIVE) bits |= O_EXCL;
    if (flags & CAUSEWAY_OPEN_DIRECT) bits |= O_DIRECT;
    if (flags & CAUSEWAY_OPEN_DIRECTORY) bits |= O_DIRECTORY;
    if (flags & CAUSEWAY_OPEN_TRUNCATE) bits |= O_TRUNC;
    // A fifo or a tape drive must not hang the open; regular files and block devices ignore the flag.
    bits |= O_NONBLOCK | O_NOCTTY;
    int descriptor;
    RETRY(descriptor, openat(directory < 0 ? AT_FDCWD : directory, path, bits, mode));
    return descriptor < 0 ? -errno : descriptor;
}

void causeway_close(int descriptor) { close(descriptor); }

int64_t causeway_read_all(int descriptor, void *bytes, size_t length, uint64_t offset) {
    size_t done = 0;
    while (done < length) {
        ssize_t count;
        RETRY(count, pread(descriptor, (char *)bytes + done, length - done, (off_t)(offset + done)));
        if (count < 0) return -errno;
        if (count == 0) break;
        done += (size_t)count;
    }
    return (int64_t)done;
}

int64_t causeway_read_resident(int descriptor, void *bytes, size_t length, uint64_t offset) {
    struct iovec vector = {.iov_base = bytes, .iov_len = length};
    ssize_t count;
    RETRY(count, preadv2(descriptor, &vector, 1, (off_t)offset, RWF_NOWAIT));
    return count < 0 ? -errno : count;
}

int causeway_write_all(int descriptor, const void *bytes, size_t length, uint64_t offset) {
    size_t done = 0;
    while (done < length) {
        ssize_t count;
        RETRY(count, pwrite(descriptor, (const char *)bytes + done, length - done, (off_t)(offset + done)));
        if (count < 0) return -errno;
        // A device that takes nothing and says nothing must not become an endless loop.
        if (count == 0) return -EIO;
        done += (size_t)count;
    }
    return 0;
}

int causeway_synchronize_data(int descriptor) {
    int value;
    RETRY(value, fdatasync(descriptor));
    return result(value);
}

void causeway_forget_resident(int descriptor) { (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED); }

int causeway_synchronize(int descriptor) {
    int value;
    RETRY(value, fsync(descriptor));
    return result(value);
}

int causeway_punch_hole(int descriptor, uint64_t offset, uint64_t length) {
    int value;
    RETRY(value, fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length));
    return result(value);
}

int causeway_zero_device(int descriptor, uint64_t offset, uint64_t length) {
    uint64_t range[2] = {offset, length};
    int value;
    RETRY(value, ioctl(descriptor, BLKZEROOUT, range));
    return result(value);
}

int64_t causeway_next_data(int descriptor, uint64_t offset) {
    off_t found = lseek(descriptor, (off_t)offset, SEEK_DATA);
    return found < 0 ? -errno : (int64_t)found;
}

int64_t causeway_next_hole(int descriptor, uint64_t offset) {
    off_t found = lseek(descriptor, (off_t)offset, SEEK_HOLE);
    return found < 0 ? -errno : (int64_t)found;
}

int causeway_truncate(int descriptor, uint64_t length) {
    int value;
    RETRY(value, ftruncate(descriptor, (off_t)length));
    return result(value);
}

int causeway_information(int descriptor, struct causeway_file_information *information) {
    struct stat status;
    memset(information, 0, sizeof *information);
    if (fstat(descriptor, &status) < 0) return -errno;
    information->size = (uint64_t)status.st_size;
    information->permissions = status.st_mode & 07777;
    information->links = (uint64_t)status.st_nlink;
    information->file_system = (uint64_t)status.st_dev;
    if (S_ISREG(status.st_mode)) {
        information->kind = CAUSEWAY_KIND_REGULAR;
        information->allocated = (uint64_t)status.st_blocks * 512;
    } else if (S_ISDIR(status.st_mode)) {
        information->kind = CAUSEWAY_KIND_DIRECTORY;
    } else if (S_ISBLK(status.st_mode)) {
        information->kind = CAUSEWAY_KIND_BLOCK_DEVICE;
        if (ioctl(descriptor, BLKGETSIZE64, &information->size) < 0) return -errno;
        int sector = 0;
        if (ioctl(descriptor, BLKSSZGET, &sector) == 0 && sector > 0) {
            information->direct_memory_alignment = (uint32_t)sector;
            information->direct_offset_alignment = (uint32_t)sector;
            information->direct_alignment_known = 1;
        }
    } else {
        information->kind = CAUSEWAY_KIND_OTHER;
    }
#ifdef STATX_DIOALIGN
    struct statx extended;
    memset(&extended, 0, sizeof extended);
    if (information->kind == CAUSEWAY_KIND_REGULAR && statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0 &&
        (extended.stx_mask & STATX_DIOALIGN)) {
        information->direct_memory_alignment = extended.stx_dio_mem_align;
        information->direct_offset_alignment = extended.stx_dio_offset_align;
        information->direct_alignment_known = 1;
    }
#endif
    return 0;
}

int causeway_set_permissions(int descriptor, unsigned int mode) { return result(fchmod(descriptor, mode)); }

static int lock_bytes(int descriptor, short type, off_t start, off_t length) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = length;
    int value;
    RETRY(value, fcntl(descriptor, F_OFD_SETLK, &lock));
    if (value < 0 && errno == EACCES) return -EAGAIN;
    return result(value);
}

int causeway_lock_exclusive(int descriptor) { return lock_bytes(descriptor, F_WRLCK, 0, 0); }

int causeway_lock_shared(int descriptor) { return lock_bytes(descriptor, F_RDLCK, 0, 0); }

// QEMU's protocol (block/file-posix.c): who uses an image in way i holds a read lock on byte 100 + i, and who
// does not let others use it so holds one on byte 200 + i. Way 0 is to read consistent data, 1 to write, 3 to resize.
#define OWN_BYTES 100
#define USED_BYTE 100
#define FORBIDDEN_BYTE 200
#define WAY_WRITE 1
#define WAY_RESIZE 3

int causeway_lock_disk(int descriptor) {
    // Ourselves, and whoever locks whole files, are kept out by the first bytes, which QEMU does not look at.
    int value = lock_bytes(descriptor, F_WRLCK, 0, OWN_BYTES);
    if (value < 0) return value;
    // Others who have the image open for writing hold the byte that this asks for in vain.
    value = lock_bytes(descriptor, F_WRLCK, USED_BYTE, 200);
    if (value < 0) return value;
    value = lock_bytes(descriptor, F_UNLCK, USED_BYTE, 200);
    const off_t held[] = {USED_BYTE, USED_BYTE + WAY_WRITE, FORBIDDEN_BYTE + WAY_WRITE, FORBIDDEN_BYTE + WAY_RESIZE};
    for (size_t index = 0; value >= 0 && index < sizeof held / sizeof held[0]; index++) {
        value = lock_bytes(descriptor, F_RDLCK, held[index], 1);
    }
    return value;
}

int causeway_free_bytes(int descriptor, uint64_t *free_bytes, uint64_t *total_bytes) {
    struct statvfs status;
    int value;
    RETRY(value, fstatvfs(descriptor, &status));
    if (value < 0) return -errno;
    *free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    *total_bytes = (uint64_t)status.f_blocks * status.f_frsize;
    return 0;
}

int causeway_make_directory(const char *path, unsigned int mode) { return result(mkdir(path, mode)); }

int causeway_rename(int directory, const char *from, const char *to) {
    return result(renameat(directory < 0 ? AT_FDCWD : directory, from, directory < 0 ? AT_FDCWD : directory, to));
}

int causeway_unlink(int directory, const char *name) {
    return result(unlinkat(directory < 0 ? AT_FDCWD : directory, name, 0));
}

int causeway_list(int directory, void *context, void (*visit)(void *context, const char *name)) {
    // A descriptor of its own: the position of the caller's is left alone, so that listings may overlap.
    int own = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (own < 0) return -errno;
    DIR *stream = fdopendir(own);
    if (!stream) {
        int error = errno;
        close(own);
        return -error;
    }
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (!entry) break;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) visit(context, entry->d_name);
    }
    int error = errno;
    closedir(stream);
    return -error;
}

void causeway_error_text(int error, char *text, size_t length) {
    if (length == 0) return;
    char own[256];
    snprintf(text, length, "%s", strerror_r(error, own, sizeof own));
}

int causeway_process_identifier(void) { return (int)getpid(); }
