"""The disk that the guest boots from, and the packages that it installs while it is watched."""
import glob
import hashlib
import os
import shutil
import subprocess

MIB = 1 << 20
DISK_BYTES = 3072 * MIB
BOOT_MIB = 96
ROOT_MIB = DISK_BYTES // MIB - BOOT_MIB - 2
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
# What a small server has from the start, and what it gets by and by.
PACKAGES = """systemd-sysv udev dbus linux-image-cloud-amd64 initramfs-tools iproute2 curl openssh-server rsyslog cron logrotate
              sqlite3 git python3-minimal less procps""".split()
LATER_PACKAGES = "tcc libc6-dev make nginx-light perl".split()


def run(*command, **options):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)


def make_root(directory, here):
    """A root by debootstrap, and the packages that come later in `directory`/packages as a repository for apt."""
    root, packages = os.path.join(directory, "root"), os.path.join(directory, "packages")
    run("debootstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), SUITE, root, MIRROR)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C")
    run("chroot", root, "apt-get", "-qq", "clean", env=environment)
    run("chroot", root, "apt-get", "-qq", "--no-install-recommends", "--download-only", "install", *LATER_PACKAGES, env=environment)
    os.makedirs(packages)
    for path in glob.glob(os.path.join(root, "var/cache/apt/archives/*.deb")):
        shutil.move(path, packages)
    index_packages(packages)
    for path in glob.glob(os.path.join(root, "var/lib/apt/lists/*Packages*")):
        os.unlink(path)

    def write(path, text, mode=0o644):
        path = os.path.join(root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)

    write("etc/fstab", "LABEL=trace-root / ext4 errors=remount-ro 0 1\n")
    write("etc/hostname", "guest\n")
    write("etc/systemd/network/eth0.network", "[Match]\nName=eth0\n[Network]\nDHCP=yes\n")
    write("etc/apt/sources.list", "")
    # No machine has an identity before its first boot.
    write("etc/machine-id", "")
    for path in [os.path.join(root, "var/lib/dbus/machine-id"), *glob.glob(os.path.join(root, "etc/ssh/ssh_host_*"))]:
        os.unlink(path)
    # An RSA key would cost an emulated processor minutes.
    make_key = "[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key"
    write("etc/systemd/system/ssh.service.d/key.conf", f'[Service]\nExecStartPre=\nExecStartPre=/bin/sh -c "{make_key}"\n')
    with open(os.path.join(here, "guest/agent")) as agent, open(os.path.join(here, "guest/agent.service")) as unit:
        write("usr/local/sbin/trace-agent", agent.read(), 0o755)
        write("etc/systemd/system/trace-agent.service", unit.read())
    for unit in ("systemd-networkd.service", "trace-agent.service"):
        run("chroot", root, "systemctl", "enable", unit, stderr=subprocess.DEVNULL)


def index_packages(directory):
    """Writes the index by which apt knows the packages of a directory."""
    with open(os.path.join(directory, "Packages"), "w") as index:
        for path in sorted(glob.glob(os.path.join(directory, "*.deb"))):
            control = subprocess.run(["dpkg-deb", "-f", path], check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip("\n")
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            # A percent sign in a name would be decoded on its way.
            name = os.path.basename(path)
            plain = name.replace("%", "_")
            os.rename(path, os.path.join(directory, plain))
            index.write(f"{control}\nFilename: ./{plain}\nSize: {os.path.getsize(os.path.join(directory, plain))}\nSHA256: {digest}\n\n")


def make_disk(directory, here):
    """A disk with a boot loader, kernel and initramfs on a FAT partition, and the root: `directory`/disk.img."""
    root, boot, file_system, disk = (os.path.join(directory, name) for name in ("root", "boot.fat", "root.ext4", "disk.img"))
    environment = dict(os.environ, MTOOLS_SKIP_CHECK="1")
    with open(boot, "wb") as file:
        file.truncate(BOOT_MIB * MIB)
    run("mkfs.vfat", "-F", "16", "-h", "2048", "-n", "BOOT", boot)
    kernel, initramfs = (glob.glob(os.path.join(root, "boot", pattern))[0] for pattern in ("vmlinuz-*", "initrd.img-*"))
    for source, name in ((kernel, "vmlinuz"), (initramfs, "initrd.img"), (os.path.join(here, "guest/syslinux.cfg"), "syslinux.cfg")):
        run("mcopy", "-i", boot, source, "::/" + name, env=environment)
    run("syslinux", "--install", boot, env=environment)
    with open(file_system, "wb") as file:
        file.truncate(ROOT_MIB * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-L", "trace-root", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", root, file_system)
    with open(disk, "wb") as file:
        file.truncate(DISK_BYTES)
    layout = f"label: dos\nstart=1MiB, size={BOOT_MIB}MiB, type=6, bootable\nstart={BOOT_MIB + 1}MiB, size={ROOT_MIB}MiB, type=83\n"
    subprocess.run(["sfdisk", "-q", disk], check=True, input=layout, text=True)
    for source, mib in ((boot, 1), (file_system, BOOT_MIB + 1)):
        run("dd", f"if={source}", f"of={disk}", "bs=1M", f"seek={mib}", "conv=notrunc,sparse", "status=none")
        os.unlink(source)
    run("dd", "if=/usr/lib/syslinux/mbr/mbr.bin", f"of={disk}", "bs=440", "count=1", "conv=notrunc", "status=none")
