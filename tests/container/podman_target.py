# SPDX-License-Identifier: Apache-2.0
"""The same server as in siege.Target, but in a container as a cluster would start it. The image has the files of the real one
(deploy/docker), with the program under test, and goes with the working directory."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import siege
from containers import CACHE, HARDENED, Engine, cache_mount, run
from memory_group import Group, Unavailable


class PodmanTarget(siege.Target):
    def prepare(self):
        self.engine = Engine(self.work)
        self.cleanup.callback(self.engine.close)
        super().prepare()
        self.name = f"nexus-siege-{os.getpid()}-{self.port}"
        self.build()

    def build(self):
        root, nexus = self.work / "context/root", Path(self.options.nexus)
        root.parent.mkdir()
        done = run(sys.executable, siege.ROOT / "deploy/docker/rootfs.py", nexus, nexus.parent / "NOTICE", root)
        if done.returncode:
            raise SystemExit(f"siege: {done.stderr}")
        shutil.copytree(self.handlers, root / "handlers")
        (self.work / "context/Containerfile").write_text('FROM scratch\nCOPY root/ /\nENTRYPOINT ["/usr/bin/nexus", "serve"]\n')
        done = run(*self.engine.buildah, "bud", "--isolation", "chroot", "-t", self.name, self.work / "context")
        if done.returncode:
            raise Unavailable(f"buildah: {done.stderr.strip()[-300:]}")

    def settings(self):
        return {**super().settings(), "CACHE_DIR": CACHE, "HANDLERS_DIR": "/handlers"}

    def launch(self):
        limit, cache = self.options.limit, self.options.cache_size or self.options.limit // 4
        environment = [f"--env={name}={value}" for name, value in self.settings().items()]
        command = [*self.engine.podman, "run", "--name", self.name, *HARDENED, f"--memory={limit}", f"--cgroup-parent=/{self.name}",
                   cache_mount(cache), *environment, f"localhost/{self.name}"]
        # conmon leaves a file "oom" in its working directory when there was one.
        self.process = subprocess.Popen(command, cwd=self.work, stdin=subprocess.DEVNULL, stdout=self.log_writer, stderr=self.log_writer, start_new_session=True)
        os.close(self.log_writer)
        self.cleanup.callback(self.remove)
        self.find()

    def find(self):
        """The container's first process is the server; its memory group is the container's."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            pid = run(*self.engine.podman, "inspect", "--format", "{{.State.Pid}}", self.name).stdout.strip()
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
        self.engine.remove(self.name)
        self.end_process(self.process)
        run(*self.engine.podman, "rmi", "--force", self.name)

    def alive(self):
        return self.process.poll() is None and Path(f"/proc/{self.pid}").exists()

    def oom_kills(self):
        """The group goes with the container, and its count with it; podman remembers."""
        remembered = run(*self.engine.podman, "inspect", "--format", "{{.State.OOMKilled}}", self.name).stdout.strip() == "true"
        return max(super().oom_kills(), int(remembered))
