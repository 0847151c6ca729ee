"""A user's file of weights, read without running any code in it, or refused with what it is and what to do."""

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

# Where training scripts put the weights inside what they save. Averaged weights come first, as in timm: they are the
# ones such scripts evaluate.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
# What else lies beside them, and is never a network's.
NEVER = re.compile(r"optim|^opts?(_|$)|sched|scaler|amp$|rng|callbacks|loops|hparams|hyper_param", re.IGNORECASE)
LISTED = 8  # names shown in a message; a longer list hides the point
# Beside the weights lie numbers of NumPy, paths, dates, settings. What makes them is not called: whatever stands in its
# place holds nothing and does nothing.
INERT = """
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
# Likewise, but these are dictionaries, which may hold weights.
TABLES = """
collections.defaultdict easydict.EasyDict addict.addict.Dict ml_collections.config_dict.config_dict.ConfigDict
pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing.AttributeDict
lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict
mmengine.config.config.ConfigDict mmcv.utils.config.ConfigDict
"""
# Turns anything that torch.save wrote into something that can be read without running code.
CONVERSION = """
  import torch
  def plain(one):
      one = one.state_dict() if hasattr(one, 'state_dict') else one
      if isinstance(one, dict):
          return {{str(name): plain(value) for name, value in one.items()}}
      one = torch.as_tensor(one) if type(one).__name__ == 'ndarray' else one
      return one if isinstance(one, torch.Tensor) else None
  content = torch.load({path!r}, map_location='cpu', weights_only=False)
  torch.save(plain(content), 'weights.pth')"""

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        path: the file.
        state: parameter and buffer names to tensors, on the CPU, freed from the usual wrappers.
        notes: what was chosen among several things in the file.
        rest: what else is named there and is no tensor: ``get_extra_state`` and quantised modules have such.
    """

    path: Path
    state: State
    notes: tuple[str, ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)


class _Inert:
    """Stands for what lies beside the weights, whatever it was made of."""

    def __new__(cls, *_given: Any, **_named: Any) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, _state: Any) -> None:
        pass


class _Table:
    """Stands for a kind of dictionary: a plain one comes of it."""

    def __new__(cls, *_given: Any, **_named: Any) -> Any:
        return {}


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


BESIDE: list[Any] = [*((_Inert, name) for name in INERT.split()), *((_Table, name) for name in TABLES.split())]

# Reading


def read(path: str | Path) -> Checkpoint:
    """Read a state dict from a safetensors file or from what ``torch.save`` wrote, without running code in it.

    Raises:
        RequestError: there is no such file, it is damaged, it is something else, or it could only be read by running
            code that it names.
    """
    path = Path(path)
    notes: list[str] = []
    content = _flat(_unwrapped(_content(path), notes))
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise _without_tensors(path, content)
    rest = {name: value for name, value in content.items() if name not in state}
    return Checkpoint(path, state, tuple(notes), rest)


def _without_tensors(path: Path, content: Mapping[str, Any]) -> RequestError:
    message = f"the weights file {str(path)!r} holds no state dict"
    if _holds_inert(content):
        return RequestError(
            f"{message}, that is no tensors by name: where they would stand are arrays of NumPy, or objects",
            _conversion(path),
        )
    return RequestError(message, f"it holds: {listed(content)}" if content else "it is empty")


def _holds_inert(content: Mapping[Any, Any]) -> bool:
    values = content.values()
    return any(_holds_inert(one) if isinstance(one, Mapping) else isinstance(one, _Inert) for one in values)


