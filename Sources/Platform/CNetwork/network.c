// TUN devices, network namespaces, and a loop's waiting for both.

#define _GNU_SOURCE
#include "network.h"

#include <errno.h>

#if defined(__linux__)

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 8

static int named(struct ifreq *request, const char *name) {
    memset(request, 0, sizeof *request);
    size_t length = strlen(name);
    if (length == 0 || length >= sizeof request->ifr_name) {
        return -EINVAL;
    }
    memcpy(request->ifr_name, name, length);
    return 0;
}

int causeway_tun_open(const char *name) {
    struct ifreq request;
    int code = named(&request, name);
    if (code < 0) {
        return code;
    }
    int descriptor = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) {
        return -errno;
    }
    request.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_TUN_EXCL | IFF_VNET_HDR);
    int header_bytes = CAUSEWAY_PACKET_HEADER_BYTES;
    if (ioctl(descriptor, TUNSETIFF, &request) != 0 || ioctl(descriptor, TUNSETVNETHDRSZ, &header_bytes) != 0) {
        code = -errno;
        close(descriptor);
        return code;
    }
    return descriptor;
}

int causeway_tun_take_trains(int descriptor, int is_on) {
    return ioctl(descriptor, TUNSETOFFLOAD, is_on ? TUN_F_CSUM | TUN_F_TSO4 : 0) == 0 ? 0 : -errno;
}

static void set_address(struct ifreq *request, uint32_t address) {
    struct sockaddr_in socket_address = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(address)}};
    memcpy(&request->ifr_addr, &socket_address, sizeof socket_address);
}

static int ask(int control, unsigned long what, struct ifreq *request) {
    return ioctl(control, what, request) == 0 ? 0 : -errno;
}

static int bring_up(
    int control, const char *name, uint32_t address, unsigned int prefix_length, unsigned int mtu, unsigned int queue_packets) {
    struct ifreq request;
    int code = named(&request, name);
    if (code == 0) {
        set_address(&request, address);
        code = ask(control, SIOCSIFADDR, &request);
    }
    if (code == 0) {
        named(&request, name);
        set_address(&request, prefix_length == 0 ? 0 : UINT32_MAX << (32 - prefix_length));
        code = ask(control, SIOCSIFNETMASK, &request);
    }
    if (code == 0 && mtu > 0) {
        named(&request, name);
        request.ifr_mtu = (int)mtu;
        code = ask(control, SIOCSIFMTU, &request);
    }
    if (code == 0 && queue_packets > 0) {
        named(&request, name);
        request.ifr_qlen = (int)queue_packets;
        code = ask(control, SIOCSIFTXQLEN, &request);
    }
    if (code == 0) {
        named(&request, name);
        code = ask(control, SIOCGIFFLAGS, &request);
    }
    if (code == 0) {
        request.ifr_flags |= IFF_UP;
        code = ask(control, SIOCSIFFLAGS, &request);
    }
    return code;
}

int causeway_interface_up(
    const char *name, uint32_t address, unsigned int prefix_length, unsigned int mtu, unsigned int queue_packets) {
    if (prefix_length > 32) {
        return -EINVAL;
    }
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0) {
        return -errno;
    }
    int code = bring_up(control, name, address, prefix_length, mtu, queue_packets);
    close(control);
    return code;
}

int causeway_network_namespace_make(void) { return unshare(CLONE_NEWNET) == 0 ? 0 : -errno; }

int causeway_network_namespace_enter(const char *path) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return -errno;
    }
    int code = setns(descriptor, CLONE_NEWNET) == 0 ? 0 : -errno;
    close(descriptor);
    return code;
}

int causeway_thread_identifier(void) { return (int)syscall(SYS_gettid); }

int causeway_execute(char *const *arguments) {
    execvp(arguments[0], arguments);
    return -errno;
}

int causeway_wait_exactly(void) {
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    struct sched_param lowest = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO, &lowest) == 0 ? 0 : -errno;
}

int causeway_wait_readable(const int *descriptors, size_t count, int64_t nanoseconds) {
    struct pollfd waiting[DESCRIPTORS_MAX];
    if (count > DESCRIPTORS_MAX) {
        return -EINVAL;
    }
    for (size_t index = 0; index < count; index++) {
        waiting[index] = (struct pollfd){.fd = descriptors[index], .events = POLLIN};
    }
    struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int found = ppoll(waiting, count, nanoseconds < 0 ? NULL : &time, NULL);
    if (found < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    int bits = 0;
    for (size_t index = 0; index < count; index++) {
        bits |= waiting[index].revents != 0 ? 1 << index : 0;
    }
    return bits;
}

int causeway_wake_make(void) {
    int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return descriptor >= 0 ? descriptor : -errno;
}

void causeway_wake_set(int descriptor) {
    uint64_t one = 1;
    // It fails only when it is set already, a great many times.
    (void)!write(descriptor, &one, sizeof one);
}

void causeway_wake_clear(int descriptor) {
    uint64_t count;
    (void)!read(descriptor, &count, sizeof count);
}

int64_t causeway_packet_read(int descriptor, void *bytes, size_t length, void *rest, size_t rest_length) {
    struct iovec parts[2] = {{.iov_base = bytes, .iov_len = length}, {.iov_base = rest, .iov_len = rest_length}};
    ssize_t count = readv(descriptor, parts, 2);
    return count >= 0 ? count : -errno;
}

int64_t causeway_packet_write(int descriptor, const void *bytes, size_t length, const void *rest, size_t rest_length) {
    struct iovec parts[2] = {{.iov_base = (void *)bytes, .iov_len = length}, {.iov_base = (void *)rest, .iov_len = rest_length}};
    ssize_t count = writev(descriptor, parts, rest_length > 0 ? 2 : 1);
    return count >= 0 ? count : -errno;
}

#else

#include <unistd.h>

int causeway_tun_open(const char *name) { (void)name; return -ENOSYS; }
int causeway_tun_take_trains(int descriptor, int is_on) { (void)descriptor; (void)is_on; return -ENOSYS; }
int causeway_interface_up(
    const char *name, uint32_t address, unsigned int prefix_length, unsigned int mtu, unsigned int queue_packets) {
    (void)name; (void)address; (void)prefix_length; (void)mtu; (void)queue_packets;
    return -ENOSYS;
}
int causeway_network_namespace_make(void) { return -ENOSYS; }
int causeway_network_namespace_enter(const char *path) { (void)path; return -ENOSYS; }
int causeway_thread_identifier(void) { return 0; }
int causeway_execute(char *const *arguments) { execvp(arguments[0], arguments); return -errno; }
int causeway_wait_exactly(void) { return -ENOSYS; }
int causeway_wait_readable(const int *descriptors, size_t count, int64_t nanoseconds) {
    (void)descriptors; (void)count; (void)nanoseconds;
    return -ENOSYS;
}
int causeway_wake_make(void) { return -ENOSYS; }
void causeway_wake_set(int descriptor) { (void)descriptor; }
void causeway_wake_clear(int descriptor) { (void)descriptor; }
int64_t causeway_packet_read(int descriptor, void *bytes, size_t length, void *rest, size_t rest_length) {
    (void)descriptor; (void)bytes; (void)length; (void)rest; (void)rest_length;
    return -ENOSYS;
}
int64_t causeway_packet_write(int descriptor, const void *bytes, size_t length, const void *rest, size_t rest_length) {
    (void)descriptor; (void)bytes; (void)length; (void)rest; (void)rest_length;
    return -ENOSYS;
}

#endif
