"""Images of datasets on the Hugging Face hub, told by a hub on this machine that answers as the real one does."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from commands import do
from huggingface_hub import HfFileSystem, constants
from image_files import SMALL, png

from camcli.base.errors import PictureError
from camcli.images import remote
from camcli.images.decode import decode
from camcli.images.files import read_stamp
from camcli.images.find import find

pytestmark = pytest.mark.usefixtures("here")
DATASET = "/api/datasets/me/photos"


class Hub:
    """A hub with one dataset; what it holds and whether it may be read can be changed."""

    def __init__(self) -> None:
        self.files = {"a.png": png(SMALL), "p/1.png": png(SMALL), "README.md": b"words"}
        self.status = 200
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, content = hub.answer(self.path.partition("?")[0])
                self.send_response(status)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answer(self, path: str) -> tuple[int, bytes]:
        if self.status != 200:
            return self.status, b"{}"
        if path == DATASET:
            return 200, json.dumps({"id": "me/photos", "sha": "c" * 40}).encode()
        if path.startswith(f"{DATASET}/tree/main"):
            return 200, json.dumps(self.list(path.removeprefix(f"{DATASET}/tree/main").strip("/"))).encode()
        content = self.files.get(path.removeprefix("/datasets/me/photos/resolve/main/"))
        return (404, b"{}") if content is None else (200, content)

    def list(self, folder: str) -> list[dict[str, Any]]:
        parent = Path(folder)
        inside = [Path(name) for name in self.files if parent in Path(name).parents]
        folders = {parent / one.relative_to(parent).parts[0] for one in inside if one.parent != parent}
        entries: list[dict[str, Any]] = [{"type": "directory", "path": str(one), "oid": "d" * 40} for one in folders]
        for name in (str(one) for one in inside if one.parent == parent):
            mark = f"{sum(self.files[name]):040x}"
            entries.append({"type": "file", "path": name, "size": len(self.files[name]), "oid": mark})
        return entries


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    made = Hub()
    address = f"http://127.0.0.1:{made.server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    files = "{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{files}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    HfFileSystem.clear_instance_cache()
    threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    HfFileSystem.clear_instance_cache()


def found(*inputs: str) -> list[Any]:
    return list(find(inputs, out=Path("out")))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("hf://datasets/me/photos", ["a.png", "p/1.png"]),
        ("hf://datasets/me/photos/p/*.png", ["p/1.png"]),
        ("hf://datasets/me/photos/a.png", ["a.png"]),
    ],
)
def test_a_dataset_is_listed_and_its_images_are_read(hub, given, names):
    sources = found(given)
    assert [one.name for one in sources] == [f"%hf/datasets/me/photos/{name}" for name in names]
    assert all((np.asarray(decode(one.path)) == SMALL).all() for one in sources)


def test_a_changed_image_shows(hub):
    (source,) = found("hf://datasets/me/photos/a.png")
    before = read_stamp(source.path)
    hub.files["a.png"] = png(255 - SMALL)
    found("hf://datasets/me/photos")
    assert before and read_stamp(source.path) != before


def test_what_cannot_be_read_is_told(hub, monkeypatch):
    with pytest.raises(PictureError, match=r"nothing at this address \(or it is private"):
        next(remote.list_images("hf://datasets/me/none"))
    with pytest.raises(PictureError, match="must be 'namespace/name'"):
        next(remote.list_images("hf://datasets/**.png"))
    hub.status = 403
    with pytest.raises(PictureError, match="no permission"):
        fsspec.filesystem("hf").invalidate_cache()
        next(remote.list_images("hf://datasets/me/photos"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PictureError, match="HF_HUB_OFFLINE is set"):
        remote.read_url("hf://datasets/me/photos/a.png")


def test_nothing_is_written_to_the_hub(here):
    (here / "a.png").write_bytes(png(SMALL))
    refused = do("explain", "a.png", "--out", "hf://datasets/me/photos")
    assert refused.exit_code == 2
    assert "outputs cannot be written to 'hf://datasets/me/photos'" in refused.output
