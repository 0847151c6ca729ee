"""Reading of users' weights files without running code in them, or refusal with an explanation."""

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from camcli.base import weight_files
from camcli.base.errors import RequestError

# Keys under which training scripts save the weights. Averaged weights come first, as in timm, since scripts evaluate
# those.
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
WRAPPER_KEYS = (*EMA_KEYS, "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
# Keys of other content, which never holds a network's weights.
NON_MODEL_KEYS = re.compile(
    r"optim|^opts?(_|$)|sched|scaler|amp$|rng|callbacks|loops|hparams|hyper_param", re.IGNORECASE
)
MAX_NAMES = 8  # names shown in a message; a longer list hides the point
# Checkpoints also hold NumPy numbers, paths, dates and settings. Their constructors are not called, but replaced by an
# object that holds nothing and does nothing.
INERT_GLOBALS = """
numpy.core.multiarray.scalar numpy._core.multiarray.scalar numpy.core.multiarray._reconstruct
numpy._core.multiarray._reconstruct numpy.core.numeric._frombuffer numpy._core.numeric._frombuffer
numpy.dtype numpy.ndarray numpy.bool numpy.bool_ numpy.str_ numpy.int8 numpy.int16 numpy.int32 numpy.int64 numpy.uint8
numpy.uint16 numpy.uint32 numpy.uint64 numpy.float16 numpy.float32 numpy.float64 numpy.dtypes.BoolDType
numpy.dtypes.Int32DType numpy.dtypes.Int64DType numpy.dtypes.UInt8DType numpy.dtypes.Float16DType
numpy.dtypes.Float32DType numpy.dtypes.Float64DType
pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib.PurePath pathlib.PurePosixPath pathlib.PureWindowsPath
pathlib._local.Path pathlib._local.PosixPath pathlib._local.WindowsPath pathlib._local.PurePath
pathlib._local.PurePosixPath pathlib._local.PureWindowsPath
datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone
builtins.list builtins.dict builtins.tuple builtins.int builtins.float builtins.str builtins.bool builtins.frozenset
builtins.slice uuid.UUID decimal.Decimal fractions.Fraction typing.Any types.SimpleNamespace argparse.Namespace
omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.ContainerMetadata omegaconf.base.Metadata
omegaconf.nodes.AnyNode omegaconf.nodes.StringNode omegaconf.nodes.IntegerNode omegaconf.nodes.FloatNode
omegaconf.nodes.BooleanNode omegaconf.nodes.PathNode omegaconf.nodes.BytesNode
"""
# Dictionary types, which may hold weights, are replaced by plain dictionaries.
DICT_GLOBALS = """
collections.defaultdict easydict.EasyDict addict.addict.Dict ml_collections.config_dict.config_dict.ConfigDict
pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing.AttributeDict
lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict
mmengine.config.config.ConfigDict mmcv.utils.config.ConfigDict
"""
# Converts anything that torch.save wrote into a file that can be read without running code.
CONVERSION_SCRIPT = """
  import torch
  def plain(one):
      one = one.state_dict() if hasattr(one, 'state_dict') else one
      if isinstance(one, dict):
          return {{str(name): plain(value) for name, value in one.items()}}
      one = torch.as_tensor(one) if type(one).__name__ == 'ndarray' else one
      return one if isinstance(one, torch.Tensor) else None
  content = torch.load({path!r}, map_location='cpu', weights_only=False)
  torch.save(plain(content), 'weights.pth')"""

StateDict = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Content of a weights file.

    Attributes:
        path: the file.
        state: tensors by parameter or buffer name, on the CPU, without the usual wrappers.
        notes: remarks on choices between several contents of the file.
        non_tensors: other named values, such as those of ``get_extra_state`` and of quantised modules.
    """

    path: Path
    state: StateDict
    notes: tuple[str, ...] = ()
    non_tensors: Mapping[str, Any] = field(default_factory=dict)


class _InertObject:
    """Placeholder for any object in a checkpoint other than tensors and dictionaries."""

    def __new__(cls, *_given: Any, **_named: Any) -> "_InertObject":
        return super().__new__(cls)

    def __setstate__(self, _state: Any) -> None:
        pass


class _PlainDict:
    """Placeholder for a dictionary type, which constructs a plain ``dict``."""

    def __new__(cls, *_given: Any, **_named: Any) -> Any:
        return {}


def shorten_names(names: Iterable[str]) -> str:
    """Join the first names, followed by the number of names left out."""
    names = list(names)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


SAFE_GLOBALS: list[Any] = [
    *((_InertObject, name) for name in INERT_GLOBALS.split()),
    *((_PlainDict, name) for name in DICT_GLOBALS.split()),
]

# Reading


def read(path: str | Path) -> Checkpoint:
    """Read a state dict from a safetensors file or one written by ``torch.save``, without running code in it.

    Raises:
        RequestError: there is no such file, it is damaged or of another kind, or reading it would run code.
    """
    path = Path(path)
    notes: list[str] = []
    content = _flatten(_unwrap(read_content(path), notes))
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise _no_tensors_error(path, content)
    rest = {name: value for name, value in content.items() if name not in state}
    return Checkpoint(path, state, tuple(notes), rest)


def _no_tensors_error(path: Path, content: Mapping[str, Any]) -> RequestError:
    message = f"the weights file {str(path)!r} contains no state dict"
    if _holds_inert(content):
        return RequestError(
            f"{message}: instead of tensors by name, it contains NumPy arrays or objects",
            _conversion_hint(path),
        )
    return RequestError(message, f"it contains: {shorten_names(content)}" if content else "it is empty")


def _holds_inert(content: Mapping[Any, Any]) -> bool:
    values = content.values()
    return any(_holds_inert(one) if isinstance(one, Mapping) else isinstance(one, _InertObject) for one in values)


def read_content(path: Path) -> Mapping[Any, Any]:
    """Read all that a weights file holds, without running code in it: what is no tensor or container holds nothing.

    Raises:
        RequestError: as :func:`read`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        # The content decides, since files get renamed. A safetensors file starts with 8 bytes of length, then JSON.
        safe = start[8:] == b"{" and not start.startswith(b"PK")
        other = None if safe else weight_files.identify_file(path)
    except OSError as error:
        hint = weight_files.identify_folder(path).hint if path.is_dir() else ""
        raise RequestError(f"the weights file {str(path)!r} cannot be read: {error.strerror}", hint) from error
    if other:
        raise RequestError(f"the weights file {str(path)!r} is {other.description}", other.hint)
    content = _read_safetensors(path) if safe else _read_pickle(path)
    if not isinstance(content, Mapping):
        raise RequestError(
            f"the weights file {str(path)!r} contains a {type(content).__name__}, not a state dict",
            "save model.state_dict()",
        )
    return content


def _read_safetensors(path: Path) -> StateDict:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged_error(path, error) from error


def _read_pickle(path: Path) -> Any:
    try:
        # Training scripts, including timm's, save their arguments and more with the weights.
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unsafe_error(path, error) from error
    except Exception as error:  # files of other kinds raise all kinds of errors
        raise _damaged_error(path, error) from error


def _unsafe_error(path: Path, error: Exception) -> RequestError:
    code = _find_unsafe_globals(path, error)
    if not code:
        return _damaged_error(path, error)
    return RequestError(
        f"the weights file {str(path)!r} is refused: reading it would run code that it names ({shorten_names(code)})",
        _conversion_hint(path),
    )


def _conversion_hint(path: Path) -> str:
    """Explain how to convert the file into one that holds weights only."""
    return (
        "reading it in full runs any code in the file, with your permissions. Only if you trust its author, and where "
        "its modules can be imported, convert it to a file with weights only, in Python:"
        + CONVERSION_SCRIPT.format(path=str(path))
    )


def _find_unsafe_globals(path: Path, error: Exception) -> list[str]:
    """List the functions and classes that unpickling would call; empty if it failed for another reason."""
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # unsupported for the file format before PyTorch 1.6
        return re.findall(r"Unsupported (?:global: GLOBAL|operand|class) (\S+)", str(error))


def _damaged_error(path: Path, error: Exception) -> RequestError:
    # PyTorch's own advice, to disable weights_only, is left out.
    match = re.search(r"WeightsUnpickler error: (.*)", str(error))
    reason = match[1] if match else (str(error).splitlines() or [""])[0].split(". ")[0] or type(error).__name__
    return RequestError(
        f"the weights file {str(path)!r} is damaged, or neither safetensors nor written by torch.save",
        f"reading it ended with: {type(error).__name__}: {reason}",
    )


def _unwrap(content: Mapping[Any, Any], notes: list[str]) -> Mapping[Any, Any]:
    for name in WRAPPER_KEYS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and _holds_tensors(inner):
            if name in EMA_KEYS:
                notes.append(f"averaged (EMA) weights {name!r} were loaded")
            return _unwrap(inner, notes)
    return content


def _flatten(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Flatten nested mappings that hold most of the tensors, joining their names with dots."""
    parts = {
        str(name): value
        for name, value in content.items()
        if isinstance(value, Mapping)
        and _holds_tensors(value)
        and not _is_extra_state(name)
        and not NON_MODEL_KEYS.search(str(name))
    }
    others = {str(name): value for name, value in content.items() if str(name) not in parts}
    if sum(map(_count_tensors, parts.values())) <= sum(isinstance(value, Tensor) for value in others.values()):
        return {str(name): value for name, value in content.items()}
    inside = [(name, _flatten(value)) for name, value in parts.items()]
    if len(parts) == 1 and not any(isinstance(value, Tensor) for value in others.values()):
        return inside[0][1]
    return others | {f"{name}.{key}": value for name, values in inside for key, value in values.items()}


def _is_extra_state(name: Any) -> bool:
    return str(name).rpartition(".")[2] == "_extra_state"


def _count_tensors(content: Mapping[Any, Any]) -> int:
    """Count the tensors in a mapping, at any depth."""
    values = content.values()
    return sum(_count_tensors(one) if isinstance(one, Mapping) else isinstance(one, Tensor) for one in values)


def _holds_tensors(content: Mapping[Any, Any]) -> bool:
    return _count_tensors(content) > 0
