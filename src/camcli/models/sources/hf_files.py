"""Files of models of transformers: in a folder, in the hub's cache, or fetched; without importing transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from camcli.base.errors import RequestError, did_you_mean

CONFIG_FILE = "config.json"
# Where the settings of the image processor are; the first also holds those of a tokenizer.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# Files of weights in the order of transformers; those of an index name the others.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "vocab.txt"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
# An import of a file beside.
RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import", re.MULTILINE)
# The type of models that transformers only wraps; their weights are timm's.
TIMM_WRAPPER = "timm_wrapper"
# Words in the names of classes of which camcli can make a network, see find_class in hf_config.py.
LISTED = (
    *(
        "ForImageClassification",
        "ForSemanticSegmentation",
        "ForObjectDetection",
        "CLIPModel",
        "CLIPSegModel",
        "BlipModel",
        "MetaClip2Model",
        "SiglipModel",
        "AlignModel",
    ),
    *("Dinov2", "DINOv3", "IJepaModel", "ViTModel", "ViTMAE"),
)
USAGE = (
    "-m hf:OWNER/NAME for a repository of the Hugging Face hub, -m hf:./FOLDER for a folder that save_pretrained wrote"
)


@dataclass(frozen=True)
class ModelFiles:
    """The folder of a model of transformers, with all files that are needed.

    Attributes:
        name: the model's full name.
        folder: where its files are.
        origin: the origin of the weights, for people.
        fetched: True if the folder is in the hub's cache; False if it is the user's own.
        may_run_code: True if the Python code among its files may be run.
    """

    name: str
    folder: Path
    origin: str
    fetched: bool
    may_run_code: bool = False

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The content of its ``config.json``.

        Raises:
            RequestError: it cannot be read, or is another library's.
        """
        return _read_config(self.folder, self.name)

    @property
    def is_timm(self) -> bool:
        """True if transformers only wraps a model of timm."""
        return bool(self.config["model_type"] == TIMM_WRAPPER)

    @property
    def architecture(self) -> str:
        """The name of the model's class; empty if the configuration does not say it."""
        names = self.config.get("architectures") or [""]
        return str(names[0])

    def check_weights(self) -> None:
        """Check that the folder has weights.

        Raises:
            RequestError: it has none, or not all shards.
        """
        found = next((one for one in WEIGHT_FILES if (self.folder / one).is_file()), "")
        if not found:
            raise RequestError(
                f"{self.name} has no weights in {str(self.folder)!r}",
                f"there should be one of: {', '.join(WEIGHT_FILES)}; or give a file: --weights FILE",
            )
        missing = [one for one in _list_shards(self.folder / found) if not (self.folder / one).is_file()]
        if missing:
            raise RequestError(f"{self.name} lacks files of its weights that {found} names: {', '.join(missing[:3])}")

    def check_processor(self) -> None:
        """Check that something says how images are prepared; of timm's models the configuration does.

        Raises:
            RequestError: the folder has no settings of an image processor.
        """
        if not self.is_timm and not any((self.folder / one).is_file() for one in PROCESSOR_FILES):
            raise RequestError(
                f"{self.name} has no image processor: nothing in {str(self.folder)!r} says how images are prepared for "
                "it",
                f"save it beside the model: processor.save_pretrained(...) writes {PROCESSOR_FILES[0]}",
            )

    def check_tokenizer(self) -> None:
        """Check that texts can be embedded.

        Raises:
            RequestError: the folder has no tokenizer, in whose place transformers would make an empty one.
        """
        if not any((self.folder / one).is_file() for one in TOKENIZER_FILES):
            raise RequestError(
                f"{self.name} has no tokenizer in {str(self.folder)!r}",
                "save it beside the model: tokenizer.save_pretrained(...) writes tokenizer.json",
            )


def find_files(name: str, *, own_weights: bool, tokenizer: bool, code: bool = False) -> ModelFiles:
    """Find the files of a model, and fetch from the hub those that are not in its cache.

    Args:
        name: ``owner/name``, ``owner/name@revision``, or the path of a folder, which comes first.
        own_weights: True if the model's own weights are requested, and neither a file's nor random ones.
        tokenizer: True if texts will be embedded.
        code: True if the Python code that comes with the model may be run.

    Raises:
        RequestError: there is no such folder or repository, or a file is not available.
    """
    full = f"hf:{name}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        files = ModelFiles(full, folder, f"the folder {folder}", fetched=False, may_run_code=code)
    elif folder.is_file():
        raise RequestError(f"{full} is a file, and a model of transformers is a folder", USAGE)
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        known = [*(f"hf:{one}" for one in _list_folders(folder.parent)), *(f"hf:{one}" for one in list_cached())]
        raise RequestError(f"there is no folder {name!r}", "\n".join(filter(None, (did_you_mean(full, known), USAGE))))
    else:
        files = _fetch(name, full, own_weights=own_weights, tokenizer=tokenizer, code=code)
    files.check_processor()
    if own_weights:
        files.check_weights()
    return files


def _list_folders(parent: Path) -> list[Path]:
    return [one for one in parent.iterdir() if one.is_dir()] if parent.is_dir() else []


