"""Images from and outputs to S3, as moto plays it, over a network that cuts, refuses, slows and hangs.

``pip install s3fs 'aiobotocore[boto3]' 'moto[s3]' flask flask-cors`` and ``pytest -m slow`` run them: both are too much
for everybody.
"""

import http.client
import itertools
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from readback import files
from shared import GREEN, Go, Paint

from camcli.base.errors import OutputError, RequestError
from camcli.runs.record import store_folder
from camcli.runs.record.merge import merge_shards
from camcli.runs.record.status import read_status
from camcli.runs.store import lock
from camcli.runs.store.sizes import Sizes
from camcli.runs.store.store import Store

s3fs = pytest.importorskip("s3fs", reason="s3fs is an extra")
moto_server = pytest.importorskip("moto.server", reason="moto is no dependency of the tests: see the docstring")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
COUNT = 8
RECORDS = {"outcomes.jsonl", "run.json", ".camcli.lock"}


class Proxy(BaseHTTPRequestHandler):
    """Proxy of the store, which lets each request through, or does something else to it."""

    protocol_version = "HTTP/1.1"  # which asks senders for the body
    port = 0
    faults: Iterator[str] = itertools.repeat("")
    seen: ClassVar[list[str]] = []
    done: ClassVar[set[str]] = set()

    def _pass_on(self) -> None:
        fault = "hang" if "hang" in self.path and self.command == "GET" else next(self.faults)
        self.seen.append(f"{self.command} {self.path}")
        self.done.add(fault)
        self.close_connection = True
        size = int(self.headers.get("Content-Length") or 0)
        if fault == "cut sent":
            self.rfile.read(size // 2)
            return
        body = self.rfile.read(size)
        if fault == "refuse":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            return
        asked = http.client.HTTPConnection("127.0.0.1", self.port)
        asked.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "expect"})
        answer = asked.getresponse()
        content = answer.read()
        asked.close()
        if fault == "unheard":
            return
        if fault == "slow":
            time.sleep(0.3)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if fault in ("cut read", "hang"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            time.sleep(20 if fault == "hang" else 0)
            return
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def log_message(self, *_given) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def bucket(moto: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket behind a proxy; its name."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    monkeypatch.setattr(Proxy, "port", moto)
    monkeypatch.setattr(Proxy, "faults", itertools.repeat(""))
    Thread(target=proxy.serve_forever, daemon=True).start()
    words = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in {**words, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}"}.items():
        monkeypatch.setenv(name, value)
    for name, value in (("STALE_SECONDS", 1.0), ("POLL_SECONDS", 0.2), ("SETTLE_SECONDS", 0.0)):
        monkeypatch.setattr(lock, name, value)
    monkeypatch.setattr("camcli.base.cache.find_folder", lambda: tmp_path / "cache")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{time.time_ns()}"
    s3fs.S3FileSystem().mkdir(name)
    yield name
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.shutdown()
    proxy.server_close()


def read_all(url: str) -> dict[str, bytes]:
    store = Store(url)
    names = [name for name, _ in store.iter_entries() if name.rpartition("/")[2] not in RECORDS]
    return {name: store.get(name) for name in names}


@pytest.fixture
def noisy(here: Path) -> None:
    Path("in").mkdir()
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(f"in/{number}.png")


@pytest.mark.usefixtures("noisy")
def test_a_network_that_cuts_slows_and_refuses_changes_nothing(go: Go, bucket: str, monkeypatch) -> None:
    for number in range(COUNT):
        Store(f"s3://{bucket}").put(f"in/{number}.png", Path(f"in/{number}.png").read_bytes())
    go(f"s3://{bucket}/in")
    kinds = ("cut sent", "", "", "cut read", "", "", "unheard", "", "", "refuse", "", "", "slow", "")
    monkeypatch.setattr(Proxy, "faults", itertools.cycle(kinds))
    for shard in ("1/2", "2/2"):
        outcomes = itertools.chain.from_iterable(go(f"s3://{bucket}/in", out=f"s3://{bucket}/run", shard=shard))
        assert not [one.error for one in outcomes if one.error]
    assert merge_shards(Path(f"s3://{bucket}/run")).status.is_complete
    assert {*kinds} <= Proxy.done
    assert read_all(f"s3://{bucket}/run") == {name: Path("out", name).read_bytes() for name in files()}


@pytest.mark.usefixtures("noisy")
def test_a_network_that_goes_away_ends_the_run_and_the_same_command_goes_on(go: Go, bucket: str, monkeypatch) -> None:
    go("in")
    monkeypatch.setattr("camcli.runs.store.store.WAITS", (0.0,))
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    url = f"s3://{bucket}/run"

    def go_away() -> Iterator[str]:
        while sum(one.startswith("PUT") and one.endswith(".jpg") for one in Proxy.seen) < COUNT // 2:
            yield ""
        while True:
            yield "cut sent"

    Proxy.seen.clear()
    monkeypatch.setattr(Proxy, "faults", go_away())
    with pytest.raises(OutputError):
        go("in", out=url)
    monkeypatch.setattr(Proxy, "faults", itertools.repeat(""))
    left = read_status(Path(url)).missing
    assert left
    done = go("in", out=url)
    assert sum(map(len, done)) <= left
    assert read_all(url) == {name: Path("out", name).read_bytes() for name in files()}


def test_a_read_that_hangs_ends_with_its_time(go: Go, bucket: str, paint: Paint) -> None:
    for name in ("hang.png", "well.png"):
        Store(f"s3://{bucket}").put(f"in/{name}", paint(name, GREEN).read_bytes())
    began = time.monotonic()
    outcomes = {lines[0].source: lines[0].error for lines in go(f"s3://{bucket}/in", timeout=2.0)}
    assert "was not decoded within 2 s" in (outcomes[f"s3://{bucket}/in/hang.png"] or "")
    assert outcomes[f"s3://{bucket}/in/well.png"] is None
    assert time.monotonic() - began < 15


def test_what_s3_itself_does(bucket: str, tmp_path: Path, monkeypatch) -> None:
    store = Store(f"s3://{bucket}/run")
    store.check()
    assert store.put("a", b"first", absent=True)
    assert not store.put("a", b"second", absent=True)
    assert store.get("a") == b"first"
    assert store.get("none") is None
    assert abs(store.measure_skew()) < 5
    large = tmp_path / "large"
    large.write_bytes(bytes(12_000_000))
    monkeypatch.setattr(store_folder, "SMALL_BYTES", 10)
    store.put_file("large", large)
    assert store.get_file("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    for number in range(1100):  # of which S3 lists a thousand at a time
        s3fs.S3FileSystem().pipe_file(f"{bucket}/many/{number}", b"x" * (number + 1))
    known = Sizes(Store(f"s3://{bucket}/many"))
    assert [known.get(str(number)) for number in (0, 999, 1099, 1100)] == [1, 1000, 1100, 0]
    with pytest.raises(RequestError, match="is the bucket 'none-such' right"):
        Store("s3://none-such/run").check()
