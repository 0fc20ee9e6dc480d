# SPDX-License-Identifier: Apache-2.0
"""The image of deploy/docker: what is in it, what its configuration says, and that it does its work in a container as a cluster would start
it. Where podman or its base are not to be had, the tests are skipped and say why.
"""
import concurrent.futures
import contextlib
import http.client
import http.server
import itertools
import json
import os
import re
import shlex
import ssl
import stat
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

import image_build
from containers import CACHE, HARDENED, cache_mount, run
from memory_group import Unavailable
from siege import free_port

IMAGE = "nexus:image-test"
MIB = 1 << 20
SIZE_MAX = 25_000_000
README = image_build.ROOT / "deploy/docker/README.md"
NAMES = (f"nexus-image-{os.getpid()}-{number}" for number in itertools.count())
LOOPBACK = "127.0.0.0/8,::1/128"  # what names may resolve to
SMALL = ["--memory=256m", cache_mount("16m")]


@pytest.fixture(scope="module")
def engine():
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(image_build.storage())
        except Unavailable as reason:
            pytest.skip(str(reason))
        image_build.make_image(engine, IMAGE)
        # A name for the stage that builds, so that the next run finds it.
        image_build.make_image(engine, "nexus:image-test-build", options=["--target=build"])
        yield engine


@pytest.fixture(scope="module")
def inspected(engine):
    return json.loads(run(*engine.podman, "image", "inspect", IMAGE).stdout)[0]


@pytest.fixture(scope="module")
def files(engine, tmp_path_factory):
    """Path → member of the image's tar."""
    path = tmp_path_factory.mktemp("image") / "rootfs.tar"
    with mounted(engine, IMAGE) as root:
        subprocess.run(["tar", "-C", root, "-cf", path, "."], check=True)
    with tarfile.open(path) as tar:
        yield {member.name.removeprefix("."): member for member in tar.getmembers()}


@contextlib.contextmanager
def mounted(engine, image):
    root = Path(run(*engine.podman, "image", "mount", image).stdout.strip())
    try:
        yield root
    finally:
        run(*engine.podman, "image", "unmount", image)


def command(engine, *words, options=()):
    """A command of nexus in a container of its own."""
    name = next(NAMES)
    try:
        return run(*engine.podman, "run", "--name", name, f"--cgroup-parent=/{name}", *HARDENED, *options, IMAGE, *words)
    finally:
        engine.remove(name)


