# SPDX-License-Identifier: Apache-2.0
"""A redis-server of a test's own: on a free port, with a directory of its own. What it acknowledged it has written to its file before,
so that it survives kill -9; it does not wait for the disk, which others may keep busy for longer than nexus waits for an answer."""
import pathlib
import shutil
import socket
import subprocess

from conftest import wait_until

PROGRAM = shutil.which("redis-server")


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


class Redis:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process = None
        self.start()

    @property
    def store(self):
        """The value of SUSPEND_STORE."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.process = subprocess.Popen(
            [PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", "",
             "--appendonly", "yes", "--appendfsync", "no"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(self.answers, what="redis-server")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def forget(self):
        """What it kept, while it does not run."""
        shutil.rmtree(self.directory)
        self.directory.mkdir()

    def answers(self):
        """Not while it still loads its data."""
        try:
            return isinstance(self.ask("DBSIZE"), int)
        except OSError:
            return False

    def ask(self, *words):
        """One command, and its reply: an int, bytes, a list of them, or None; errors are exceptions."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            with connection.makefile("rb") as replies:
                return read_reply(replies)


def read_reply(file):
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("redis-server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise OSError(rest.decode())
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"*":
        return [read_reply(file) for _ in range(int(rest))]
    size = int(rest)
    return None if size < 0 else file.read(size + 2)[:-2]
