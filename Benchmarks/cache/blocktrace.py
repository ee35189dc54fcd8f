"""Block traces: what a machine asked of its disks, in a form small enough to check in. README.md describes the format.

Used as a program, it prints a summary of traces, or their records as text with --records.
"""
import json
import subprocess
import sys

MAGIC = b"causeway-trace 1\n"
BLOCK = 4096
READ, WRITE, DISCARD, READ_ZEROES = range(4)
NAMES = ("read", "write", "discard", "read-zeroes")
DISKS_MAX = 1 << 4


class TraceError(Exception):
    pass


def encode_varint(value, into):
    while value >= 0x80:
        into.append(value & 0x7F | 0x80)
        value >>= 7
    into.append(value)


def decode_varints(data, position):
    """The numbers of `data` from `position` on. A number that is cut off or longer than 64 bits is an error."""
    value = shift = 0
    for byte in memoryview(data)[position:]:
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            yield value
            value = shift = 0
        else:
            shift += 7
            if shift > 63:
                raise TraceError("a number is too long")
    if shift:
        raise TraceError("the last number is cut off")


def encode(header, records):
    """`header` is a dictionary, `records` are (milliseconds, disk, operation, first block, count), in order of time."""
    out = bytearray(MAGIC + json.dumps(header, separators=(",", ":")).encode() + b"\n")
    last, ends = 0, [0] * DISKS_MAX
    for milliseconds, disk, operation, first, count in records:
        distance = first - ends[disk]
        encode_varint(milliseconds - last, out)
        encode_varint(disk << 2 | operation, out)
        encode_varint(distance << 1 if distance >= 0 else -distance * 2 - 1, out)
        encode_varint(count, out)
        last, ends[disk] = milliseconds, first + count
    return bytes(out)


def decode(data):
    """The header, and the records as `encode` took them."""
    if not data.startswith(MAGIC):
        raise TraceError("not a trace of version 1")
    end = data.find(b"\n", len(MAGIC))
    if end < 0:
        raise TraceError("the header is cut off")
    header = json.loads(data[len(MAGIC):end])
    disks = len(header["diskBlocks"])
    records, time, ends = [], 0, [0] * disks
    numbers = decode_varints(data, end + 1)
    for delta in numbers:
        try:
            what, distance, count = next(numbers), next(numbers), next(numbers)
        except StopIteration:
            raise TraceError("the last record is cut off") from None
        disk = what >> 2
        if disk >= disks:
            raise TraceError(f"a record is of disk {disk}, and there are {disks}")
        first = ends[disk] + (distance >> 1 if distance & 1 == 0 else -((distance + 1) >> 1))
        if first < 0 or count < 1 or first + count > header["diskBlocks"][disk]:
            raise TraceError("a record is not within its disk")
        time += delta
        ends[disk] = first + count
        records.append((time, disk, what & 3, first, count))
    return header, records


def save(path, header, records):
    subprocess.run(["zstd", "-q", "-f", "-19", "--long=24", "-o", path], input=encode(header, records), check=True)


def load(path):
    done = subprocess.run(["zstd", "-q", "-d", "-c", path], stdout=subprocess.PIPE, check=True)
    return decode(done.stdout)


def summary(path):
    header, records = load(path)
    requests, blocks, touched = [0] * 4, [0] * 4, set()
    for _, disk, operation, first, count in records:
        requests[operation] += 1
        blocks[operation] += count
        if operation in (READ, WRITE):
            touched.update(range(disk << 40 | first, (disk << 40 | first) + count))
    lines = [f"{path}: {header['name']}: {records[-1][0] / 1000:.0f} s, {len(touched) * BLOCK >> 20} MiB touched"]
    lines += [f"  {name}: {requests[index]} requests, {blocks[index]} blocks" for index, name in enumerate(NAMES) if requests[index]]
    lines += [f"  from {milliseconds / 1000:.1f} s: {name}" for milliseconds, name in header["phases"]]
    return "\n".join(lines)


def main():
    arguments = sys.argv[1:]
    wants_records = "--records" in arguments
    paths = [argument for argument in arguments if argument != "--records"]
    if not paths:
        sys.exit("usage: blocktrace.py [--records] TRACE...")
    for path in paths:
        if wants_records:
            for milliseconds, disk, operation, first, count in load(path)[1]:
                print(milliseconds, disk, NAMES[operation], first, count)
        else:
            print(summary(path))


if __name__ == "__main__":
    main()
