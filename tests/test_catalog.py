"""Published weights: what is known of them, and downloads that break off."""

import dataclasses
import hashlib
import http.server
import threading
import urllib.request

import pytest
from filelock import FileLock

import keras_alexnet
from keras_alexnet.weights import catalog
from keras_alexnet.weights.catalog import (
    fetch_weights,
    get_published,
    identify,
    list_weights,
)

CONTENT = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def clean_slate():
    """Replaces the one for all tests: none here makes a model."""


class Server(http.server.ThreadingHTTPServer):
    """A server on this machine that knows ranges and breaks off when told to."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.break_at = []  # Bytes of each answer after which to hang up.
        self.knows_ranges = True
        self.status = None
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, span = self.server, self.headers.get("Range")
        server.requests.append(span)
        if server.status:
            self.send_error(server.status)
            return
        total, start = len(server.content), 0
        if span and server.knows_ranges:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        count = server.break_at.pop(0) if server.break_at else total
        self.wfile.write(server.content[start : start + count])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(catalog, "SECONDS_BETWEEN_ATTEMPTS", 0)
    server = Server()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}
    )
    thread.start()
    digest = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    publish(monkeypatch, server.url, digest=digest)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def publish(monkeypatch, *urls, digest):
    file = catalog.PublishedFile("test", urls, digest, "a test")
    monkeypatch.setitem(catalog.CATALOG, "test", file)


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_downloaded_once(server, tmp_path, monkeypatch):
    path = fetch_weights("test", tmp_path / "new")
    assert path == tmp_path / "new" / "weights.bin"
    assert path.read_bytes() == CONTENT
    assert fetch_weights("weights.bin", tmp_path / "new") == path
    assert server.requests == [None]
    assert files(path.parent) == ["weights.bin"]
    # The cache may be named by the environment, and a file brought there by hand.
    monkeypatch.setenv("KERAS_ALEXNET_CACHE", str(tmp_path))
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    assert fetch_weights("test") == tmp_path / "weights.bin"
    assert server.requests == [None]


@pytest.mark.parametrize(
    ("part", "breaks", "ranges", "requests"),
    [
        # A broken connection is continued,
        (
            None,
            [1000, 5000, 0],
            True,
            [None, "bytes=1000-", "bytes=6000-", "bytes=6000-"],
        ),
        # an interrupted download by the next process;
        (CONTENT[:777], [], True, ["bytes=777-"]),
        # one that was finished and not renamed is taken, one that is too long is not.
        (CONTENT, [], True, [f"bytes={len(CONTENT)}-"]),
        (CONTENT + b"more", [], True, [f"bytes={len(CONTENT) + 4}-", None]),
        # A server without ranges sends everything again.
        (b"something else", [], False, ["bytes=14-"]),
        # A spoilt beginning is not continued for ever.
        (b"something else", [], True, ["bytes=14-", None]),
    ],
)
def test_a_download_goes_on_where_it_stopped(
    server, tmp_path, part, breaks, ranges, requests
):
    if part is not None:
        (tmp_path / "weights.bin.part").write_bytes(part)
    server.break_at, server.knows_ranges = breaks, ranges
    assert fetch_weights("test", tmp_path).read_bytes() == CONTENT
    assert server.requests == requests
    assert files(tmp_path) == ["weights.bin"]


def test_what_has_come_is_kept_when_the_server_gives_up(server, tmp_path):
    server.break_at = [1000] + [0] * catalog.ATTEMPTS
    with pytest.raises(OSError, match="broke off at 1,000 bytes.*put it at"):
        fetch_weights("test", tmp_path)
    assert (tmp_path / "weights.bin.part").stat().st_size == 1000
    assert fetch_weights("test", tmp_path).read_bytes() == CONTENT


def test_a_wrong_digest_leaves_nothing_behind(server, tmp_path):
    server.content = CONTENT[::-1]
    with pytest.raises(ValueError, match="not the published file.*sha256:.*put it at"):
        fetch_weights("test", tmp_path)
    assert not (tmp_path / "weights.bin").exists()
    server.content = CONTENT
    assert fetch_weights("test", tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, None]


def test_a_wrong_file_in_the_cache_is_named_and_kept(server, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match="weights.bin is not the published.*Remove it"):
        fetch_weights("test", tmp_path)
    assert (tmp_path / "weights.bin").read_bytes() == b"mine"
    assert server.requests == []


def test_the_second_place_is_tried_when_the_first_has_no_such_file(
    server, tmp_path, monkeypatch
):
    missing = server.url.replace(f":{server.server_port}", ":1")
    publish(monkeypatch, missing, server.url, digest=get_published("test").digest)
    assert fetch_weights("test", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "requests"), [(403, 1), (404, 1), (503, catalog.ATTEMPTS)]
)
def test_a_server_in_trouble_is_asked_again_and_a_refusal_is_not_repeated(
    server, tmp_path, status, requests
):
    server.status = status
    with pytest.raises(OSError, match="weights.bin: .*put it at"):
        fetch_weights("test", tmp_path)
    assert len(server.requests) == requests


def test_without_a_network_the_error_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    # Nobody listens on port 1.
    publish(monkeypatch, "http://127.0.0.1:1/weights.bin", digest="sha1:" + "0" * 40)
    with pytest.raises(OSError) as caught:
        fetch_weights("test", tmp_path)
    assert "Connection refused" in str(caught.value)
    assert str(caught.value).endswith(f"put it at {tmp_path / 'weights.bin'}")


def test_more_than_any_alexnet_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "MOST_BYTES", 1000)
    with pytest.raises(OSError, match="more than 1,000 bytes"):
        fetch_weights("test", tmp_path)


def test_two_downloads_of_one_file_do_not_mix(server, tmp_path):
    with FileLock(tmp_path / "weights.bin.lock"):
        with pytest.raises(OSError, match="Another process"):
            fetch_weights("test", tmp_path)


def test_nothing_is_downloaded_without_its_name(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert "torchvision-alexnet" in list_weights()
    with pytest.raises(ValueError, match="Did you mean 'caffe-alexnet'"):
        fetch_weights("caffe-alexnett")


def test_every_entry_is_complete():
    assert list_weights("onnx-*") and list_weights() == sorted(list_weights())
    for name in list_weights():
        file = get_published(name)
        algorithm, _, digits = file.digest.partition(":")
        assert len(digits) == 2 * hashlib.new(algorithm).digest_size
        assert set(digits) <= set("0123456789abcdef")
        assert all(url.startswith(("http://", "https://")) for url in file.urls)
        assert all(url.endswith("/" + file.file_name) for url in file.urls)
        assert get_published(file.file_name) == file
        if file.architecture:
            assert file.architecture in keras_alexnet.list_architectures()
    # What the publishers say: accuracies of 56.522 and 79.066 %.
    torchvision = get_published("alexnet-owt-7be5be79.pth")
    assert torchvision.digest.startswith("sha256:7be5be79")
    errors = torchvision.top1_error, torchvision.top5_error
    assert errors == pytest.approx((1 - 0.56522, 1 - 0.79066))
    caffe = get_published("caffe-alexnet")
    assert caffe.digest == "sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377"
    assert (caffe.top1_error, caffe.top5_error) == (0.429, 0.198)


def test_a_file_is_known_by_its_content(tmp_path, monkeypatch):
    file = dataclasses.replace(
        get_published("caffe-alexnet"),
        digest="sha1:" + hashlib.sha1(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(catalog.CATALOG, file.name, file)
    (tmp_path / "renamed").write_bytes(CONTENT)
    assert identify(tmp_path / "renamed") == file
    (tmp_path / "renamed").write_bytes(CONTENT[1:])
    assert identify(tmp_path / "renamed") is None
