"""Files of weights are told by their names and beginnings, and where one is given for something else, that is said."""

import io
import json
import struct
import zipfile

import pytest
import torch
from shared import ROOT
from typer.testing import CliRunner

import camcli
from camcli.base import weight_files
from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.models.listing import resolve

SAMPLES = ROOT / "sample_images"


def zipped(names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


KINDS = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 99\n", "Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html>\n<html><head>", "web page"),
    "error": (b'{"error": "Repository not found"}', 'text, which begins \'{"error"'),
    "empty": (b"", "empty"),
    "zeros": (bytes(2000), "nothing but zeros"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(64), "an ONNX model"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite"),
    "script": (zipped(["ts/data.pkl", "ts/constants.pkl", "ts/code/__torch__.py"]), "TorchScript"),
    "npz": (zipped(["weight.npy", "bias.npy"]), "NumPy archive"),
    "zip": (zipped(["run/best.ckpt", "run/log.txt"]), "a zip archive"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "gzip"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "an image"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_file_is_that_holds_no_weights(tmp_path, name):
    content, words = KINDS[name]
    (tmp_path / "w.pth").write_bytes(content)
    found = weight_files.identify_file(tmp_path / "w.pth")
    assert found is not None
    assert words in found.description
    assert found.hint


def test_the_files_in_an_archive_are_named(tmp_path):
    (tmp_path / "w.pth").write_bytes(KINDS["zip"][0])
    assert "name 'run/best.ckpt'" in weight_files.identify_file(tmp_path / "w.pth").hint


@pytest.mark.parametrize("zipfile_of_torch", [True, False])
def test_files_of_weights_are_no_other_kind(tmp_path, zipfile_of_torch):
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipfile_of_torch)
    assert weight_files.identify_file(tmp_path / "w.pth") is None
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    assert weight_files.identify_file(tmp_path / "w.safetensors") is None


@pytest.mark.parametrize(("name", "end"), [("a/best.CKPT", ".ckpt"), ("m.pth.tar", ".pth.tar"), ("net.onnx", ".onnx")])
def test_names_that_say_it(name, end):
    assert weight_files.weight_suffix(name) == end


@pytest.mark.parametrize("name", ["cat.jpg", "photos", ".pth", "a.pth/cat.png", "resnet50.a1_in1k"])
def test_names_that_do_not(name):
    assert weight_files.weight_suffix(name) == ""


# ---- as an image, and as a model


def asked(*words):
    result = CliRunner().invoke(app, ["explain", *map(str, words), "--out", "maps"])
    return result.exit_code, " ".join(result.stderr.split())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(1)}, "best.ckpt")
    return tmp_path


def test_a_file_of_weights_among_the_pictures_is_a_wrong_request(here):
    picture = next(SAMPLES.glob("*.jpg"))
    for words in (["best.ckpt", picture], ["--checkpoint", "best.ckpt", picture], ["--checkpoint", "gone.pth"]):
        code, said = asked(*words)
        assert code == 2
        assert "--weights" in said
        assert "-m resnet50" in said
        assert not (here / "maps").exists()
    assert "ONNX" in asked("net.onnx")[1]
    for command in (["channels", "bundled:efficientnet-lite0"], ["prompts", "open_clip:ViT-B-32"]):
        result = CliRunner().invoke(app, [*command, "best.ckpt", *["--text", "a"] * (command[0] == "prompts")])
        assert result.exit_code == 2
    with pytest.raises(RequestError, match="weights file"):
        next(camcli.explain("best.ckpt"))


def test_in_a_folder_it_is_passed_over(here):
    (here / "photos").mkdir()
    (here / "photos" / "best.ckpt").write_bytes(b"")
    (here / "photos" / "a.jpg").write_bytes(next(SAMPLES.glob("*.jpg")).read_bytes())
    assert [one.source.rpartition("/")[2] for one in camcli.explain("photos")] == ["a.jpg"]


@pytest.mark.parametrize(
    ("model", "words", "way"),
    [
        ("best.ckpt", "a weights file", "-m resnet50 --weights best.ckpt"),
        ("gone.pth", "a weights file", "--weights gone.pth"),
        ("net.h5", "an HDF5 file", "my_model.py:make"),
        ("script.pt", "a TorchScript archive", "torch.jit.load('script.pt'"),
        ("runs", "a folder", "--weights runs/last.safetensors"),
        ("timms", "a folder", "-m local-dir:timms"),
        ("clips", "a folder", "-m open_clip:local-dir:clips"),
        ("saved", "a TensorFlow model", "PyTorch"),
    ],
)
def test_what_is_given_as_a_model_and_is_none(here, model, words, way):
    files = ("runs/last.safetensors", "timms/config.json", "clips/open_clip_config.json", "saved/saved_model.pb")
    for file in files:
        (here / file).parent.mkdir()
        (here / file).write_bytes(b"")
    (here / "script.pt").write_bytes(KINDS["script"][0])
    with pytest.raises(RequestError, match=words) as caught:
        resolve(model)
    assert way in caught.value.hint


def test_a_folder_called_like_a_model_hides_none(here):
    (here / "resnet18").mkdir()
    assert resolve("resnet18") == ("timm", "resnet18")
