"""A stand-in for libreyolo with one class, a YOLO 9 of two levels; and a file as libreyolo writes it."""

import sys
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

SIDE, STRIDES, CLASSES = 64, (8, 16), ("cat", "cup", "bee")


class Neck(nn.Module):
    """The levels."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 2, 2)

    def forward(self, images):
        fine = self.fine(images).relu()
        return fine, self.coarse(fine).relu()


class Yolo(nn.Module):
    """A box for each cell: the distances of its edges, and a logit for each class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.nc, self.neck = classes, Neck()
        self.head = nn.ModuleList(nn.Conv2d(8, 4 + classes, 1) for _ in STRIDES)

    def forward(self, images):
        raw = [head(level) for head, level in zip(self.head, self.neck(images), strict=True)]
        boxes = []
        for one, stride in zip(raw, STRIDES, strict=True):
            across = (torch.arange(one.shape[3]) + 0.5).repeat(one.shape[2])
            down = (torch.arange(one.shape[2]) + 0.5).repeat_interleave(one.shape[3])
            near, far = F.softplus(one[:, :4]).flatten(2).split(2, 1)
            centres = torch.stack([across, down]).to(one)
            boxes.append(torch.cat([centres - near, centres + far], 1) * stride)
        scores = torch.cat([one[:, 4:].flatten(2) for one in raw], 2).sigmoid()
        return {"predictions": torch.cat([torch.cat(boxes, 2), scores], 1), "raw_outputs": raw}


class LibreYOLO9:
    """The class that libreyolo has for the family."""

    def __init__(self, model_path, size, nb_classes, device, task) -> None:
        if size != "t":
            raise ValueError(f"Invalid size: {size}. Must be one of: t")
        self.model, self.input_size = Yolo(nb_classes), SIDE
        self.model.load_state_dict(model_path, strict=False)


def install(monkeypatch):
    """Put the stand-in where an import finds it."""
    library, models = ModuleType("libreyolo"), ModuleType("libreyolo.models")
    library.models, models.LibreYOLO9 = models, LibreYOLO9
    monkeypatch.setitem(sys.modules, "libreyolo", library)
    monkeypatch.setitem(sys.modules, "libreyolo.models", models)


def write(path, leave_out="", **changes):
    """Write a file of an untrained network; return its network."""
    torch.manual_seed(0)
    network = Yolo(len(CLASSES))
    for head in network.head:
        head.weight.data.mul_(4)
    state = {name: value for name, value in network.state_dict().items() if name != leave_out}
    about = {"schema_version": "1.0", "model_family": "yolo9", "size": "t", "task": "detect", "nc": len(CLASSES)}
    torch.save({"model": state, **about, "names": dict(enumerate(CLASSES)), "imgsz": SIDE, **changes}, path)
    return network.eval()
