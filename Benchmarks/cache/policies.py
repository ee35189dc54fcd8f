"""Policies of eviction, and the clairvoyant optimum, over the events of a trace.

A policy is a class made for a capacity in blocks, with `read(block)` that says whether it was a hit and takes the block in
when not, and `insert(block)` for a block that comes home. An insertion of a block that is there renews it, and is no
reference unless `renewals_count`.
"""
import random
from collections import OrderedDict, deque
from heapq import heapify, heappop, heappush

FREQUENCY_MAX = 3


def hit_ratio(policy, events):
    hits, read, insert = 0, policy.read, policy.insert
    for block, is_insertion in events.list:
        if is_insertion:
            insert(block)
        else:
            hits += read(block)
    return hits / max(1, events.read_count)


def optimum(events, capacity):
    """The hit ratio of Belady's policy with bypass: it knows all that comes, and keeps what is read soonest.

    A block whose next event is an insertion is worth nothing until then."""
    never = len(events.list)
    following, seen = [never] * never, {}
    for index in range(never - 1, -1, -1):
        block, is_insertion = events.list[index]
        following[index] = seen.get(block, never)
        seen[block] = never if is_insertion else index
    hits, held, farthest = 0, {}, []
    for index, (block, is_insertion) in enumerate(events.list):
        if held.pop(block, None) is not None and not is_insertion:
            hits += 1
        if following[index] == never:
            continue
        held[block] = following[index]
        heappush(farthest, (-following[index], block))
        while len(held) > capacity:
            time, victim = heappop(farthest)
            if held.get(victim) == -time:
                del held[victim]
        # What was read since lies in the heap still.
        if len(farthest) > 4 * capacity + 1000:
            farthest = [(-time, block) for block, time in held.items()]
            heapify(farthest)
    return hits / max(1, events.read_count)


class LRU:
    def __init__(self, capacity):
        self.capacity, self.blocks = capacity, OrderedDict()

    def read(self, block):
        if block in self.blocks:
            self.blocks.move_to_end(block)
            return True
        self.insert(block)
        return False

    def insert(self, block):
        self.blocks[block] = None
        self.blocks.move_to_end(block)
        if len(self.blocks) > self.capacity:
            self.blocks.popitem(last=False)


class ARC:
    """Megiddo and Modha, FAST 2003. `renewals_count` says that an insertion of a block that is there is a reference after all."""

    def __init__(self, capacity, renewals_count=False):
        self.capacity, self.target, self.renewals_count = capacity, 0, renewals_count
        self.recent, self.frequent, self.recent_ghosts, self.frequent_ghosts = (OrderedDict() for _ in range(4))

    def read(self, block):
        for blocks in (self.recent, self.frequent):
            if block in blocks:
                del blocks[block]
                self.frequent[block] = None
                return True
        self.take(block)
        return False

    def insert(self, block):
        if self.renewals_count:
            self.read(block)
        elif block not in self.recent and block not in self.frequent:
            self.take(block)

    def take(self, block):
        recent, frequent, ghosts = len(self.recent), len(self.frequent), len(self.recent_ghosts) + len(self.frequent_ghosts)
        if block in self.recent_ghosts:
            self.target = min(self.capacity, self.target + max(1, len(self.frequent_ghosts) / len(self.recent_ghosts)))
            self.make_room(False)
            del self.recent_ghosts[block]
            self.frequent[block] = None
        elif block in self.frequent_ghosts:
            self.target = max(0, self.target - max(1, len(self.recent_ghosts) / len(self.frequent_ghosts)))
            self.make_room(True)
            del self.frequent_ghosts[block]
            self.frequent[block] = None
        else:
            if recent + len(self.recent_ghosts) >= self.capacity:
                if recent >= self.capacity:
                    self.recent.popitem(last=False)
                else:
                    self.recent_ghosts.popitem(last=False)
            elif recent + frequent + ghosts >= 2 * self.capacity:
                self.frequent_ghosts.popitem(last=False)
            self.make_room(False)
            self.recent[block] = None

    def make_room(self, is_frequent_ghost):
        if len(self.recent) + len(self.frequent) < self.capacity:
            return
        recent = len(self.recent)
        if recent and (recent > self.target or not self.frequent or is_frequent_ghost and recent == int(self.target)):
            self.recent_ghosts[self.recent.popitem(last=False)[0]] = None
        else:
            self.frequent_ghosts[self.frequent.popitem(last=False)[0]] = None


