"""A method as it was asked for: its function, the evidence it wants, the values of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from camcli.base import signature
from camcli.base.errors import RequestError
from camcli.engine.signals.evidence import Evidence
from camcli.methods import EVIDENCE, METHODS, MethodRow
from camcli.methods.concept import Concepts
from camcli.targets import AUTO

# What a method can be handed that asks for no class.
OF_NO_CLASS = frozenset({"act", "fitted", "rest_scores"})
# Of which a map can be made that is the same for every class.
CLASSLESS = OF_NO_CLASS | {"images", "attn", "spread", "channel"}


@dataclass(frozen=True, slots=True)
class Formula:
    """One function of the table.

    Attributes:
        row: where it stands.
        function: from evidence to maps; of kind ``backprop`` a rule for the gradient at ReLUs.
        wants: the names of the evidence, in order; of a rule none.
        options: values of its options; the others keep their defaults.
    """

    row: MethodRow
    function: Callable[..., Any]
    wants: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, evidence: Evidence, layer: str) -> Tensor:
        """The maps."""
        if self.row.kind == "backprop":
            name = f"{self.row.name} {sorted(self.options.items())}"
            return evidence.ruled(name, partial(self.function, **self.options), self.everywhere)
        map: Tensor = self.found(evidence, layer)
        return map

    def found(self, evidence: Evidence, layer: str, **more: Any) -> Any:
        """What the function returns; ``more`` is evidence that somebody else has."""
        given = (more[name] if name in more else evidence.get(name, layer) for name in self.wants)
        return self.function(*given, **self.options)

    @property
    def everywhere(self) -> bool:
        """Whether it is a rule that holds at every element-wise activation, and not at ReLUs alone."""
        known = signature.options(self.function) if self.row.kind == "backprop" else {}
        return "activations" in known and self.options.get("activations", known["activations"].default) == "all"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One method, of one formula or the product of several.

    Attributes:
        row: of the method.
        formulas: what it is made of.
        fusion: how its paper fuses the maps of several layers, if it says.
        fit: from cells of a layer's output ``(m, c)`` to what the method is handed as ``fitted``, if it was asked to
            be fitted on several pictures together.
    """

    row: MethodRow
    formulas: tuple[Formula, ...]
    fusion: Callable[..., Tensor] | None = None
    fit: Callable[[Tensor], Tensor] | None = None

    def __call__(self, evidence: Evidence, layer: str) -> Tensor:
        """The maps: ``(n, h, w)``; with colours at the input ``(n, 3, H, W)``."""
        maps = [formula(evidence, layer) for formula in self.formulas]
        return maps[0] if len(maps) == 1 else _product(maps, evidence.get("onto_input", layer))

    def concepts(self, evidence: Evidence, layer: str, fitted: Tensor | None) -> Concepts:
        """What it finds, if it is a method that finds concepts."""
        found: Concepts = self.formulas[0].found(evidence, layer, fitted=fitted)
        return found

    @property
    def of_concepts(self) -> bool:
        """Whether it finds concepts, and explains no class."""
        return self.row.kind == "concept"

    @property
    def wants(self) -> frozenset[str]:
        """The names of all evidence it wants."""
        return frozenset(name for formula in self.formulas for name in formula.wants)

    @property
    def at_layer(self) -> bool:
        """Whether it looks at a layer."""
        return any(EVIDENCE[name][0] == "layer" for name in self.wants)

    @property
    def at_input(self) -> bool:
        """Whether it looks at the input, so that its maps there have colours."""
        return self.ruled or any(EVIDENCE[name][0] == "input" for name in self.wants)

    @property
    def of_channel(self) -> bool:
        """Whether it shows a channel of the layer, and no class."""
        return "channel" in self.wants

    @property
    def classless(self) -> bool:
        """Whether nothing that it is handed depends on the class, so that its map is the same for every one."""
        return self.of_concepts or (not self.ruled and self.wants <= CLASSLESS)

    @property
    def ruled(self) -> bool:
        """Whether it has a rule for the gradient at ReLUs."""
        return any(formula.row.kind == "backprop" for formula in self.formulas)

    @property
    def everywhere(self) -> bool:
        """Whether that rule holds at every element-wise activation, and not at ReLUs alone."""
        return any(formula.everywhere for formula in self.formulas)

    @property
    def options(self) -> dict[str, Any]:
        """Every option with the value it has."""
        return {
            name: formula.options.get(name, option.default)
            for formula in self.formulas
            for name, option in signature.options(formula.function).items()
        }


