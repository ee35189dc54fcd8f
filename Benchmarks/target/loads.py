"""What is measured, and by which tool."""
import json
import os
import re

from servers import fail, processor_seconds, run_checked

KIB = 1024


class Workload:
    """One row: `depth` commands outstanding over all sessions together."""

    def __init__(self, name, block, depth, random=True, write=False, sessions=1, flush=None, tools=("causeway-load",)):
        self.name, self.block, self.depth, self.random, self.write = name, block, depth, random, write
        self.sessions, self.flush, self.tools = sessions, flush, tools


BOTH = ("causeway-load", "iscsi-perf")
READS = [
    Workload("4 KiB random read, depth 1", 4 * KIB, 1, tools=BOTH),
    Workload("4 KiB random read, depth 32", 4 * KIB, 32, tools=BOTH),
    Workload("4 KiB random read, depth 32 over 2 sessions", 4 * KIB, 32, sessions=2),
    Workload("4 KiB random read, depth 32 over 4 sessions", 4 * KIB, 32, sessions=4),
    Workload("128 KiB sequential read, depth 32", 128 * KIB, 32, random=False, tools=BOTH),
    Workload("1 MiB sequential read, depth 8", 1024 * KIB, 8, random=False),
]
WRITES = [
    Workload("4 KiB random write, depth 1", 4 * KIB, 1, write=True),
    Workload("4 KiB random write, depth 32", 4 * KIB, 32, write=True),
    Workload("4 KiB random write, depth 32 over 2 sessions", 4 * KIB, 32, write=True, sessions=2),
    Workload("4 KiB random write, depth 32 over 4 sessions", 4 * KIB, 32, write=True, sessions=4),
    Workload("4 KiB random write, each flushed, depth 1", 4 * KIB, 1, write=True, flush="each"),
    Workload("4 KiB random write with FUA, depth 32", 4 * KIB, 32, write=True, flush="fua"),
    Workload("128 KiB sequential write, depth 32", 128 * KIB, 32, random=False, write=True),
    Workload("1 MiB sequential write, depth 8", 1024 * KIB, 8, random=False, write=True),
]
# By fio's nbd engine, which holds one connection a job.
BLOCK_READS = [
    Workload("NBD: 4 KiB random read, depth 1", 4 * KIB, 1, tools=("fio",)),
    Workload("NBD: 4 KiB random read, depth 32", 4 * KIB, 32, tools=("fio",)),
    Workload("NBD: 4 KiB random read, depth 32 over 4 connections", 4 * KIB, 32, sessions=4, tools=("fio",)),
    Workload("NBD: 128 KiB sequential read, depth 32", 128 * KIB, 32, random=False, tools=("fio",)),
]
BLOCK_WRITES = [
    Workload("NBD: 4 KiB random write, depth 1", 4 * KIB, 1, write=True, tools=("fio",)),
    Workload("NBD: 4 KiB random write, depth 32", 4 * KIB, 32, write=True, tools=("fio",)),
    Workload("NBD: 128 KiB sequential write, depth 32", 128 * KIB, 32, random=False, write=True, tools=("fio",)),
]


def row_names():
    return [workload.name for workload in READS + WRITES + BLOCK_READS + BLOCK_WRITES]


# More passes than a cache needs that keeps what is read.
PASSES_MAX = 20


def warm_cache(binaries, lab, size):
    """Reads the volume until the cache answers all of it: on a line as fast as memory some blocks come faster than it takes them."""
    for _ in range(PASSES_MAX):
        before = lab.misses()
        warm(binaries, lab.server.url, size)
        if lab.misses() == before:
            return
    fail(f"after {PASSES_MAX} passes the cache does not hold the whole volume")


