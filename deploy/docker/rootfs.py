#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lays out the files of the image: nexus, the shared libraries that it and libcurl need, certificate authorities, licences.

usage: rootfs.py NEXUS NOTICE ROOT      ROOT must not exist; every file gets the time SOURCE_DATE_EPOCH (default: 0)
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# Opened by nexus itself, when NET_ALLOW is set (src/net/curl_api.h).
LIBCURL = pathlib.Path("/usr/lib/x86_64-linux-gnu/libcurl.so.4")
COMMON_LICENCES = pathlib.Path("/usr/share/common-licenses")
AUTHORITIES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
CACHE_DIR = "tmp/nexus-cache"
UID = 65532
ETC = {
    "passwd": f"nexus:x:{UID}:{UID}:nexus:/:/usr/sbin/nologin\n",
    "group": f"nexus:x:{UID}:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def output(*command) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def libraries(binary: pathlib.Path) -> set[pathlib.Path]:
    """What the dynamic loader opens for it, the loader included."""
    text = output("ldd", str(binary))
    if "not found" in text:
        sys.exit(f"rootfs: {binary} needs libraries that are not here:\n{text}")
    return set(map(pathlib.Path, re.findall(r"(/\S+) \(0x", text)))


def package_of(file: pathlib.Path) -> str:
    """The Debian package that the file is from, under the path with or without /usr that its database has."""
    for path in (file, pathlib.Path("/usr", *file.parts[1:]), pathlib.Path("/", *file.parts[2:])):
        found = subprocess.run(["dpkg-query", "--search", str(path)], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout.split(":")[0]
    sys.exit(f"rootfs: {file} is not from a Debian package: its licence is not known")


def copy(source: pathlib.Path, target: pathlib.Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def copy_package_facts(packages: list[str], root: pathlib.Path) -> None:
    """Their licences (a text that several have is there once), and the entries by which scanners for known vulnerabilities find them."""
    first_with: dict[bytes, str] = {}
    for package in packages:
        text = pathlib.Path("/usr/share/doc", package, "copyright").read_bytes()
        directory = root / "usr/share/doc" / package
        directory.mkdir(parents=True)
        if text in first_with:
            (directory / "copyright").symlink_to(f"../{first_with[text]}/copyright")
        else:
            first_with[text] = package
            (directory / "copyright").write_bytes(text)
        status = root / "var/lib/dpkg/status.d" / package
        status.parent.mkdir(parents=True, exist_ok=True)
        status.write_text(output("dpkg-query", "--status", package))
    copy_common_licences(b"".join(first_with), root)


def copy_common_licences(texts: bytes, root: pathlib.Path) -> None:
    """The whole texts to which licences of packages refer."""
    directory = root / COMMON_LICENCES.relative_to("/")
    directory.mkdir(parents=True)
    for name in set(re.findall(rb"common-licenses/([\w.-]*\w)", texts)):
        file = COMMON_LICENCES / name.decode()
        shutil.copyfile(file.resolve(), directory / file.resolve().name)
        if file.is_symlink():
            (directory / file.name).symlink_to(file.readlink())


def lay_out(nexus: pathlib.Path, notice: pathlib.Path, root: pathlib.Path) -> None:
    copy(nexus, root / "usr/bin/nexus", 0o755)
    shared = sorted(libraries(nexus) | libraries(LIBCURL) | {LIBCURL})
    for library in shared:
        copy(library, root / library.relative_to("/"), 0o755)
    copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
    copy_package_facts(sorted({"ca-certificates", *map(package_of, shared)}), root)
    copy(notice, root / "usr/share/doc/nexus/NOTICE")
    copy(HERE.parents[1] / "LICENSE", root / "usr/share/doc/nexus/LICENSE")
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    (root / CACHE_DIR).mkdir(parents=True)


def make_the_same_every_time(root: pathlib.Path) -> None:
    """Modes and times that neither the umask nor the clock had a part in."""
    time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for path in [*root.rglob("*"), root]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (time, time), follow_symlinks=False)
    # For every user; and runtimes give a tmpfs that is mounted there the same mode.
    (root / CACHE_DIR).chmod(0o1777)


def main() -> None:
    nexus, notice, root = map(pathlib.Path, sys.argv[1:])
    lay_out(nexus, notice, root)
    make_the_same_every_time(root)


if __name__ == "__main__":
    main()