def _read_config(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(
            f"{name} needs a {CONFIG_FILE}, and {str(folder)!r} has none that can be read ({error.strerror})",
            _suggest_other_library(folder) or USAGE,
        ) from error
    except ValueError as error:
        raise RequestError(f"the {CONFIG_FILE} of {name} is damaged: {error}") from error
    if isinstance(content, dict) and content.get("model_type"):
        return content
    if isinstance(content, dict) and "architecture" in content:
        place = name.removeprefix("hf:")
        raise RequestError(
            f"the {CONFIG_FILE} of {name} is timm's",
            f"name it -m {'local-dir' if Path(place).is_dir() else 'hf-hub'}:{place}",
        )
    raise RequestError(f"the {CONFIG_FILE} of {name} is not that of transformers: it has no model_type", USAGE)


def _suggest_other_library(folder: Path) -> str:
    """Say what a folder without a configuration may be instead; empty if that is not known."""
    if (folder / "open_clip_config.json").is_file():
        return f"for a folder of open_clip: -m open_clip:local-dir:{folder}"
    if (folder / "adapter_config.json").is_file():
        return "it holds an adapter (PEFT): merge it into its model, merge_and_unload(), and save that"
    nested = [one for one in sorted(folder.glob("*/")) if (one / CONFIG_FILE).is_file()]
    return f"there is one in {', '.join(f'hf:{one}' for one in nested[:3])}" if nested else ""


def _list_shards(file: Path) -> list[str]:
    """Return the names of the files that an index of weights names; none for weights in one file."""
    if not file.name.endswith(".index.json"):
        return []
    try:
        return sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"the index of weights {str(file)!r} is damaged: {error}") from error


def _fetch(name: str, full: str, *, own_weights: bool, tokenizer: bool, code: bool) -> ModelFiles:
    """Download a model's files from the hub if needed; its cache folder is then loaded without network access."""
    from camcli.models.weights import hub

    repository, revision = hub.parse_repository(name, "hf")

    def fetch(*names: str) -> Path:
        return hub.fetch(hub.HubFile(repository, names, revision), f"the files of {full}")

    try:
        found = [fetch(CONFIG_FILE)]
    except RequestError as error:
        near = did_you_mean(full, [f"hf:{one}" for one in list_cached()])
        raise RequestError(error.message, "\n".join(filter(None, (near, error.hint)))) from error
    if _read_config(found[0].parent, full)["model_type"] != TIMM_WRAPPER:
        found.append(fetch(*PROCESSOR_FILES))
    if own_weights:
        weights = fetch(*WEIGHT_FILES)
        found += [weights, *(fetch(shard) for shard in _list_shards(weights))]
    if tokenizer:
        found += [fetch("tokenizer_config.json"), fetch(*TOKENIZER_FILES)]
        found += [fetch("merges.txt")] if found[-1].name == "vocab.json" else []
    if code:
        found += _fetch_code(found, fetch)
    if len({one.parent for one in found}) > 1:  # the cache has files of different commits
        found = [hub.HubFile(repository, (one.name,), revision).download() for one in found]
    return ModelFiles(full, found[0].parent, f"{name} on the Hugging Face hub", fetched=True, may_run_code=code)


def _fetch_code(settings: Sequence[Path], fetch: Callable[[str], Path]) -> list[Path]:
    """Fetch the Python files that settings name, and those beside them that these import."""
    wanted = [name for file in settings if file.suffix == ".json" for name in list_code_files(_read_json(file))]
    found: dict[str, Path] = {}
    for name in wanted:  # which grows meanwhile
        if name not in found:
            found[name] = fetch(name)
            wanted += [f"{one}.py" for one in RELATIVE_IMPORT.findall(found[name].read_text(encoding="utf-8"))]
    return list(found.values())


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # said where the file is used
        return {}


def list_code_files(settings: Any) -> list[str]:
    """List the Python files that settings (``auto_map``) name.

    Raises:
        RequestError: one is another repository's.
    """
    named = settings.get("auto_map") if isinstance(settings, dict) else None
    words = named.values() if isinstance(named, dict) else ()
    found = [one for word in words for one in (word if isinstance(word, list) else [word]) if isinstance(one, str)]
    for one in found:
        if "--" in one:
            raise RequestError(
                f"the model runs Python code of another repository ({one.partition('--')[0]})",
                "return the model from a function of yours: -m my_model.py:make",
            )
    return [f"{one.partition('.')[0]}.py" for one in found]


def list_python_files(name: str) -> list[Path]:
    """List the Python files in the folder of a model, or in the hub's cache."""
    from camcli.models.weights.hub import HubFile

    repository, _, revision = name.partition("@")
    folder: Path | None = Path(name).expanduser()
    if folder is not None and not folder.is_dir():
        config = HubFile(repository, (CONFIG_FILE,), revision or None).find_cached()
        folder = config.parent if config else None
    return sorted(folder.glob("*.py")) if folder else []


def list_cached() -> Iterator[str]:
    """List the repositories in the hub's cache whose ``config.json`` is that of a model that may be loaded."""
    from huggingface_hub import constants

    for place in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        for file in sorted(place.glob(f"snapshots/*/{CONFIG_FILE}"))[:1]:
            try:
                names = json.loads(file.read_text(encoding="utf-8")).get("architectures") or []
            except (OSError, ValueError, AttributeError):
                continue
            if any(word in str(one) for one in names for word in LISTED):
                yield place.name.removeprefix("models--").replace("--", "/")


def is_cached(name: str) -> bool:
    """Return whether the weights of a repository are in the hub's cache."""
    from camcli.models.weights.hub import HubFile

    repository, _, revision = name.partition("@")
    return HubFile(repository, WEIGHT_FILES, revision or None).find_cached() is not None
