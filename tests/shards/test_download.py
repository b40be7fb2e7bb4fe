"""Downloads from a server on this machine: whole, resumed, refused, and never kept unless they are what was published."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from amdim.errors import UserError
from amdim.shards.sources import cifar, published_files, stl10
from amdim.shards.sources.published_files import Published, fetch

DATA = bytes(range(256)) * 20_000
MD5 = hashlib.md5(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    ranges = True
    stop_after = None  # bytes, after which the connection breaks

    def do_GET(self):
        wanted = self.headers["Range"]
        self.server.seen.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(DATA):
            self.send_error(416)
            return
        self.send_response(206 if wanted and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start:][: self.server.stop_after])

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.ranges, server.stop_after = [], True, None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def published(server, md5=MD5):
    return Published(f"http://127.0.0.1:{server.server_port}/some/file.tar.gz", md5)


def test_a_file_is_fetched_once(server, tmp_path, capsys):
    path = fetch(published(server), tmp_path / "cache", "else")
    assert path == tmp_path / "cache/file.tar.gz"
    assert path.read_bytes() == DATA
    assert "file.tar.gz, 5 MB" in capsys.readouterr().err
    assert fetch(published(server), tmp_path / "cache", "else") == path
    assert server.seen == [None]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.stop_after = 1_000_000
    with pytest.raises(UserError, match=r"not all of it.*run it again, or fetch it elsewhere"):
        fetch(published(server), tmp_path, "fetch it elsewhere")
    assert not (tmp_path / "file.tar.gz").exists()
    have = (tmp_path / "file.tar.gz.part").stat().st_size
    server.stop_after = None
    assert fetch(published(server), tmp_path, "else").read_bytes() == DATA
    assert server.seen == [None, f"bytes={have}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file.tar.gz"]


def test_a_server_that_cannot_resume_sends_all_again(server, tmp_path):
    (tmp_path / "file.tar.gz.part").write_bytes(b"older and other bytes")
    server.ranges = False
    assert fetch(published(server), tmp_path, "else").read_bytes() == DATA


def test_all_was_there_but_the_name(server, tmp_path):
    (tmp_path / "file.tar.gz.part").write_bytes(DATA)
    assert fetch(published(server), tmp_path, "else").read_bytes() == DATA


def test_another_file_than_the_published_is_not_kept(server, tmp_path):
    with pytest.raises(UserError, match="its MD5 is not the published one"):
        fetch(published(server, "0" * 32), tmp_path, "else")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No server answers, and nothing was fetched before."""

    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(published_files, "urlopen", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("make", "archive"),
    [
        (lambda: cifar.source("cifar10", None), "cifar-10-binary.tar.gz"),
        (lambda: cifar.source("cifar100", None), "cifar-100-binary.tar.gz"),
        (lambda: stl10.source(None), "stl10_binary.tar.gz"),
    ],
)
def test_offline_says_what_to_fetch_and_where_to_put_it(offline, make, archive):
    with pytest.raises(UserError, match=rf"^https?://.*/{archive}: no answer.*SRC=/path/to/{archive}$"):
        make()
