#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles llhttp and yyjson once per machine into OUT/libthirdparty.a, and writes OUT/NOTICE.

They are not ours to instrument: every flavour of nexus (plain, ASan, TSan …) links the same objects.

usage: build.py OUT_DIR CC
"""
import pathlib
import subprocess
import sys

import cache
import fetch

SOURCES = ["llhttp/src/api.c", "llhttp/src/http.c", "llhttp/src/llhttp.c", "yyjson/yyjson.c"]
# What nexus does not use of yyjson (JSON with extras, JSON Pointer, patches) is left out.
FLAGS = ["-O2", "-g1", "-fPIE", "-fstack-protector-strong", "-DYYJSON_DISABLE_NON_STANDARD=1", "-DYYJSON_DISABLE_UTILS=1",
         "-w"]
# What else ends up in the program: libraries that it is linked with statically, the guest's C library, and what wasm2c
# writes. Each Debian package brings its licences. (libcurl and the C library are loaded, not part of it.)
PACKAGES = ["libhiredis-dev", "libsodium-dev", "libzstd-dev", "libyaml-dev", "wasi-libc", "libclang-rt-14-dev-wasm32", "wabt"]
LICENCES = pathlib.Path("/usr/share/doc")


def notice_of(package: str) -> str:
    file = LICENCES / package / "copyright"
    if not file.is_file():
        sys.exit(f"deps: {file} is missing: a NOTICE without the licence of {package} would be incomplete; install the package")
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    version = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    return f"{'-' * 72}\n{package} {version} (Debian)\n\n{file.read_text().strip()}\n"


def write_notice(sources: pathlib.Path, target: pathlib.Path) -> None:
    target.write_text("\n".join([(sources / "NOTICE").read_text(), *map(notice_of, PACKAGES)]))


def main() -> None:
    out, cc = pathlib.Path(sys.argv[1]), sys.argv[2]
    sources = fetch.main()

    def make(work: pathlib.Path) -> None:
        jobs = []
        for source in SOURCES:
            command = [cc, *FLAGS, f"-ffile-prefix-map={sources}=.", f"-ffile-prefix-map={work}=.", f"-I{sources}/llhttp/include",
                       "-c", str(sources / source), "-o", str(work / (pathlib.Path(source).stem + ".o"))]
            jobs.append(subprocess.Popen(command, cwd=work))
        if any(job.wait() for job in jobs):
            sys.exit("deps: a third-party source did not compile")
        objects = sorted(str(path) for path in work.glob("*.o"))
        subprocess.run(["ar", "rcsD", str(work / "libthirdparty.a"), *objects], check=True)

    key = cache.key([__file__, *(sources / source for source in SOURCES)], cache.version_of(cc), " ".join(FLAGS))
    product = cache.product("thirdparty", key, make)
    cache.publish(product / "libthirdparty.a", out / "libthirdparty.a")
    write_notice(sources, out / "NOTICE")


if __name__ == "__main__":
    main()
