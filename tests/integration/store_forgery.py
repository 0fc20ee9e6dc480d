# SPDX-License-Identifier: Apache-2.0
"""What somebody can do who writes to a store: entries changed and exchanged, with every checksum right."""
import hashlib
import pathlib
import struct


def items(settings):
    return pathlib.Path(settings["SUSPEND_STORE"].removeprefix("file:")) / "v1" / "items"


def blake2b(*parts):
    hashed = hashlib.blake2b(digest_size=32)
    for part in parts:
        hashed.update(part)
    return hashed.digest()


# struct nx__kept_header (src/suspend/store_file_internal.h): magic, header_bytes, state, expires_ms, wake_ms, version,
# body_bytes; then the name of the source, and the hashes of the body and of all before.
HEADER = struct.Struct("<8sIIQQQQ32s32s32s")
STATE, EXPIRES, WAKE, BODY_BYTES, BODY_HASH = 2, 3, 4, 6, 8


def forge(path, body=None, **changes):
    """Changes fields of the header, or the body."""
    data = path.read_bytes()
    fields = list(HEADER.unpack_from(data))
    body = data[HEADER.size:] if body is None else body
    fields[BODY_BYTES], fields[BODY_HASH] = len(body), blake2b(body)
    for name, value in changes.items():
        fields[{"state": STATE, "expires": EXPIRES, "wake": WAKE}[name]] = value
    head = HEADER.pack(*fields[:-1], b"")[:-32]
    name = path.name.encode() + b"\0"
    path.write_bytes(head + blake2b(name, head) + body)


class FileEntries:
    """What the store has of handlers and sources, by name: the sealed bytes."""

    def __init__(self, settings):
        self.top = items(settings).parent

    def read(self, kind):
        return {path.name: path.read_bytes()[HEADER.size:] for path in (self.top / kind).iterdir()}

    def write(self, kind, name, sealed):
        forge(self.top / kind / name, sealed)

    def everything(self):
        return b"".join(path.read_bytes() + path.name.encode() for path in self.top.rglob("*") if path.is_file())


class RedisEntries:
    ROOT = "nexus:{store}:"

    def __init__(self, redis):
        self.ask = redis.ask

    def read(self, kind):
        if kind == "handlers":
            flat = self.ask("HGETALL", self.ROOT + "handlers")
            return {flat[i].decode(): flat[i + 1].split(b" ", 2)[2] for i in range(0, len(flat), 2)}
        keys = self.ask("KEYS", self.ROOT.replace("{", "\\{") + "source:*")
        return {key.decode().rpartition(":")[2]: self.ask("HGET", key, "source") for key in keys}

    def write(self, kind, name, sealed):
        if kind == "sources":
            self.ask("HSET", self.ROOT + "source:" + name, "source", sealed)
        else:
            source, version, _ = self.ask("HGET", self.ROOT + "handlers", name).split(b" ", 2)
            self.ask("HSET", self.ROOT + "handlers", name, b" ".join([source, version[::-1], sealed]))

    def everything(self):
        return b"".join(key + self.ask("DUMP", key) for key in self.ask("KEYS", "*"))
