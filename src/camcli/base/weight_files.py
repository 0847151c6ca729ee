"""Files of weights, told by their names and by how they begin; nothing in a file runs for that."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

# What training and exporting programs call their files.
PYTORCH = (".ckpt", ".pth", ".pt", ".safetensors", ".bin", ".pth.tar", ".pt.tar", ".ckpt.tar", ".pkl", ".pickle")
# Of other libraries, by the file's suffix; PyTorch cannot run them, so they have no gradients here.
OTHERS = {
    ".onnx": "an ONNX model",
    ".h5": "an HDF5 file, as Keras writes it",
    ".hdf5": "an HDF5 file, as Keras writes it",
    ".keras": "a Keras model",
    ".pb": "a TensorFlow model",
    ".tflite": "a TensorFlow Lite model",
    ".engine": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML model",
    ".gguf": "a GGUF model",
    ".msgpack": "a file of Flax weights",
    ".pdparams": "a file of PaddlePaddle weights",
    ".caffemodel": "a Caffe model",
    ".pt2": "a program of torch.export",
    ".mar": "a TorchServe archive",
}
# How much of a file is looked at.
START = 512
NO_GRADIENT = (
    "camcli explains PyTorch networks, since a map needs gradients: give the network that it was exported from, "
    "-m NAME --weights FILE; or one converted to PyTorch, returned by a function of yours: -m my_model.py:make"
)
FETCH = "fetch the file itself, then name it again"
EXPORTED = (
    "it is a program: if you trust it, take the weights out of it, for a network built in Python, and give those:\n"
    "  import torch\n"
    "  torch.save(torch.jit.load({path!r}, map_location='cpu').state_dict(), 'weights.pth')\n"
    "or explain the program at its input (nothing inside it can be looked at), with --method saliency or alike and "
    "-m my_model.py:make, where my_model.py is:\n"
    "  import torch, camcli\n"
    "  def make():\n"
    "      net = torch.jit.load({path!r}, map_location='cpu').eval()\n"
    "      prepare = camcli.Prepare(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), "
    "resize=(256, 256))  # as it was trained\n"
    "      return net, prepare"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is that holds no weights which can be read here.

    Attributes:
        what: in words, with its article: ``an ONNX model``.
        hint: what to do instead.
    """

    what: str
    hint: str


# How files begin that are given as weights and are none, and what they are.
BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer: it stands for a file that was not fetched", "git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", OTHERS[".h5"], NO_GRADIENT),
    (b"GGUF", OTHERS[".gguf"], NO_GRADIENT),
    (b"ptrt", OTHERS[".engine"], NO_GRADIENT),
    (b"ftrt", OTHERS[".engine"], NO_GRADIENT),
    (b"\x1f\x8b", "compressed by gzip", "unpack it: gunzip, or tar xzf"),
    (b"BZh", "compressed by bzip2", "unpack it: bunzip2, or tar xjf"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it: unxz, or tar xJf"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unpack it: unzstd"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x89PNG", "a picture (PNG)", "pictures are arguments, without a flag"),
    (b"\xff\xd8\xff", "a picture (JPEG)", "pictures are arguments, without a flag"),
    (b"%PDF", "a PDF document", FETCH),
    (b"\x93NUMPY", "an array of NumPy", "give a state dict of PyTorch: safetensors or .pth"),
)


def suffix(name: str) -> str:
    """The suffix by which a file's name says that it holds weights or a whole network; empty if it does not."""
    lower = PurePath(name).name.lower()
    return next((end for end in (*PYTORCH, *OTHERS) if lower.endswith(end) and lower != end), "")


