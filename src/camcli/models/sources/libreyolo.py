"""Detectors of libreyolo: ``path/to/best.pt``, as its training or ``save`` wrote it.

Its file is read here, without running code in it, since for some families libreyolo runs what is in a pickle. What it
gets is the weights alone, so that it neither writes nor downloads anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.models.sources.hf_detection import to_corners
from camcli.models.spec import ModelSpec
from camcli.models.weights.checkpoint import read_content, shorten_names
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import OutputSpec

USAGE = "libreyolo:path/to/best.pt names a file of weights"
# Its predictions: the overlap from which of two boxes of a class the better stays, and how many boxes there are.
OVERLAP, MOST_BOXES = 0.45, 300
# Those that are suppressed are at most so many pairs of a cell and a class.
MOST_PAIRS = 30000
GREY = 114
# YOLO-NAS makes no image larger than this, so that there is a margin around it.
LARGEST_OF_NAS = 636
# Tensors of heads that only training uses, and statistics that a network without its file's would predict nonsense by.
OF_TRAINING, STATISTICS = ("aux.", "aux_head."), ("running_mean", "running_var")

SQUASHED = Preprocess((640, 640), (0.0,) * 3, (1.0,) * 3, fit="squash", interpolation="bilinear")
OPENCV = replace(SQUASHED, arithmetic="opencv")
IMAGENET = replace(SQUASHED, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PADDED = replace(SQUASHED, fit="longer", fill=GREY)
# DEIMv2's sizes with a backbone of DINO, which takes ImageNet's colours.
DINO_SIZES = ("s", "m", "l", "x")

# Boxes in pixels (n, k, 4), logits of the classes (n, k, c), and the logit of there being any object (n, k).
Heads = tuple[Tensor, Tensor, Tensor | None]


def _read_yolo9(model: Any, images: Tensor) -> Heads:
    """Run a YOLO 9: its boxes are decoded, and its logits come after the distributions of the edges."""
    output = model(images)
    raw = torch.cat([one.flatten(2) for one in output["raw_outputs"]], 2)
    return output["predictions"][:, :4].transpose(1, 2), raw[:, -model.nc :].transpose(1, 2), None


def _read_yolox(model: Any, images: Tensor) -> Heads:
    """Run a YOLOX, whose own output is probabilities: the layers of its head, and where a cell's box lies."""
    head = model.head
    boxes, logits, objects = [], [], []
    levels = model.backbone(images * 255)  # the only family that takes levels
    for at, (level, stride) in enumerate(zip(levels, head.strides, strict=True)):
        stem = head.stems[at](level)
        regions = head.reg_convs[at](stem)
        rows, columns = level.shape[-2:]
        down, across = (torch.arange(count, device=level.device, dtype=level.dtype) for count in (rows, columns))
        corners = torch.stack([across.repeat(rows), down.repeat_interleave(columns)], 1)
        offsets, sides = head.reg_preds[at](regions).flatten(2).transpose(1, 2).split(2, dim=-1)
        boxes.append(torch.cat([offsets + corners, sides.exp()], -1) * stride)
        logits.append(head.cls_preds[at](head.cls_convs[at](stem)).flatten(2).transpose(1, 2))
        objects.append(head.obj_preds[at](regions).flatten(1))
    return to_corners(torch.cat(boxes, 1)), torch.cat(logits, 1), torch.cat(objects, 1)


def _read_yolonas(model: Any, images: Tensor) -> Heads:
    """Run a YOLO-NAS, which gives boxes with probabilities, and before them the logits."""
    (boxes, _), raw = model(images)
    return boxes, raw[0], None


def _read_queries(model: Any, images: Tensor) -> Heads:
    """Run a detector with queries: a box relative to the input, and logits, for each."""
    output = model(images)
    height, width = images.shape[-2:]
    corners = to_corners(output["pred_boxes"]) * images.new_tensor([width, height, width, height])
    return corners, output["pred_logits"], None


Chosen = tuple[Float[Tensor, "m"], Int[Tensor, "m"], Int[Tensor, "m"]]


