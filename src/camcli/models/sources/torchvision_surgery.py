"""Models of torchvision without their classifier, without their pooling, or without their own resizing."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from camcli.base.errors import RequestError
from camcli.engine.hooks.watch import listened
from camcli.models.adapters import headless

# Where models have a pooling to one cell that can be left out.
POOLINGS = ("avgpool", "classifier.0")


@dataclass(slots=True)
class _Form:
    """Of the map that is taken apart, images, rows and columns."""

    images: int = 0
    rows: int = 0
    columns: int = 0


class _Apart(nn.Module):
    """In place of a pooling: every cell goes on as an image of its own, ``(n, c, h, w)`` to ``(n h w, c, 1, 1)``.

    So whatever stands between pooling and classifier (flattening, norms, linear layers) is done cell by cell.
    """

    def __init__(self, form: _Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, map: Float[Tensor, "n c h w"]) -> Float[Tensor, "m c 1 1"]:
        """The cells, those of the first image first, row by row."""
        self.form.images, _, self.form.rows, self.form.columns = map.shape
        return map.permute(0, 2, 3, 1).reshape(-1, map.shape[1], 1, 1)


class _Together(nn.Module):
    """In place of the classifier: the cells as a map again, ``(n h w, c)`` to ``(n, c, h, w)``."""

    def __init__(self, form: _Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, cells: Float[Tensor, "m c"]) -> Float[Tensor, "n c h w"]:
        """The map of the last call of :class:`_Apart`."""
        form = self.form
        return cells.reshape(form.images, form.rows, form.columns, -1).permute(0, 3, 1, 2)


def without_head(module: nn.Module) -> nn.Module:
    """The module itself, its classifier replaced by what passes on; the names of the others stay."""
    module.set_submodule(classifier_name(module), nn.Identity())
    return module


def without_pooling(module: nn.Module, name: str, model: str, size: tuple[int, int]) -> str:
    """Take off a model's pooling and its classifier, so that it gives a map of features ``(n, c, h, w)``.

    Returns:
        The layer that gives this map: the one before the pooling, or where something with weights stands between, the
        module in the classifier's place.

    Raises:
        RequestError: it has no module that pools to one cell.
    """
    parts = dict(module.named_modules())
    place = next((one for one in POOLINGS if isinstance(parts.get(one), nn.AdaptiveAvgPool2d)), "")
    cells = parts[place].output_size if place else None
    if cells not in (1, (1, 1)):
        import timm

        theirs = f"timm's model of that name may do: --model timm:{model}; " if timm.is_model(model) else ""
        raise RequestError(
            f"{name} cannot be had without its pooling: "
            + (
                f"{place!r} pools to {cells[0]}x{cells[1]} cells" if cells else "no module of its own pools to one cell"
            ),
            f"leave --pool none out; {theirs}{headless.AT_A_LAYER}",
        )
    head, form, names = classifier_name(module), _Form(), list(parts)
    between = names[names.index(place) + 1 : names.index(head)]
    alone = any(True for one in between for _ in parts[one].parameters(recurse=False))
    module.set_submodule(place, _Apart(form))
    module.set_submodule(head, _Together(form))
    return head if alone else _before(module, place, size)


def _before(module: nn.Module, place: str, size: tuple[int, int]) -> str:
    """The layer whose output a module is given as it is; of one inside another the outer; nothing if there is none."""
    given: list[Tensor] = []
    said: dict[str, Any] = {}
    watch = module.get_submodule(place).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with listened(module, said.__setitem__):
        headless.tried(module, size)
    watch.remove()
    return next((name for name, output in reversed(said.items()) if output is given[0]), "")


def classifier_name(module: nn.Module) -> str:
    """The name of a classifier's last layer with weights, which gives the scores."""
    names: list[str] = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


class SizeAsGiven(GeneralizedRCNNTransform):  # type: ignore[misc]
    """A detector's own preparation, but for the size: the pictures come as large as they shall be."""

    def __init__(self, like: Any) -> None:
        super().__init__(like.min_size, like.max_size, like.image_mean, like.image_std, like.size_divisible)
        self.fixed_size = like.fixed_size

    def resize(self, image: Any, target: Any = None) -> tuple[Any, Any]:
        """The image as it is; padded to whole cells of the pyramid, its grid would reach beyond it."""
        height, width = image.shape[-2:]
        if height % self.size_divisible or width % self.size_divisible:
            raise RequestError(
                f"this detector takes images whose sides are multiples of {self.size_divisible}, not {height}x{width}"
            )
        return image, target
