"""Detection of files of weights by their names and first bytes, without running anything in them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

# Suffixes of files that training and export programs write.
PYTORCH_SUFFIXES = (
    ".ckpt",
    ".pth",
    ".pt",
    ".safetensors",
    ".bin",
    ".pth.tar",
    ".pt.tar",
    ".ckpt.tar",
    ".pkl",
    ".pickle",
)
# Formats of other libraries by suffix; PyTorch cannot run them, so there are no gradients.
FOREIGN_FORMATS = {
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
    ".msgpack": "a Flax weights file",
    ".pdparams": "a PaddlePaddle weights file",
    ".caffemodel": "a Caffe model",
    ".pt2": "a torch.export program",
    ".mar": "a TorchServe archive",
}
# Number of bytes read to identify a file.
HEADER_BYTES = 512
# Those that camcli runs as they are.
MODEL_SUFFIXES = (".onnx", ".pt2")
MODEL_HINT = "it is a network with its weights: -m {path}; docs/models.md says what else it needs"
NO_GRADIENT_HINT = (
    "camcli explains PyTorch models, since maps need gradients: use the model that it was exported from, -m NAME "
    "--weights FILE; or one converted to PyTorch, returned by a function of yours: -m my_model.py:make "
    "(docs/models.md has examples)"
)
FETCH_HINT = "download the file itself"
TORCHSCRIPT_HINT = (
    "it is a program: if you trust it, save its weights and load them into a model built in Python:\n  import torch\n "
    " torch.save(torch.jit.load({path!r}, map_location='cpu').state_dict(), 'weights.pth')\nor explain the program at "
    "its input (its layers are not accessible), with a method such as --method saliency, and -m my_model.py:make, "
    "where my_model.py is:\n  import torch, camcli\n  def make():\n      net = torch.jit.load({path!r}, "
    "map_location='cpu').eval()\n      preprocess = camcli.Preprocess(size=(224, 224), mean=(0.485, 0.456, 0.406), "
    "std=(0.229, 0.224, 0.225), resize=(256, 256))  # as in training\n      return net, preprocess"
)


@dataclass(frozen=True, slots=True)
class UnusableFile:
    """Description of a file that has no readable weights.

    Attributes:
        description: kind of file with its article: ``an ONNX model``.
        hint: what to do instead.
    """

    description: str
    hint: str


# First bytes of files that are mistaken for weights, with their descriptions and hints.
FILE_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer to a file that was not downloaded", "git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", FOREIGN_FORMATS[".h5"], NO_GRADIENT_HINT),
    (b"GGUF", FOREIGN_FORMATS[".gguf"], NO_GRADIENT_HINT),
    (b"ptrt", FOREIGN_FORMATS[".engine"], NO_GRADIENT_HINT),
    (b"ftrt", FOREIGN_FORMATS[".engine"], NO_GRADIENT_HINT),
    (b"\x1f\x8b", "compressed by gzip", "unpack it: gunzip, or tar xzf"),
    (b"BZh", "compressed by bzip2", "unpack it: bunzip2, or tar xjf"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it: unxz, or tar xJf"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unpack it: unzstd"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x89PNG", "an image (PNG)", "images are arguments, without a flag"),
    (b"\xff\xd8\xff", "an image (JPEG)", "images are arguments, without a flag"),
    (b"%PDF", "a PDF document", FETCH_HINT),
    (b"\x93NUMPY", "a NumPy array", "give a PyTorch state dict: safetensors or .pth"),
)


def weight_suffix(name: str) -> str:
    """Return the suffix of a file name if it is one of weights or of a whole network; else an empty string."""
    lower = PurePath(name).name.lower()
    return next((end for end in (*PYTORCH_SUFFIXES, *FOREIGN_FORMATS) if lower.endswith(end) and lower != end), "")


def identify_file(path: Path) -> UnusableFile | None:
    """Identify a file whose first bytes are not those of readable weights; None if they may be.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    if not start:
        return UnusableFile("empty", "was it saved or downloaded completely?")
    if start[:2] == b"PK":
        return _identify_archive(path)
    for signature, what, hint in FILE_SIGNATURES:
        if start.startswith(signature):
            return UnusableFile(what, hint)
    if start[4:8] == b"TFL3":
        return UnusableFile(FOREIGN_FORMATS[".tflite"], NO_GRADIENT_HINT)
    if _is_onnx(start):
        return UnusableFile(FOREIGN_FORMATS[".onnx"], MODEL_HINT.format(path=path))
    if start[257:262] == b"ustar" and path.suffix != ".tar":
        return UnusableFile("a tar archive", "unpack it: tar xf")
    if not any(start):
        return UnusableFile("nothing but zeros at its beginning: its download was not finished", FETCH_HINT)
    if other := FOREIGN_FORMATS.get(path.suffix.lower()):
        return UnusableFile(other, _suggest_use(path))
    return _identify_text(start)


