#define _GNU_SOURCE
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

// The handlers call nothing but what signal-safety(7) allows.

static const char *volatile current_parser;
static const uint8_t *volatile current_bytes;
static volatile size_t current_length;
static volatile uint64_t current_serial;
static const char *directory_path;
static unsigned int seconds_max;

static void put(int descriptor, const char *text) {
    size_t length = strlen(text);
    while (length > 0) {
        ssize_t count = write(descriptor, text, length);
        if (count <= 0) return;
        text += count;
        length -= (size_t)count;
    }
}

static void put_hexadecimal(int descriptor, const uint8_t *bytes, size_t length) {
    static const char digits[] = "0123456789abcdef";
    char line[2];
    for (size_t index = 0; index < length; index++) {
        line[0] = digits[bytes[index] >> 4];
        line[1] = digits[bytes[index] & 15];
        if (write(descriptor, line, 2) != 2) return;
    }
}

static void report(const char *what) {
    put(2, "\n");
    put(2, what);
    if (current_parser == NULL) {
        put(2, " outside of an input\n");
        return;
    }
    char path[4096];
    path[0] = 0;
    strncat(path, directory_path, 3000);
    strncat(path, "/fuzz-failure-", 100);
    strncat(path, (const char *)current_parser, 500);
    put(2, " in ");
    put(2, (const char *)current_parser);
    put(2, ", input: ");
    put_hexadecimal(2, (const uint8_t *)current_bytes, current_length);
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor >= 0) {
        ssize_t ignored = write(descriptor, (const void *)current_bytes, current_length);
        (void)ignored;
        close(descriptor);
        put(2, "\nkept as ");
        put(2, path);
    }
    put(2, "\n");
}

static void crashed(int signal_number) {
    (void)signal_number;
    report("crash");
    _exit(70);
}

static void ticked(int signal_number) {
    (void)signal_number;
    static uint64_t seen;
    static unsigned int seconds;
    if (current_serial != seen || current_parser == NULL) {
        seen = current_serial;
        seconds = 0;
        return;
    }
    if (++seconds < seconds_max) return;
    report("hang");
    _exit(71);
}

void causeway_fuzz_watch(const char *directory, unsigned int seconds) {
    // A stack that overflows needs another one for its handler.
    static uint8_t stack[64 * 1024];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack, .ss_flags = 0};
    directory_path = directory;
    seconds_max = seconds;
    sigaltstack(&alternate, NULL);
    static const int crashes[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = crashed;
    action.sa_flags = SA_ONSTACK | SA_RESETHAND;
    for (size_t index = 0; index < sizeof crashes / sizeof *crashes; index++) sigaction(crashes[index], &action, NULL);
    action.sa_handler = ticked;
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    struct itimerval second = {.it_interval = {.tv_sec = 1, .tv_usec = 0}, .it_value = {.tv_sec = 1, .tv_usec = 0}};
    setitimer(ITIMER_REAL, &second, NULL);
}

void causeway_fuzz_note(const char *parser, const uint8_t *bytes, size_t length) {
    current_parser = NULL;
    current_bytes = bytes;
    current_length = length;
    current_serial++;
    current_parser = parser;
}

int causeway_fuzz_limit_memory(uint64_t bytes) {
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
    return setrlimit(RLIMIT_AS, &limit) < 0 ? errno : 0;
}

void causeway_fuzz_memory(uint64_t *resident, uint64_t *peak) {
    *resident = 0;
    *peak = 0;
    FILE *file = fopen("/proc/self/status", "re");
    if (file == NULL) return;
    char line[256];
    unsigned long long kibibytes;
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "VmRSS: %llu", &kibibytes) == 1) *resident = kibibytes * 1024;
        if (sscanf(line, "VmHWM: %llu", &kibibytes) == 1) *peak = kibibytes * 1024;
    }
    fclose(file);
}
