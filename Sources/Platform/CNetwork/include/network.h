#ifndef CAUSEWAY_NETWORK_H
#define CAUSEWAY_NETWORK_H

#include <stddef.h>
#include <stdint.h>

// TUN devices and network namespaces, for the emulated WAN of a lab. The daemons use nothing of it.
// Every function that can fail returns a negative errno.

/// The longest name of an interface, with its end.
#define CAUSEWAY_INTERFACE_NAME_BYTES 16

/// What stands before each IP packet of a TUN device: `struct virtio_net_hdr` and two bytes more, so that the packet begins on a word.
#define CAUSEWAY_PACKET_HEADER_BYTES 12

/// Makes a TUN device of this name in the calling thread's network namespace. A descriptor that does not block and that is the
/// device's life: it carries IP packets behind `CAUSEWAY_PACKET_HEADER_BYTES`, and stays with the device when the thread goes to another
/// namespace.
int causeway_tun_open(const char *_Nonnull name);

/// Whether the kernel gives the device TCP segments of one connection that follow one another as one long packet, as it gives them to a network
/// card: the header says how long each is. 0, or -errno.
int causeway_tun_take_trains(int descriptor, int is_on);

/// Gives an interface of the calling thread's namespace an IPv4 address (in host order), a prefix, an MTU and room for packets that
/// nobody has read yet, and turns it on. An MTU or room of 0 leaves it as it is.
int causeway_interface_up(
    const char *_Nonnull name, uint32_t address, unsigned int prefix_length, unsigned int mtu, unsigned int queue_packets);

/// Moves the calling thread, and what it starts from then on, to a new network namespace.
int causeway_network_namespace_make(void);
/// Moves it to the namespace that a path like /proc/PID/task/TID/ns/net names.
int causeway_network_namespace_enter(const char *_Nonnull path);
/// The calling thread's number.
int causeway_thread_identifier(void);

/// Replaces this process by a program, looked for in PATH. Returns only when that fails.
int causeway_execute(char *_Nullable const *_Nonnull arguments);

/// Lets the calling thread's waits end when it was asked, as far as the machine can: without the usual slack of 50 µs, and, where the
/// process may, before every program that is not one of real time: a line does not stand still because a machine is busy.
/// 0, or -errno when that was not allowed.
int causeway_wait_exactly(void);

/// Waits until one of `count` (at most 8) descriptors can be read, or `nanoseconds` have passed (negative: for ever).
/// A bit for each that can be read, the first the lowest; 0 when time is over or a signal came; -errno.
int causeway_wait_readable(const int *_Nonnull descriptors, size_t count, int64_t nanoseconds);

/// A descriptor that can be read from when somebody has called `causeway_wake_set`, until `causeway_wake_clear`.
int causeway_wake_make(void);
void causeway_wake_set(int descriptor);
void causeway_wake_clear(int descriptor);

/// Reads or writes one packet with its header: its length, or -errno; -EAGAIN when there is none, or no room. What does not fit in the first place
/// is read to the second; it is written from both.
int64_t causeway_packet_read(int descriptor, void *_Nonnull bytes, size_t length, void *_Nonnull rest, size_t rest_length);
int64_t causeway_packet_write(
    int descriptor, const void *_Nonnull bytes, size_t length, const void *_Nullable rest, size_t rest_length);

#endif