def _suggest_use(path: Path) -> str:
    """Suggest what to do with a file of another library."""
    return MODEL_HINT.format(path=path) if path.suffix.lower() in MODEL_SUFFIXES else NO_GRADIENT_HINT


def _is_onnx(start: bytes) -> bool:
    """Return whether a file begins like an ONNX model: version of the format, then producer."""
    return len(start) > 3 and start[0] == 8 and 1 <= start[1] < 32 and start[2] in (0x12, 0x1A, 0x22, 0x3A)


def _identify_text(start: bytes) -> UnusableFile | None:
    if b"\0" in start:
        return None
    try:
        text = start.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # otherwise a character is cut at the end of the header
            return None
        text = start[: error.start].decode("utf-8").strip()
    if any(ord(character) < 32 and character not in "\t\n\r" for character in text):
        return None
    if text.lower().startswith(("<!doctype", "<html", "<?xml")):
        return UnusableFile("a web page, such as the file's description or an error, instead of the file", FETCH_HINT)
    line = text.splitlines()[0][:60] if text else ""
    return UnusableFile(f"text, which begins {line!r}" if line else "blank text", FETCH_HINT)


def _identify_archive(path: Path) -> UnusableFile | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # a damaged archive: reading it reports the error
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return UnusableFile("a TorchScript archive, not a state dict", TORCHSCRIPT_HINT.format(path=str(path)))
    if "data.pkl" in inside:
        return None
    if any(name.endswith("exported_program.json") or "/models/" in f"/{name}" for name in names):
        return UnusableFile(FOREIGN_FORMATS[".pt2"], MODEL_HINT.format(path=path))
    if "model.weights.h5" in names:
        return UnusableFile(FOREIGN_FORMATS[".keras"], NO_GRADIENT_HINT)
    if names and all(name.endswith(".npy") for name in names):
        return UnusableFile("a NumPy archive (npz)", "give a PyTorch state dict: safetensors or .pth")
    found = [name for name in names if weight_suffix(name)]
    return UnusableFile(
        "a zip archive, not a weights file", f"unpack it{f', and name {_list_some(found)}' if found else ''}"
    )


def _list_some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:3])) + (f" or one of {len(names) - 3} more" if len(names) > 3 else "")


def identify_non_picture(given: str) -> UnusableFile | None:
    """Identify an input that is not an image but has the suffix of weights or of a network; None otherwise."""
    end = weight_suffix(given)
    if not end or Path(given).is_dir():
        return None
    if end in FOREIGN_FORMATS:
        return UnusableFile(f"{FOREIGN_FORMATS[end]}, not an image", _suggest_use(Path(given)))
    return UnusableFile(
        "a weights file, not an image", f"name the model and its weights: -m resnet50 --weights {given}"
    )


def identify_non_model(given: str) -> UnusableFile | None:
    """Identify a model name that is a file of weights, a file of another library, or a folder; None otherwise."""
    path, end = Path(given), weight_suffix(given)
    if path.is_dir():
        return identify_folder(path)
    if end in FOREIGN_FORMATS:
        return UnusableFile(FOREIGN_FORMATS[end], _suggest_use(path))
    if not end and not path.is_file():
        return None
    try:
        other = identify_file(path)
    except OSError:
        other = None
    if other:
        return other
    own_network = "your own model: -m my_model.py:make"
    if not end:
        return UnusableFile(
            "a file, not the name of a model",
            f"name the model that the weights belong to: -m resnet50 --weights FILE; {own_network}",
        )
    return UnusableFile(
        "a weights file, which does not name its model",
        f"name both: -m resnet50 --weights {given} (camcli models lists the names); {own_network} --weights {given}",
    )


def identify_folder(folder: Path) -> UnusableFile:
    """Identify a folder that is given in place of a file of weights or a model's name."""
    names = sorted(one.name for one in folder.iterdir()) if os.access(folder, os.R_OK) else []
    if "saved_model.pb" in names:
        return UnusableFile("a TensorFlow model (a folder)", NO_GRADIENT_HINT)
    if "open_clip_config.json" in names:
        return UnusableFile("a folder", f"for a folder of open_clip: -m open_clip:local-dir:{folder}")
    if "config.json" in names:
        return UnusableFile("a folder", f"for a folder of timm: -m local-dir:{folder}; of transformers: -m hf:{folder}")
    found = [str(folder / name) for name in names if weight_suffix(name)]
    hint = (
        f"name the model and a weights file: -m resnet50 --weights {found[0]}"
        if found
        else ("name a model: resnet50, hf-hub:OWNER/NAME, local-dir:FOLDER (with a config.json), or my_model.py:make")
    )
    return UnusableFile("a folder", hint)
