"""Removal of the classifier, the pooling or the resizing from torchvision models."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from camcli.base.errors import RequestError
from camcli.engine.hooks.watch import watch_outputs
from camcli.models.adapters import headless

# Names of poolings to one cell that can be removed.
POOLING_LAYERS = ("avgpool", "classifier.0")


@dataclass(slots=True)
class _MapShape:
    """Shape of a feature map: images, rows and columns."""

    images: int = 0
    rows: int = 0
    columns: int = 0


class _CellsToBatch(nn.Module):
    """Replacement of a pooling that moves cells into the batch, ``(n, c, h, w)`` to ``(n h w, c, 1, 1)``.

    The layers between pooling and classifier (flattening, norms, linear layers) then work cell by cell.
    """

    def __init__(self, map_shape: _MapShape) -> None:
        super().__init__()
        self.map_shape = map_shape

    def forward(self, map: Float[Tensor, "n c h w"]) -> Float[Tensor, "m c 1 1"]:
        """Return the cells, those of the first image first, row by row."""
        self.map_shape.images, _, self.map_shape.rows, self.map_shape.columns = map.shape
        return map.permute(0, 2, 3, 1).reshape(-1, map.shape[1], 1, 1)


class _BatchToCells(nn.Module):
    """Replacement of the classifier that restores the map from the cells, ``(n h w, c)`` to ``(n, c, h, w)``."""

    def __init__(self, map_shape: _MapShape) -> None:
        super().__init__()
        self.map_shape = map_shape

    def forward(self, cells: Float[Tensor, "m c"]) -> Float[Tensor, "n c h w"]:
        """Restore the map of the last call of :class:`_CellsToBatch`."""
        shape = self.map_shape
        return cells.reshape(shape.images, shape.rows, shape.columns, -1).permute(0, 3, 1, 2)


def remove_head(module: nn.Module) -> nn.Module:
    """Replace the module's classifier by the identity, in place; the other layers keep their names."""
    module.set_submodule(find_classifier_name(module), nn.Identity())
    return module


def remove_pooling(module: nn.Module, name: str, model: str, size: tuple[int, int]) -> str:
    """Remove a model's pooling and classifier, so that its output is a feature map ``(n, c, h, w)``.

    Returns:
        The name of the layer whose output is this map: the one before the pooling, or if layers with weights come
        after the pooling, the module in the classifier's place.

    Raises:
        RequestError: the model has no module that pools to one cell.
    """
    parts = dict(module.named_modules())
    place = next((one for one in POOLING_LAYERS if isinstance(parts.get(one), nn.AdaptiveAvgPool2d)), "")
    cells = parts[place].output_size if place else None
    if cells not in (1, (1, 1)):
        import timm

        theirs = f"try timm's model of that name: --model timm:{model}; " if timm.is_model(model) else ""
        raise RequestError(
            f"the pooling of {name} cannot be removed: "
            + (
                f"{place!r} pools to {cells[0]}x{cells[1]} cells" if cells else "no module of its own pools to one cell"
            ),
            f"leave --pool none out; {theirs}{headless.LAYER_HINT}",
        )
    head, map_shape, names = find_classifier_name(module), _MapShape(), list(parts)
    between = names[names.index(place) + 1 : names.index(head)]
    has_weights = any(True for one in between for _ in parts[one].parameters(recurse=False))
    module.set_submodule(place, _CellsToBatch(map_shape))
    module.set_submodule(head, _BatchToCells(map_shape))
    return head if has_weights else _find_layer_before(module, place, size)


def _find_layer_before(module: nn.Module, module_name: str, size: tuple[int, int]) -> str:
    """Find the outermost layer whose output is a module's input, unchanged; return an empty name if there is none."""
    given: list[Tensor] = []
    outputs: dict[str, Any] = {}
    watch = module.get_submodule(module_name).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with watch_outputs(module, outputs.__setitem__):
        headless.run_on_noise(module, size)
    watch.remove()
    return next((name for name, output in reversed(outputs.items()) if output is given[0]), "")


def find_classifier_name(module: nn.Module) -> str:
    """Find the name of a model's last linear or convolutional layer, whose output is the scores."""
    names: list[str] = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


class TransformWithoutResize(GeneralizedRCNNTransform):  # type: ignore[misc]
    """A detector's own preprocessing without its resizing, since images already have the final size."""

    def __init__(self, original: Any) -> None:
        super().__init__(
            original.min_size, original.max_size, original.image_mean, original.image_std, original.size_divisible
        )
        self.fixed_size = original.fixed_size

    def resize(self, image: Any, target: Any = None) -> tuple[Any, Any]:
        """Return the image unchanged; raise an error if it would need padding, whose cells lie outside the image."""
        height, width = image.shape[-2:]
        if height % self.size_divisible or width % self.size_divisible:
            raise RequestError(
                f"this detector takes images whose sides are multiples of {self.size_divisible}, not {height}x{width}"
            )
        return image, target
