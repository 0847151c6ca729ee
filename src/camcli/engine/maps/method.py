"""A method bound to its function, the signals that the function takes, and the values of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from camcli.base import signature
from camcli.base.deprecated import warn_renamed
from camcli.base.errors import RequestError
from camcli.engine.signals.lookup import Signals
from camcli.methods import METHODS, RENAMED_SIGNALS, SIGNALS, MethodRow
from camcli.methods.concept import Concepts
from camcli.targets import AUTO

if TYPE_CHECKING:
    from camcli.engine.network import Network

# Signals that a method without a class can take.
CONCEPT_SIGNALS = frozenset({"act", "basis", "logits_from_layer"})
# Signals whose maps are the same for every class.
CLASSLESS_SIGNALS = CONCEPT_SIGNALS | {"images", "attn", "rows_to_grid", "channel"}


@dataclass(frozen=True, slots=True)
class Formula:
    """One function of the table of methods.

    Attributes:
        row: the function's row.
        function: from signals to maps; for kind ``backprop`` a backward rule for ReLUs.
        signal_names: names of the signals that the function takes, in order; none for a rule.
        options: values of its options; the others keep their defaults.
    """

    row: MethodRow
    function: Callable[..., Any]
    signal_names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, signals: Signals, layer: str) -> Tensor:
        """Compute the maps."""
        if self.row.kind == "backprop":
            name = f"{self.row.name} {sorted(self.options.items())}"
            return signals.gradient_by_rule(name, partial(self.function, **self.options), self.rule_is_everywhere)
        map: Tensor = self.compute(signals, layer)
        return map

    def compute(self, signals: Signals, layer: str, **more: Any) -> Any:
        """Call the function; signals in ``more`` take precedence over ``signals``."""
        given = (more[name] if name in more else signals.get(name, layer) for name in self.signal_names)
        return self.function(*given, **self.options)

    @property
    def rule_is_everywhere(self) -> bool:
        """True for a backward rule that holds at every element-wise activation function, not at ReLUs alone."""
        known = signature.read_options(self.function) if self.row.kind == "backprop" else {}
        return "activations" in known and self.options.get("activations", known["activations"].default) == "all"


@dataclass(frozen=True, slots=True)
class BoundMethod:
    """A method with its options: one formula, or the product of several.

    Attributes:
        row: the method's row.
        formulas: the formulas that the method multiplies.
        fusion: the paper's fusion of the maps of several layers, if there is one.
        fit: from cells of a layer's output, ``(m, c)`` of each image, to the method's ``basis``, if the method is to be
            fitted on several images together.
    """

    row: MethodRow
    formulas: tuple[Formula, ...]
    fusion: Callable[..., Tensor] | None = None
    fit: Callable[[Iterable[Tensor]], Tensor] | None = None

    def __call__(self, signals: Signals, layer: str) -> Tensor:
        """Compute the maps: ``(n, h, w)``; ``(n, 3, H, W)`` if they have colours at the input."""
        maps = [formula(signals, layer) for formula in self.formulas]
        return maps[0] if len(maps) == 1 else _multiply_maps(maps, signals.get("onto_input", layer))

    def find_concepts(self, signals: Signals, layer: str, basis: Tensor | None) -> Concepts:
        """Find concepts, if this is a method that does."""
        found: Concepts = self.formulas[0].compute(signals, layer, basis=basis)
        return found

    @property
    def finds_concepts(self) -> bool:
        """True if the method finds concepts and explains no class."""
        return self.row.kind == "concept"

    @property
    def ranks_concepts(self) -> bool:
        """True if it is asked how much each concept matters to the classes explained."""
        return self.finds_concepts and bool(self.options.get("importance"))

    @property
    def signal_names(self) -> frozenset[str]:
        """Names of all signals that the method needs."""
        return frozenset(name for formula in self.formulas for name in formula.signal_names)

    @property
    def uses_layer(self) -> bool:
        """True if the method uses a layer."""
        return any(SIGNALS[name][0] == "layer" for name in self.signal_names)

    @property
    def uses_input(self) -> bool:
        """True if the method uses the input, so that its maps there have colours."""
        return self.has_rule or any(SIGNALS[name][0] == "input" for name in self.signal_names)

    @property
    def explains_channel(self) -> bool:
        """True if the method shows a channel of the layer and no class."""
        return "channel" in self.signal_names

    @property
    def is_classless(self) -> bool:
        """True if no signal depends on the class, so that the map is the same for every class."""
        return self.finds_concepts or (not self.has_rule and self.signal_names <= CLASSLESS_SIGNALS)

    @property
    def has_rule(self) -> bool:
        """True if the method has a backward rule for ReLUs."""
        return any(formula.row.kind == "backprop" for formula in self.formulas)

    @property
    def rule_is_everywhere(self) -> bool:
        """True if that rule holds at every element-wise activation function, not at ReLUs alone."""
        return any(formula.rule_is_everywhere for formula in self.formulas)

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its value."""
        return {
            name: formula.options.get(name, option.default)
            for formula in self.formulas
            for name, option in signature.read_options(formula.function).items()
        }


