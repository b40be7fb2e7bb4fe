"""Servers on loopback that hold a shard set: plain HTTP that can do what servers and networks do to clients, and moto's S3."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
Fault = Callable[["Handler", bytes], None]


def status(code: int, body: bytes = b"") -> Fault:
    return lambda handler, _: handler.answer(code, body)


def reset_before(handler: Handler, data: bytes) -> None:
    """The connection is reset before a word is said."""
    handler.reset()


def reset_within(handler: Handler, data: bytes) -> None:
    """Half of the body, then a reset."""
    truncated(handler, data)
    time.sleep(0.05)  # or the kernel drops what was sent
    handler.reset()


def truncated(handler: Handler, data: bytes) -> None:
    """Half of what was promised, and an orderly end."""
    handler.head(200, len(data))
    handler.wfile.write(data[: len(data) // 2])


def shorter(handler: Handler, data: bytes) -> None:
    """Half of the file, as if that were all."""
    handler.answer(200, data[: len(data) // 2])


def longer(handler: Handler, data: bytes) -> None:
    handler.answer(200, data + b"more")


def wrong(handler: Handler, data: bytes) -> None:
    """As many bytes, of which one is another."""
    middle = len(data) // 2
    handler.answer(200, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def stalled(handler: Handler, data: bytes) -> None:
    """Half of the body, then silence."""
    truncated(handler, data)
    handler.server.released.wait(20)


def slow(handler: Handler, data: bytes) -> None:
    """The body in ten pieces, over half a second."""
    handler.head(200, len(data))
    piece = -(-len(data) // 10)
    for start in range(0, len(data), piece):
        time.sleep(0.05)
        handler.wfile.write(data[start : start + piece])


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name, query = unquote(self.path.partition("?")[0]), self.path.partition("?")[2]
        with self.server.counting:
            self.server.requests[name.rsplit("/", 1)[-1]] += 1
            fault = next((each for pattern, all in self.server.faults.items() if re.search(pattern, name) for each in all), None)
        if self.server.secret and self.server.secret not in (self.headers.get("Authorization"), query):
            return self.answer(403)
        path = self.server.root / name.lstrip("/")
        data = path.read_bytes() if path.is_file() else None
        if data is None:
            return self.answer(404)
        if fault:
            self.close_connection = True
            return fault(self, data)
        start = re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range", ""))
        if start and self.server.ranges:
            self.server.requests["ranges"] += 1
            self.head(206, len(data) - int(start[1]), **{"Content-Range": f"bytes {start[1]}-{len(data) - 1}/{len(data)}"})
            return self.server.send(self.wfile.write, data[int(start[1]) :])
        return self.answer(200, data)

    def answer(self, code: int, body: bytes = b"") -> None:
        self.head(code, len(body))
        self.server.send(self.wfile.write, body)

    def head(self, code: int, length: int, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.send_header("Last-Modified", self.date_time_string(0))
        for name, value in (self.server.headers | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def handle(self) -> None:
        self.server.connections.add(self.connection)
        with suppress(ConnectionError, ValueError):  # closed by one side or the other
            super().handle()
        self.server.connections.discard(self.connection)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """Serves a directory.

    Attributes:
        faults: by pattern of paths, what is done instead of answering, one a request until there are no more.
        secret: an Authorization header or a query without which nothing is given.
        rate: bytes a second, of all connections together; 0 is as fast as it goes.
        headers: sent with each answer.
        ranges: whether a part of a file can be had.
        requests: how often each file was asked for.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, root: Path, port: int = 0, rate: float = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.root, self.rate, self.secret = root, rate, ""
        self.faults: dict[str, Iterator[Fault]] = {}
        self.headers: dict[str, str] = {}
        self.ranges = False
        self.requests: Counter[str] = Counter()
        self.connections: set[socket.socket] = set()
        self.released, self.counting, self.sending = threading.Event(), threading.Lock(), threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def send(self, write: Callable[[bytes], object], body: bytes) -> None:
        piece = max(1, int(self.rate / 100)) if self.rate else max(1, len(body))
        for start in range(0, len(body), piece):
            if self.rate:
                with self.sending:
                    time.sleep(len(body[start : start + piece]) / self.rate)
            write(body[start : start + piece])

    def kill(self) -> None:
        """As when the process is killed: nothing listens, and connections break off."""
        self.shutdown()
        self.server_close()
        self.released.set()
        for each in list(self.connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *arguments: object) -> None:
        """Says nothing: clients go as they like."""


@contextmanager
def serving(root: Path, **options: float) -> Iterator[Server]:
    server = Server(root, **options)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def s3(root: Path, bucket: str, prefix: str) -> Iterator[dict[str, str]]:
    """moto's S3 with the files of a directory in it; yields the environment that a client needs."""
    import obstore
    from moto.server import ThreadedMotoServer
    from obstore.store import S3Store

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"}
    environment |= {"AWS_SECRET_ACCESS_KEY": "secret-of-the-test", "AWS_REGION": "us-east-1"}
    try:
        create_bucket(environment["AWS_ENDPOINT_URL"], bucket)
        config = {"endpoint": environment["AWS_ENDPOINT_URL"], "access_key_id": "any", "secret_access_key": "any"}
        store = S3Store(bucket, prefix=prefix, config=config, client_options={"allow_http": True})
        for path in root.iterdir():
            obstore.put(store, path.name, path)
        yield environment
    finally:
        server.stop()


def create_bucket(endpoint: str, bucket: str) -> None:
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")).close()
