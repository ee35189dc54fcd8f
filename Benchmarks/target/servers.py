"""The servers that a run compares: Causeway's labs and the peers. Whatever is started here has a `stop`."""
import json
import os
import socket
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")


# A log that holds nothing has the header of a file, or of some.
LOG_EMPTY_BYTES = 1 << 20


def fail(message):
    sys.exit(f"benchmark: {message}")


def block_client():
    """libnbd, by which a benchmark that is not fio reads and writes a block device."""
    try:
        import nbd
    except ImportError:
        fail("python3-libnbd is missing: make deps installs it")
    return nbd


def connect_block_device(url):
    handle = block_client().NBD()
    handle.connect_uri(url)
    return handle


def run_checked(command, timeout, environment=None):
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
    except FileNotFoundError:
        fail(f"{command[0]} is missing")
    except subprocess.TimeoutExpired:
        fail(f"{os.path.basename(command[0])} did not end within {timeout} s")
    if done.returncode != 0:
        fail(f"{os.path.basename(command[0])} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(process, port, what):
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                fail(f"{what} did not start")
            time.sleep(0.05)


def processor_seconds(pid):
    """User and system time of a process with all its threads."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Server:
    """Something that is measured: where it is reached, and the process whose time counts."""

    def __init__(self, name, url, pid):
        self.name, self.url, self.pid = name, url, pid


class Tgtd:
    """Debian's tgtd with one target for each back end, on a port and a control channel of its own."""

    def __init__(self, backends, directory):
        self.port = free_port()
        self.control = str(1024 + os.getpid() % 30000)
        self.log = open(os.path.join(directory, "tgtd.log"), "wb")
        command = ["tgtd", "-f", "--iscsi", f"portal=127.0.0.1:{self.port}", "-C", self.control]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        except FileNotFoundError:
            fail("tgtd is missing: install Debian's tgt")
        self.count = len(backends)
        try:
            deadline = time.monotonic() + 10
            while self.admin("--op", "show", "--mode", "sys") != 0:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    fail(f"tgtd did not start; see {self.log.name} (it needs root)")
                time.sleep(0.05)
            self.servers = {name: self.add(number + 1, name, path, kind) for number, (name, path, kind) in enumerate(backends)}
        except BaseException:
            self.stop()
            raise

    def add(self, number, name, path, kind):
        target = f"iqn.2024-01.org.causeway:bench-{number}"
        for step in (
            ["--op", "new", "--mode", "target", "--tid", str(number), "-T", target],
            ["--op", "new", "--mode", "logicalunit", "--tid", str(number), "--lun", "1", "--bstype", kind, "-b", path],
            ["--op", "bind", "--mode", "target", "--tid", str(number), "-I", "ALL"],
        ):
            if self.admin("--lld", "iscsi", *step) != 0:
                fail("tgtadm " + " ".join(step) + " failed")
        return Server(name, f"iscsi://127.0.0.1:{self.port}/{target}/1", self.process.pid)

    def admin(self, *arguments):
        return subprocess.run(["tgtadm", "-C", self.control, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode

    def stop(self):
        # tgtd ignores SIGTERM; it goes when its targets are gone and it is told to.
        if self.process.poll() is None:
            for number in range(1, self.count + 1):
                self.admin("--lld", "iscsi", "--op", "delete", "--force", "--mode", "target", "--tid", str(number))
            self.admin("--op", "delete", "--mode", "system")
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


class Daemon:
    """A peer that runs in the foreground and ends on SIGTERM."""

    def __init__(self, name, command, port, url):
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            fail(f"{command[0]} is missing")
        try:
            wait_for_port(self.process, port, name)
        except BaseException:
            self.stop()
            raise
        self.server = Server(name, url, self.process.pid)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def qemu_nbd(image):
    port = free_port()
    command = ["qemu-nbd", "-f", "raw", "-t", "-e", "8", "-b", "127.0.0.1", "-p", str(port), "--cache=writeback", image]
    return Daemon("qemu-nbd", command, port, f"nbd://127.0.0.1:{port}/")


def qemu_nbd_encrypted(image):
    """qemu-nbd with LUKS (AES-256-XTS, QEMU's default): what it costs a peer that its file can't be read, like the cache's and the log's."""
    encrypted = image + ".luks"
    secret = ["--object", "secret,id=key,data=benchmark"]
    options = f"driver=luks,key-secret=key,file.driver=file,file.filename={encrypted}"
    size = str(os.path.getsize(image))
    create = ["qemu-img", "create", "-q", "-f", "luks", *secret, "-o", "key-secret=key", encrypted, size]
    # It measures how long its key derivation takes, and fails when the thread's clock did not move meanwhile.
    attempts = 200
    while subprocess.run(create, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60).returncode != 0:
        attempts -= 1
        if attempts == 0:
            run_checked(create, 60)
            break
    run_checked(["qemu-img", "convert", "-U", "-n", *secret, "--target-image-opts", "-f", "raw", image, options], 600)
    port = free_port()
    command = ["qemu-nbd", *secret, "-t", "-e", "8", "-b", "127.0.0.1", "-p", str(port), "--cache=writeback", "--image-opts", options]
    return Daemon("qemu-nbd LUKS", command, port, f"nbd://127.0.0.1:{port}/")


def nbdkit(image):
    port = free_port()
    return Daemon("nbdkit file", ["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "file", image], port, f"nbd://127.0.0.1:{port}/")


class Lab:
    """A pair of daemons on this machine with one disk, by `causeway lab`."""

    def __init__(self, causeway, image, directory, name, *options):
        self.causeway = causeway
        self.directory = os.path.join(directory, name)
        try:
            run_checked([causeway, "lab", "up", "--directory", self.directory, "--disk", f"bench={image}", "--nbd", *options, "--detach", "--output", "json"], 120)
            with open(os.path.join(self.directory, "lab.json")) as file:
                lab = json.load(file)
        except BaseException:
            self.stop()
            raise
        self.relay = lab.get("relay", {}).get("control")
        volume = next(volume for volume in lab["volumes"] if volume["name"] == "bench")
        pid = lab["cloud"]["pid"]
        self.environment = {**os.environ, "CAUSEWAY_API": lab["cloud"]["api"], "CAUSEWAY_TOKEN": lab["cloud"]["token"]}
        self.server = Server("causeway", volume["url"], pid)
        block_url = volume.get("nbd")
        self.block_server = Server("causeway", block_url, pid) if block_url else None

    def volume(self):
        return json.loads(run_checked([self.causeway, "volume", "show", "bench", "--output", "json"], 30, self.environment))

    def misses(self):
        """The blocks that reads have not found in the cache so far."""
        return self.volume()["cache"]["misses"]

    def bring_home(self):
        """Returns when all that was written is on the disk at home, and in the cache: the log holds nothing any more."""
        run_checked([self.causeway, "volume", "seal", "bench", "--wait", "--timeout", "600s"], 620, self.environment)
        deadline = time.monotonic() + 60
        while self.volume()["writeLog"]["usedBytes"] > LOG_EMPTY_BYTES:
            if time.monotonic() > deadline:
                fail("the log did not become empty")
            time.sleep(0.1)

    def set_line(self, round_trip, rate):
        """Changes the emulated WAN."""
        host, port = self.relay.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 5) as connection:
            connection.sendall(f"set rtt={round_trip} rate={rate}\n".encode())
            answer = connection.makefile().readline().strip()
        if answer != "ok":
            fail(f"the relay answered '{answer}'")

    def stop(self):
        # What was written is noise: it need not come home.
        subprocess.run([self.causeway, "lab", "down", "--directory", self.directory, "--force"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