class Container:
    def __init__(self, engine, name, port):
        self.engine, self.name, self.port = engine, name, port

    def wait(self, condition, what, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come: {self.log()}"
            time.sleep(0.05)

    def is_ready(self):
        with contextlib.suppress(OSError):
            return self.ask("GET", "/readyz") == (200, "ok\n")

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            body = response.read().decode()
            return response.status, json.loads(body) if "json" in response.headers.get("Content-Type", "") else body
        finally:
            connection.close()

    def execute(self, code, **more):
        status, result = self.ask("POST", "/v1/execute", json.dumps({"code": code, **more}))
        assert status == 200, result
        return result

    def do(self, *words):
        return run(*self.engine.podman, *words[:1], self.name, *words[1:])

    def inspect(self, field):
        return self.do("inspect", "--format", "{{" + field + "}}").stdout.strip()

    def log(self):
        done = self.do("logs")
        return done.stdout + done.stderr


@contextlib.contextmanager
def running(engine, options=SMALL, **settings):
    """A server in a container, ready."""
    container = Container(engine, next(NAMES), free_port())
    settings = {"HOST": "127.0.0.1", "PORT": container.port, **settings}
    environment = [f"--env={name}={value}" for name, value in settings.items()]
    try:
        done = run(*engine.podman, "run", "--detach", "--name", container.name, f"--cgroup-parent=/{container.name}", *HARDENED, *options,
                   *environment, IMAGE)
        assert done.returncode == 0, done.stderr
        container.wait(container.is_ready, "readiness")
        yield container
    finally:
        engine.remove(container.name)


@pytest.fixture(scope="module")
def server(engine, tmp_path_factory):
    handlers = tmp_path_factory.mktemp("handlers")
    (handlers / "double.js").write_text("return $args.n * 2")
    handlers.chmod(0o755)
    with running(engine, [*SMALL, f"-v={handlers}:/etc/nexus/handlers:ro"], HANDLERS_DIR="/etc/nexus/handlers") as container:
        yield container


# ---- What is in it ------------------------------------------------------------------------------------------------------

def test_is_small(files):
    size = sum(member.size for member in files.values())
    print(f"image: {size} bytes in {len(files)} files and directories")
    assert size <= SIZE_MAX


def test_has_what_nexus_needs_and_nothing_else(files):
    expected = re.compile(r"|/(etc|lib|usr|var|tmp)(/(bin|lib|share|ssl|doc|dpkg|certs|x86_64-linux-gnu|status\.d|common-licenses))*"
                          r"|/lib64(/ld-linux-x86-64\.so\.2)?|/(usr/)?lib/x86_64-linux-gnu/lib[\w.-]+\.so\.[\d.]+|/etc/(passwd|group|nsswitch\.conf)"
                          r"|/etc/ssl/certs/ca-certificates\.crt|/usr/bin/nexus|/usr/share/doc/nexus(/LICENSE|/NOTICE)?"
                          r"|/usr/share/doc/[\w.+-]+(/copyright)?|/usr/share/common-licenses/[\w.-]+|/var/lib/dpkg/status\.d/[\w.+-]+|/tmp/nexus-cache")
    assert [path for path in files if not expected.fullmatch(path)] == []


def test_nobody_but_root_may_change_it(files):
    """But for the cache directory, and nothing runs as somebody else."""
    for path, member in files.items():
        assert (member.uid, member.gid) == (0, 0), path
        assert not member.mode & (stat.S_ISUID | stat.S_ISGID), path
        assert member.issym() or path == CACHE or not member.mode & (stat.S_IWGRP | stat.S_IWOTH), path
    assert files[CACHE].mode & 0o7777 == 0o1777


def test_every_library_is_named_with_its_licence(engine, files):
    packages = {path.rsplit("/", 1)[1] for path in files if path.startswith("/var/lib/dpkg/status.d/")}
    assert {"libc6", "libcurl4", "libssl3", "ca-certificates"} <= packages
    with mounted(engine, IMAGE) as root:
        for package in packages:
            assert (root / "usr/share/doc" / package / "copyright").read_text(), package
            assert f"Package: {package}\n" in (root / "var/lib/dpkg/status.d" / package).read_text()
        notice = (root / "usr/share/doc/nexus/NOTICE").read_text()
        texts = "".join((root / "usr/share/doc" / package / "copyright").read_text() for package in packages)
        for name in set(re.findall(r"common-licenses/([\w.-]*\w)", texts)):
            assert (root / "usr/share/common-licenses" / name).exists(), name
    assert all(part in notice for part in ("quickjs-ng", "llhttp", "yyjson", "libsodium", "libzstd", "libhiredis", "wasi-libc"))


def test_the_program_names_no_directory_of_the_build(engine, files):
    with mounted(engine, IMAGE) as root:
        program = (root / "usr/bin/nexus").read_bytes()
    assert not re.findall(rb"/src/build[\w./-]*|/nexus-build[\w./-]*", program)


def test_another_build_gives_the_same_files(engine, inspected, tmp_path):
    """From another directory, of the same sources; with another label, so that no layer is taken from the first."""
    image_build.copy_of_checkout(tmp_path)
    said = image_build.make_image(engine, "nexus:image-test-again", tmp_path, variables=["VERSION=again"])
    assert "ninja -C build" in said, said
    again = json.loads(run(*engine.podman, "image", "inspect", "nexus:image-test-again").stdout)[0]
    run(*engine.buildah, "rmi", "nexus:image-test-again")
    assert again["RootFS"]["Layers"] == inspected["RootFS"]["Layers"]


def test_the_stage_that_builds_has_the_symbols(engine):
    """The same build id, so what a debugger wants can be had from the same commit."""
    def build_id(file):
        return re.search(r"Build ID: (\w+)", run("readelf", "--notes", file).stdout)[1]
    with mounted(engine, IMAGE) as root, mounted(engine, "nexus:image-test-build") as build:
        assert ".debug_info" in run("readelf", "--sections", "--wide", build / "src/build/nexus").stdout
        assert ".debug_info" not in run("readelf", "--sections", "--wide", root / "usr/bin/nexus").stdout
        assert build_id(root / "usr/bin/nexus") == build_id(build / "src/build/nexus")


# ---- What it says of itself ---------------------------------------------------------------------------------------------

def test_configuration(engine, inspected):
    config = inspected["Config"]
    assert config["User"] == "65532:65532"
    assert config["Env"] == ["PATH=/usr/bin", f"CACHE_DIR={CACHE}"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/usr/bin/nexus"], ["serve"])
    assert set(config["ExposedPorts"]) == {"3000/tcp", "3001/tcp"}
    assert config["StopSignal"] == "SIGTERM"
    assert inspected["HealthCheck" if "HealthCheck" in inspected else "Healthcheck"]["Test"] == ["CMD", "nexus", "health"]


def test_labels_say_what_the_program_says(engine, inspected):
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in inspected["Config"]["Labels"].items()}
    assert (labels["title"], labels["licenses"]) == ("nexus", "Apache-2.0")
    assert labels["description"]
    assert command(engine, "version").stdout.startswith(f"nexus {labels['version']} ({labels['revision']})\n")
    assert labels["revision"].startswith(run("git", "-C", image_build.ROOT, "rev-parse", "--short=12", "HEAD").stdout.strip())


# ---- What it does -------------------------------------------------------------------------------------------------------

def test_doctor_finds_libcurl_and_authorities(engine):
    done = command(engine, "doctor", options=[*SMALL, "--env=NET_ALLOW=api.example"])
    assert done.returncode == 0, done.stderr
    assert re.search(r"ok +network of handlers +api\.example\n", done.stdout), done.stdout
    assert re.search(rf"ok +cache directory +{CACHE}\n", done.stdout), done.stdout
    assert "no certificate authorities" not in done.stdout + done.stderr


def test_plan_sees_the_limit_of_the_container(engine):
    done = command(engine, "plan", "--json", options=SMALL)
    assert json.loads(done.stdout)["container"]["limitBytes"] == 256 * MIB, done


def test_executes_a_handler_of_a_mounted_directory(server):
    assert server.ask("POST", "/run/double", '{"n": 21}') == (200, 42)
    assert server.ask("GET", "/health")[1]["memory"]["limitBytes"] == 256 * MIB
    assert "compile cache disabled" not in server.log()


def test_says_so_without_a_directory_to_write_to(engine):
    with running(engine, ["--memory=256m"]) as container:
        assert container.execute("return 1")["returnValue"] == 1
        assert re.search(r"WARN.*compile cache disabled.*dir=/tmp/nexus-cache", container.log(), re.I), container.log()


def test_the_cache_directory_is_there_where_the_root_can_be_written(engine):
    with running(engine, ["--memory=256m", "--read-only=false"]) as container:
        assert "compile cache disabled" not in container.log()


@pytest.mark.parametrize("more", [{}, {"ADMIN_PORT": "free"}], ids=["PORT", "ADMIN_PORT"])
def test_health_check(engine, more):
    with running(engine, **{name: free_port() for name in more}) as container:
        assert run(*engine.podman, "healthcheck", "run", container.name).returncode == 0, container.log()
        status = container.inspect(".State.Health.Status") or container.inspect(".State.Healthcheck.Status")
        assert status == "healthy"
        assert json.loads(container.do("exec", "nexus", "health").stdout)["status"] == "healthy"
        if not Path("/run/systemd/system").exists():
            print("podman's timers need systemd, which is not there: the check was run by hand")


def test_health_check_fails_when_nobody_answers(engine):
    done = command(engine, "health", options=[f"--env=PORT={free_port()}"])
    assert (done.returncode, done.stdout) == (1, "")


def test_a_greedy_handler_does_not_end_the_container(server):
    result = server.execute("const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))")
    assert result["error"]["code"] == "MEMORY_LIMIT"
    assert server.ask("POST", "/run/double", '{"n": 4}') == (200, 8)
    assert (server.inspect(".State.Running"), server.inspect(".State.OOMKilled")) == ("true", "false")


def test_sigterm_lets_an_execution_finish(engine):
    with running(engine) as container, concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(container.execute, "const end = Date.now() + 1500; while (Date.now() < end); return 'finished'")
        container.wait(lambda: container.ask("GET", "/health")[1]["instances"]["active"] == 1, "the execution")
        assert container.do("stop", "--time", "20").returncode == 0
        assert answer.result()["returnValue"] == "finished"
        assert container.inspect(".State.ExitCode") == "0", container.log()


# ---- README.md ----------------------------------------------------------------------------------------------------------

def readme_commands():
    """Each `docker run` of the README, without what differs here: the name of the image, and ports."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("docker run ") for line in lines if line.startswith("docker run ")]


def readme_run(engine, words, *more):
    name = next(NAMES)
    words = words.replace("-p 3000:3000", "").replace("--rm", "").replace("$PWD", str(image_build.ROOT)).replace("nexus:0.1.0", IMAGE)
    options = ["run", "--name", name, f"--cgroup-parent=/{name}", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", *more]
    return name, run(*engine.podman, *options, *shlex.split(words))


def test_readme_commands_that_end(engine):
    commands = [words for words in readme_commands() if not words.endswith("nexus:0.1.0")]
    assert len(commands) == 3
    for words in commands:
        name, done = readme_run(engine, words)
        engine.remove(name)
        assert done.returncode == 0, (words, done.stderr)


def test_readme_server(engine):
    words, = [words for words in readme_commands() if words.endswith("nexus:0.1.0")]
    port = free_port()
    name, done = readme_run(engine, words, "--detach", f"--env=PORT={port}", "--env=HOST=127.0.0.1")
    try:
        assert done.returncode == 0, done.stderr
        container = Container(engine, name, port)
        container.wait(container.is_ready, "readiness")
        assert container.ask("POST", "/run/cart", (image_build.ROOT / "examples/cart.json").read_text())[0] == 200
    finally:
        engine.remove(name)


# ---- fetch --------------------------------------------------------------------------------------------------------------

class Peer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def https(tmp_path_factory):
    """A server for https://localhost, and the file with the one authority that vouches for it."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    certificate.chmod(0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Peer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"localhost:{server.server_port}", certificate
        server.shutdown()
        thread.join()


def fetched(container, address):
    return container.execute(f"return await (await fetch('https://{address}/')).text()", capabilities=["ext:net"])


def test_fetch_over_tls_with_another_authority(engine, https):
    address, certificate = https
    options = [*SMALL, f"-v={certificate}:/etc/ssl/certs/ca-certificates.crt:ro"]
    with running(engine, options, NET_ALLOW=f"{address},{LOOPBACK}") as container:
        assert fetched(container, address)["returnValue"] == "hello"


def test_fetch_over_tls_believes_only_its_authorities(engine, https):
    with running(engine, NET_ALLOW=f"{https[0]},{LOOPBACK}") as container:
        assert "certificate" in json.dumps(fetched(container, https[0])["error"])
