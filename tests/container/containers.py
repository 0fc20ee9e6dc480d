# SPDX-License-Identifier: Apache-2.0
"""podman and buildah with a storage of their own: nothing is pulled, and nothing of other containers is touched. Standard library only."""
import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from memory_group import Unavailable

TOOLS = ("podman", "buildah", "runc")
PATHS = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
CACHE = "/tmp/nexus-cache"
USER = "65532:65532"
# As a cluster would start it: read-only root, no capabilities, no root user.
HARDENED = ["--network=host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--read-only", "--read-only-tmpfs=false",
            "--cap-drop=all", "--security-opt=no-new-privileges", f"--user={USER}", "--pull=never"]


def run(*command, **more):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **more)


def need(*tools):
    """Unavailable with what is missing."""
    missing = [tool for tool in tools if not shutil.which(tool, path=PATHS)]
    if missing:
        raise Unavailable(f"not installed: {' '.join(missing)}")
    if os.geteuid() != 0:
        raise Unavailable("podman with --memory needs root here")


def cache_mount(size):
    return f"--tmpfs={CACHE}:rw,size={size},mode=1777,notmpcopyup"


class Engine:
    def __init__(self, directory):
        need(*TOOLS)
        where = ["--root", str(directory / "storage"), "--runroot", str(directory / "run")]
        works = run("podman", *where, "--storage-driver", "overlay", "info").returncode == 0
        storage = [*where, "--storage-driver", "overlay" if works else "vfs"]
        self.podman = ["podman", *storage, "--cgroup-manager", "cgroupfs", "--runtime", shutil.which("runc", path=PATHS)]
        self.buildah = ["buildah", *storage]
        self.mount = directory / "storage/overlay"
        run(*self.buildah, "rm", "--all")  # of a build that was killed

    def close(self):
        """The overlay driver mounts its directory on itself, and leaves that."""
        if os.path.ismount(self.mount):
            run("umount", self.mount)

    def remove(self, name):
        """The container and the memory groups that were made for it."""
        run(*self.podman, "rm", "--force", "--time", "0", name)
        for directory in sorted(Path("/sys/fs/cgroup").glob(f"*/{name}/**/"), reverse=True):
            with contextlib.suppress(OSError):
                directory.rmdir()
