"""The registries: every row loads, and rows of other packages are found."""

import re
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from camcli import methods, models, outputs, targets
from camcli.base import registry
from camcli.base.errors import RequestError
from camcli.base.registry import Registry

GROUP = "camcli.methods"
# What no paper defines.
WITHOUT_PAPER = {"random", "eigen-gradcam", "activation"}


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Entry points that another package would bring: name to module:function; and that package."""
    points: dict[str, str] = {}
    module = types.ModuleType("stranger")
    module.shine = lambda act, grad: act  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stranger", module)

    def find_entry_points() -> EntryPoints:
        return EntryPoints(EntryPoint(name, value, GROUP) for name, value in points.items())

    monkeypatch.setattr(registry, "find_entry_points", find_entry_points)
    yield points


def table() -> Registry[methods.MethodRow]:
    return Registry(
        methods.MethodRow,
        GROUP,
        "method",
        methods.MethodRow("gradient", "gradcam", "means"),
        methods.MethodRow("backprop", "guided-backprop"),
    )


@pytest.mark.parametrize("whole", [methods.METHODS, targets.TARGETS, outputs.OUTPUTS, models.SOURCES])
def test_every_row_of_ours_loads_and_no_name_is_taken_twice(whole: Registry) -> None:
    assert len(set(whole.names())) == len(whole.names()) > 0
    for row in whole.builtin_rows:
        if parts := getattr(row, "parts", ()):
            assert all(part in whole.names() for part in parts)
        else:
            assert callable(whole.load(row.name))
        assert row.summary


@pytest.mark.parametrize("row", methods.METHODS.builtin_rows, ids=lambda row: row.name)
def test_every_method_names_its_source(row: methods.MethodRow) -> None:
    if row.name in WITHOUT_PAPER:
        assert row.paper.startswith("no paper; ")
    else:
        assert re.fullmatch(r"\w+ \d{4}, (arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/\S+)", row.paper)


def test_every_output_has_a_suffix_of_its_own() -> None:
    suffixes = [row.suffix for row in outputs.OUTPUTS.builtin_rows]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") for suffix in suffixes)


@pytest.mark.parametrize(
    ("given", "meant"), [("gradcm", "'gradcam'"), ("GradCAM", "'gradcam'"), ("guided", "'guided-backprop'")]
)
def test_a_misspelt_name_brings_the_nearest_and_all(given: str, meant: str) -> None:
    with pytest.raises(RequestError, match=f"there is no method '{given}'") as caught:
        table().find(given)
    assert f"did you mean {meant}?" in caught.value.hint
    assert "there are: gradcam, guided-backprop" in caught.value.hint


def test_a_name_like_none_brings_all_and_guesses_nothing() -> None:
    with pytest.raises(RequestError) as caught:
        table().find("xyz")
    assert caught.value.hint == "there are: gradcam, guided-backprop"


def test_a_row_of_another_package_is_found_and_loaded(brought: dict[str, str]) -> None:
    brought["gradient.shine"] = "stranger:shine"
    found = table()
    assert found.names() == ["gradcam", "guided-backprop", "shine"]
    assert found.find("shine").kind == "gradient"
    assert found.load("shine") is sys.modules["stranger"].shine  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["gradient.gradcam", "shine", "gradient."])
def test_an_entry_point_that_takes_a_name_or_has_none_is_refused(brought: dict[str, str], name: str) -> None:
    brought[name] = "stranger:shine"
    with pytest.raises(RequestError, match=r"the entry point .* \(stranger:shine\) cannot be a method"):
        table().names()


def test_two_packages_cannot_bring_one_name(brought: dict[str, str]) -> None:
    brought["gradient.shine"] = "stranger:shine"
    brought["backprop.shine"] = "stranger:shine"
    with pytest.raises(RequestError, match="cannot be a method"):
        table().names()
