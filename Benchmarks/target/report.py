"""Medians, ratios and the table."""
import os
import platform
import statistics
import subprocess
import time

SPREAD_LIMIT = 0.20


def version_of(package):
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout if done.returncode == 0 else "unknown"


def conditions(arguments, repository):
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) << 10
    commit = subprocess.run(["git", "-C", repository, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return {
        "processor": model, "processors": os.cpu_count(), "memoryBytes": memory, "kernel": platform.release(),
        "causeway": commit.stdout.strip() or "unknown",
        "versions": {name: version_of(name) for name in ("tgt", "libiscsi-bin", "qemu-utils", "nbdkit", "fio")},
        "volumeBytes": arguments.size, "rounds": arguments.rounds, "secondsEach": arguments.seconds, "line": f"{arguments.rtt} ms, {arguments.rate} Mbit/s",
        "content": "random bytes", "network": "loopback", "encryptionAtRest": True, "awake": getattr(arguments, "awake", False), "loadAverageBefore": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def summarize(samples):
    values = [sample["iops"] for sample in samples]
    middle = statistics.median(values)
    summary = {"medianIops": middle, "iops": values, "spread": (max(values) - min(values)) / middle if middle else 0}
    for key in ("p50", "p99", "processorMicroseconds"):
        found = [sample[key] for sample in samples if sample.get(key) is not None]
        if found:
            summary[key] = statistics.median(found)
    return summary


def rows_of(workloads, samples):
    """One row for each workload and tool: a summary for each server, and ratios Causeway / peer."""
    rows, warnings = [], []
    for workload in workloads:
        for tool in workload.tools:
            sides = {name: summarize(found) for (row, by, name), found in samples.items() if row == workload.name and by == tool and found}
            if "causeway" not in sides:
                warnings.append(f"{workload.name} by {tool}: not measured")
                continue
            ratios = {name: sides["causeway"]["medianIops"] / side["medianIops"] for name, side in sides.items() if name != "causeway" and side["medianIops"]}
            rows.append({"workload": workload.name, "tool": tool, "ratios": ratios, "servers": sides})
            for name, side in sides.items():
                if side["spread"] > SPREAD_LIMIT:
                    warnings.append(f"{workload.name} by {tool} on {name}: rounds differ by {side['spread']:.0%} of the median")
    return rows, warnings


def number(value, form="{:.0f}"):
    return "–" if value is None else form.format(value)


def table(rows, peers):
    """`peers` are the columns; the first is the one that latency and processor time are held against."""
    first = peers[0]
    head = ["workload", "tool", "Causeway IOPS"] + [f"{peer} IOPS" for peer in peers] + [f"ratio to {peer}" for peer in peers]
    head += ["p50 µs", "p99 µs", "CPU µs per I/O"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        own, other = row["servers"]["causeway"], row["servers"].get(first, {})
        cells = [row["workload"], row["tool"], number(own["medianIops"])]
        cells += [number(row["servers"].get(peer, {}).get("medianIops")) for peer in peers]
        cells += [number(row["ratios"].get(peer), "{:.2f}") for peer in peers]
        for key, form in (("p50", "{:.0f}"), ("p99", "{:.0f}"), ("processorMicroseconds", "{:.1f}")):
            cells.append(f"{number(own.get(key), form)} / {number(other.get(key), form)}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def markdown(report):
    about = report["conditions"]
    lines = []
    for part in report["parts"]:
        if part["rows"]:
            lines += [f"**{part['title']}** (p50, p99 and CPU time: Causeway / {part['peers'][0]})", ""] + table(part["rows"], part["peers"]) + [""]
    lines.append(
        f"Medians of {about['rounds']} rounds of {about['secondsEach']} s each, interleaved in one run; {about['processors']} × {about['processor']}, "
        f"{about['memoryBytes'] / (1 << 30):.0f} GiB, Linux {about['kernel']}; Causeway {about['causeway']}, "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + f"; volume of {about['volumeBytes'] / (1 << 20):.0f} MiB of random bytes, loopback, encryption at rest on; while writes were measured, a line of "
        f"{about['line']} carried them home{'; processors kept from halting for all' if about['awake'] else ''}. {about['date']}."
    )
    lines += [f"\n**Doubtful:** {warning}" for warning in report["warnings"]]
    return "\n".join(lines) + "\n"
