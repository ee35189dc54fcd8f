#ifndef CAUSEWAY_PROCESS_H
#define CAUSEWAY_PROCESS_H

#include <stddef.h>

/// Keeps this process out of core files, and other processes of the same user out of its memory:
/// RLIMIT_CORE becomes 0 (soft and hard), PR_SET_DUMPABLE is cleared, and the signals of a crash end the process at once:
/// the language's own crash handler would print memory into the log.
/// Returns 0, or the errno of the call that failed.
int causeway_forbid_core_dumps(void);

/// Has the C library keep memory that was freed, up to 64 MiB at the top of each heap, and take buffers of up to 32 MiB from it.
/// By default those of 128 KiB and more go back to the kernel each time, which clears every page anew for the next read or
/// write. The bounds of the program's buffers bound what is kept.
void causeway_keep_freed_memory(void);

/// Lets this process have as many open files as it may: the soft RLIMIT_NOFILE becomes the hard one. Each volume's log keeps
/// some open for its next points, and 1024, which is the usual soft limit, is made for programs that call select(2).
/// Returns 0, or the errno of the call that failed.
int causeway_raise_file_limit(void);

#endif