def list_parts(row: MethodRow) -> list[MethodRow]:
    """List the rows of the functions that a method is made of."""
    return [METHODS.find(name) for name in row.parts or (row.name,)]


def read_method_options(row: MethodRow) -> dict[str, signature.Option]:
    """Return the options of a method, by name."""
    return {
        name: option
        for part in list_parts(row)
        for name, option in signature.read_options(METHODS.load(part.name)).items()
    }


def describe_method(row: MethodRow) -> list[str]:
    """Return the docstring of each of a method's functions, without its options."""
    functions = [METHODS.load(part.name) for part in list_parts(row)]
    return [signature.strip_arguments(inspect.getdoc(function) or "") for function in functions]


def default_method(network: Network | None) -> str:
    """Return the method of a network if none is named.

    It is Grad-CAM; ODAM where boxes are explained, since a channel's mean gradient forgets where one is; without
    gradients Recipro-CAM, and of boxes D-RISE.
    """
    boxes = network is not None and network.output_spec.task == "detect"
    if network and network.without_gradient:
        return "rise" if boxes else "recipro-cam"
    return "odam" if boxes else "gradcam"


def bind_methods(
    method: str | Sequence[str], options: Mapping[str, Any] | Sequence[str] = (), auto: str = "gradcam"
) -> tuple[BoundMethod, ...]:
    """Bind the methods of these names (or of one, perhaps several joined by commas), each once, to their options.

    Args:
        method: names.
        options: options of the methods.
        auto: the method that ``auto`` stands for, as :func:`default_method` says.

    Raises:
        RequestError: there is no such method or option, an option cannot have its value, or a method's function names a
            signal that does not exist.
    """
    words = [method] if isinstance(method, str) else method
    given = (name.strip() for word in words for name in word.split(",") if name.strip())
    names = list(dict.fromkeys(auto if name == AUTO else name for name in given))
    if not names:
        raise RequestError("no method is named", f"there are: {', '.join(METHODS.names())}")
    rows = list(dict.fromkeys(METHODS.find(name) for name in names))
    if isinstance(options, Mapping):
        options = [f"{name}={signature.format_value(value)}" for name, value in options.items()]
    values = signature.parse_options(options, {row.name: read_method_options(row) for row in rows})
    return tuple(_bind_method(row, values[row.name]) for row in rows)


def _bind_method(row: MethodRow, values: Mapping[str, Any]) -> BoundMethod:
    fusion = METHODS.load_function(row, row.fuse) if row.fuse else None
    method = BoundMethod(row, tuple(_bind_formula(part, values) for part in list_parts(row)), fusion)
    if not row.fit or method.options.get("over") != "set":
        return method
    fit = METHODS.load_function(row, row.fit)
    own = {name: method.options[name] for name in signature.read_options(fit)}
    return replace(method, fit=partial(fit, **own))


def _bind_formula(row: MethodRow, values: Mapping[str, Any]) -> Formula:
    function = METHODS.load(row.name)
    own = {name: values[name] for name in signature.read_options(function) if name in values}
    if row.kind == "backprop":
        return Formula(row, function, (), own)
    signal_names = tuple(_find_signal(row, name) for name in signature.positional_names(function))
    if row.kind == "concept" and (other := set(signal_names) - CONCEPT_SIGNALS):
        raise RequestError(
            f"the method {row.name!r} finds concepts, which belong to no class, and takes {', '.join(sorted(other))}",
            f"such a method can take {', '.join(sorted(CONCEPT_SIGNALS))}",
        )
    if row.kind != "concept" and "basis" in signal_names:
        raise RequestError(
            f"the method {row.name!r} takes 'basis', and is of kind {row.kind}",
            "only methods of kind concept can be fitted on several images",
        )
    return Formula(row, function, signal_names, own)


def _find_signal(row: MethodRow, name: str) -> str:
    """Return the signal that a parameter of a method's function names."""
    if name in RENAMED_SIGNALS:
        warn_renamed(f"the signal {name!r}, which the method {row.name!r} takes,", repr(RENAMED_SIGNALS[name]))
        return RENAMED_SIGNALS[name]
    if name not in SIGNALS:
        raise RequestError(
            f"the function of the method {row.name!r} takes {name!r}, and there is no such signal",
            "there are:\n" + "\n".join(f"  {known}: {what}" for known, (_, what) in SIGNALS.items()),
        )
    return name


def _multiply_maps(maps: Sequence[Tensor], onto_input: Callable[[Tensor], Tensor]) -> Float[Tensor, "n d h w"]:
    """Multiply maps at the input's size (Selvaraju 2017, sec. 3.2); those of a layer are rectified, then upsampled."""
    result: Tensor | None = None
    for map in maps:
        if map.ndim == 3:
            map = onto_input(map.relu().unsqueeze(1))
        result = map if result is None else result * map
    assert result is not None
    return result
