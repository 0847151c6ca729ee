"""The example of a new method in CONTRIBUTING.md is what it says it is."""

import re

import torch
from jaxtyping import Float
from networks import Small, pictures
from shared import ROOT
from torch import Tensor

from camcli import Explainer
from camcli.engine.maps.method import describe_method, read_method_options
from camcli.methods import METHODS, MethodRow
from camcli.methods.gradient import gradcam


def block(what: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [found] = re.findall(rf"<!-- a test runs this: {what} -->\n```python\n(.*?)```", text, re.DOTALL)
    return found


def test_the_example_of_a_method_works(monkeypatch) -> None:
    scope = {"Float": Float, "Tensor": Tensor}
    exec(block("the function"), scope)
    row = eval(block("the row"), {"MethodRow": MethodRow})
    assert len(block("the function").strip().splitlines()) <= 14
    load = METHODS.load
    monkeypatch.setattr(METHODS, "rows", (*METHODS.rows, row))
    monkeypatch.setattr(METHODS, "load", lambda name: scope["sharpcam"] if name == row.name else load(name))
    act, grad = pictures(2), pictures(2, seed=1)
    assert torch.equal(scope["sharpcam"](act, grad, power=1), gradcam(act, grad))
    [[plain]] = Explainer(Small(), layers=["conv2"])(pictures(1, 16), 1)
    for power, same in ((1, True), (3, False)):
        explain = Explainer(Small(), layers=["conv2"], method=row.name, options={"power": power})
        [[one]] = explain(pictures(1, 16), 1)
        assert (abs(one.map - plain.map).max() < 1e-6) == same
    [option] = read_method_options(row).values()
    assert (option.name, option.default, option.meaning) == ("power", 2.0, "1 is Grad-CAM.")
    assert describe_method(row)[0].endswith("Not for: activations that can be negative.")


def test_every_room_stands_in_the_plan_of_the_house() -> None:
    plan = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    package = ROOT / "src" / "camcli"
    folder, depth, listed = [], 0, set()
    for line in plan.splitlines()[2:]:
        indent = len(line) - len(line.lstrip())
        if indent > 10:  # names of files
            listed.update("/".join([*folder, f"{name}.py"]) for name in line.split())
        elif line.split()[0].endswith("/"):
            depth = indent // 2
            folder = [*folder[: depth - 1], line.split()[0].rstrip("/")]
        else:
            listed.add(line.split()[0])
    there = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert listed == {path for path in there if path.count("/") == 0 or not path.endswith("__init__.py")}
