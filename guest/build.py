#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the guest: JavaScript engine and shim → WebAssembly → C → libguest.a, once per machine.

    QuickJS-NG, guest.c, bootstrap.js, web/*.js ──clang──▶ guest.wasm ──wasm2c──▶ guest.c ──gcc──▶ libguest.a

The product is kept in the build cache under a hash of everything it depends on: sources, tools, flags.

usage: build.py OUT_DIR CC        writes OUT_DIR/{libguest.a, guest.h, guest_build.h, guest.wasm}
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "deps"))
import cache  # noqa: E402
import fetch  # noqa: E402

ENGINE = ["libregexp.c", "libunicode.c", "dtoa.c"]
OWN = [HERE / "guest.c", HERE / "sha.c", HERE / "engine.c"]
# Order matters: bootstrap.js captures the language's own functions before anything else runs.
SCRIPTS = [HERE / "bootstrap.js", *sorted((HERE / "web").glob("*.js"))]
WASM_RT = ROOT / "src/sandbox/wasm-rt.h"
STACK_BYTES = 1 << 20
ARENA_BYTES = 1024

WASM_FLAGS = [
    "--target=wasm32-wasi", "--sysroot=/usr", "-I/usr/include/wasm32-wasi", "-O2", "-mmutable-globals",
    "-mbulk-memory", "-msign-ext", "-mnontrapping-fptoint", "-D_GNU_SOURCE", "-D_WASI_EMULATED_PROCESS_CLOCKS",
    # __FILE__ and friends must not carry paths of the building machine into the image.
    "-Wdate-time", "-DNDEBUG",
]
WASM_LINK = [
    "--target=wasm32-wasi", "--sysroot=/usr", "-L/usr/lib/wasm32-wasi", "-mexec-model=reactor",
    "-lwasi-emulated-process-clocks", "-Wl,--stack-first", f"-Wl,-z,stack-size={STACK_BYTES}",
    "-Wl,--export=__stack_pointer", "-Wl,--strip-debug",
]
# Images travel between machines and compilers: no fused multiply-add, no -march, no fast-math. Aliasing: the generated
# code reads linear memory through every type. Nothing unwinds the guest's frames but debuggers, which have their own tables.
NATIVE_FLAGS = ["-O2", "-g1", "-fPIE", "-fno-strict-aliasing", "-ffp-contract=off", "-fno-plt", "-w", "-fno-asynchronous-unwind-tables",
                # one text section, see below
                "-fno-reorder-functions", "-fno-reorder-blocks-and-partition"]
# A frame larger than the guard page could step over it (src/sandbox/thread.c), and a recursion of frames larger than the
# mark of 1 KiB could leave that untouched (src/sandbox/stack_mark.h). The largest today have about 400.
MAX_FRAME_BYTES = 1000


def say(text: str) -> None:
    print(f"guest: {text}", file=sys.stderr, flush=True)


def run(command, **options) -> None:
    if subprocess.run([str(word) for word in command], **options).returncode:
        sys.exit(f"guest: failed: {' '.join(map(str, command))}")


def write_scripts(path: pathlib.Path) -> None:
    """scripts.h: the JavaScript sources as byte arrays with a trailing NUL, which the engine's parser wants."""
    lines = ["static const struct { const char *text; unsigned bytes; } nx_scripts[] = {"]
    for script in SCRIPTS:
        text = script.read_bytes()
        octal = "".join(f"\\{byte:03o}" if byte < 32 or byte > 126 or byte in b'"\\?' else chr(byte) for byte in text)
        pieces = re.findall(r'(?:\\[0-7]{3}|[^\\]){1,100}', octal)
        lines.append("  {" + "\n   ".join(f'"{piece}"' for piece in pieces) + f", {len(text)}}},")
    path.write_text("\n".join([*lines, "};", ""]))


# What quickjs.c is built with instead: (pattern, replacement).
ENGINE_CHANGES = [
    # Each size of block has arenas of its own, so an execution that allocates blocks of ten sizes would change ten pages.
    (r"(?m)^#define JS_ARENA_SIZE +4096$", f"#define JS_ARENA_SIZE {ARENA_BYTES}"),
    # then() on a settled promise ignores that its job could not be queued for want of memory: the new promise would never
    # settle, and a loop that makes them never end.
    (r"(?m)^( +)(JS_EnqueueJob\(ctx, promise_reaction_job, 5, args\);\n)( +for\(.*\n +promise_reaction_data_free\(.*rd_array.*\n)",
     r"\1int status = \2\3\1if (status) return status;\n"),
]


def write_engine(sources: pathlib.Path, path: pathlib.Path) -> None:
    text = (sources / "quickjs-ng/quickjs.c").read_text()
    for pattern, replacement in ENGINE_CHANGES:
        text, found = re.subn(pattern, replacement, text)
        if found != 1:
            sys.exit(f"guest: quickjs.c does not have {pattern} where it did")
    path.write_text(text)


def build_wasm(sources: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
    write_scripts(work / "scripts.h")
    write_engine(sources, work / "quickjs.c")
    flags = [*WASM_FLAGS, f"-I{work}", f"-I{sources}/quickjs-ng", f"-ffile-prefix-map={sources}=."]
    # Our own files first: they are quick, and the ones that may be wrong.
    for units, warnings in ((OWN, ["-Wall", "-Wextra", "-Werror"]),
                            ([sources / "quickjs-ng" / name for name in ENGINE], ["-w"])):
        jobs = [subprocess.Popen(["clang", *flags, *warnings, "-c", str(unit), "-o", str(work / f"{unit.stem}.o")])
                for unit in units]
        if any([job.wait() for job in jobs]):
            sys.exit("guest: a source did not compile")
    objects = [work / f"{pathlib.Path(unit).stem}.o" for unit in [*OWN, *ENGINE]]
    wasm = work / "guest.wasm"
    run(["clang", *WASM_LINK, *objects, "-o", wasm])
    return wasm


def check_generated(text: str) -> None:
    """The guard behind the window must be larger than any static offset (src/sandbox/wasm-rt.h)."""
    guard = re.search(r"NX_WASM_GUARD_BYTES \((\d+)u << (\d+)\)", WASM_RT.read_text())
    guard_bytes = int(guard.group(1)) << int(guard.group(2))
    largest = max(map(int, re.findall(r"\(u64\)\(\w+\) \+ (\d+)", text)))
    if largest + 16 > guard_bytes:
        sys.exit(f"guest: a static offset of {largest} bytes does not fit the guard of {guard_bytes}")


def check_globals(header: str) -> None:
    """Images hold every mutable global of the guest: struct nx_guest_globals has the stack pointer, and only that."""
    found = re.findall(r"^  [us](?:32|64) (\w+);|^  f(?:32|64) (\w+);", header, re.MULTILINE)
    if len(found) != 1:
        sys.exit(f"guest: expected one mutable global, the stack pointer, found {found}")


def build_native(work: pathlib.Path, cc: str) -> None:
    generated = work / "guest.c"
    run(["wasm2c", "-n", "guest", work / "guest.wasm", "-o", generated])
    text = generated.read_text()
    check_generated(text)
    check_globals((work / "guest.h").read_text())
    # There is one module, so every table entry belongs to the instance that calls: its pointer need not be fetched,
    # and one read-only table serves all instances.
    text = re.sub(r"instance->\w+\.data\[\w+\]\.module_instance", "instance", text)
    # Data segments are in the base image too. Where that is at hand, instantiating is for the table alone, and the
    # host gives no memory for it (src/sandbox/wasm_rt.c).
    text, found = re.subn(r"(?m)^  (LOAD_DATA\(instance->(\w+),)", r"  if (instance->\2.size) \1", text)
    if not found:
        sys.exit("guest: no data segments are loaded where they were")
    generated.write_text(text)
    # Link-time optimisation is used only to compile the one large file on all cores.
    say("compiling the generated C (about a minute, once per machine)")
    # The build id is a hash of the debugging information too: no paths of this machine in it, and link-time optimisation
    # would write one to a header elsewhere relative to here.
    shutil.copy(WASM_RT, work)
    compile_ = [cc, *NATIVE_FLAGS, f"-ffile-prefix-map={work}=.", "-I."]
    run([*compile_, "-flto", "-c", "guest.c", "-o", "guest.lto.o"], cwd=work)
    run([*compile_, "-r", f"-flto={os.cpu_count()}", "-flinker-output=nolto-rel", "-fstack-usage",
         "guest.lto.o", "-o", "guest.o"], cwd=work)
    check_frames(work)
    # The fault handler tells a guest's fault from a crash of ours by the section its code lies in.
    run(["objcopy", "--rename-section=.text=nx_guest_text", work / "guest.o"])
    run(["ar", "rcsD", work / "libguest.a", work / "guest.o"])


def check_frames(work: pathlib.Path) -> None:
    usage = [line.split("\t") for path in work.glob("*.su") for line in path.read_text().splitlines()]
    if not usage:
        sys.exit("guest: the compiler reported no frame sizes")
    name, size, _ = max(usage, key=lambda row: int(row[1]))
    if int(size) > MAX_FRAME_BYTES or any("dynamic" in row[2] and "bounded" not in row[2] for row in usage):
        sys.exit(f"guest: {name} has a frame of {size} bytes, or one of unknown size: it could step over a guard page, or the mark on the stack")


def build(sources: pathlib.Path, work: pathlib.Path, cc: str) -> None:
    began = time.monotonic()
    say("compiling the JavaScript engine to WebAssembly")
    wasm = build_wasm(sources, work)
    digest = hashlib.sha256(wasm.read_bytes()).hexdigest()
    (work / "guest_build.h").write_text(
        f'#define NX_GUEST_WASM_SHA256 "{digest}"\n#define NX_GUEST_STACK_BYTES {STACK_BYTES}u\n')
    build_native(work, cc)
    for path in [*work.glob("*.o"), *work.glob("*.su"), work / "guest.c", work / "scripts.h", work / "quickjs.c", work / WASM_RT.name]:
        path.unlink()
    say(f"done in {time.monotonic() - began:.0f} s")


def main() -> None:
    out, cc = pathlib.Path(sys.argv[1]), sys.argv[2]
    sources = fetch.main()
    headers = [HERE / name for name in ("abi.h", "json.h", "sha.h")]
    inputs = [*OWN, *headers, __file__, WASM_RT, *SCRIPTS, *(sources / "quickjs-ng").iterdir()]
    tools = [cache.version_of(tool) for tool in ("clang", "wasm-ld", "wasm2c", cc)]
    product = cache.product("guest", cache.key(inputs, *tools, *(script.name for script in SCRIPTS)),
                            lambda work: build(sources, work, cc))
    for name in ("libguest.a", "guest.h", "guest_build.h", "guest.wasm"):
        cache.publish(product / name, out / name)


if __name__ == "__main__":
    main()