def _content(path: Path) -> Mapping[Any, Any]:
    try:
        with path.open("rb") as file:
            start = file.read(9)
        # What a file is, is told by how it begins: people rename them. A safetensors file has 8 bytes of length, then
        # JSON.
        safe = start[8:] == b"{" and not start.startswith(b"PK")
        other = None if safe else weight_files.kind(path)
    except OSError as error:
        hint = weight_files.folder(path).hint if path.is_dir() else ""
        raise RequestError(f"the weights file {str(path)!r} cannot be read: {error.strerror}", hint) from error
    if other:
        raise RequestError(f"the weights file {str(path)!r} is {other.what}", other.hint)
    content = _safetensors(path) if safe else _pickled(path)
    if not isinstance(content, Mapping):
        raise RequestError(
            f"the weights file {str(path)!r} holds a {type(content).__name__}, not a state dict",
            "save model.state_dict()",
        )
    return content


def _safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _pickled(path: Path) -> Any:
    try:
        # Training scripts, timm's among them, save their arguments and more beside the weights.
        with torch.serialization.safe_globals(BESIDE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except Exception as error:  # a file of another kind fails in as many ways as there are kinds
        raise _damaged(path, error) from error


def _refused(path: Path, error: Exception) -> RequestError:
    code = _code_named(path, error)
    if not code:
        return _damaged(path, error)
    return RequestError(
        f"the weights file {str(path)!r} is refused: to read it, code that it names would have to run ({listed(code)})",
        _conversion(path),
    )


def _conversion(path: Path) -> str:
    """How the weights get into a file that holds nothing else."""
    return (
        "reading all of it runs whatever the file says, with all that you may do: only if you trust who wrote it, and "
        "where its modules can be imported, make a file of it that holds weights only, in Python:"
        + CONVERSION.format(path=str(path))
    )


def _code_named(path: Path, error: Exception) -> list[str]:
    """The functions and classes that unpickling would call; none if it failed for another reason."""
    try:
        with torch.serialization.safe_globals(BESIDE):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # files of the format before PyTorch 1.6 cannot be asked
        return re.findall(r"Unsupported (?:global: GLOBAL|operand|class) (\S+)", str(error))


def _damaged(path: Path, error: Exception) -> RequestError:
    # PyTorch's own advice, to read it without its protection, is left out.
    told = re.search(r"WeightsUnpickler error: (.*)", str(error))
    reason = told[1] if told else (str(error).splitlines() or [""])[0].split(". ")[0] or type(error).__name__
    return RequestError(
        f"the weights file {str(path)!r} is damaged, or neither safetensors nor written by torch.save",
        f"reading it ended with: {type(error).__name__}: {reason}",
    )


def _unwrapped(content: Mapping[Any, Any], notes: list[str]) -> Mapping[Any, Any]:
    for name in WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and _holds_tensors(inner):
            if name in AVERAGED:
                notes.append(f"averaged (EMA) weights {name!r} were taken")
            return _unwrapped(inner, notes)
    return content


def _flat(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Names to values; of mappings within, where these hold most of the tensors, by names joined with dots."""
    parts = {
        str(name): value
        for name, value in content.items()
        if isinstance(value, Mapping) and _holds_tensors(value) and not _is_leaf(name) and not NEVER.search(str(name))
    }
    own = {str(name): value for name, value in content.items() if str(name) not in parts}
    if sum(map(_tensors, parts.values())) <= sum(isinstance(value, Tensor) for value in own.values()):
        return {str(name): value for name, value in content.items()}
    inside = [(name, _flat(value)) for name, value in parts.items()]
    if len(parts) == 1 and not any(isinstance(value, Tensor) for value in own.values()):
        return inside[0][1]
    return own | {f"{name}.{key}": value for name, values in inside for key, value in values.items()}


def _is_leaf(name: Any) -> bool:
    return str(name).rpartition(".")[2] == "_extra_state"


def _tensors(content: Mapping[Any, Any]) -> int:
    """How many tensors there are in it, at any depth."""
    values = content.values()
    return sum(_tensors(one) if isinstance(one, Mapping) else isinstance(one, Tensor) for one in values)


def _holds_tensors(content: Mapping[Any, Any]) -> bool:
    return _tensors(content) > 0
