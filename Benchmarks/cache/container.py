"""Work on a watched disk without a guest: nbdkit serves the disk and writes down every request, as it does for a guest, but the
root on it is mounted here, by FUSE and a loop device that keeps no pages, and a shell in it works. A control group bounds
its memory, and so the page cache: that is what a guest's memory does. Nothing is emulated, so that times are those of life.
"""
import contextlib
import os
import stat
import subprocess
import sys
import time

import image
import machine

MEMORY_MIB = 176
GROUPS_V1, GROUPS_V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
DISK = "/dev/watched-disk"
PRELUDE = """recorder=http://127.0.0.1:{port} disk={disk}
mark() {{ curl -fsS "$recorder/mark/$1"; }}
cd /root
"""


def run(*command):
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextlib.contextmanager
def bounded_memory(mebibytes):
    """A control group, as the file that takes the processes which are to be in it."""
    parent, limit = (GROUPS_V1, "memory.limit_in_bytes") if os.path.isdir(GROUPS_V1) else (GROUPS_V2, "memory.max")
    group = os.path.join(parent, f"causeway-record-{os.getpid()}")
    os.mkdir(group)
    try:
        with open(os.path.join(group, limit), "w") as file:
            file.write(str(mebibytes << 20))
        yield os.path.join(group, "cgroup.procs")
    finally:
        # What ended is counted for a moment still.
        for _ in range(100):
            with contextlib.suppress(OSError):
                os.rmdir(group)
                break
            time.sleep(0.1)


def unmount(path):
    if subprocess.run(["umount", path]).returncode != 0:
        # After an error something may still run in it.
        run("umount", "--lazy", path)


@contextlib.contextmanager
def mounted(socket, directory):
    """The root of the disk behind `socket`, where DISK is the loop device under it."""
    fuse, root = os.path.join(directory, "fuse"), os.path.join(directory, "mounted")
    os.makedirs(fuse, exist_ok=True)
    os.makedirs(root, exist_ok=True)
    with contextlib.ExitStack() as undo:
        bridge = subprocess.Popen(["nbdfuse", fuse, "--unix", socket], stdin=subprocess.DEVNULL)
        undo.callback(machine.end, bridge)
        disk = os.path.join(fuse, "nbd")
        machine.wait_for(disk, bridge, "nbdfuse")
        offset = (image.BOOT_MIB + 1) * image.MIB
        part = ["--offset", str(offset), "--sizelimit", str(image.ROOT_MIB * image.MIB)]
        loop = run("losetup", "--direct-io=on", *part, "--find", "--show", disk)
        undo.callback(run, "losetup", "--detach", loop)
        for arguments in ((loop, root), ("-t", "proc", "proc", os.path.join(root, "proc"))):
            run("mount", *arguments)
            undo.callback(unmount, arguments[-1])
        # debootstrap made the other devices. Nothing of this machine's is mounted there, so that nothing of it can be harmed.
        os.mknod(root + DISK, stat.S_IFBLK | 0o600, os.stat(loop).st_rdev)
        yield root


def work(recorder, disk, directory, script, timeout):
    """Lets a shell in the root on `disk` do `script`, for bash, and returns nbdkit's log."""
    recorder.marks.append((time.time(), "mounting"))
    with contextlib.ExitStack() as stack:
        socket, log = stack.enter_context(machine.served(disk, directory))
        root = stack.enter_context(mounted(socket, directory))
        members = stack.enter_context(bounded_memory(MEMORY_MIB))
        text = PRELUDE.format(port=recorder.port, disk=DISK) + script
        enter = f'echo $$ >{members} && exec chroot {root} /bin/bash -c "$1"'
        with open(os.path.join(directory, "work.log"), "wb") as output:
            subprocess.run(
                ["/bin/bash", "-c", enter, "work", text], stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=timeout, check=True,
                env={"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        recorder.marks.append((time.time(), "unmounting"))
        run("sync", "--file-system", root)
    return log