def _choose_pairs(boxes: Tensor, scores: Tensor, min_score: float) -> Chosen:
    """Keep every pair of a cell and a class with a score, without boxes that overlap a better one of the class."""
    kept, labels = (scores > min_score).nonzero(as_tuple=True)
    return _suppress(boxes, scores[kept, labels], labels, kept)


def _choose_cells(boxes: Tensor, scores: Tensor, min_score: float) -> Chosen:
    """Keep the best class of each cell, without boxes that overlap a better one of the class."""
    best, labels = scores.max(1)
    [kept] = (best > min_score).nonzero(as_tuple=True)
    return _suppress(boxes, best[kept], labels[kept], kept)


def _choose_best(boxes: Tensor, scores: Tensor, min_score: float) -> Chosen:  # noqa: ARG001
    """Keep the most probable pairs of a query, or cell, and a class."""
    best, places = scores.flatten().topk(min(MOST_BOXES, scores.numel()))
    kept, labels = places // scores.shape[1], places % scores.shape[1]
    valid = _have_area(boxes[kept])
    return best[valid], labels[valid], kept[valid]


def _suppress(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor) -> Chosen:
    """Return scores, labels and cells of the boxes that remain; ``boxes`` are those of all cells, cut at the edges."""
    from torchvision.ops import batched_nms

    [valid] = _have_area(boxes[kept]).nonzero(as_tuple=True)
    valid = valid[scores[valid].topk(min(MOST_PAIRS, len(valid))).indices]
    chosen = valid[batched_nms(boxes[kept[valid]], scores[valid], labels[valid], OVERLAP)[:MOST_BOXES]]
    return scores[chosen], labels[chosen], kept[chosen]


def _have_area(boxes: Float[Tensor, "m 4"]) -> Bool[Tensor, "m"]:
    """Return which boxes are not empty."""
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


@dataclass(frozen=True, slots=True)
class Family:
    """One family of its detectors.

    Attributes:
        wrapper: name of libreyolo's class, whose ``model`` is the network.
        read: runs the network.
        choose: which boxes are kept, by all boxes, the scores ``(k, c)`` and the least score.
        preprocess: how images are prepared, for another size.
        pyramid: the module whose output are the feature maps that boxes are read from.
    """

    wrapper: str
    read: Callable[[Any, Tensor], Heads] = _read_queries
    choose: Callable[[Tensor, Tensor, float], Chosen] = _choose_best
    preprocess: Preprocess = SQUASHED
    pyramid: str = "encoder"


OF_YOLO9 = replace(PADDED, arithmetic="opencv", floor=True)
OF_YOLOX = replace(PADDED, bgr=True, corner=True, floor=True)
FAMILIES = {
    "yolo9": Family("LibreYOLO9", _read_yolo9, _choose_pairs, OF_YOLO9, "neck"),
    "yolo9_p2": Family("LibreYOLO9P2", _read_yolo9, _choose_pairs, OF_YOLO9, "neck"),
    "yolo9_e2e": Family("LibreYOLO9E2E", _read_yolo9, _choose_best, OF_YOLO9, "neck"),
    "yolox": Family("LibreYOLOX", _read_yolox, _choose_cells, OF_YOLOX, "backbone"),
    "yolonas": Family("LibreYOLONAS", _read_yolonas, _choose_cells, PADDED, "neck"),
    "rtdetr": Family("LibreRTDETR", preprocess=OPENCV),
    "rtdetrv2": Family("LibreRTDETRv2", preprocess=OPENCV),
    "rtdetrv4": Family("LibreRTDETRv4"),
    "dfine": Family("LibreDFINE"),
    "deim": Family("LibreDEIM"),
    "deimv2": Family("LibreDEIMv2"),
    "ec": Family("LibreEC", preprocess=IMAGENET),
    "gtr": Family("LibreGTR", preprocess=IMAGENET),
    "tinyformer": Family("LibreTinyFormer", preprocess=IMAGENET),
}


