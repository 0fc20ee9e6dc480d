# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 as bytes: what is refused and how, bodies in pieces, pipelining, many and slow clients."""
import resource
import select
import socket
import time

import pytest

from conftest import SLOWNESS, wait_until

SETTINGS = {"MAX_BODY_KB": 64}

POST = b"POST /v1/execute HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"code": "return 7"}'
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)


def open_socket(server, timeout=20):
    client = server.connect_socket(timeout)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def read_reply(client, buffer=b"", head=False):
    """(status, headers, body, rest) of one response; status None when the connection ended first."""
    while b"\r\n\r\n" not in buffer:
        chunk = client.recv(65536)
        if not chunk:
            return None, {}, b"", buffer
        buffer += chunk
    top, _, rest = buffer.partition(b"\r\n\r\n")
    lines = top.split(b"\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(b":") for line in lines[1:])}
    length = 0 if head else int(headers.get(b"content-length", 0))
    while len(rest) < length:
        chunk = client.recv(65536)
        assert chunk, "the body ended early"
        rest += chunk
    return int(lines[0].split()[1]), headers, rest[:length], rest[length:]


def talk(server, request):
    """One connection: everything that comes back until the server closes it, or one reply when it stays open."""
    client = open_socket(server)
    client.sendall(request)
    status, headers, body, rest = read_reply(client)
    closed = headers.get(b"connection") == b"close"
    if closed:
        while chunk := client.recv(65536):
            rest += chunk
    client.close()
    return status, headers, body, rest, closed


def chunked(*pieces, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


# ---- Refused: name, bytes, status. All close the connection, so that nothing behind them is taken for a request. ---------

SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = [
    ("length and chunked", POST + b"Transfer-Encoding: chunked\r\n" + LENGTH + chunked(BODY), 400),
    ("chunked and length", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY), 400),
    ("two lengths", POST + b"Content-Length: 20\r\n" + LENGTH + BODY, 400),
    ("two equal lengths", POST + b"Content-Length: %d\r\n" % len(BODY) + LENGTH + BODY, 400),
    ("list of lengths", POST + b"Content-Length: 20, 20\r\n\r\n" + BODY, 400),
    ("negative length", POST + b"Content-Length: -1\r\n\r\n", 400),
    ("length with sign", POST + b"Content-Length: +20\r\n\r\n" + BODY, 400),
    ("hexadecimal length", POST + b"Content-Length: 0x14\r\n\r\n" + BODY, 400),
    ("length with text", POST + b"Content-Length: 20a\r\n\r\n" + BODY, 400),
    ("empty length", POST + b"Content-Length: \r\n\r\n", 400),
    ("huge length", POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    ("too large a length", POST + b"Content-Length: 10000000\r\n\r\n", 413),
    ("unknown coding", POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ("coding list", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked(BODY), 400),
    ("coding twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY), 400),
    ("identity", POST + b"Transfer-Encoding: identity\r\n" + LENGTH + BODY, 400),
    ("xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n" + chunked(BODY), 400),
    ("chunked in 1.0", b"POST /v1/execute HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY), 400),
    ("space before colon", POST + b"Content-Length : 20\r\n\r\n" + BODY, 400),
    ("folded header", POST + b"X-A: b\r\n c\r\n" + LENGTH + BODY, 400),
    ("bare line feeds", b"GET /livez HTTP/1.1\nHost: x\n\n", 400),
    ("bare line feed in headers", b"GET /livez HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
    ("bare return in a header", b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
    ("NUL in a header", b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
    ("header without colon", b"GET /livez HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", 400),
    ("header without name", b"GET /livez HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400),
    ("space in a header name", b"GET /livez HTTP/1.1\r\nHost: x\r\nA B: y\r\n\r\n", 400),
    ("no host", b"GET /livez HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ("host with a path", b"GET /livez HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    ("no version", b"GET /livez\r\n\r\n", 505),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/2.0", b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", None),
    ("HTTP/1.2", b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n", None),
    ("HTTPS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("not a method", b"G@T /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("lower-case method", b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("leading space", b" GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("two spaces", b"GET  /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("space in the target", b"GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("control byte in the target", b"GET /li\x01vez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("target without slash", b"GET livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("fragment", b"GET /livez#x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("RTSP", b"GET /livez RTSP/1.0\r\nHost: x\r\n\r\n", 400),
    ("CONNECT", b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ("long target", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ("long header", b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20000 + b"\r\n\r\n", 431),
    ("many headers", b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(3000)) + b"\r\n", 431),
    ("other expectation", POST + b"Expect: tea\r\n" + LENGTH + BODY, 417),
    ("chunk size is no number", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    ("chunk size with sign", POST + b"Transfer-Encoding: chunked\r\n\r\n+14\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    ("chunk size with prefix", POST + b"Transfer-Encoding: chunked\r\n\r\n0x14\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    ("chunk size overflows", POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
    ("chunk too large", POST + b"Transfer-Encoding: chunked\r\n\r\n1000000\r\n", 413),
    ("chunk longer than said", POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    ("chunk ended by line feed", POST + b"Transfer-Encoding: chunked\r\n\r\n14\n" + BODY + b"\n0\n\n", 400),
    ("chunk size followed by space", POST + b"Transfer-Encoding: chunked\r\n\r\n14 \r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    ("trailer without colon", POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY, end=b"0\r\nbad\r\n\r\n"), 400),
]


@pytest.mark.parametrize("request_bytes, status", [pytest.param(data, status, id=name) for name, data, status in REFUSED])
def test_refused(server, request_bytes, status):
    got, headers, body, rest, closed = talk(server, request_bytes + SMUGGLED)
    assert got == status or (status is None and got in (400, 505)), (got, body)
    assert closed and rest == b"", "what stands behind a refused request is no request"
    assert headers[b"content-type"] == b"application/problem+json" and b'"detail"' in body
    assert server.get("/livez").status == 200


# ---- Taken ------------------------------------------------------------------------------------------------------------

TAKEN = [
    ("length", POST + LENGTH + BODY),
    ("chunked", POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY)),
    ("chunks of one byte", POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[BODY[i:i + 1] for i in range(len(BODY))])),
    ("chunk extensions", POST + b"Transfer-Encoding: chunked\r\n\r\n14;a=b;c\r\n" + BODY + b"\r\n0;x\r\n\r\n"),
    ("trailers", POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY, end=b"0\r\nX-T: 1\r\n\r\n")),
    ("upper-case chunked", POST + b"Transfer-Encoding: CHUNKED\r\n\r\n" + chunked(BODY)),
    ("chunk sizes in capitals", POST + b"Transfer-Encoding: chunked\r\n\r\n014\r\n" + BODY + b"\r\n00\r\n\r\n"),
    ("absolute target", b"POST http://other/v1/execute HTTP/1.1\r\nHost: x\r\n" + LENGTH + BODY),
    ("query", b"POST /v1/execute?a=b HTTP/1.1\r\nHost: x\r\n" + LENGTH + BODY),
    ("empty lines before", b"\r\n\r\n" + POST + LENGTH + BODY),
    ("host with a port", b"POST /v1/execute HTTP/1.1\r\nHost: [::1]:80\r\n" + LENGTH + BODY),
    ("blanks around values", POST.replace(b"Host: x", b"Host:\t x \t") + LENGTH + BODY),
    ("upgrade is ignored", POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + LENGTH + BODY),
    ("any case of names", POST + LENGTH.replace(b"Content-Length", b"cOnTeNt-LeNgTh") + BODY),
    ("HTTP/1.0", b"POST /v1/execute HTTP/1.0\r\n" + LENGTH + BODY),
    ("HTTP/1.0 kept alive", b"POST /v1/execute HTTP/1.0\r\nConnection: keep-alive\r\n" + LENGTH + BODY),
    ("expectation with its body", POST + b"Expect: 100-continue\r\n" + LENGTH + BODY),
]


@pytest.mark.parametrize("request_bytes", [pytest.param(data, id=name) for name, data in TAKEN])
@pytest.mark.parametrize("way", ["whole", "in bytes"])
def test_taken(server, request_bytes, way):
    client = open_socket(server)
    if way == "whole":
        client.sendall(request_bytes)
    else:
        for i in range(len(request_bytes)):
            client.sendall(request_bytes[i:i + 1])
    status, headers, body, rest = read_reply(client)
    if status == 100:
        status, headers, body, rest = read_reply(client, rest)
    assert status == 200 and b'"returnValue":7' in body and rest == b""
    stays = b"HTTP/1.0" not in request_bytes or b"keep-alive" in request_bytes
    assert (headers.get(b"connection") != b"close") == stays or headers.get(b"connection") is None
    if stays:
        client.sendall(SMUGGLED)
        assert read_reply(client)[0] == 200
    else:
        assert client.recv(1) == b""
    client.close()


def test_continue(server):
    client = open_socket(server)
    client.sendall(POST + b"Expect: 100-continue\r\n" + LENGTH)
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(BODY)
    assert read_reply(client)[0] == 200
    client.close()


def test_no_continue_for_what_is_refused(server):
    client = open_socket(server)
    client.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 10000000\r\n\r\n")
    assert read_reply(client)[0] == 413
    client.close()


def test_connection_close(server):
    status, headers, _, rest, closed = talk(server, POST + b"Connection: close\r\n" + LENGTH + BODY + SMUGGLED)
    assert status == 200 and closed and rest == b""


def test_half_closed_clients_get_their_answer(server):
    client = open_socket(server)
    client.sendall(POST + LENGTH + BODY)
    client.shutdown(socket.SHUT_WR)
    assert read_reply(client)[0] == 200
    client.close()


def test_pipelining(server):
    client = open_socket(server)
    bodies = [b'{"code": "return $args", "args": %d}' % i for i in range(100)]
    client.sendall(b"".join(POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies))
    rest = b""
    for i in range(100):
        status, _, body, rest = read_reply(client, rest)
        assert status == 200 and b'"returnValue":%d,' % i in body
    assert rest == b""
    client.close()


def test_pipelining_of_different_kinds(server):
    client = open_socket(server)
    client.sendall(SMUGGLED + b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n" + POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY)
                   + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + b"DELETE /v1/handlers/nobody HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED)
    rest, statuses = b"", []
    for head in (False, True, False, False, False, False):
        status, _, _, rest = read_reply(client, rest, head)
        statuses.append(status)
    assert statuses == [200, 200, 200, 404, 404, 200] and rest == b""
    client.close()


def test_clients_that_vanish(server):
    for request in (POST, POST + LENGTH, POST + LENGTH + BODY[:5], POST + LENGTH + BODY, b"G", b"\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\n14\r\n{"):
        for reset in (False, True):
            client = open_socket(server)
            client.sendall(request)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
    assert server.value("return 1") == 1


def test_large_answer_to_a_slow_reader(server):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30 * SLOWNESS)
    client.connect(("127.0.0.1", server.port))
    body = b'{"code": "return \'x\'.repeat(2e6)"}'
    client.sendall(POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    assert server.value("return 1") == 1  # the reader holds nothing up
    status, _, answer, _ = read_reply(client)
    assert status == 200 and answer.count(b"x") >= 2_000_000
    client.close()


def test_several_segments_fit_into_the_buffers(server):
    """Otherwise each piece of a large answer waits for its acknowledgement, which a peer puts off: 2 MB/s over the loopback interface."""
    client = open_socket(server)
    client.sendall(SMUGGLED)
    assert read_reply(client)[0] == 200
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 8 << 10
    client.close()


# ---- Many and slow ------------------------------------------------------------------------------------------------------

def test_many_idle_connections(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 500)
    if count < 2000:
        pytest.skip(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = []
    try:
        server = start({"MAX_CONNECTIONS": count, "CONTAINER_MEMORY_LIMIT": "8Gi"})
        server.value("return 1")
        before = server.rss()
        for i in range(count - 50):
            # Several loopback addresses: one alone has fewer ports than a busy machine may need.
            client = socket.socket()
            client.bind((f"127.0.0.{2 + i % 5}", 0))
            client.connect(("127.0.0.1", server.port))
            clients.append(client)
        for client in clients[::4]:
            client.sendall(SMUGGLED)
        for client in clients[::4]:
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        for path in ("/livez", "/readyz", "/health", "/metrics"):
            begin = time.monotonic()
            assert server.get(path).status == 200
            assert time.monotonic() - begin < 1 * SLOWNESS
        assert server.value("return 2") == 2
        assert server.rss() - before < len(clients) * 3 * 1024 + (8 << 20)
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: len(server.fds()) < 60, 20, "the close of connections")
    assert server.value("return 3") == 3


def is_closed(client):
    readable, _, _ = select.select([client], [], [], 0)
    return bool(readable) and client.recv(1, socket.MSG_PEEK) == b""


def test_beyond_the_limit_the_longest_idle_goes(start):
    server = start({"MAX_CONNECTIONS": 10})
    server.disconnect()
    clients = []
    for _ in range(30):
        clients.append(open_socket(server))
        clients[-1].sendall(SMUGGLED)
        assert read_reply(clients[-1])[0] == 200
    assert server.get("/livez").status == 200
    # About the longest idle: whose answer was just being finished may be passed over once.
    wait_until(lambda: sum(map(is_closed, clients)) >= 20, what="the close of 20 connections")
    assert is_closed(clients[0])
    clients[-1].sendall(SMUGGLED)
    assert read_reply(clients[-1])[0] == 200
    for client in clients:
        client.close()


def test_slowloris(server):
    """Clients that send a byte now and then cost little and stop nobody; after 10 s of header time they are sent away."""
    clients = [open_socket(server, 40) for _ in range(200)]
    for client in clients:
        client.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    for client in clients[:20]:
        client.sendall(b"y")
    begin = time.monotonic()
    for _ in range(20):
        assert server.value("return 1") == 1
        assert server.get("/livez").status == 200
    assert time.monotonic() - begin < 3 * SLOWNESS
    for client in clients:
        status, headers, body, _ = read_reply(client)
        assert status == 408 and headers[b"connection"] == b"close" and b"REQUEST_TIMEOUT" in body
        client.close()
    assert time.monotonic() - begin < 14 * SLOWNESS
