# SPDX-License-Identifier: Apache-2.0
"""nexus top: printed once, and live on a terminal of the test's own."""
import fcntl
import http.server
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

from conftest import NEXUS, SLOWNESS, Background, environment, nexus, wait_until

USAGE = 2
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
HANDLERS = {"fine.js": "return 1", "broken.js": "throw new Error('no')"}


def url(server):
    return f"--url=http://127.0.0.1:{server.port}"


class Fake:
    """A server that answers /metrics with what it is told: bytes sent as they are, or None for silence."""

    def __init__(self, raw):
        self.raw = raw
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.kept = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            if self.raw is None:
                self.kept.append(client)
                continue
            try:
                client.recv(65536)
                client.sendall(self.raw)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(1)
                client.recv(1)  # until the other side has had enough
            except OSError:
                pass
            client.close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()
        for client in self.kept:
            client.close()


def answer(body, status="200 OK"):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def fake():
    fakes = []

    def begin(raw):
        fakes.append(Fake(raw))
        return fakes[-1]

    yield begin
    for one in fakes:
        one.close()


class Terminal:
    """`nexus top` on a pty, and what is on the screen: enough of a terminal for what top sends."""

    def __init__(self, *args, columns=80, rows=24, settings=None):
        self.master, slave = pty.openpty()
        self.columns, self.rows = columns, rows
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen([NEXUS, "top", *args], stdin=slave, stdout=slave, stderr=slave,
                                        env=environment({"TERM": "xterm", **(settings or {})}), start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.slave = slave
        self.raw = b""

    def resize(self, columns, rows):
        self.resized_at = len(self.read()) if hasattr(self, "raw") else 0
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.columns, self.rows = columns, rows

    def read(self):
        while select.select([self.master], [], [], 0)[0]:
            self.raw += os.read(self.master, 65536)
        return self.raw

    def screen(self):
        """The lines of the alternate screen, of what came since the last change of its size."""
        grid = [[" "] * self.columns for _ in range(self.rows)]
        row = column = 0
        text = self.read()[self.resized_at:].split(ENTER)[-1].decode(errors="ignore")
        text = re.sub(r"\x1b[^A-Za-z]*$", "", text)  # the last escape may be cut, as may the last character
        for escape, char in re.findall(r"\x1b\[([?0-9;]*[A-Za-z])|(.)", text, re.S):
            if escape == "H":
                row = column = 0
            elif escape == "K":
                grid[row][column:] = [" "] * (self.columns - column)
            elif escape == "J":
                grid[row][column:] = [" "] * (self.columns - column)
                grid[row + 1:] = [[" "] * self.columns for _ in grid[row + 1:]]
            elif char == "\r":
                column = 0
            elif char == "\n":
                row = min(row + 1, self.rows - 1)
            elif char:
                assert char.isprintable() and column < self.columns, (char, column)
                grid[row][column] = char
                column += 1
            else:
                assert escape.endswith("m") or escape in ("?25l", "?25h", "?1049l"), escape
        return ["".join(line).rstrip() for line in grid]

    def text(self):
        return "\n".join(self.screen())

    def wait_for(self, part, seconds=10):
        wait_until(lambda: self.alive() and part in self.text(), seconds, f"{part!r} on the screen")

    def alive(self):
        assert self.process.poll() is None, self.read()
        return True

    def press(self, keys):
        os.write(self.master, keys)

    def keys_changed(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def check_end(self, status=0):
        """It ended, and the terminal is as it was."""
        assert self.process.wait(10 * SLOWNESS) == status, self.read()
        self.read()
        assert self.raw.count(ENTER) == self.raw.count(LEAVE) and self.raw.rstrip().endswith(LEAVE)
        assert self.raw.rindex(b"\x1b[?25h") > self.raw.rindex(b"\x1b[?25l")
        assert termios.tcgetattr(self.slave) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal():
    terminals = []

    def begin(*args, **more):
        terminals.append(Terminal(*args, **more))
        return terminals[-1]

    yield begin
    for one in terminals:
        one.close()


# ---- Once ---------------------------------------------------------------------------------------------------------------


def test_once(start):
    server = start(handlers=HANDLERS)
    run = nexus("top", "--once", url(server))
    assert (run.returncode, run.stderr) == (0, ""), run
    assert "\x1b" not in run.stdout and all(line.isprintable() for line in run.stdout.splitlines())
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert run.stdout.startswith("nexus ") and f"http://127.0.0.1:{server.port}" in run.stdout
    assert re.search(r"^healthy   governor .*rates of the last (0\.[5-9]|[1-9]\d*\.\d) s$", run.stdout, re.M)
    assert "limit 1.00 GiB" in run.stdout
    for layer in server.health()["memory"]["layers"]:
        assert re.search(rf"^{layer} +\[.*\] +[\d.]+ .?i?B ", run.stdout, re.M), layer
    assert re.search(r"0 of 8   queue 0$", run.stdout, re.M)
    assert re.search(r"^EXECUTIONS  0/s$", run.stdout, re.M)


def test_rates(start):
    server = start(handlers=HANDLERS)
    stop = threading.Event()

    def load():
        while not stop.is_set():
            assert server.run("fine").status == 200 and server.run("broken").status == 500
            time.sleep(0.01)

    with Background(load):
        run = nexus("top", "--once", url(server), "--interval", "1000")
        stop.set()
    assert re.search(r"^EXECUTIONS  [\d.]+/s .*success [\d.]+", run.stdout, re.M) and " error " in run.stdout
    assert re.search(r"mean [\d.]+ [µm]s   p99 [\d.]+ [µm]s ", run.stdout), run.stdout
    rows = {name: (float(rate), float(failed)) for name, rate, failed in
            re.findall(r"^(fine|broken) +([\d.]+) +[\d.]+ % +([\d.]+)$", run.stdout, re.M)}
    assert rows["fine"][0] > 0 and rows["fine"][1] == 0
    assert rows["broken"][0] == rows["broken"][1] > 0


def test_server_of_the_environment(start):
    server = start()
    assert nexus("top", "--once", settings={"PORT": server.port}).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as probe:
        admin = probe.getsockname()[1]
    server = start({"ADMIN_PORT": admin})
    run = nexus("top", "--once", settings={"PORT": 1, "ADMIN_PORT": admin})
    assert run.returncode == 0 and f"http://127.0.0.1:{admin}" in run.stdout


@pytest.mark.parametrize("arguments, settings, text", [
    (["--nope"], {}, "usage"), (["--url"], {}, "usage"), (["--interval"], {}, "usage"), (["x"], {}, "usage"), (["--onces"], {}, "usage"),
    (["--once", "--interval", "99"], {}, "--interval"), (["--once", "--interval=1e3"], {}, "--interval"), (["--once", "--interval="], {}, "--interval"),
    (["--once", "--url=https://127.0.0.1"], {}, "http://HOST:PORT"), (["--once", "--url", "127.0.0.1:3000"], {}, "http://HOST:PORT"),
    (["--once"], {"PORT": "x"}, "PORT"), (["--once"], {"PORT": 0}, "--url"), ([], {}, "--once"),
])
def test_wrong_usage(arguments, settings, text):
    run = nexus("top", *arguments, settings=settings)
    assert run.returncode == USAGE and run.stdout == "" and text in run.stderr


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        run = nexus("top", "--once", f"--url=http://127.0.0.1:{unused.getsockname()[1]}")
    assert run.returncode == 1 and run.stdout == "" and "no server answers: Connection refused" in run.stderr


@pytest.mark.parametrize("raw, text", [
    (b"", "without an answer"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
    (b"\x1b]0;owned\x07\x1b[2J" * 100, "not HTTP"),
    (answer(b"<html>\x1b[31m</html>\n"), "line 1 "),
    (answer(b"nexus_instances_max 8\nnexus_ins"), "line 2 "),
    (answer(b"nexus_instances_max 8\n")[:-3], "ends early"),
    (answer(b"nexus_instances_max 8\n", "404 \x1b[31m"), ""),
    (answer(b"no", "404 Not Found"), "404"),
    (answer(b""), "not nexus"),
    (answer(b"go_goroutines 12\n"), "not nexus"),
    (answer(b"x 1\n" * 400000), "larger"),
    (answer(b"x 1\n" * 5000), "more metrics"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300000, "larger"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not HTTP"),
])
def test_not_nexus(fake, raw, text):
    run = nexus("top", "--once", f"--url=http://127.0.0.1:{fake(raw).port}")
    assert run.returncode == 1 and run.stdout == "" and text in run.stderr, run
    assert run.stderr.startswith("nexus top: ") and run.stderr.rstrip("\n").isprintable()


def test_silence(fake):
    began = time.monotonic()
    run = nexus("top", "--once", f"--url=http://127.0.0.1:{fake(None).port}")
    assert run.returncode == 1 and "no answer within 3000 ms" in run.stderr
    assert time.monotonic() - began < 6 * SLOWNESS


def test_chunked_and_without_most(fake):
    """As a proxy would pass it on, from a nexus that has one metric."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n16\r\nnexus_instances_max 8\n\r\n0\r\n\r\n"
    run = nexus("top", "--once", f"--url=http://127.0.0.1:{fake(chunked).port}")
    assert run.returncode == 0 and "– of 8   queue –" in run.stdout


def test_labels_are_made_harmless(fake):
    body = (b'nexus_build_info{version="\x1b]0;owned\x07"} 1\nnexus_health_status{status="\\n\x1b[2J\xff"} 1\n'
            b'nexus_memory_used_bytes{layer="' + b"\x9b" * 5000 + b'"} 1e300\n')
    run = nexus("top", "--once", f"--url=http://127.0.0.1:{fake(answer(body)).port}")
    assert run.returncode == 0 and all(line.isprintable() and len(line) <= 80 for line in run.stdout.split("\n"))
    assert "?]0;owned?" in run.stdout


def test_output_that_is_full(server):
    with open("/dev/full", "w") as full:
        run = subprocess.run([NEXUS, "top", "--once", url(server)], env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 1 and "cannot write" in run.stderr


# ---- Live ---------------------------------------------------------------------------------------------------------------


def test_live(start, terminal):
    server = start(handlers=HANDLERS)
    top = terminal(url(server), "--interval", "200")
    top.wait_for("INSTANCES")
    assert top.keys_changed() and b"\x1b[32m" in top.raw
    assert top.raw.startswith(ENTER) and LEAVE not in top.raw
    top.wait_for("rates of the last 0.2 s")
    wait_until(lambda: server.run("fine") and "\nfine " in top.text(), what="the handler's row")
    lines = top.screen()
    assert len(lines) == 24 and lines[0].startswith("nexus ") and lines[2].startswith("MEMORY") and lines[18].startswith("HANDLERS")
    top.press(b"xQ\x1b[A\x1bOQ ")  # nothing of this is a wish to leave
    top.wait_for("EXECUTIONS  0/s")
    assert top.alive()
    top.press(b"q")
    top.check_end()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, b"\x03"])
def test_signals_restore_the_terminal(server, terminal, end):
    top = terminal(url(server))
    top.wait_for("INSTANCES")
    if isinstance(end, bytes):
        top.press(end)
    else:
        top.process.send_signal(end)
    top.check_end()


def test_resize(server, terminal):
    top = terminal(url(server), "--interval", "60000")
    top.wait_for("rates of")
    bar = next(line for line in top.screen() if line.startswith("instances")).index("]")
    for columns, rows in ((132, 40), (40, 10), (1, 1), (80, 24)):
        top.resize(columns, rows)
        last = min(rows - 1, 18 if rows < 28 else 22)  # HANDLERS, if there is so much room
        wait_until(lambda: top.screen()[last], what="the last line")
        lines = top.screen()  # asserts that no line is too long
        assert lines[0].startswith("nexus"[:columns]) and not any(lines[last + 1:])
        if columns == 132:
            assert next(line for line in lines if line.startswith("instances")).index("]") == bar + 52
            assert lines[2] == "" and lines[3].startswith("MEMORY")
    top.press(b"q")
    top.check_end()


def test_server_ends_and_comes_back(start, terminal):
    server = start()
    top = terminal("--url", f"http://127.0.0.1:{server.port}", "--interval", "100")
    top.wait_for("rates of the last")
    server.stop()
    top.wait_for("no answer since ")
    assert re.search(r"^no answer since \d\d:\d\d:\d\d: no server answers: Connection refused$", top.text(), re.M)
    assert "INSTANCES" in top.text()  # as it was
    start({"PORT": server.port})
    top.wait_for("healthy   governor")
    assert "no answer" not in top.text()
    top.press(b"q")
    top.check_end()


@pytest.mark.parametrize("raw, text", [
    (b"\x1b]0;owned\x07\x1b[2J", "the answer is not HTTP"), (answer(b"\x1b[31m\n"), "line 1 is not of the Prometheus format"),
    (b"", "closed without an answer"), (answer(b"a 1\n"), "not nexus"), (answer(b"x" * 2000000), "larger"),
])
def test_live_nonsense(fake, terminal, raw, text):
    top = terminal(f"--url=http://127.0.0.1:{fake(raw).port}", "--interval=100")
    top.wait_for("no answer since ")
    assert text in top.text()
    top.press(b"q")
    top.check_end()
    assert b"owned" not in top.raw and b"\x1b]" not in top.raw


def test_keys_while_nobody_answers(fake, terminal):
    top = terminal(f"--url=http://127.0.0.1:{fake(None).port}")
    top.wait_for("asking")
    began = time.monotonic()
    top.press(b"q")
    top.check_end()
    assert time.monotonic() - began < 1.5 * SLOWNESS


def test_silence_is_said(fake, terminal):
    top = terminal(f"--url=http://127.0.0.1:{fake(None).port}")
    top.wait_for("nothing came within 3000 ms")
    top.process.send_signal(signal.SIGTERM)
    top.check_end()


def test_stop_and_continue(server, terminal):
    """Ctrl-Z gives the terminal back; fg takes it again."""
    top = terminal(url(server))
    top.wait_for("INSTANCES")
    # Its process group is orphaned (no shell), and SIGTSTP does nothing there; SIGSTOP comes unannounced.
    top.press(b"\x1a")
    wait_until(lambda: top.read().count(ENTER) == 2, what="the terminal given back and taken again")
    top.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: "T (stopped)" in open(f"/proc/{top.process.pid}/status").read(), what="the stop")
    termios.tcsetattr(top.slave, termios.TCSANOW, top.before)  # what a shell does
    top.process.send_signal(signal.SIGCONT)
    wait_until(top.keys_changed, what="the terminal taken again")
    top.wait_for("INSTANCES")
    top.press(b"q")
    top.check_end()


@pytest.mark.parametrize("settings, colours", [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)])
def test_colours(server, terminal, settings, colours):
    top = terminal(url(server), settings=settings)
    top.wait_for("INSTANCES")
    top.press(b"q")
    top.check_end()
    assert bool(re.search(rb"\x1b\[[0-9;]+m", top.raw.split(LEAVE)[0].rsplit(b"\x1b[0m", 1)[0])) == colours


def test_dumb_terminal(server, terminal):
    top = terminal(url(server), "--interval=100", settings={"TERM": "dumb"})
    wait_until(lambda: top.read().count(b"INSTANCES") >= 3, what="three screens")
    top.press(b"q")
    assert top.process.wait(10 * SLOWNESS) == 0
    assert b"\x1b" not in top.read() and termios.tcgetattr(top.slave) == top.before


def test_once_on_a_terminal(server, terminal):
    top = terminal(url(server), "--once", columns=100)
    assert top.process.wait(10 * SLOWNESS) == 0
    assert ENTER not in top.read() and b"INSTANCES" in top.raw and b"\x1b[1m" in top.raw


def test_terminal_that_takes_nothing(server, terminal):
    """Ctrl-S, or a line that is down: who ends it must not have to wait for that."""
    top = terminal(url(server), "--interval=100")
    top.wait_for("INSTANCES")
    termios.tcflow(top.slave, termios.TCOOFF)
    time.sleep(0.5)
    top.process.send_signal(signal.SIGTERM)
    assert top.process.wait(5 * SLOWNESS) == 0
    termios.tcflow(top.slave, termios.TCOON)
    assert termios.tcgetattr(top.slave) == top.before


def test_terminal_that_goes_away(server, terminal):
    top = terminal(url(server), "--interval=100")
    top.wait_for("INSTANCES")
    with open(os.devnull, "rb") as nothing:
        for end in (top.slave, top.master):
            os.dup2(nothing.fileno(), end)  # which closes it
    assert top.process.wait(10 * SLOWNESS) in (0, 1)
