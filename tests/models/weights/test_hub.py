"""Cached files are found without the network; a silent host is given up on in seconds."""

import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from camcli.base.errors import RequestError
from camcli.models.weights import hub
from camcli.models.weights.hub import HubFile, UrlFile

NAMES = ("model.safetensors", "pytorch_model.bin")


@pytest.fixture
def no_network(monkeypatch):
    """Any look at the network is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was asked: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def hub_cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture
def torch_home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def put(cache: Path, repository: str, name: str, commit: str = "c0ffee", branch: str = "main") -> Path:
    """A file in the hub's cache, laid out as the hub's own library does."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / branch).write_text(commit)
    path = folder / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


class Server:
    """A host on this machine that answers every question with one status."""

    def __init__(self, status: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(status)
                self.end_headers()

            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"content")

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self.url

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()


class TestCached:
    def test_a_file_of_the_hub(self, hub_cache, no_network):
        path = put(hub_cache, "timm/it", "pytorch_model.bin")
        assert hub.fetch(HubFile("timm/it", NAMES), "the weights of it") == path

    def test_the_first_name_wins(self, hub_cache, no_network):
        put(hub_cache, "timm/it", "pytorch_model.bin")
        path = put(hub_cache, "timm/it", "model.safetensors")
        assert hub.fetch(HubFile("timm/it", NAMES), "the weights of it") == path

    def test_a_revision_is_not_another(self, hub_cache, no_network):
        put(hub_cache, "timm/it", "model.safetensors")
        path = put(hub_cache, "timm/it", "model.safetensors", commit="beef", branch="v2")
        assert HubFile("timm/it", NAMES, "v2").find_cached() == path
        assert HubFile("timm/it", NAMES, "v3").find_cached() is None

    def test_also_when_the_network_is_forbidden(self, hub_cache, no_network, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        path = put(hub_cache, "timm/it", "model.safetensors")
        assert hub.fetch(HubFile("timm/it", NAMES), "the weights of it") == path

    def test_a_file_at_an_address(self, torch_home, no_network):
        torch_home.mkdir(parents=True)
        (torch_home / "it-0123abcd.pth").write_bytes(b"weights")
        file = UrlFile("https://example.invalid/models/it-0123abcd.pth?download=1")
        assert hub.fetch(file, "the weights of it") == torch_home / "it-0123abcd.pth"


class TestOutOfReach:
    def test_the_hub_gives_the_ways_out(self, hub_cache, monkeypatch):
        monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
        with pytest.raises(
            RequestError, match=r"the weights of it are not in the cache.*https://hub\.invalid"
        ) as caught:
            hub.fetch(HubFile("timm/it", NAMES, "v2"), "the weights of it")
        for way in (
            "--weights FILE",
            "--weights random",
            "bundled",
            str(hub_cache),
            "HF_HOME",
            "hf download timm/it --revision v2",
        ):
            assert way in caught.value.hint

    def test_an_address_gives_the_ways_out(self, torch_home):
        with pytest.raises(RequestError, match=r"https://example\.invalid") as caught:
            hub.fetch(UrlFile("https://example.invalid/models/it.pth"), "the weights of it")
        for way in (
            "--weights FILE",
            "TORCH_HOME",
            f"https://example.invalid/models/it.pth as {torch_home / 'it.pth'}",
        ):
            assert way in caught.value.hint

    def test_a_forbidden_network_is_not_asked(self, hub_cache, no_network, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(RequestError, match="HF_HUB_OFFLINE is set"):
            hub.fetch(HubFile("timm/it", NAMES), "the weights of it")

    def test_a_download_that_fails_is_said_with_its_reason(self, hub_cache, monkeypatch):
        monkeypatch.setattr(hub, "why_unreachable", lambda url: "")
        monkeypatch.setattr(HubFile, "download", lambda self: (_ for _ in ()).throw(OSError("disk full\nmore")))
        with pytest.raises(RequestError, match=r"OSError: disk full$"):
            hub.fetch(HubFile("timm/it", NAMES), "the weights of it")


class TestDownload:
    def test_the_next_name_is_tried_where_one_does_not_exist(self, monkeypatch):
        asked = []

        def answer(repository, name, revision):
            asked.append(name)
            if name == "model.safetensors":
                raise EntryNotFoundError.__new__(EntryNotFoundError)
            return f"/cache/{name}"

        monkeypatch.setattr(hub.huggingface_hub, "hf_hub_download", answer)
        assert HubFile("timm/it", NAMES).download() == Path("/cache/pytorch_model.bin")
        assert asked == list(NAMES)

    def test_a_broken_network_says_nothing_about_names(self, monkeypatch):
        asked = []

        def answer(repository, name, revision):
            asked.append(name)
            raise LocalEntryNotFoundError("no network")

        monkeypatch.setattr(hub.huggingface_hub, "hf_hub_download", answer)
        with pytest.raises(LocalEntryNotFoundError):
            HubFile("timm/it", NAMES).download()
        assert asked == ["model.safetensors"]

    def test_an_address_is_fetched_into_the_cache(self, torch_home):
        with Server(200) as url:
            path = hub.fetch(UrlFile(f"{url}/it.pth"), "the weights of it")
        assert path == torch_home / "it.pth"
        assert path.read_bytes() == b"content"

    def test_a_wrong_hash_leaves_nothing_behind(self, torch_home):
        with Server(200) as url, pytest.raises(RequestError, match="hash"):
            hub.fetch(UrlFile(f"{url}/it-0123abcd.pth", check_hash=True), "the weights of it")
        assert list(torch_home.iterdir()) == []


class TestSilence:
    @pytest.mark.parametrize("status", [200, 301, 401, 404])
    def test_any_answer_is_an_answer(self, status):
        with Server(status) as url:
            assert hub.why_unreachable(url) == ""

    def test_but_a_servers_own_error(self):
        with Server(503) as url:
            assert "503" in hub.why_unreachable(url)

    def test_nobody_there(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        assert "refused" in hub.why_unreachable(f"http://127.0.0.1:{port}")

    def test_no_such_name(self):
        assert hub.why_unreachable("https://hub.invalid")

    def test_somebody_who_speaks_another_language(self):
        with socket.create_server(("127.0.0.1", 0)) as other:

            def greet():
                with other.accept()[0] as caller:
                    caller.recv(4096)
                    caller.sendall(b"220 mail\r\n")

            greeting = threading.Thread(target=greet, daemon=True)
            greeting.start()
            assert hub.why_unreachable(f"http://127.0.0.1:{other.getsockname()[1]}")
            greeting.join()

    def test_no_such_address(self):
        assert "unknown url type" in hub.why_unreachable("not an address")

    def test_somebody_who_never_answers(self):
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            start = time.monotonic()
            assert hub.why_unreachable(f"http://127.0.0.1:{deaf.getsockname()[1]}", seconds=0.5)
            assert time.monotonic() - start < 1.5

    def test_a_name_that_takes_for_ever_to_resolve(self, monkeypatch):
        wake = threading.Event()

        def resolve(*args, **kwargs):
            wake.wait(20)
            raise OSError("too late")

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        start = time.monotonic()
        assert hub.why_unreachable("https://hub.invalid", seconds=0.3) == "no answer within 0.3 seconds"
        assert time.monotonic() - start < 1.5
        wake.set()

    def test_the_users_proxy_is_asked(self, monkeypatch):
        with Server(200) as url:
            monkeypatch.setenv("http_proxy", url)
            assert hub.why_unreachable("http://hub.invalid") == ""

    def test_a_strange_certificate_is_left_to_the_download(self, monkeypatch):
        import ssl

        def strange(*args, **kwargs):
            raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed"))

        monkeypatch.setattr(urllib.request.OpenerDirector, "open", strange)
        assert hub.why_unreachable("https://hub.invalid") == ""


def test_a_thread_left_behind_does_not_keep_the_program():
    program = (
        "import socket, time; socket.getaddrinfo = lambda *a, **k: time.sleep(60)\n"
        "from camcli.models.weights import hub\n"
        "start = time.monotonic(); hub.why_unreachable('https://hub.invalid', 0.2); print(time.monotonic() - start)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert float(done.stdout) < 2