def kind(path: Path) -> Kind | None:
    """What a file is, if it begins as no file of weights does that is read here.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(START)
    if not start:
        return Kind("empty", "was it saved or fetched to the end?")
    if start[:2] == b"PK":
        return _archive(path)
    for beginning, what, hint in BEGINNINGS:
        if start.startswith(beginning):
            return Kind(what, hint)
    if start[4:8] == b"TFL3":
        return Kind(OTHERS[".tflite"], NO_GRADIENT)
    if _is_onnx(start):
        return Kind(OTHERS[".onnx"], NO_GRADIENT)
    if start[257:262] == b"ustar" and path.suffix != ".tar":
        return Kind("a tar archive", "unpack it: tar xf")
    if not any(start):
        return Kind("nothing but zeros at its beginning: its download was not finished", FETCH)
    if other := OTHERS.get(path.suffix.lower()):
        return Kind(other, NO_GRADIENT)
    return _text(start)


def _is_onnx(start: bytes) -> bool:
    """Whether a file begins as an ONNX model: the version of its format, then who made it."""
    return start[0] == 8 and 1 <= start[1] < 32 and start[2] in (0x12, 0x1A, 0x22, 0x3A)


def _text(start: bytes) -> Kind | None:
    if b"\0" in start:
        return None
    try:
        text = start.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # else a character is cut where the look ends
            return None
        text = start[: error.start].decode("utf-8").strip()
    if any(ord(character) < 32 and character not in "\t\n\r" for character in text):
        return None
    if text.lower().startswith(("<!doctype", "<html", "<?xml")):
        return Kind("a web page: what was fetched is the page about the file, or an error", FETCH)
    line = text.splitlines()[0][:60] if text else ""
    return Kind(f"text, which begins {line!r}" if line else "blank text", FETCH)


def _archive(path: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # a damaged one; what reads it says so
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return Kind("a TorchScript archive, no state dict", EXPORTED.format(path=str(path)))
    if "data.pkl" in inside:
        return None
    if any(name.endswith("exported_program.json") or "/models/" in f"/{name}" for name in names):
        return Kind(OTHERS[".pt2"], NO_GRADIENT)
    if "model.weights.h5" in names:
        return Kind(OTHERS[".keras"], NO_GRADIENT)
    if names and all(name.endswith(".npy") for name in names):
        return Kind("an archive of NumPy's (npz)", "give a state dict of PyTorch: safetensors or .pth")
    found = [name for name in names if suffix(name)]
    return Kind("a zip archive, no file of weights", f"unpack it{f', and name {_some(found)}' if found else ''}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:3])) + (f" or one of {len(names) - 3} more" if len(names) > 3 else "")


def not_a_picture(given: str) -> Kind | None:
    """What a name given as a picture is, if it says that it holds weights or a whole network."""
    end = suffix(given)
    if not end or Path(given).is_dir():
        return None
    if end in OTHERS:
        return Kind(f"{OTHERS[end]}, not a picture", NO_GRADIENT)
    return Kind("a file of weights, not a picture", f"name the network and its weights: -m resnet50 --weights {given}")


def not_a_model(given: str) -> Kind | None:
    """What a name given as a model is, if it is a file of weights, a file of another library, or a folder."""
    path, end = Path(given), suffix(given)
    if path.is_dir():
        return folder(path)
    if end in OTHERS:
        return Kind(OTHERS[end], NO_GRADIENT)
    if not end and not path.is_file():
        return None
    try:
        other = kind(path)
    except OSError:
        other = None
    if other:
        return other
    own = "a network of your own: -m my_model.py:make"
    if not end:
        return Kind(
            "a file, and no model's name", f"weights need the network they are of: -m resnet50 --weights FILE; {own}"
        )
    return Kind(
        "a file of weights, which does not say of which network",
        f"name both: -m resnet50 --weights {given}; the names: camcli models; {own} --weights {given}",
    )


def folder(folder: Path) -> Kind:
    """What a folder is that is given for a file of weights or a model's name."""
    there = sorted(one.name for one in folder.iterdir()) if os.access(folder, os.R_OK) else []
    if "saved_model.pb" in there:
        return Kind("a TensorFlow model (a folder)", NO_GRADIENT)
    if "open_clip_config.json" in there:
        return Kind("a folder", f"open_clip's folders are named -m open_clip:local-dir:{folder}")
    if "config.json" in there:
        return Kind("a folder", f"timm's folders are named -m local-dir:{folder}")
    found = [str(folder / name) for name in there if suffix(name)]
    hint = (
        f"name the network and a file of weights: -m resnet50 --weights {found[0]}"
        if found
        else ("name a network: resnet50, hf-hub:OWNER/NAME, local-dir:FOLDER (with a config.json), or my_model.py:make")
    )
    return Kind("a folder", hint)