class S3FIFO:
    """Yang et al., SOSP 2023, by single blocks: `threshold` reads take a block from the small queue to the main one."""

    def __init__(self, capacity, small=0.1, threshold=2):
        self.capacity, self.small_max, self.threshold = capacity, max(1, int(capacity * small)), threshold
        self.small, self.main, self.ghosts, self.frequency = deque(), deque(), OrderedDict(), {}

    def read(self, block):
        if block in self.frequency:
            self.frequency[block] = min(FREQUENCY_MAX, self.frequency[block] + 1)
            return True
        self.insert(block)
        return False

    def insert(self, block):
        if block in self.frequency:
            return
        while len(self.frequency) >= self.capacity:
            if len(self.small) >= self.small_max or not self.main:
                self.leave_small()
            else:
                self.leave_main()
        self.frequency[block] = 0
        if block in self.ghosts:
            del self.ghosts[block]
            self.main.append(block)
        else:
            self.small.append(block)

    def leave_small(self):
        block = self.small.popleft()
        if self.frequency[block] >= self.threshold:
            self.frequency[block] = 0
            self.main.append(block)
            return
        del self.frequency[block]
        self.ghosts[block] = None
        if len(self.ghosts) > self.capacity - self.small_max:
            self.ghosts.popitem(last=False)

    def leave_main(self):
        block = self.main.popleft()
        if self.frequency[block]:
            self.frequency[block] -= 1
            self.main.append(block)
        else:
            del self.frequency[block]


class Fingerprints:
    """Short names of blocks in buckets of eight, of which each forgets its oldest: what the product keeps of ghosts."""

    def __init__(self, count, names):
        self.names, self.buckets = names, [[] for _ in range(max(1, (count + 7) // 8))]

    def place(self, block):
        mixed = hash((block, 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
        return self.buckets[mixed % len(self.buckets)], (mixed >> 32) % self.names

    def pop(self, block, default):
        bucket, name = self.place(block)
        if name not in bucket:
            return default
        bucket.remove(name)
        return True

    def __setitem__(self, block, _):
        bucket, name = self.place(block)
        bucket.insert(0, name)
        del bucket[8:]

    def __len__(self):
        return 0


class Segments:
    """A log of segments that are freed whole. What is read while it is there is copied when its segment goes.

    With `small`, a share of the segments, there are two queues: new blocks go to the small one, those that were read
    there to the main one, where each read is good for one more round. Blocks that left unread are ghosts for a while,
    `ghosts` times the capacity of them, and go to the main queue when they come again. Without, there is one queue;
    `copies` says whether it keeps what was read. `renewals_count` says that an insertion of a block that is there counts as a read.
    `false_ghosts` is the share of blocks that a table of short fingerprints takes for ghosts though they are none;
    with `names`, ghosts are in such a table (`Fingerprints`)."""

    def __init__(self, capacity, slots, small=None, ghosts=0.0, copies=True, renewals_count=False, false_ghosts=0.0, names=None):
        self.slots, self.copies, self.has_two, self.renewals_count = slots, copies, small is not None, renewals_count
        self.free = max(4, capacity // slots)
        self.spare = min(2, self.free // 4)
        self.small_max = max(1, self.free * (small or 0))
        self.ghosts_max, self.ghosts = int(capacity * ghosts), OrderedDict()
        if names:
            self.ghosts = Fingerprints(self.ghosts_max, names)
        # Each queue is of segments, oldest first; the last one takes blocks. A block is where `place` says.
        self.queues, self.place, self.frequency = (deque(), deque()), {}, {}
        self.false_ghosts, self.random = false_ghosts, random.Random(1)
        self.inserted = self.copied = 0

    def read(self, block):
        if block in self.place:
            self.frequency[block] = min(FREQUENCY_MAX, self.frequency.get(block, 0) + 1)
            return True
        self.insert(block)
        return False

    def insert(self, block):
        self.inserted += 1
        place = self.place.get(block)
        if place is not None:
            queue = place[0]
            if self.renewals_count:
                self.frequency[block] = min(FREQUENCY_MAX, self.frequency.get(block, 0) + 1)
        else:
            is_ghost = self.ghosts.pop(block, False) or self.false_ghosts > self.random.random()
            queue = 1 if is_ghost else 0
        self.append(block, queue)
        while self.free < self.spare:
            self.evict()

    def append(self, block, queue):
        segments = self.queues[queue]
        if not segments or len(segments[-1]) == self.slots:
            self.free -= 1
            segments.append([])
        self.place[block] = (queue, segments[-1], len(segments[-1]))
        segments[-1].append(block)

    def evict(self):
        small, main = self.queues
        queue = 0 if not self.has_two or len(small) > self.small_max or not main else 1
        segment = self.queues[queue].popleft()
        self.free += 1
        for slot, block in enumerate(segment):
            place = self.place[block] if block in self.place else None
            if place is None or place[1] is not segment or place[2] != slot:
                continue
            del self.place[block]
            reads = self.frequency.pop(block, 0)
            if reads and self.copies:
                # Reads in the small queue have earned the way to the main one, no more.
                if reads > 1 and not (self.has_two and queue == 0):
                    self.frequency[block] = reads - 1
                self.append(block, 1 if self.has_two else 0)
                self.copied += 1
            elif self.ghosts_max:
                self.ghosts[block] = True
                if len(self.ghosts) > self.ghosts_max:
                    self.ghosts.popitem(last=False)
