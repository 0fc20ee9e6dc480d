# SPDX-License-Identifier: Apache-2.0
"""Where fetched sources and slow build products live: outside every checkout, so that a fresh clone is quick."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile


def directory() -> pathlib.Path:
    base = os.environ.get("NEXUS_BUILD_CACHE")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nexus-build")
    path = pathlib.Path(base)
    path.mkdir(parents=True, exist_ok=True)
    return path


def key(files, *texts) -> str:
    """Hash of everything a product depends on."""
    digest = hashlib.sha256()
    for file in sorted(map(pathlib.Path, files), key=lambda file: file.name):  # not by where checkout and cache are
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:24]


def version_of(tool: str) -> str:
    return subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout


def product(name: str, key: str, make) -> pathlib.Path:
    """The directory NAME-KEY in the cache; `make(path)` fills it when it is not there. Appears whole or not at all."""
    final = directory() / f"{name}-{key}"
    if final.is_dir():
        return final
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}-", dir=directory()))
    try:
        make(work)
        work.chmod(0o755)
        try:
            work.rename(final)
        except OSError:
            if not final.is_dir():  # another build was quicker
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def publish(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a product into the build directory, leaving an equal file alone so that nothing is rebuilt for it."""
    if target.exists() and target.read_bytes() == source.read_bytes():
        os.utime(target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