def parts(row: MethodRow) -> list[MethodRow]:
    """The rows with functions that a method is made of."""
    return [METHODS.find(name) for name in row.parts or (row.name,)]


def options_of(row: MethodRow) -> dict[str, signature.Option]:
    """The options of a method, by name."""
    return {name: option for part in parts(row) for name, option in signature.options(METHODS.load(part.name)).items()}


def descriptions(row: MethodRow) -> list[str]:
    """What the docstring of each of a method's functions says, without its options."""
    functions = [METHODS.load(part.name) for part in parts(row)]
    return [signature.description(inspect.getdoc(function) or "") for function in functions]


def recipes(
    method: str | Sequence[str], options: Mapping[str, Any] | Sequence[str] = (), boxes: bool = False
) -> tuple[Recipe, ...]:
    """The methods of these names (or of one, perhaps several joined by commas), each once, with their options.

    ``auto`` is Grad-CAM, and HiResCAM where ``boxes`` are explained: a channel's mean gradient forgets where one is.

    Raises:
        RequestError: there is no such method or option, an option cannot have its value, or a method's function asks
            for evidence that does not exist.
    """
    words = [method] if isinstance(method, str) else method
    given = (name.strip() for word in words for name in word.split(",") if name.strip())
    auto = "hirescam" if boxes else "gradcam"
    names = list(dict.fromkeys(auto if name == AUTO else name for name in given))
    if not names:
        raise RequestError("no method is named", f"there are: {', '.join(METHODS.names())}")
    rows = [METHODS.find(name) for name in names]
    if isinstance(options, Mapping):
        options = [f"{name}={signature.written(value)}" for name, value in options.items()]
    values = signature.given(options, {row.name: options_of(row) for row in rows})
    return tuple(_recipe(row, values[row.name]) for row in rows)


def _recipe(row: MethodRow, values: Mapping[str, Any]) -> Recipe:
    fusion = METHODS.beside(row, row.fuse) if row.fuse else None
    recipe = Recipe(row, tuple(_formula(part, values) for part in parts(row)), fusion)
    if not row.fit or recipe.options.get("over") != "set":
        return recipe
    fit = METHODS.beside(row, row.fit)
    own = {name: recipe.options[name] for name in signature.options(fit)}
    return replace(recipe, fit=partial(fit, **own))


def _formula(row: MethodRow, values: Mapping[str, Any]) -> Formula:
    function = METHODS.load(row.name)
    own = {name: values[name] for name in signature.options(function) if name in values}
    if row.kind == "backprop":
        return Formula(row, function, (), own)
    wants = signature.evidence(function)
    if row.kind == "concept" and (other := set(wants) - OF_NO_CLASS):
        raise RequestError(
            f"the method {row.name!r} finds concepts, which are of no class, and asks for {', '.join(sorted(other))}",
            f"such a method can be handed {', '.join(sorted(OF_NO_CLASS))}",
        )
    if row.kind != "concept" and "fitted" in wants:
        raise RequestError(
            f"the method {row.name!r} asks for 'fitted', and is of kind {row.kind}",
            "what is fitted on several pictures is handed to methods of kind concept",
        )
    for name in wants:
        if name not in EVIDENCE:
            raise RequestError(
                f"the function of the method {row.name!r} asks for {name!r}, and there is no such evidence",
                "there are:\n" + "\n".join(f"  {known}: {what}" for known, (_, what) in EVIDENCE.items()),
            )
    return Formula(row, function, wants, own)


def _product(maps: Sequence[Tensor], onto_input: Callable[[Tensor], Tensor]) -> Float[Tensor, "n d h w"]:
    """Maps multiplied at the input's size (Selvaraju 2017, sec. 3.2): those of a layer rectified, then bilinear."""
    result: Tensor | None = None
    for map in maps:
        if map.ndim == 3:
            map = onto_input(map.relu().unsqueeze(1))
        result = map if result is None else result * map
    assert result is not None
    return result
