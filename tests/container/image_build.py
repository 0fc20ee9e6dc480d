# SPDX-License-Identifier: Apache-2.0
"""The image of deploy/docker, made with `make image` as a user would, on a base made by debootstrap. Standard library only.

The storage with the base and the installed packages stays in the build cache, so that a second run is quick; whoever uses it holds its
lock. What a machine needs for its package mirror is mounted while the image is built and gets into no layer."""
import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from containers import Engine, need, run
from memory_group import Unavailable

ROOT = Path(__file__).resolve().parents[2]
BUILD_CACHE = Path(os.environ.get("NEXUS_BUILD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nexus-build")
BASE = "localhost/debian:bookworm-slim"  # where the short name of the Dockerfile is looked for first
# Of the machine: where packages come from, and whom they must be signed by.
MOUNTS = [f"-v={path}:{path}:ro" for path in ("/etc/apt", "/usr/share/keyrings")]


@contextlib.contextmanager
def storage():
    """The engine of the build cache, with the base in it."""
    need("debootstrap")
    directory = BUILD_CACHE / "containers"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = Engine(directory)
        try:
            if run(*engine.podman, "image", "exists", BASE).returncode:
                make_base(engine)
            yield engine
        finally:
            run(*engine.buildah, "rmi", "--prune")
            engine.close()


def make_base(engine):
    mirror = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: bookworm", "Component: main").stdout.split()[:1]
    with tempfile.TemporaryDirectory() as work:
        done = run(shutil.which("debootstrap", path="/usr/sbin:/sbin:/usr/bin"), "--variant=minbase", "bookworm", f"{work}/root", *mirror)
        if done.returncode:
            raise Unavailable(f"debootstrap: {done.stdout.strip()[-300:]}")
        subprocess.run(["tar", "-C", f"{work}/root", "-cf", f"{work}/base.tar", "."], check=True)
        subprocess.run([*engine.podman, "import", "--quiet", f"{work}/base.tar", BASE], check=True, stdout=subprocess.DEVNULL)


def make_image(engine, tag, directory=ROOT, options=(), variables=()):
    """`make image` in that directory, with more options for buildah and variables for make; returns what it said."""
    cache = f"-v={BUILD_CACHE}:/var/cache/nexus-build:bind"  # without the mounts of the storage below it
    builder = [*engine.buildah, "build", "--isolation=chroot", "--network=host", "--format=docker", "--layers", "--pull-never", *MOUNTS, cache, *options]
    git = run("git", "-C", ROOT, "rev-parse", "--absolute-git-dir").stdout.strip()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NEXUS", "MAKE"))}
    done = run("make", "--no-print-directory", "image", *variables, f"IMAGE={tag}", f"BUILDER={' '.join(map(str, builder))}", cwd=directory,
               env={**environment, "GIT_DIR": git, "GIT_OPTIONAL_LOCKS": "0"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def copy_of_checkout(target):
    """The files of the checkout that git would not ignore, in another directory, and one more: nothing of an earlier build fits."""
    files = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for file in filter(None, files):
        if (ROOT / file).exists():
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, target / file)
    (target / "src/another").write_text(str(target))
