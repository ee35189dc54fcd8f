"""What a cache sees of a trace: reads that the write log does not answer, and blocks that come in when their point is home.

Writes go to the write log, which answers reads of them until they are home: a point is sealed every POINT milliseconds, and
is home HOME milliseconds later. Then its blocks enter the cache, each once, however often the point wrote it. Reads of
zeroes are answered without a block.
"""
from collections import deque

import blocktrace

POINT, HOME = 5000, 1000


class Events:
    """`list` has (block, is insertion); blocks are numbered from 0 to `block_count` in order of their first appearance."""

    def __init__(self, path, shared=False):
        """`shared` says that the disks were equal at first: blocks that neither disk wrote since are one and the same."""
        self.header, records = blocktrace.load(path)
        self.list, self.numbers, self.shared = [], {}, shared
        self.written = [set() for _ in self.header["diskBlocks"]]
        # Blocks of the open point; sealed points that are under way, and how many of these hold each block.
        open_point, under_way, holders = {}, deque(), {}
        seal = POINT
        end = (records[-1][0] if records else 0) + 2 * POINT + HOME
        for milliseconds, disk, operation, first, count in records + [(end, 0, blocktrace.READ_ZEROES, 0, 1)]:
            while min(seal, under_way[0][0] if under_way else seal) <= milliseconds:
                if under_way and under_way[0][0] <= seal:
                    for key in under_way.popleft()[1]:
                        holders[key] -= 1
                        if holders[key] == 0:
                            del holders[key]
                        self.add(key, True)
                else:
                    for key in open_point:
                        holders[key] = holders.get(key, 0) + 1
                    if open_point:
                        under_way.append((seal + HOME, open_point))
                        open_point = {}
                    seal += POINT
            for block in range(first, first + count):
                key = (disk, block)
                if operation == blocktrace.WRITE:
                    open_point[key] = None
                    self.written[disk].add(block)
                elif operation == blocktrace.READ and key not in open_point and key not in holders:
                    self.add(key, False)
        self.read_count = sum(not is_insertion for _, is_insertion in self.list)

    @property
    def block_count(self):
        return len(self.numbers)

    def add(self, key, is_insertion):
        disk, block = key
        if self.shared and not any(block in written for written in self.written):
            key = (0, block)
        self.list.append((self.numbers.setdefault(key, len(self.numbers)), is_insertion))