def names() -> list[str]:
    """Return an empty list, since files are not listed."""
    return []


def has(name: str) -> bool:  # noqa: ARG001
    """Return False: its names are those of files, which every source may have."""
    return False


def cached(name: str) -> bool:
    """Return whether the file exists."""
    return Path(name).expanduser().is_file()


def load(spec: ModelSpec) -> Network:
    """Load a detector from a file that libreyolo wrote.

    Raises:
        RequestError: libreyolo is not installed; there is no such file, it cannot be read without running code in it,
            or is no detector of a family that is known; its tensors do not fit; or other weights, prompts or no head
            are requested.
    """
    full = f"libreyolo:{spec.name}"
    if spec.text or spec.headless:
        asked = "prompts" if spec.text else "--head none"
        raise RequestError(f"{full} finds boxes of classes of its own, and has no use for {asked}", "leave them out")
    if spec.weights_file or spec.is_random:
        raise RequestError(f"{full} is itself the file of weights", f"leave --weights out; {USAGE}")
    path = Path(spec.name).expanduser()
    if not path.is_file():
        raise RequestError(f"there is no file {spec.name!r}", f"{USAGE}; camcli downloads none")
    content = read_content(path)
    family = _find_family(content, full)
    model, size = _build(content, family, full)
    preprocess = _find_preprocess(content, family)
    given = content["names"]
    return Network(
        name=full,
        module=Detector(model, family, spec.min_score).eval(),
        preprocess=replace(preprocess, size=spec.size or size, resize=_find_resize(content, spec.size or size)),
        labels=Labels(tuple(str(given.get(index, f"class {index}")) for index in range(int(content["nc"])))),
        weights=spec.weights_kind,
        origin=f"the file {spec.name}",
        activation="sigmoid",
        output_spec=OutputSpec("detect"),
        pyramid=f"model.{family.pyramid}",
        wrapped_module=model,
    )


def _find_family(content: Mapping[Any, Any], full: str) -> Family:
    """Find the family of a file's content by what libreyolo wrote into it."""
    needed = {"model": Mapping, "model_family": str, "size": str, "task": str, "nc": int, "names": Mapping}
    wrong = [name for name, kind in needed.items() if not isinstance(content.get(name), kind)]
    if wrong:
        raise RequestError(
            f"{full} is no file of libreyolo, or an old one: it does not say {', '.join(wrong)}",
            "libreyolo writes one from all that it reads: libreyolo.LibreYOLO('FILE').save('new.pt')",
        )
    family, task = content["model_family"], content["task"]
    if family not in FAMILIES or task != "detect":
        raise RequestError(
            f"{full} is of the family {family!r} and the task {task!r}, which camcli does not read",
            f"it reads the task 'detect' of {', '.join(FAMILIES)}; another network is returned by a function of yours: "
            "-m my_model.py:make",
        )
    changed = [name for name in ("quant", "input_profile") if content.get(name)]
    if changed:
        raise RequestError(
            f"{full} is not read: its {changed[0]!r} changes how the network computes",
            "give the file that it was made from",
        )
    return FAMILIES[family]


def _build(content: Mapping[Any, Any], family: Family, full: str) -> tuple[Any, tuple[int, int]]:
    """Build the network with the weights of a file; return it and the size of its input."""
    state = {
        str(name).removeprefix("module."): value
        for name, value in content["model"].items()
        if not str(name).removeprefix("module.").startswith(OF_TRAINING)
    }
    try:
        from libreyolo import models
    except ImportError as error:
        raise RequestError(
            f"models named libreyolo: need libreyolo, which is not installed ({error})",
            "pip install 'camcli-vision[libreyolo]'",
        ) from None
    try:
        with torch.random.fork_rng(devices=[]):
            make = getattr(models, family.wrapper)
            made = make(
                model_path=dict(state), size=content["size"], nb_classes=content["nc"], device="cpu", task="detect"
            )
    except Exception as error:  # networks raise all kinds of errors about weights
        raise RequestError(
            f"libreyolo cannot build {full}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            "a file that it reads: libreyolo predict model=FILE",
        ) from error
    _check_weights(made.model, state, full)
    side = made.input_size
    if "imgsz_h" in content and "imgsz_w" in content:
        side = (content["imgsz_h"], content["imgsz_w"])
    return made.model.float().eval(), (side, side) if isinstance(side, int) else tuple(side)


