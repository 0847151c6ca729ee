"""Checks of a model's name that need no library: addresses, files and other libraries' names in its place, typos."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from camcli.base import weight_files
from camcli.base.errors import RequestError, did_you_mean, find_nearest
from camcli.methods import METHODS
from camcli.models import BUNDLED_MODEL, FILE_SOURCES, SOURCES, SUFFIXES, names_cache

SEARCH_ORDER = ("timm", "torchvision", "open_clip", "bundled")  # for a name without a source
TIMM_SCHEMES = ("hf-hub", "hf_hub", "local-dir")  # timm's own prefixes for models outside its registry

LIST_HINT = "list them: camcli models [PATTERN]"
OWN_FUNCTION_HINT = "a network of your own is named -m path/to/file.py:function"
# Names of OpenAI's CLIP, as its own package writes them.
CLIP_NAME = re.compile(r"(?:clip:)?(ViT-[A-Za-z]+[/-]\d+|RN\d+(?:x\d+)?)(@336px|-336)?")
HUB_ADDRESS = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)/?(?:(?:tree|blob|resolve)/.*)?"
)
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
YOLO_NAME = re.compile(r"(?:.*[/\\])?(?:yolo|rtdetr|rt-detr|sam[0-9_b.]|fastsam)[\w.-]*", re.IGNORECASE)
YOLO_HINT = (
    "a detector is named after the library that wrote its file: -m ultralytics:FILE, or -m libreyolo:FILE; another is "
    "returned from a function of yours: -m my_model.py:make"
)


def check_name(model: str, by_listing: bool = False) -> None:
    """Check a model string as far as that goes without importing a library.

    Args:
        model: the model string.
        by_listing: refuse also a name that is not among those that an earlier listing left, or the libraries' files
            have. That is not known of a process that may have added models to its libraries.

    Raises:
        RequestError: it is empty, an address, a file or folder, another library's name, or a typo.
    """
    prefix, colon, name = model.partition(":")
    if not model.strip():
        raise RequestError("the model's name is empty", f"name a network: -m resnet50; {LIST_HINT}")
    if re.match(r"\w+://", model):
        raise _make_address_error(model)
    if model.rpartition(":")[0].endswith(".py") or model.endswith(".py"):
        _check_python_file(model)
    elif find_source_by_suffix(model):
        if not Path(model).expanduser().exists():
            raise RequestError(
                f"there is no file {model!r}", "a file of a network is named as it is: -m path/to/net.onnx"
            )
    elif colon and prefix not in (*SOURCES.names(), *TIMM_SCHEMES):
        _check_foreign_prefix(model)
    elif not colon:
        if weight_files.weight_suffix(model) or model.startswith((".", "/", "~")) or model.endswith("/"):
            check_is_no_file(model)
        if by_listing:
            _check_known(model)
    elif not name and prefix in SOURCES.names():
        raise RequestError(f"{model!r} names a source and no model", f"say {prefix}:NAME; {LIST_HINT}")
    elif by_listing and prefix in SEARCH_ORDER and prefix != "bundled" and ":" not in name:
        _check_known(name, prefix)


def find_source_by_suffix(model: str) -> str:
    """Return the source of a model that is named by its file alone; empty if it is not."""
    return SUFFIXES.get(Path(model).suffix.lower(), "") if model.partition(":")[0] not in SOURCES.names() else ""


def is_weights_file(model: str) -> bool:
    """Return whether a model's name is that of a file of weights, and not one of a whole network (``net.onnx``)."""
    is_whole = find_source_by_suffix(model) or model.partition(":")[0] in FILE_SOURCES
    return bool(weight_files.weight_suffix(model)) and not is_whole


def check_is_no_file(name: str) -> None:
    """Check that a model's name is no file of weights and no folder.

    Raises:
        RequestError: it is one; the hint says how it is given.
    """
    if other := weight_files.identify_non_model(name):
        missing = bool(weight_files.weight_suffix(name)) and not Path(name).exists()
        also = f"\nand there is no such file: {name}" if missing else ""
        yolo = f"\n{YOLO_HINT}" if YOLO_NAME.fullmatch(name) else ""
        raise RequestError(f"the model {name!r} is {other.description}", other.hint + yolo + also)