def warm(binaries, url, size):
    """Reads the whole volume once."""
    if url.startswith("nbd"):
        return run_checked(["nbdcopy", "--", url, "null:"], 1800)
    blocks = size // (1 << 20)
    command = [os.path.join(binaries, "causeway-load"), "run", url, "--pattern", "sequential", "--block-size", "1MiB", "--queue-depth", "8", "--operations", str(blocks), "--json"]
    read = json.loads(run_checked(command, 1800))["read"]["bytes"]
    if read < blocks << 20:
        fail(f"warming read {read} of {blocks << 20} bytes")


def use_log(binaries, url, size, byte_count):
    """Writes so much that the log has files to write to again, as it has in the life of a volume."""
    blocks = byte_count // (1 << 20)
    command = [os.path.join(binaries, "causeway-load"), "run", url, "--write", "--pattern", "sequential", "--block-size", "1MiB", "--queue-depth", "8", "--range", f"0-{size}", "--operations", str(blocks), "--no-final-flush", "--json"]
    run_checked(command, 1800)


def measure(tool, binaries, server, workload, seconds, size):
    """Operations a second, latencies where the tool gives them, and the server's processor time for each operation."""
    before = processor_seconds(server.pid)
    sample = {"causeway-load": by_causeway_load, "iscsi-perf": by_iscsi_perf, "fio": by_fio}[tool](binaries, server.url, workload, seconds, size)
    spent = processor_seconds(server.pid) - before
    if sample["iops"] > 0:
        # The tools give a rate over the run; what ran is that rate times its length.
        sample["processorMicroseconds"] = spent * 1e6 / (sample["iops"] * sample.pop("seconds", seconds))
    return sample


def by_causeway_load(binaries, url, workload, seconds, size):
    command = [
        os.path.join(binaries, "causeway-load"), "run", url, "--write" if workload.write else "--read", *([] if workload.write else ["100"]),
        "--block-size", str(workload.block), "--queue-depth", str(workload.depth // workload.sessions), "--connections", str(workload.sessions),
        "--pattern", "random" if workload.random else "sequential", "--range", f"0-{size}", "--runtime", f"{seconds}s", "--no-final-flush", "--json",
    ]
    if workload.flush == "each":
        command += ["--flush-every", "1"]
    if workload.flush == "fua":
        command += ["--fua", "100"]
    report = json.loads(run_checked(command, seconds + 60))
    if report["errors"] or report["sessionLosses"] or report.get("failure"):
        fail(f"{workload.name}: {report.get('failure') or 'I/O errors'}")
    kind = report["write" if workload.write else "read"]
    latency = kind.get("latencyMicroseconds")
    return {"iops": kind["operationsPerSecond"], "seconds": report["seconds"], "p50": latency and latency["p50"], "p99": latency and latency["p99"]}


def by_iscsi_perf(binaries, url, workload, seconds, size):
    command = ["iscsi-perf", "-m", str(workload.depth), "-b", str(workload.block // 512), "-t", str(seconds)]
    output = run_checked(command + (["-r"] if workload.random else []) + [url], seconds + 60)
    found = re.findall(r"iops average (\d+)", output)
    if not found:
        fail("iscsi-perf printed no average")
    return {"iops": float(found[-1])}


def by_fio(binaries, url, workload, seconds, size):
    kind = ("rand" if workload.random else "") + ("write" if workload.write else "read")
    command = [
        "fio", "--name=bench", "--ioengine=nbd", f"--uri={url}", f"--rw={kind}", f"--bs={workload.block}", f"--iodepth={workload.depth // workload.sessions}",
        f"--numjobs={workload.sessions}", f"--size={size}", "--time_based", f"--runtime={seconds}", "--group_reporting", "--output-format=json", "--randrepeat=0",
    ]
    output = run_checked(command, seconds + 60)
    job = json.loads(output[output.index("{"):])["jobs"][0]["write" if workload.write else "read"]
    percentile = job.get("clat_ns", {}).get("percentile", {})
    return {
        "iops": job["iops"], "seconds": job["runtime"] / 1000,
        "p50": percentile["50.000000"] / 1000 if "50.000000" in percentile else None, "p99": percentile["99.000000"] / 1000 if "99.000000" in percentile else None,
    }
