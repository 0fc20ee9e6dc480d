#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fetches the third-party sources that deps/lock.json names, verifies every byte, and prints where they are.

usage: fetch.py            prints the directory that holds quickjs-ng/, llhttp/, yyjson/ and NOTICE
       NEXUS_ARCHIVES=DIR  takes the archives from DIR instead of the package index (offline builds)
"""
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import cache

HERE = pathlib.Path(__file__).resolve().parent


def say(text: str) -> None:
    print(f"deps: {text}", file=sys.stderr, flush=True)


def verify(data: bytes, want: str, what: str) -> bytes:
    got = hashlib.sha256(data).hexdigest()
    if got != want:
        sys.exit(f"deps: {what} has sha256 {got}, the lock says {want}: not used")
    return data


def archive(entry: dict) -> bytes:
    """The archive's bytes, from NEXUS_ARCHIVES or by pip, which also checks the hash."""
    at_hand = os.environ.get("NEXUS_ARCHIVES")
    if at_hand:
        return (pathlib.Path(at_hand) / entry["archive"]).read_bytes()
    with tempfile.TemporaryDirectory() as work:
        requirements = pathlib.Path(work) / "requirements.txt"
        requirements.write_text(f"{entry['package']} --hash=sha256:{entry['sha256']}\n")
        say(f"fetching {entry['package']}")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--no-binary", ":all:", "--require-hashes", "--dest", work, "-r", str(requirements)]
        environment = dict(os.environ, PIP_ROOT_USER_ACTION="ignore")
        if subprocess.run(command, env=environment, stdout=sys.stderr).returncode:
            sys.exit(f"deps: could not fetch {entry['package']}: is a Python package index reachable? "
                     f"(or set NEXUS_ARCHIVES to a directory that holds {entry['archive']})")
        return (pathlib.Path(work) / entry["archive"]).read_bytes()


def licence_text(entry: dict, files: dict) -> str:
    text = files[entry["licence"]["file"]].decode()
    if entry["licence"]["part"] == "first comment":
        comment = text[text.index("/*") + 2:text.index("*/")]
        text = "\n".join(line.strip().lstrip("*").removeprefix(" ") for line in comment.splitlines())
    return text.strip() + "\n"


def unpack(lock: dict, target: pathlib.Path) -> None:
    notice = ["Third-party software in nexus\n"]
    for name, entry in lock.items():
        tar = tarfile.open(fileobj=io.BytesIO(verify(archive(entry), entry["sha256"], entry["archive"])))
        files = {}
        for file, want in entry["files"].items():
            files[file] = verify(tar.extractfile(entry["root"] + file).read(), want, f"{name}/{file}")
            path = target / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[file])
        notice.append(f"{'-' * 72}\n{name} {entry['version']}\n\n{licence_text(entry, files)}")
    (target / "NOTICE").write_text("\n".join(notice))


def main() -> pathlib.Path:
    lock_file = HERE / "lock.json"
    lock = json.loads(lock_file.read_text())
    return cache.product("sources", cache.key([lock_file, __file__]), lambda path: unpack(lock, path))


if __name__ == "__main__":
    print(main())
