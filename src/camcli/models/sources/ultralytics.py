"""YOLO detectors of ultralytics, through the user's own installation: ``yolo11n.pt`` or ``path/to/best.pt``.

The library is under the AGPL and no dependency. Its files of weights are pickles, and reading one runs the code in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.models.spec import ModelSpec
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import OutputSpec

USAGE = "ultralytics:path/to/best.pt names a file of weights, ultralytics:yolo11n.yaml an untrained network"
PREDICTION_HINT = "a file that ultralytics reads: yolo predict model=FILE"
# Colour of the padding, and the overlap from which of two boxes of a class the better stays, as in its predictions.
GREY, OVERLAP = 114, 0.7
MOST_BOXES = 300


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
    """Load a YOLO detector with the weights of a file, or random ones from a ``.yaml`` file.

    Raises:
        RequestError: ultralytics is not installed; there is no such file, it cannot be read, or is no YOLO detector;
            or other weights, prompts or no head are requested.
    """
    model = _read_model(spec)
    head = model.model[-1]
    kind = type(head).__name__
    if kind not in ("Detect", "v10Detect"):
        raise RequestError(
            f"ultralytics:{spec.name} ends in {kind}, which is not the head of a YOLO detector",
            "camcli reads its detectors (task detect); return another from a function of yours: -m my_model.py:make",
        )
    side = model.args.get("imgsz", 640) if isinstance(model.args, dict) else getattr(model.args, "imgsz", 640)
    height, width = spec.size or ((side, side) if isinstance(side, int) else tuple(side))
    classes = tuple(str(model.names[index]) for index in range(len(model.names)))
    note = (
        f"images are letterboxed to {height}x{width}, as in batches of several shapes; ultralytics pads a single image "
        "less (rect)"
    )
    return Network(
        name=f"ultralytics:{spec.name}",
        module=Detector(model.float().eval(), spec.min_score).eval(),
        preprocess=Preprocess(
            (height, width), (0.0,) * 3, (1.0,) * 3, (height, width), "longer", "bilinear", GREY, "opencv"
        ),
        labels=Labels(classes),
        weights=spec.weights_kind,
        origin=f"random numbers from seed {spec.seed}" if spec.is_random else f"the file {spec.name}",
        activation="sigmoid",
        notes=(note,),
        output_spec=OutputSpec("detect"),
        pyramid="levels",
        wrapped_module=model,
    )


def _read_model(spec: ModelSpec) -> Any:
    """Read a file of weights, which runs the code in it, or build an untrained network."""
    full = f"ultralytics:{spec.name}"
    if spec.text or spec.headless:
        asked = "prompts" if spec.text else "--head none"
        raise RequestError(f"{full} finds boxes of classes of its own, and has no use for {asked}", "leave them out")
    untrained, path = spec.name.endswith((".yaml", ".yml")), Path(spec.name).expanduser()
    if spec.weights_file or (untrained != spec.is_random):
        raise RequestError(
            f"{full} {'has no weights' if untrained else 'is itself the file of weights'}",
            "add --weights random" if untrained else f"leave --weights out; {USAGE}",
        )
    try:
        from ultralytics.nn.tasks import DetectionModel, load_checkpoint
    except ImportError as error:
        raise RequestError(
            f"models named ultralytics: need ultralytics, which is not installed ({error})",
            "pip install ultralytics; it is under the AGPL, and so no part of camcli",
        ) from None
    if not untrained and not path.is_file():
        raise RequestError(f"there is no file {spec.name!r}", f"{USAGE}; camcli downloads none")
    try:
        if untrained:
            return DetectionModel(spec.name, verbose=False)
        return load_checkpoint(str(path))[0]
    except Exception as error:  # pickles and configurations raise all kinds of errors
        raise RequestError(
            f"{full} cannot be read: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}", PREDICTION_HINT
        ) from error


class Levels(nn.Module):
    """The feature maps that boxes are read from, finest first, by their names."""

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Return the maps as ``level0``, ``level1``, ..."""
        return {f"level{at}": one for at, one in enumerate(maps)}


class Detector(nn.Module):
    """A YOLO detector that returns what :mod:`camcli.targets.readers.candidates` reads.

    Attributes:
        model: the network of ultralytics; its last layer is the head.
        levels: the head's input.
    """

    def __init__(self, model: Any, min_score: float) -> None:
        super().__init__()
        self.model, self.levels, self._min_score = model, Levels(), min_score

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> list[dict[str, Any]]:
        """Return boxes and candidates of each image: of every cell of every level one."""
        head = self.model.model[-1]
        maps = list(self.levels(self._run_body(images)).values())
        raw = head.forward_head(maps, **(head.one2one if head.end2end else head.one2many))
        corners, logits = self._decode(head, raw), raw["scores"].transpose(1, 2)
        return [self._choose(*one, head.end2end) for one in zip(corners, logits, strict=True)]

    def _run_body(self, images: Tensor) -> list[Tensor]:
        """Run the layers before the head, each of which names those that it reads by ``f``."""
        given: Any = images
        outputs: list[Any] = []
        for layer in self.model.model:
            if layer.f != -1:
                sources = [layer.f] if isinstance(layer.f, int) else layer.f
                read = [given if at == -1 else outputs[at] for at in sources]
                given = read[0] if isinstance(layer.f, int) else read
            if layer is self.model.model[-1]:
                break
            given = layer(given)
            outputs.append(given if layer.i in self.model.save else None)
        return list(given)

    def _decode(self, head: Any, raw: dict[str, Any]) -> Float[Tensor, "n k 4"]:
        from ultralytics.utils.tal import dist2bbox, make_anchors

        anchors, strides = (one.transpose(0, 1) for one in make_anchors(raw["feats"], head.stride, 0.5))
        boxes: Tensor = dist2bbox(head.dfl(raw["boxes"]), anchors[None], xywh=False, dim=1) * strides
        return boxes.transpose(1, 2)

    def _choose(self, boxes: Tensor, logits: Tensor, end2end: bool) -> dict[str, Any]:
        """Keep what ultralytics keeps: the best class of a cell, without boxes that overlap a better one of it."""
        from torchvision.ops import batched_nms

        best, labels = logits.detach().float().sigmoid().max(1)
        if end2end:
            count = min(MOST_BOXES, len(best))
            cells = best.topk(count).indices
            scores, places = logits[cells].float().sigmoid().flatten().topk(count)
            kept, labels = cells[places // logits.shape[1]], places % logits.shape[1]
        else:
            [strong] = torch.nonzero(best > self._min_score, as_tuple=True)
            chosen = batched_nms(boxes[strong].detach().float(), best[strong], labels[strong], OVERLAP)[:MOST_BOXES]
            kept = strong[chosen]
            labels, scores = labels[kept], logits[kept, labels[kept]].float().sigmoid()
        candidates = {"boxes": boxes, "logits": logits, "kept": kept}
        return {"boxes": boxes[kept], "labels": labels, "scores": scores, "candidates": candidates}