def make_unknown_error(name: str, known: Iterable[str], source: str = "") -> RequestError:
    """Return the error for a name that no library has.

    Args:
        name: as it was given.
        known: full names of all models, such as ``timm:resnet50.a1_in1k``.
        source: the library that was named; empty for all.
    """
    hints = []
    if clip := CLIP_NAME.fullmatch(name):
        hints.append(_suggest_clip(clip))
    elif YOLO_NAME.fullmatch(name):
        hints.append(YOLO_HINT)
    elif all(part in METHODS.names() for part in name.split(",")):
        hints.append(f"that is a method: --method {name}; --model, or -m, names a network")
    else:
        # The source that is searched first comes first, and a name counts with and without its tag.
        ranks = {place: rank for rank, place in enumerate(SEARCH_ORDER)}
        full_names: dict[str, str] = {}
        for full in sorted(known, key=lambda full: ranks.get(full.partition(":")[0], len(ranks))):
            place, _, own = full.partition(":")
            full_names.setdefault(own, full)
            base = re.split(r"[./]", own)[0]
            full_names.setdefault(base, f"{place}:{base}")
        close = [full_names[near] for near in find_nearest(name, full_names)]
        hints += [f"did you mean {' or '.join(close)}?"] if close else []
        if REPOSITORY.fullmatch(name):
            hints.append(
                f"a repository of the Hugging Face hub is named -m hf-hub:{name}, or of transformers -m hf:{name}"
            )
    message = (
        f"{source} has no model {name!r}" if source else f"there is no model {name!r} in {', '.join(SEARCH_ORDER)}"
    )
    return RequestError(message, "\n".join([*hints, LIST_HINT]))


def _check_known(name: str, source: str = "") -> None:
    """Check that a source, or any, has a model, by an earlier listing, or the names in the libraries' files."""
    names, unlisted = names_cache.read_names(), names_cache.read_unlisted()
    if names is None or unlisted is None:
        unlisted = names_cache.read_installed()
        if unlisted is None:
            return
        listed = [f"{place}:{one}" for place, some in unlisted.items() for one in some]
        names = [BUNDLED_MODEL, *listed]
    if not any(_has_model(place, name, names, unlisted) for place in ((source,) if source else SEARCH_ORDER)):
        if not source:
            check_is_no_file(name)
        raise make_unknown_error(name, [one for one in names if one.startswith(f"{source}:" if source else "")], source)


def _has_model(place: str, name: str, names: Iterable[str], unlisted: Mapping[str, list[str]]) -> bool:
    """Return whether a source has a model, whatever the tag, by the names that an earlier listing left."""
    mark = "." if place == "timm" else "/"
    base = name.partition(mark)[0] if place != "bundled" else name
    own = {full.removeprefix(f"{place}:").partition(mark)[0] for full in names if full.startswith(f"{place}:")}
    return base in own or base in unlisted.get(place, ()) or (place == "bundled" and f"bundled:{name}" in names)


def _check_python_file(model: str) -> None:
    if not model.endswith(".py"):
        place, _, function = model.rpartition(":")
        if function or not Path(place).is_file():
            return
        model = place
    functions = _list_functions(Path(model))
    there = f"there are: {', '.join(functions)}\n" if functions else ""
    there = "there is no such file\n" if functions is None else there
    name = functions[0] if functions and len(functions) == 1 else "function"
    raise RequestError(
        f"{model!r} does not name the function that returns the model", f"{there}name it: {model}:{name}"
    )


def _list_functions(file: Path) -> list[str] | None:
    """Return the names of the functions and classes of a Python file, without running it; None without a file."""
    try:
        body = ast.parse(file.read_bytes()).body
    except OSError:
        return None
    except (SyntaxError, ValueError):  # importing it reports the error
        return []
    kinds = ast.FunctionDef, ast.ClassDef
    return [one.name for one in body if isinstance(one, kinds) and not one.name.startswith("_")]


def _check_foreign_prefix(model: str) -> None:
    """Refuse ``prefix:name`` where the prefix is no module either."""
    prefix, _, name = model.partition(":")
    if clip := CLIP_NAME.fullmatch(model):
        raise RequestError(f"there is no source of models {prefix!r}", _suggest_clip(clip))
    if "/" in prefix:
        raise RequestError(
            f"{model!r} is a name of torch.hub, which camcli does not read, since it runs downloaded code",
            f"many of its networks are here too: camcli models '*{name}*'; or name a folder with its files: "
            f"-m hub:path/to/folder:{name}",
        )
    from camcli.models import user_code

    if name.isidentifier() and user_code.is_module(prefix):
        return
    known = [*SOURCES.names(), *TIMM_SCHEMES]
    usage = "path/to/file.py:function and package.module:function"
    raise RequestError(
        f"{model!r} begins with {prefix!r}, which is neither a model source nor a module that can be imported from "
        "here",
        "\n".join(filter(None, (did_you_mean(prefix, known), f"there are: {', '.join(known)}, and {usage}"))),
    )


def _make_address_error(model: str) -> RequestError:
    if hub := HUB_ADDRESS.fullmatch(model):
        hint = f"a repository of the Hugging Face hub is named -m hf-hub:{hub[1]}, or of transformers -m hf:{hub[1]}"
    elif weight_files.weight_suffix(model):
        file = model.rstrip("/").rpartition("/")[2]
        hint = f"fetch the file, then name the network and the file: -m resnet50 --weights {file}"
    else:
        hint = f"name a network: -m resnet50, or hf-hub:OWNER/NAME; {LIST_HINT}"
    return RequestError(f"the model {model!r} is an address, and a model is given by its name", hint)


def _suggest_clip(match: re.Match[str]) -> str:
    name = match[1].replace("/", "-") + ("-336" if match[2] else "")
    return f"OpenAI's CLIP is named -m open_clip:{name}/openai"
