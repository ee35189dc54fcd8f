"""The two ends of one emulated line: a Causeway lab, and what else copies an image over the same line."""
import json
import os
import resource
import socket
import subprocess
import time

from servers import Lab, fail, free_port, processor_seconds, run_checked


class LineLab(Lab):
    """A lab over a line of packets; what else is to be reached over it starts in home's network namespace, by `inside`."""

    def __init__(self, causeway, image, directory, name, rate, round_trip, *options):
        """A line of `rate` Mbit/s with a round trip in milliseconds."""
        self.bytes_per_second, self.round_trip = rate * 125_000, round_trip
        options = ("--rtt", f"{round_trip:g}ms", "--rate", f"{rate:g}mbit", *options)
        super().__init__(causeway, image, directory, name, "--wan", "packets", *options)
        with open(os.path.join(self.directory, "lab.json")) as file:
            record = json.load(file)
        self.home_pid = record["onprem"]["pid"]
        self.home_environment = {**os.environ, "CAUSEWAY_API": record["onprem"]["api"], "CAUSEWAY_TOKEN": record["onprem"]["token"]}
        self.home = record["relay"]["addresses"]["home"]
        self.cloud = record["relay"]["addresses"]["cloud"]
        self.namespace = record["relay"]["addresses"]["namespace"]
        self.line_pid = record["relay"]["pid"]

    def inside(self, *command):
        return [self.causeway, "line", "enter", self.namespace, *command]

    def statistics(self):
        host, port = self.relay.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 5) as connection:
            connection.sendall(b"stats\n")
            return json.loads(connection.makefile().readline())

    def until_quiet(self, timeout):
        """Returns when what was still under way has passed: when a round trip and more carries less than a fiftieth of what the line could."""
        deadline = time.monotonic() + timeout
        period = 0.2 + 2 * self.round_trip / 1000
        before = self.statistics()
        while True:
            time.sleep(period)
            now = self.statistics()
            carried = [now[way]["carriedBytes"] - before[way]["carriedBytes"] for way in ("toClient", "toServer")]
            if max(carried) < 0.02 * period * self.bytes_per_second and now["toClient"]["queuedBytes"] == 0:
                return
            if time.monotonic() > deadline:
                fail(f"the line did not become quiet in {timeout:g} s")
            before = now

    def processor_seconds(self):
        """What both edges have used so far: home's, the cloud's, and the emulator's, in which the kernel receives for both."""
        return processor_seconds(self.home_pid), processor_seconds(self.server.pid), processor_seconds(self.line_pid)


class HomeServer:
    """A server in home's namespace, which listens on a port there."""

    def __init__(self, lab, port, *command):
        self.lab, self.port = lab, port
        self.process = subprocess.Popen(lab.inside(*command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection((lab.home, port), 2).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    fail(f"{command[0]} did not start in home's namespace")
                time.sleep(0.1)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=10)


class HomeShell(HomeServer):
    """sshd, with keys of its own, for `ssh -C` and `rsync -z`."""

    def __init__(self, lab, directory):
        self.key = os.path.join(directory, "key")
        host_key = os.path.join(directory, "host-key")
        for path in (self.key, host_key):
            if not os.path.exists(path):
                run_checked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], 30)
        os.makedirs("/run/sshd", exist_ok=True)
        options = [
            "-o", f"ListenAddress={lab.home}", "-o", f"HostKey={host_key}", "-o", f"AuthorizedKeysFile={self.key}.pub", "-o", "StrictModes=no",
            "-o", "UsePAM=no", "-o", "PidFile=none", "-o", "PermitRootLogin=yes", "-o", "PasswordAuthentication=no", "-o", "UseDNS=no",
            # What serves a copy that took too long ends when the line has gone.
            "-o", "ClientAliveInterval=5", "-o", "ClientAliveCountMax=3"]
        port = free_port()
        super().__init__(lab, port, "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", str(port), *options)

    def command(self):
        return ["ssh", "-F", "none", "-i", self.key, "-p", str(self.port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"]


class HomeBlocks(HomeServer):
    """qemu-nbd with an image, reached over the line as a cloud machine would without Causeway."""

    def __init__(self, lab, image):
        port = free_port()
        super().__init__(lab, port, "qemu-nbd", "-f", "raw", "-r", "-t", "-e", "8", "-b", lab.home, "-p", str(port), image)
        self.url = f"nbd://{lab.home}:{port}/"


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def timed(lab, command, timeout):
    """Seconds and bytes on the line towards the cloud for a copy that is a program of its own; None when it did not end in time."""
    before, start = lab.statistics()["toClient"]["carriedBytes"], time.monotonic()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    seconds = time.monotonic() - start
    if done.returncode != 0:
        fail(f"{command[0]} ended with {done.returncode}: {done.stderr.decode().strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cloud = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": seconds, "lineBytes": lab.statistics()["toClient"]["carriedBytes"] - before, "cloudProcessorSeconds": cloud}


def ssh_copy(lab, shell, path, timeout):
    return timed(lab, [*shell.command(), "-C", f"root@{lab.home}", f"cat {path}"], timeout)


def rsync_copy(lab, shell, path, directory, timeout):
    target = os.path.join(directory, "copy")
    try:
        return timed(lab, ["rsync", "-z", "--whole-file", "-e", " ".join(shell.command()), f"root@{lab.home}:{path}", target], timeout)
    finally:
        if os.path.exists(target):
            os.unlink(target)


def plain_copy(lab, seconds):
    """One TCP connection by iperf3, home to cloud, for some seconds: what a plain copy makes of the line."""
    port = free_port()
    server = subprocess.Popen(lab.inside("iperf3", "-s", "-1", "-B", lab.home, "-p", str(port)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        for attempt in range(40):
            time.sleep(0.1)
            before = lab.statistics()["toClient"]["carriedBytes"]
            client = ["iperf3", "-c", lab.home, "-p", str(port), "-R", "-J", "-t", f"{max(seconds, 1):.0f}"]
            done = subprocess.run(client, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds + 60)
            report = json.loads(done.stdout or "{}")
            # It can end in peace and have an error, and no figures.
            if done.returncode == 0 and "sum_received" in report.get("end", {}):
                end = report["end"]
                return {"bytesPerSecond": end["sum_received"]["bits_per_second"] / 8, "retransmits": end["sum_sent"].get("retransmits"),
                        "lineBytes": lab.statistics()["toClient"]["carriedBytes"] - before}
            if "refused" not in done.stdout + done.stderr:
                fail(f"iperf3 ended with {done.returncode}: {report.get('error') or (done.stderr or done.stdout).strip()[-300:]}")
        fail("iperf3's server did not start in home's namespace")
    finally:
        if server.poll() is None:
            server.terminate()
        server.wait(timeout=10)
