"""A guest whose disks are watched: nbdkit serves them and writes down every request, QEMU boots from the first."""
import contextlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime

import blocktrace

MEMORY_MIB = 224
REQUEST = re.compile(r"(\S+ \S+) connection=\d+ (Read|Write|Trim|Zero) id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)")
OPERATIONS = {"Read": blocktrace.READ, "Write": blocktrace.WRITE, "Trim": blocktrace.DISCARD, "Zero": blocktrace.DISCARD}


class Recorder:
    """What the guest talks to: gives it its work and its packages, and notes when it says where it is."""

    def __init__(self, directory):
        self.work, self.marks = b"", []
        recorder = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=directory)

            def do_GET(self):
                if self.path == "/work" or self.path.startswith("/mark/"):
                    if self.path != "/work":
                        recorder.marks.append((time.time(), self.path.removeprefix("/mark/")))
                        print(f"recorder: {recorder.marks[-1][1]}", file=sys.stderr)
                    body = recorder.work if self.path == "/work" else b""
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                else:
                    super().do_GET()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server.server_address[1]


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(path, process, what):
    deadline = time.monotonic() + 10
    while not os.path.exists(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"recorder: {what} did not start")
        time.sleep(0.05)


@contextlib.contextmanager
def served(disk, directory):
    """The disk behind a socket for NBD, and the log that is whole when this ends."""
    socket, log = os.path.join(directory, "nbd.sock"), os.path.join(directory, "requests.log")
    for path in (socket, log):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    server = subprocess.Popen(["nbdkit", "-f", "-U", socket, "--filter=log", "file", disk, f"logfile={log}"], stdin=subprocess.DEVNULL)
    try:
        wait_for(socket, server, "nbdkit")
        yield socket, log
    finally:
        end(server)


def boot(recorder, disk, directory, work, timeout):
    """Boots a guest from `disk`, lets it do `work`, a script for bash, waits for its end, and returns nbdkit's log."""
    console = os.path.join(directory, "console.log")
    recorder.work = work.encode()
    recorder.marks.append((time.time(), "booting"))
    with served(disk, directory) as (socket, log):
        guest = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none",
             "-no-reboot", "-serial", f"file:{console}", "-smbios", f"type=1,serial=10.0.2.2:{recorder.port}",
             "-drive", f"file=nbd+unix:///?socket={socket},format=raw,if=none,id=disk,cache=none,discard=unmap",
             "-device", "virtio-blk-pci,drive=disk,bootindex=0", "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
             "-device", "virtio-rng-pci"], stdin=subprocess.DEVNULL)
        try:
            status = guest.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"recorder: the guest did not end within {timeout} s; see {console}") from None
        finally:
            end(guest)
    if status != 0:
        raise SystemExit(f"recorder: QEMU ended with {status}")
    return log


class Zeroes:
    """Which blocks of a disk hold only zeroes, as far as requests tell: what is written counts as data."""

    def __init__(self, path):
        self.map = bytearray(b"\1") * (os.path.getsize(path) // blocktrace.BLOCK)
        zero, piece_blocks = bytes(blocktrace.BLOCK), 256
        with open(path, "rb") as file:
            for first in range(0, len(self.map), piece_blocks):
                piece = file.read(piece_blocks * blocktrace.BLOCK)
                # Most of a new disk: told apart at once.
                if piece.count(0) == len(piece):
                    continue
                for index in range(len(piece) // blocktrace.BLOCK):
                    self.map[first + index] = piece[index * blocktrace.BLOCK:(index + 1) * blocktrace.BLOCK] == zero

    def set(self, first, count, value):
        self.map[first:first + count] = bytes([value]) * count

    def runs(self, first, count):
        """The run in parts that are all zeroes or all data: (is zero, first, count)."""
        last = first + count
        while first < last:
            is_zero = self.map[first]
            end = self.map.find(not is_zero, first, last)
            end = last if end < 0 else end
            yield is_zero, first, end - first
            first = end


def records(log, disk, zeroes, start):
    """The requests of a log as a trace's records, in milliseconds since `start`. Requests touch whole blocks."""
    found = []
    with open(log) as file:
        for line in file:
            match = REQUEST.match(line)
            if not match:
                continue
            # nbdkit writes local time.
            seconds = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S.%f").timestamp()
            milliseconds = max(int((seconds - start) * 1000), found[-1][0] if found else 0)
            offset, count = int(match[3], 16), int(match[4], 16)
            if count == 0:
                continue
            first = offset // blocktrace.BLOCK
            count = (offset + count - 1) // blocktrace.BLOCK - first + 1
            operation = OPERATIONS[match[2]]
            if operation != blocktrace.READ:
                zeroes.set(first, count, operation == blocktrace.DISCARD)
                found.append((milliseconds, disk, operation, first, count))
                continue
            for is_zero, part, length in zeroes.runs(first, count):
                found.append((milliseconds, disk, blocktrace.READ_ZEROES if is_zero else blocktrace.READ, part, length))
    return found