def _check_weights(model: nn.Module, state: Mapping[str, Any], full: str) -> None:
    """Check that every weight is of the file: libreyolo keeps random ones for those that are missing."""
    own = {name for name, _ in model.named_parameters()}
    own |= {name for name in model.state_dict() if name.endswith(STATISTICS)}
    missing = sorted(own - state.keys())
    unknown = sorted(state.keys() - model.state_dict().keys())
    if missing or unknown:
        what = f"lacks {shorten_names(missing)}" if missing else f"has no place for {shorten_names(unknown)}"
        raise RequestError(
            f"the weights of {full} do not fit its network: {'the file' if missing else 'the network'} {what}",
            "libreyolo writes a whole file: libreyolo.LibreYOLO('FILE').save('new.pt')",
        )


def _find_preprocess(content: Mapping[Any, Any], family: Family) -> Preprocess:
    """Return how a family prepares images, as its file and its size say."""
    if family.preprocess is OF_YOLO9:  # files that do not say it have the image in the corner
        return replace(family.preprocess, corner=content.get("letterbox_pad") != "center")
    if content["model_family"] == "deimv2" and content["size"] in DINO_SIZES:
        return IMAGENET
    return family.preprocess


def _find_resize(content: Mapping[Any, Any], size: tuple[int, int]) -> tuple[int, int]:
    """Return the size within which the image lies in an input of this size."""
    return (
        (min(size[0], LARGEST_OF_NAS), min(size[1], LARGEST_OF_NAS)) if content["model_family"] == "yolonas" else size
    )


class Detector(nn.Module):
    """A detector of libreyolo that returns what :mod:`camcli.targets.readers.candidates` reads.

    libreyolo cuts boxes at the image's edges before it compares them. Where inputs are padded, the image is what is
    inside of the rows and columns that have the padding's colour throughout.

    Attributes:
        model: its network.
    """

    def __init__(self, model: Any, family: Family, min_score: float) -> None:
        super().__init__()
        self.model, self._family, self._min_score = model, family, min_score

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> list[dict[str, Any]]:
        """Return boxes and candidates of each image: every cell of every level, or every query, is one."""
        boxes, logits, objects = self._family.read(self.model, images)
        return [
            self._choose(boxes[row], logits[row], None if objects is None else objects[row], self._find_edges(image))
            for row, image in enumerate(images.detach())
        ]

    def _find_edges(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "4"]:
        """Return where the image lies in an input: left, top, right, bottom."""
        height, width = image.shape[1:]
        whole = image.new_tensor([0, 0, width, height], dtype=torch.float32)
        if self._family.preprocess.fit != "longer":
            return whole
        shown = (image != image.new_tensor(GREY / 255)).any(0)
        across, down = (shown.any(axis).nonzero()[:, 0] for axis in (0, 1))
        if not len(across):
            return whole
        return torch.stack([across[0], down[0], across[-1] + 1, down[-1] + 1]).float()

    def _choose(self, boxes: Tensor, logits: Tensor, objects: Tensor | None, edges: Tensor) -> dict[str, Any]:
        """Keep what libreyolo keeps."""
        sure = logits.detach().float().sigmoid()
        sure = sure if objects is None else sure * objects.detach().float().sigmoid()[:, None]
        cut = torch.minimum(torch.maximum(boxes.detach().float(), edges[[0, 1, 0, 1]]), edges[[2, 3, 2, 3]])
        scores, labels, kept = self._family.choose(cut, sure, self._min_score)
        candidates = {"boxes": boxes, "logits": logits, "kept": kept}
        if objects is not None:
            candidates["objectness"] = objects
        return {"boxes": boxes[kept], "labels": labels, "scores": scores, "candidates": candidates}
