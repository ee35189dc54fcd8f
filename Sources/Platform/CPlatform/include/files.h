#ifndef CAUSEWAY_FILES_H
#define CAUSEWAY_FILES_H

#include <stddef.h>
#include <stdint.h>

// The Linux file calls that Glibc's module does not import or that need a loop around them.
// Every function that can fail returns a negative errno; none touches the caller's errno.

/// How a file is opened. Always O_CLOEXEC.
enum {
    CAUSEWAY_OPEN_WRITE = 1,      // read and write, else read only
    CAUSEWAY_OPEN_CREATE = 2,     // make it when it is missing
    CAUSEWAY_OPEN_EXCLUSIVE = 4,  // with CREATE: fail when it exists; without, of a block device: fail when it is in use
    CAUSEWAY_OPEN_DIRECT = 8,     // O_DIRECT
    CAUSEWAY_OPEN_DIRECTORY = 16, // a directory and nothing else
    CAUSEWAY_OPEN_TRUNCATE = 32,  // empty it
};

/// What kind of thing a file is.
enum {
    CAUSEWAY_KIND_REGULAR = 0,
    CAUSEWAY_KIND_BLOCK_DEVICE = 1,
    CAUSEWAY_KIND_DIRECTORY = 2,
    CAUSEWAY_KIND_OTHER = 3,
};

/// What is known of an open file.
struct causeway_file_information {
    int kind;
    /// In bytes; of a block device, the size of the medium.
    uint64_t size;
    /// What the file system has given it room for, in bytes; 0 for a block device.
    uint64_t allocated;
    uint64_t links;
    /// The number of the file system that it is on.
    uint64_t file_system;
    /// What O_DIRECT asks of memory addresses and of offsets; 0 when direct I/O is not supported or the kernel doesn't say.
    uint32_t direct_memory_alignment;
    uint32_t direct_offset_alignment;
    /// True when the two fields above were answered by the kernel.
    int direct_alignment_known;
    /// The permission bits.
    uint32_t permissions;
};

/// Opens `path` below the directory `directory` (negative: the working directory). The descriptor, or -errno.
int causeway_open(int directory, const char *_Nonnull path, int flags, unsigned int mode);
void causeway_close(int descriptor);

/// Reads until `length` bytes are there or the file ends; the number of bytes, or -errno.
int64_t causeway_read_all(int descriptor, void *_Nonnull bytes, size_t length, uint64_t offset);
/// Reads what is in memory (RWF_NOWAIT); -EAGAIN when nothing is.
int64_t causeway_read_resident(int descriptor, void *_Nonnull bytes, size_t length, uint64_t offset);
/// Writes all `length` bytes; 0, or -errno.
int causeway_write_all(int descriptor, const void *_Nonnull bytes, size_t length, uint64_t offset);

/// fdatasync and fsync; 0, or -errno.
int causeway_synchronize_data(int descriptor);
int causeway_synchronize(int descriptor);
/// Drops what the page cache has of the file and has been written, or could not be (POSIX_FADV_DONTNEED).
void causeway_forget_resident(int descriptor);

/// Frees a range of a regular file, which reads as zeroes then; the size stays. 0, or -errno.
int causeway_punch_hole(int descriptor, uint64_t offset, uint64_t length);
/// Makes a range of a block device read as zeroes (BLKZEROOUT); 0, or -errno.
int causeway_zero_device(int descriptor, uint64_t offset, uint64_t length);
/// The first byte at or behind `offset` that has storage, or the first that has none (SEEK_DATA, SEEK_HOLE); -errno, which is
/// -ENXIO when `offset` is not below the end, or when no byte behind it has storage. The end of a file counts as a hole.
int64_t causeway_next_data(int descriptor, uint64_t offset);
int64_t causeway_next_hole(int descriptor, uint64_t offset);
int causeway_truncate(int descriptor, uint64_t length);
int causeway_information(int descriptor, struct causeway_file_information *_Nonnull information);
/// Sets the permission bits; 0, or -errno.
int causeway_set_permissions(int descriptor, unsigned int mode);

/// Takes an exclusive lock on the whole file that belongs to the open file description. 0; -EAGAIN when another has one.
int causeway_lock_exclusive(int descriptor);
/// The same for a lock that several may have, and that keeps exclusive ones out. The file may be open for reading only.
int causeway_lock_shared(int descriptor);

/// Locks a disk image as its only writer, in a way that QEMU understands: its programs refuse to open the image, and read it
/// when they are told to share it (`-U`). Another user of this call, or of a lock on the whole file, gets -EAGAIN.
int causeway_lock_disk(int descriptor);

/// The bytes that an unprivileged process may still write to the file system; 0, or -errno.
int causeway_free_bytes(int descriptor, uint64_t *_Nonnull free_bytes, uint64_t *_Nonnull total_bytes);

int causeway_make_directory(const char *_Nonnull path, unsigned int mode);
int causeway_rename(int directory, const char *_Nonnull from, const char *_Nonnull to);
int causeway_unlink(int directory, const char *_Nonnull name);
/// Calls `visit` with each name in the directory but "." and ".."; 0, or -errno.
int causeway_list(
    int directory, void *_Nullable context, void (*_Nonnull visit)(void *_Nullable context, const char *_Nonnull name));

/// A text for a (positive) errno, written into `text`.
void causeway_error_text(int error, char *_Nonnull text, size_t length);
int causeway_process_identifier(void);

#endif
