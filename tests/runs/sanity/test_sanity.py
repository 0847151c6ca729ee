"""Sanity checks: what is drawn anew and restored, curves that can be worked out, and verdicts."""

import csv
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import do
from shared import BLUE, GREEN, RED, Paint
from torch import nn

from camcli.images.view import View
from camcli.runs.job.job import Job
from camcli.runs.sanity import TESTS, SanityJob, SanityRow
from camcli.runs.sanity.compare import Similarities, compare, judge, measure_complexity, rank
from camcli.runs.sanity.randomise import LEAST_PARTS, Redrawing, find_parts, shifted
from camcli.runs.sanity.run import SanityRun

WHOLE = View((16, 16), (16, 16), (0.0, 0.0, 16.0, 16.0))


class Net(nn.Module):
    """A network whose parts run in another order than they are registered in, with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.head = nn.Linear(4, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(9))
        self.stem = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        found = self.stem(images) * self.scale[0]
        for block in self.blocks:
            found = block(found).relu()
        return self.head(found.mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def parts_of(net: nn.Module) -> list:
    return find_parts(net, lambda: net(torch.rand(1, 3, 16, 16)))


def test_parts_are_in_running_order_and_hold_each_parameter_once(net: Net) -> None:
    parts = parts_of(net)
    names = [part.name for part in parts]
    assert names[0] == "(network)"
    assert [name for name in names if not name.startswith("blocks")] == ["(network)", "stem", "head"]
    assert names[1] == "stem"
    assert names[-1] == "head"
    assert len(parts) >= LEAST_PARTS
    held = [name for part in parts for name in part.parameters]
    assert sorted(held) == sorted(name for name, _ in net.named_parameters())


def test_a_small_network_is_divided_into_all_its_modules() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Conv2d(3, 2, 1), b=nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1))))
    assert [part.name for part in parts_of(net)] == ["a", "b.1"]


def test_shared_parameters_are_in_one_part() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    net[1].weight = net[0].weight
    assert [[*part.parameters] for part in parts_of(net)] == [["0.weight", "0.bias"], ["1.bias"]]


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_network_is_restored_to_the_bit(net: Net, error: type[BaseException] | None) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    flags = [one.requires_grad for one in net.parameters()]
    try:
        with Redrawing(parts_of(net), 0) as redrawing:
            for part in parts_of(net):
                redrawing.draw(part)
            assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [one.requires_grad for one in net.parameters()] == flags
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_values_keep_their_spread_and_depend_on_their_name_and_the_seed_alone() -> None:
    net = nn.Conv2d(64, 64, 3)
    [part] = find_parts(nn.Sequential(net), lambda: None)
    before, drawn = net.weight.detach().clone(), []
    with Redrawing([part], 1) as redrawing:
        for _ in range(2):
            redrawing.draw(part)
            drawn.append(net.weight.detach().clone())
            redrawing.restore()
    with Redrawing([part], 2) as redrawing:
        redrawing.draw(part)
        assert not torch.equal(net.weight, drawn[0])
    assert torch.equal(*drawn)
    assert float(drawn[0].std()) == pytest.approx(float(before.std()), rel=0.02)
    assert abs(np.corrcoef(drawn[0].ravel(), before.ravel())[0, 1]) < 0.05


def test_what_has_one_value_is_not_changed() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3))  # weights of 1, biases of 0
    [part] = parts_of(net.eval())
    with Redrawing([part], 0) as redrawing:
        assert not redrawing.draw(part)


def test_a_shifted_network_makes_of_a_shifted_input_what_it_made_without(net: Net) -> None:
    images = torch.rand(2, 3, 16, 16)
    with shifted(net, 2.0):
        torch.testing.assert_close(net(images + 2.0), net.eval()(images + 2.0))
        found = net(images + 2.0)
    torch.testing.assert_close(found, net(images), rtol=1e-4, atol=1e-5)


def test_ranks_share_their_mean_where_values_are_equal() -> None:
    map = np.array([[3.0, 1.0], [1.0, -2.0]], np.float32)
    np.testing.assert_array_equal(rank(map), [[4, 2.5], [2.5, 1]])


def test_spearman_sees_order_alone() -> None:
    one = np.random.default_rng(0).random((16, 16), np.float32)
    found = compare(one, np.exp(9 * one), WHOLE)
    assert found["spearman"] == pytest.approx(1)
    assert found["pearson"] < 0.9
    same = compare(one, one, WHOLE)
    assert [round(value, 6) for value in same.values()] == [1, 1, 1]


def test_the_complexity_of_a_map_is_the_entropy_of_its_histogram() -> None:
    two = np.zeros((16, 16), np.float32)
    two[:4] = 1  # a quarter of the pixels
    assert measure_complexity(two, WHOLE) == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75))
    ramp = np.arange(256, dtype=np.float32).reshape(16, 16)
    assert measure_complexity(ramp, WHOLE) == pytest.approx(np.log(100), rel=0.01)
    assert measure_complexity(0 * two, WHOLE) == 0
    # However strong it is, and whatever padding around it is like.
    assert measure_complexity(-7 * two, WHOLE) == pytest.approx(measure_complexity(two, WHOLE))
    view = View(picture=(8, 16), input=(16, 16), box=(0.0, -4.0, 16.0, 12.0))
    padded = np.random.default_rng(0).random((16, 16), np.float32)
    padded[4:12] = two[:8]
    assert measure_complexity(padded, view) == pytest.approx(np.log(2))


def test_the_rise_is_relative_and_none_without_a_first_complexity() -> None:
    one = np.zeros((16, 16), np.float32)
    one[:8] = 1
    four = np.repeat(np.arange(4, dtype=np.float32), 64).reshape(16, 16)
    found = Similarities()
    found.add(one, four, WHOLE)
    assert found.make_row(("m", ""), test="cascade").rise == pytest.approx(np.log(4) / np.log(2) - 1)
    assert Similarities().make_row(("m", ""), test="cascade").rise is None


def test_padding_is_not_compared() -> None:
    """A wide image in a square: the rows of cells above and below it show nothing of it."""
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 4, 4), np.float32)
    view = View(picture=(8, 16), input=(16, 16), box=(0.0, -4.0, 16.0, 12.0))
    part = View(picture=(8, 16), input=(8, 16), box=(0.0, 0.0, 16.0, 8.0))
    alike = compare(one, other, view)
    cropped = compare(one[1:3], other[1:3], part)
    assert [alike[name] for name in ("pearson", "spearman")] == pytest.approx(
        [cropped[name] for name in ("pearson", "spearman")]
    )
    assert compare(one, np.concatenate([other[:1], one[1:3], other[3:]]), view)["pearson"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("test", "values", "passes"),
    [
        ("cascade", [0.1, 0.2, 0.9, 0.9], True),  # the half next to the output counts
        ("cascade", [0.9, 0.8, 0.0, 0.0], False),
        ("cascade", [None, None, 0.9, 0.9], None),
        ("cascade", [None, 0.6, 0.1, 0.1], False),
        ("independent", [0.4, 0.5, 0.6], True),
        ("bottom-up", [0.4, 0.5], None),
        ("class", [0.51], False),
        ("shift", [0.991], True),
        ("shift", [0.98], False),
        ("full", [0.0], None),
    ],
)
def test_verdicts(test: str, values: list[float | None], passes: bool | None) -> None:
    rows = [SanityRow(test=test, step=number, pearson=value, method="m") for number, value in enumerate(values, 1)]
    [verdict] = judge(rows)
    assert verdict.passes is passes
    assert verdict.words


@pytest.fixture
def photos(paint: Paint) -> None:
    for name, colour in (("a", RED), ("b", GREEN), ("c", BLUE)):
        paint(f"photos/{name}.png", colour, box=(4, 4, 20, 12))


def test_a_run_leaves_its_network_as_it_was_and_repeats_its_maps(photos: None, tiny: str) -> None:
    run = SanityRun(SanityJob(job=Job(model=tiny, inputs=("photos",), layers=("stem",)), tests=tuple(TESTS)))
    module = run.worker.explainer.setup.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    rows = [row for rows in run for row in rows]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(part._forward_pre_hooks for part in module.modules())
    assert [row.test for row in rows if row.step == 1] == [*TESTS]
    [repeat] = [row for row in rows if row.test == "repeat"]
    assert (repeat.equal, repeat.maps) == (3, 3)
    [shift] = [row for row in rows if row.test == "shift"]
    assert shift.pearson == pytest.approx(1)
    # Grad-CAM at the stem is the class's own channel, so the map of another class is of a channel without the object.
    [other] = [row for row in rows if row.test == "class"]
    assert other.undefined == 3
    assert [verdict.test for verdict in run.verdicts] == [*TESTS]


def test_an_interrupted_run_leaves_its_network_as_it_was(photos: None, tiny: str) -> None:
    run = SanityRun(SanityJob(job=Job(model=tiny, inputs=("photos",), layers=("stem",)), tests=("cascade",)))
    module = run.worker.explainer.setup.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    steps = iter(run)
    next(steps), next(steps)  # the weights of the last part are all equal, so that nothing is drawn there
    assert any(not torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_command_prints_curves_and_fails_a_method_that_ignores_the_network(photos: None, tiny: str) -> None:
    """The activation of a channel of the stem, with weights that are drawn anew behind it alone, is the same map."""
    words = ("--model", tiny, "--layer", "stem", "--method", "lafam", "--to", "s.csv")
    result = do("sanity", "photos", *words, "--tests", "cascade,class,repeat")
    assert result.exit_code == 1, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "class lafam at stem FAILS r 1.00 with the map of another class, at most 0.5" in lines
    assert "repeat lafam at stem passes 3 of 3 maps are equal to the bit" in lines
    rows = [*csv.DictReader(Path("s.csv").read_text().splitlines())]
    assert [row["part"] for row in rows] == ["body", "stem", "", ""]
    lines = do("sanity", "photos", *words, "--tests", "repeat", "--json").stdout.splitlines()
    assert [json.loads(line)["equal"] for line in lines] == [3]


def test_without_another_class_there_is_nothing_to_compare(photos: None, clip: str) -> None:
    """A single prompt competes with none, and its map is not compared with itself."""
    words = ("--model", clip, "--layer", "visual.transformer.resblocks.0", "--tests", "class")
    alone = do("sanity", "photos", *words, "--text", "red")
    assert alone.exit_code == 0, alone.output
    assert "no map of another class could be compared; perhaps none competes" in alone.stdout
    two = do("sanity", "photos", *words, "--text", "red", "--text", "blue", "--json")
    assert json.loads(two.stdout)["undefined"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tests", "cascad"], "did you mean 'cascade'?"),
        (["--method", "dff", "-o", "concepts=2"], "concepts belong to no class"),
        (["--target", "channels:top:1"], "do not explain a class"),
        (["--shift", "0"], "--shift cannot be 0: it tests nothing"),
        (["--samples", "-1"], "--samples cannot be -1"),
        (["--samples", "2", "--noise", "0"], "--noise cannot be 0"),
        (["--noise", "0.2"], "--noise is that of noisy copies, and there are none add --samples 50"),
        (["--to", "s.txt"], "end its name in .csv or .jsonl or .parquet"),
    ],
)
def test_bad_requests_are_refused(photos: None, tiny: str, words: list[str], said: str) -> None:
    result = do("sanity", "photos", "--model", tiny, *words)
    assert (result.exit_code, said in " ".join(result.output.split())) == (2, True), result.output


@pytest.mark.slow
def test_guided_backprop_fails_on_real_weights_and_grad_cam_passes(sample_images: Path) -> None:
    job = Job(inputs=(str(sample_images),), method="gradcam,guided-backprop", limit=3)
    run = SanityRun(SanityJob(job=job, tests=("cascade", "class", "repeat")))
    assert sum(1 for _ in run) == run.steps > 10
    assert {(one.method, one.test): one.passes for one in run.verdicts} == {
        ("gradcam", "cascade"): True,
        ("guided-backprop", "cascade"): False,
        ("gradcam", "class"): True,
        ("guided-backprop", "class"): False,
        ("gradcam", "repeat"): True,
        ("guided-backprop", "repeat"): True,
    }
