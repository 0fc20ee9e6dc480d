# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup (v1 or v2) as the tests need it: made, joined, read, lowered, removed. Standard library only.

What is read of a group is what the kernel would kill for. Socket buffers are part of a v2 group's usage; in v1 they are an
account of their own, which counts once it has a limit, so it gets one that is never reached. Where even that is missing,
the whole network namespace's socket memory less its value at the start stands in for it, clients included.
"""
import contextlib
import errno
import os
import re
import time
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
NEVER = 1 << 50


def _mounts():
    """(version, mount point) of each hierarchy that may have the memory controller."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup" and "memory" in options.split(","):
            yield 1, Path(point)
        elif kind == "cgroup2" and "memory" in (Path(point) / "cgroup.controllers").read_text().split():
            yield 2, Path(point)


def host_socket_bytes():
    """Memory of all TCP sockets of this network namespace's kernel."""
    match = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.M)
    return int(match[1]) * PAGE if match else 0


class Unavailable(Exception):
    """Memory groups cannot be made here; the message says why."""


class Group:
    def __init__(self, version, path, owned):
        self.version, self.path, self.owned = version, Path(path), owned
        self._fds = {}
        self._host_sockets_before = host_socket_bytes()
        self._counts_sockets = version == 2
        if version == 1:
            with contextlib.suppress(OSError):
                self.write("memory.kmem.tcp.limit_in_bytes", NEVER)
                self._counts_sockets = True

    @classmethod
    def make(cls, name, limit):
        """A group of that name with that limit, or Unavailable."""
        reasons = []
        for version, mount in _mounts():
            try:
                if version == 2 and "memory" not in (mount / "cgroup.subtree_control").read_text().split():
                    (mount / "cgroup.subtree_control").write_text("+memory")
                (mount / name).mkdir()
            except OSError as error:
                reasons.append(f"cgroup v{version} at {mount}: {error.strerror}")
                continue
            group = cls(version, mount / name, owned=True)
            try:
                group.limit(limit)
                for file in ("memory.swappiness", "memory.swap.max"):
                    if (group.path / file).exists():
                        group.write(file, 0)
                return group
            except OSError as error:
                group.remove()
                reasons.append(f"cgroup v{version} at {mount}: {error.strerror}")
        raise Unavailable("; ".join(reasons) or "no memory controller is mounted")

    @classmethod
    def of(cls, pid):
        """The group that a process is in."""
        mounts = dict(_mounts())
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            version = 1 if "memory" in controllers.split(",") else 2 if not controllers else 0
            if version in mounts and (mounts[version] / path.lstrip("/")).is_dir():
                return cls(version, mounts[version] / path.lstrip("/"), owned=False)
        raise Unavailable(f"the memory group of process {pid} is not visible")

    # ---- Files ----------------------------------------------------------------------------------------------------------

    def write(self, file, value):
        (self.path / file).write_text(str(value))

    def read(self, file):
        """Descriptors are kept: the sampler reads fifty times a second. "" when the group or file is gone."""
        try:
            if file not in self._fds:
                self._fds[file] = os.open(self.path / file, os.O_RDONLY)
            return os.pread(self._fds[file], 65536, 0).decode()
        except OSError:
            return ""

    def _number(self, file):
        text = self.read(file).strip()
        return int(text) if text.isdigit() else 0

    def _field(self, file, name):
        match = re.search(rf"^{name} (\d+)", self.read(file), re.M)
        return int(match[1]) if match else 0

    # ---- What it says ---------------------------------------------------------------------------------------------------

    def usage(self):
        return self._number("memory.usage_in_bytes" if self.version == 1 else "memory.current")

    def inactive_file(self):
        return self._field("memory.stat", "total_inactive_file" if self.version == 1 else "inactive_file")

    def shmem(self):
        """tmpfs and memfd."""
        return self._field("memory.stat", "total_shmem" if self.version == 1 else "shmem")

    def sockets(self):
        """Socket memory that usage() does not hold."""
        if self.version == 2:
            return 0
        if self._counts_sockets:
            return self._number("memory.kmem.tcp.usage_in_bytes")
        return max(0, host_socket_bytes() - self._host_sockets_before)

    def how_sockets(self):
        if self.version == 2:
            return "within usage"
        return "memory.kmem.tcp of the group" if self._counts_sockets else "sockstat, clients included"

    def oom_kills(self):
        return self._field("memory.oom_control" if self.version == 1 else "memory.events", "oom_kill")

    def under_oom(self):
        return self._field("memory.oom_control", "under_oom") if self.version == 1 else 0

    def limit_hits(self):
        """How often the kernel had to reclaim because the limit was reached."""
        return self._number("memory.failcnt") if self.version == 1 else self._field("memory.events", "max")

    def current_limit(self):
        return self._number("memory.limit_in_bytes" if self.version == 1 else "memory.max") or NEVER

    def peak(self):
        """The kernel's own high-water mark: it misses nothing between two samples. 0 when unknown."""
        return self._number("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")

    # ---- What is done to it ---------------------------------------------------------------------------------------------

    def limit(self, limit):
        self.write("memory.limit_in_bytes" if self.version == 1 else "memory.max", limit)

    def try_limit(self, limit):
        """False while v1 refuses, because the usage is above and nothing can be reclaimed."""
        try:
            self.limit(limit)
            return True
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINTR):
                raise
            return False

    def command(self, command):
        """The command that joins the group and becomes `command`, with the same process id."""
        return ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.path / "cgroup.procs"), *command]

    def remove(self):
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        if not self.owned:
            return
        for _ in range(100):  # a process that has just ended is in it a little longer
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.05)
        print(f"siege: {self.path} could not be removed")
