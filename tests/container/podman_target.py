# SPDX-License-Identifier: Apache-2.0
"""The same server as in siege.Target, but in a container as a cluster would start it: podman and runc, read-only root, no capabilities,
no root user. The image is made here, from nothing but nexus and the libraries it needs, and kept in a storage of its own that goes with
the working directory: nothing is pulled, and nothing of other containers is touched."""
import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import siege
from memory_group import Group, Unavailable

TOOLS = ("podman", "buildah", "runc")
CACHE = "/tmp/nexus-cache"
USER = "65532:65532"


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def libraries(binary):
    """The files that the dynamic loader would open."""
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", run("ldd", binary).stdout)]


class PodmanTarget(siege.Target):
    def prepare(self):
        missing = [tool for tool in TOOLS if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin")]
        if missing or os.geteuid() != 0:
            raise Unavailable(f"not installed: {' '.join(missing)}" if missing else "podman with --memory needs root here")
        super().prepare()
        self.name = f"nexus-siege-{os.getpid()}-{self.port}"
        self.storage = ["--root", str(self.work / "storage"), "--runroot", str(self.work / "run"), "--storage-driver", "vfs"]
        self.podman = ["podman", *self.storage, "--cgroup-manager", "cgroupfs", "--runtime", shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin")]
        self.build()

    def build(self):
        """An image FROM scratch."""
        root = self.work / "context/root"
        (root / "usr/bin").mkdir(parents=True)
        shutil.copy(self.options.nexus, root / "usr/bin/nexus")
        for library in libraries(self.options.nexus):
            target = root / str(library).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
        shutil.copytree(self.handlers, root / "handlers")
        (root / CACHE.lstrip("/")).mkdir(parents=True)
        (root / CACHE.lstrip("/")).chmod(0o1777)
        (self.work / "context/Containerfile").write_text('FROM scratch\nCOPY root/ /\nENTRYPOINT ["/usr/bin/nexus", "serve"]\n')
        done = run("buildah", *self.storage, "bud", "--isolation", "chroot", "-t", self.name, str(self.work / "context"))
        if done.returncode:
            raise Unavailable(f"buildah: {done.stderr.strip()[-300:]}")

    def settings(self):
        return {**super().settings(), "CACHE_DIR": CACHE, "HANDLERS_DIR": "/handlers"}

    def launch(self):
        limit, cache = self.options.limit, self.options.cache_size or self.options.limit // 4
        environment = [f"--env={name}={value}" for name, value in self.settings().items()]
        command = [*self.podman, "run", "--name", self.name, "--network=host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
                   f"--memory={limit}", f"--cgroup-parent=/{self.name}", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", f"--user={USER}", "--pull=never",
                   f"--tmpfs={CACHE}:rw,size={cache},mode=1777,notmpcopyup", *environment, f"localhost/{self.name}"]
        # conmon leaves a file "oom" in its working directory when there was one.
        self.process = subprocess.Popen(command, cwd=self.work, stdin=subprocess.DEVNULL, stdout=self.log_writer, stderr=self.log_writer, start_new_session=True)
        os.close(self.log_writer)
        self.cleanup.callback(self.remove)
        self.find()

    def find(self):
        """The container's first process is the server; its memory group is the container's."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            pid = run(*self.podman, "inspect", "--format", "{{.State.Pid}}", self.name).stdout.strip()
            if pid.isdigit() and int(pid):
                self.pid = int(pid)
                try:
                    self.group = Group.of(self.pid)
                except FileNotFoundError:
                    continue  # it has ended already
                self.cleanup.callback(self.group.remove)
                self.cache = Path(f"/proc/{self.pid}/root{CACHE}")
                return
            time.sleep(0.1)
        status, _ = self.process.wait(30), time.sleep(0.2)
        said = self.log()[-500:].decode(errors="replace").strip()
        if status in (125, 126, 127):  # podman's own: it could not start the container
            raise Unavailable(f"podman: {said}")
        raise SystemExit(f"siege: the server ended with {status}: {said}")

    def remove(self):
        run(*self.podman, "rm", "--force", "--time", "0", self.name)
        self.end_process(self.process)
        run(*self.podman, "rmi", "--force", self.name)
        for directory in sorted(Path("/sys/fs/cgroup").glob(f"*/{self.name}/**/"), reverse=True):
            with contextlib.suppress(OSError):
                directory.rmdir()

    def alive(self):
        return self.process.poll() is None and Path(f"/proc/{self.pid}").exists()

    def oom_kills(self):
        """The group goes with the container, and its count with it; podman remembers."""
        remembered = run(*self.podman, "inspect", "--format", "{{.State.OOMKilled}}", self.name).stdout.strip() == "true"
        return max(super().oom_kills(), int(remembered))
