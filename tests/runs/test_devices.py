"""Several devices: their names, copies that do not know of one another, and the same files as with one."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Small, explainer, named, pictures, same, small
from readback import facts, files, ledger
from test_group import MEAN
from test_prompts import SAY, clip  # noqa: F401  a fixture
from torch import nn
from typer.testing import CliRunner

import camcli
from camcli import Explainer, Job
from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.engine import devices
from camcli.engine.hooks.attention_override import twice_differentiable
from camcli.engine.layers.probe import probe_image
from camcli.engine.speed.tune import copy_to
from camcli.methods import METHODS
from camcli.runs.explain.run import Run
from camcli.runs.worker.threads import map_over
from conftest import BLUE, GREEN, RED, Go, Paint

CPU = torch.device("cpu")
ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


# ---- names


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the machine one with so many GPUs: ``machine(2)``, or with Apple's: ``machine(mps=True)``."""

    def machine(gpus: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return machine


@pytest.mark.parametrize(
    ("gpus", "words", "names"),
    [
        (0, "auto", ["cpu"]),
        (2, "auto", ["cuda:0"]),
        (2, "cuda", ["cuda:0"]),
        (2, "cuda:1", ["cuda:1"]),
        (2, "cuda:0,cuda:1", ["cuda:0", "cuda:1"]),
        (3, "cuda:2, cuda", ["cuda:2", "cuda:0"]),
        (3, "cuda:all", ["cuda:0", "cuda:1", "cuda:2"]),
        (1, "cuda:all", ["cuda:0"]),
        (1, "cuda:0,cuda:0", ["cuda:0", "cuda:0"]),
        (2, "cpu", ["cpu"]),
        (0, "cpu,cpu,cpu", ["cpu", "cpu", "cpu"]),
    ],
)
def test_names(machine, gpus: int, words: str, names: list[str]) -> None:
    machine(gpus)
    assert list(map(str, devices.parse_devices(words))) == names


@pytest.mark.parametrize(
    ("gpus", "words", "message", "hint"),
    [
        (0, "gpu", "there is no device 'gpu' here", "there are: auto, cpu"),
        (0, "cuda:all", "there is no device 'cuda:all' here", "there are: auto, cpu"),
        (2, "cuda:0,cuda:2", "there is no device 'cuda:2' here", "there are: auto, cpu, cuda:0, cuda:1, cuda:all"),
        (0, "cpu,", "there is no device '' here", "there are: auto, cpu"),
        (2, "auto,cuda:1", "names auto among others, which chooses one", "name each: cpu, cuda:0, cuda:1"),
        (1, "cuda:0,cpu", "names devices of several kinds, which round differently", "name devices of one kind"),
    ],
)
def test_what_cannot_be_says_why(machine, gpus: int, words: str, message: str, hint: str) -> None:
    machine(gpus)
    with pytest.raises(RequestError, match=message) as caught:
        devices.parse_devices(words)
    assert caught.value.hint.startswith(hint)


def test_one_gpu_of_apples_is_one(machine) -> None:
    machine(mps=True)
    assert list(map(str, devices.parse_devices("auto"))) == ["mps"]
    with pytest.raises(RequestError, match="names mps several times"):
        devices.parse_devices("mps,mps")


# ---- work shared out


def test_results_come_in_order_and_a_seat_does_one_thing_at_a_time() -> None:
    busy = {"a": threading.Lock(), "b": threading.Lock()}
    done: dict[str, list[int]] = {"a": [], "b": []}
    slow = threading.Event()

    def work(seat: str, item: int) -> int:
        assert busy[seat].acquire(blocking=False)
        if item == 0:
            assert slow.wait(5)  # until the other has done several
        done[seat].append(item)
        if item == 2:
            slow.set()
        busy[seat].release()
        return item * item

    assert list(map_over(work, range(12), ["a", "b"])) == [n * n for n in range(12)]
    assert sorted(done["a"] + done["b"]) == list(range(12))
    assert min(map(len, done.values())) >= 1


def test_all_seats_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=5)
    assert list(map_over(lambda seat, item: together.wait() >= 0, range(6), "abc")) == [True] * 6


def test_no_more_than_two_items_a_seat_are_held() -> None:
    drawn: list[int] = []

    def items():
        for number in range(100):
            drawn.append(number)
            yield number

    for seats in (2, 3):
        drawn.clear()
        results = map_over(lambda seat, item: item, items(), range(seats))
        assert [next(results), next(results)] == [0, 1]
        assert len(drawn) == 2 * seats + 1  # one was taken
        results.close()


def test_one_seat_works_in_the_callers_thread_and_draws_nothing_ahead() -> None:
    drawn: list[int] = []

    def items():
        for number in range(9):
            drawn.append(number)
            yield number

    results = map_over(lambda seat, item: (seat, item, threading.current_thread()), items(), ["a"])
    assert next(results) == ("a", 0, threading.current_thread())
    assert drawn == [0]


@pytest.mark.parametrize("seats", [1, 2])
@pytest.mark.parametrize("trouble", [RequestError("it cannot be"), KeyboardInterrupt()])
def test_an_error_comes_at_its_turn_and_no_thread_is_left(trouble: BaseException, seats: int) -> None:
    def work(seat: int, item: int) -> int:
        if item == 3:
            raise trouble
        return item

    results = map_over(work, range(50), range(seats))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(trouble)):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spread")]


# ---- copies


def both_at_once(one: Callable[[], object], other: Callable[[], object], turns: int = 4) -> tuple[list, list]:
    """What two functions give that begin at the same time, again and again."""
    start = threading.Barrier(2, timeout=30)
    found: tuple[list, list] = ([], [])
    trouble: list[BaseException] = []

    def go(run: Callable[[], object], into: list) -> None:
        try:
            for _ in range(turns):
                start.wait()
                into.append(run())
        except BaseException as error:
            trouble.append(error)
            start.abort()

    threads = [threading.Thread(target=go, args=pair) for pair in zip((one, other), found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if trouble:
        raise trouble[0]
    return found


def alone_and_at_once(explain: Explainer, images: torch.Tensor, targets: object) -> None:
    """See that an explainer and its copy say to the bit, at the same time, what the first says alone."""
    wanted = [explain(one[None], targets) for one in images]
    copy = copy_to(explain, CPU, probe_image(tuple(images.shape[2:]), images.dtype, CPU))
    assert not {id(one) for one in explain.module.modules()} & {id(one) for one in copy.module.modules()}
    first, second = iter([*images] * 2), iter([*images] * 2)
    found = both_at_once(
        lambda: explain(next(first)[None], targets), lambda: copy(next(second)[None], targets), 2 * len(images)
    )
    for some in found:
        for [[one]], [[other]] in zip(some, wanted * 2, strict=True):
            assert np.array_equal(one.map, other.map)
            assert (one.score, one.notes) == (other.score, other.notes)


@pytest.mark.parametrize("method", METHODS.names())
def test_two_explainers_in_two_threads_do_not_disturb_each_other(method: str) -> None:
    alone_and_at_once(explainer(small(method), method), pictures(3, 16), 1)


@pytest.mark.parametrize("method", ["gradcam", "guided-backprop", "fullgrad"])
def test_nor_where_parts_are_computed_again(method: str) -> None:
    layers = [] if method in ("guided-backprop", "fullgrad") else ["conv1"]
    alone_and_at_once(Explainer(small(method), layers=layers, method=method, recompute=True), pictures(3, 16), 1)


def test_nor_at_other_sizes_and_in_a_mirror() -> None:
    explain = Explainer(Small(), layers=["conv2"], scales=(1.0, 1.5), flips=("flip",), eigen_smooth=True)
    alone_and_at_once(explain, pictures(3, 16), 1)


class Fused(Small):
    """Attention fused, of which the second gradient is wanted; ``meanwhile`` is called before it."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.conv2(self.conv1(images)).flatten(2).transpose(1, 2)[:, None]
        self.meanwhile()
        return F.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2))[:, :4]


def test_curvature_through_fused_attention_is_had_in_every_thread() -> None:
    explain, image = Explainer(Fused(), layers=["conv2"], method="shapleycam"), pictures(1, 16)
    [[wanted]] = explain(image, 1)
    copy = copy_to(explain, CPU, probe_image((16, 16), torch.float64, CPU))
    begun, both, ended = threading.Event(), threading.Event(), threading.Event()
    # The first to begin ends while the other is half-way, and with it what it had switched.
    explain.module.meanwhile = lambda: (begun.set(), both.wait(5))
    copy.module.meanwhile = lambda: (both.set(), ended.wait(5))
    found = both_at_once(
        lambda: (explain(image, 1), ended.set())[0], lambda: (begun.wait(5), copy(image, 1))[1], turns=1
    )
    for [[[one]]] in found:
        assert np.array_equal(one.map, wanted.map)


def test_the_switch_of_fused_attention_is_turned_back_by_the_last_to_leave() -> None:
    flash = torch.backends.cuda.flash_sdp_enabled
    before = flash()
    outer, inner = twice_differentiable(), twice_differentiable()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # as another thread would, which began first
    assert not flash()
    inner.__exit__(None, None, None)
    assert flash() == before


def test_a_copy_knows_layers_and_labels_and_has_plans_of_its_own() -> None:
    explain = Explainer(named(Small(), 4, 16))
    image = probe_image((16, 16), torch.float64, CPU)
    explain.check(image)
    copy = copy_to(explain, CPU, image)
    assert copy.layers == explain.layers
    assert copy.layouts == explain.layouts
    assert copy.notes == explain.notes
    assert copy.network is not None
    assert copy.network.module is copy.module is not explain.module
    [[one]] = copy(pictures(1, 16), 0)
    same(one, explain(pictures(1, 16), 0)[0][0])


class Bound(Small):
    """Holds on to its own modules by a function, which a copy of it shares."""

    def __init__(self) -> None:
        super().__init__()
        own = self.conv1
        self.first = lambda images: own(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images + 0 * self.first(images).mean())


class Uncopied(Small):
    def __deepcopy__(self, memo: dict) -> nn.Module:
        raise TypeError("I am one of a kind")


def test_a_network_whose_copies_run_its_own_modules_is_refused() -> None:
    with pytest.raises(RequestError, match="still runs modules of the one that it was copied from: 'conv1'"):
        copy_to(Explainer(Bound(), layers=["conv2"]), CPU, probe_image((16, 16), torch.float64, CPU))


class Remembering(Small):
    """What it says takes in what a hook heard, and the hook is a function that no copy has as its own."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[str, torch.Tensor] = {}

        def hear(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            self.heard["conv1"] = output.detach().mean((1, 2, 3))

        self.conv1.register_forward_hook(hear)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        said = super().forward(images)
        return said + self.heard["conv1"][:, None]


def test_a_network_whose_copies_remember_in_it_is_refused() -> None:
    first = Explainer(Remembering(), layers=["conv2"])
    noise = probe_image((16, 16), torch.float64, CPU)
    first.check(noise)
    with pytest.raises(RequestError, match="copied, the network gives another output"):
        copy_to(first, CPU, noise)


def test_a_copy_holds_all_of_the_first_and_nothing_of_it() -> None:
    first = Explainer(Small(), layers=["conv2"])
    first.module.conv1.weight.requires_grad_(False)
    first.module.register_buffer("more", torch.ones(2), persistent=False)
    second = copy_to(first, CPU, probe_image((16, 16), torch.float64, CPU))
    held, copied = ([*one.module.named_parameters(), *one.module.named_buffers()] for one in (first, second))
    for (name, one), (again, other) in zip(held, copied, strict=True):
        assert name == again
        assert torch.equal(one, other), name
        assert one.data_ptr() != other.data_ptr(), name
        assert (one.requires_grad, type(one)) == (other.requires_grad, type(other)), name


# ---- from the shell to the disk


@pytest.fixture
def nine(paint: Paint) -> None:
    """Nine pictures below ``in``, all different, one of them broken."""
    for number in range(8):
        colour = [(250, 10 * number, 0), (0, 250, 10 * number), (10 * number, 0, 250)][number % 3]
        paint(f"in/{number}.png", colour, box=(number, 4, number + 16, 20), ground=(40, 10, 90))
    Path("in/broken.png").write_text("no picture")


def said(out: str) -> list[dict]:
    """The ledger without what no two runs have in common."""
    rows = ledger(out)
    for row in rows:
        del row["run"], row["seconds"]
    return rows


@pytest.mark.usefixtures("nine")
@pytest.mark.parametrize(
    "options",
    [
        {"layers": ("stem", "body"), "target": ("top:2",)},
        {"method": "gradcam,layercam,scorecam,saliency", "layers": ("stem",), "batch_size": 2},
        {"method": "dff", "options": ("concepts=3", "iterations=20"), "layers": ("stem",)},
        {"method": "dff", "options": ("concepts=2", "over=picture", "iterations=20"), "layers": ("stem",)},
        {"target": ("channels:top:2",), "layers": ("stem",)},
        {"precision": "bf16", "layers": ("stem",)},
        {"normalize": "run", "save": ("array", "heatmap"), "layers": ("stem",)},
        {"recompute": True, "layers": ("stem",)},
        {"score": "margin", "counterfactual": True, "layers": ("stem",), "batch_size": 3},
    ],
    ids=lambda options: "-".join(options),
)
def test_the_files_are_those_of_one_device(go: Go, options: dict) -> None:
    given = {"batch_size": 1, "save": ("array", "overlay-png"), **options}
    go("in", **given, out="one")
    go("in", **given, out="two", device="cpu,cpu")
    assert said("one") == said("two")
    assert facts("one")["fingerprint"] == facts("two")["fingerprint"]
    assert files("one") == files("two")
    for name in files("one"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name


@pytest.mark.usefixtures("nine")
def test_groups_stay_together(go: Go) -> None:
    Path("in/broken.png").unlink()
    Path("wrap.py").write_text(MEAN)
    given = {"wrap": "wrap.py:Mean", "group": "2", "layers": ("stem",), "target": ("red",), "save": ("array",)}
    go("in", **given, out="one")
    go("in", **given, out="three", device="cpu,cpu,cpu")
    assert said("one") == said("three")
    for name in files("one"):
        assert Path("one", name).read_bytes() == Path("three", name).read_bytes(), name


@pytest.mark.usefixtures("nine")
def test_another_number_of_devices_is_the_same_job(go: Go) -> None:
    go("in/0.png", "in/1.png", layers=("stem",))
    assert facts()["device"] == "cpu"
    again = go("in", layers=("stem",), device="cpu,cpu")
    assert [bool(some) for some in again] == [False, False, *[True] * 7]
    assert facts()["device"] == "cpu,cpu"


@pytest.mark.usefixtures("nine")
def test_the_stream_in_python(tiny: str) -> None:
    given = {"model": tiny, "layer": "stem", "batch_size": 2, "on_error": lambda name, error: None}
    one = list(camcli.explain("in", **given, device="cpu"))
    two = list(camcli.explain("in", **given, device=["cpu", "cpu"]))
    assert len(one) == len(two) == 8
    for this, that in zip(one, two, strict=True):
        assert np.array_equal(this.map, that.map)
        assert this.source == that.source


@pytest.mark.usefixtures("nine")
def test_the_channels_are_those_of_one_device(tiny: str) -> None:
    for device, out in (("cpu", "one"), ("cpu,cpu", "two")):
        words = ["channels", tiny, "in", "--layer", "stem", "--out", out, "--batch-size", "1", "--device", device]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1, done.output  # one picture is broken
        assert f"on {device.replace(',', ', ')}" in done.stderr
    for name in ("channels.csv", "channels.png"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


@pytest.mark.usefixtures("nine")
def test_the_prompts_are_those_of_one_device(clip: str) -> None:  # noqa: F811
    Path("in/broken.png").unlink()
    rows = {}
    for device in ("cpu", "cpu,cpu"):
        words = ["-m", clip, *SAY, "in", "--out", device, "--batch-size", "1", "--device", device, "--save", "array"]
        done = CliRunner().invoke(app, ["prompts", *words])
        assert done.exit_code == 0, done.output
        rows[device] = [json.loads(line) for line in Path(device, "prompts.jsonl").read_text().splitlines()]
        for row in rows[device]:
            del row["run"], row["seconds"]
    assert rows["cpu"] == rows["cpu,cpu"]


# ---- errors, notes, interrupts


def test_a_batch_that_fails_on_one_copy_is_done_picture_by_picture_with_one_note(
    paint: Paint, go: Go, tiny_file: Path
) -> None:
    for number in range(12):
        paint(f"in/{number:02}.png", (255, 255, 255) if number % 4 == 1 else (200, number, 0))
    ledgers = []
    for device in ("cpu", "cpu,cpu"):
        job = Job(model=f"{tiny_file}:moody", inputs=("in",), out=device, device=device, batch_size=2, layers=("stem",))
        with Run(job) as run:
            outcomes = [one for [one] in run]
        assert [bool(one.error) for one in outcomes] == [number % 4 == 1 for number in range(12)]
        assert run.notes.count("a batch failed and was done picture by picture: too bright for me") == 1
        ledgers.append(said(device))
    assert ledgers[0] == ledgers[1]


@pytest.mark.usefixtures("nine")
def test_what_a_copy_cannot_do_is_each_pictures_failure(go: Go, bring) -> None:
    def fussy(act, grad):
        if threading.current_thread() is not threading.main_thread():
            raise RequestError("no map of these", "choose another method")
        return (act * grad).sum(1)

    outcomes = go("in", method=bring(fussy), layers=("stem",), device="cpu,cpu", batch_size=1)
    *drawn, [broken] = [[one.error for one in some] for some in outcomes]
    assert drawn == [["no map of these (choose another method)"]] * 8
    assert "is not an image" in broken
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spread")]


@pytest.mark.usefixtures("nine")
def test_interrupted_and_resumed(go: Go, tiny: str) -> None:
    job = Job(model=tiny, inputs=("in",), out="out", batch_size=1, workers=1, device="cpu,cpu")
    with Run(job) as run:
        outcomes = iter(run)
        done = [next(outcomes), next(outcomes)]
        with pytest.raises(KeyboardInterrupt):
            outcomes.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spread")]
    assert [row["name"] for row in ledger()] == [one.name for some in done for one in some]
    assert len(go("in")) == 9
    assert sorted(row["name"] for row in ledger()) == sorted([*(f"in/{n}.png" for n in range(8)), "in/broken.png"])


def test_pictures_are_decoded_no_further_ahead_than_two_batches_a_device(paint: Paint, tiny: str) -> None:
    from camcli.images.source import PictureSource
    from camcli.runs.worker.item import Item
    from camcli.runs.worker.pipeline import stream_results
    from camcli.runs.worker.worker import Worker

    source = paint("a.png", RED)
    drawn: list[int] = []

    def items():
        for number in range(200):
            drawn.append(number)
            yield Item(PictureSource(source, f"{number}.png"))

    worker = Worker(Job(model=tiny, batch_size=4, workers=1, device="cpu,cpu", layers=("stem",)))
    given = stream_results(worker, items())
    next(given)
    # Four batches at work or waiting, one that was handed over, and what is decoded ahead.
    assert len(drawn) <= 4 * (2 * 2 + 1) + 4 + 1
    given.close()


def test_nothing_is_compiled_for_several_devices(paint: Paint, go: Go, tiny: str) -> None:
    paint("a.png", GREEN)
    go("a.png", compile="on", device="cpu,cpu", layers=("stem",))
    assert any("nothing is compiled: whether it pays is measured on one device" in one for one in facts()["notes"])


ODD = """
from camcli import Labels, Preprocess
import test_devices


def make():
    prepare = Preprocess(size=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3, resize=(16, 16), fit="squash")
    return test_devices.Uncopied().float(), prepare, Labels(("a", "b", "c", "d"))
"""


def test_a_network_that_cannot_be_copied_works_on_one_device(paint: Paint) -> None:
    paint("a.png", BLUE)
    Path("odd.py").write_text(ODD)
    job = Job(model="odd.py:make", inputs=("a.png",), out="out", layers=("conv2",), device="cpu")
    with Run(job) as run:
        assert len(list(run)) == 1
    with pytest.raises(RequestError, match="cannot be copied to cpu: I am one of a kind") as caught:
        Run(replace(job, device="cpu,cpu"))
    assert "name one device" in caught.value.hint


def test_a_list_of_devices_that_go_not_together_is_refused_before_the_model_is_loaded(paint: Paint) -> None:
    paint("a.png")
    done = CliRunner().invoke(app, ["explain", "-m", "no-such-model", "a.png", "--device", "auto,cpu"])
    assert done.exit_code == 2
    assert "names auto among others" in done.stderr


# ---- what goes to a GPU


def test_a_batch_for_the_cpu_is_the_images() -> None:
    images = [*pictures(3, 8)]
    batch = devices.stack_for(CPU, images)
    assert torch.equal(batch, torch.stack(images))
    assert devices.copy_to_module(nn.Linear(1, 1), batch).dtype == torch.float32
    # What counts with nothing of its own counts as its images do.
    copied = devices.copy_to_module(nn.Identity(), batch)
    assert copied.dtype == batch.dtype
    assert copied.data_ptr() != batch.data_ptr()


@pytest.mark.gpu
@ON_A_GPU
def test_a_batch_for_a_gpu_is_pinned_and_arrives_whole() -> None:
    images = [*pictures(64, 64).float()]
    gpu = torch.device("cuda:0")
    batch = devices.stack_for(gpu, images)
    assert batch.is_pinned()
    for dtype in (torch.float32, torch.bfloat16):
        found = devices.copy_to_module(nn.Linear(1, 1).to(gpu, dtype), batch)
        assert found.device == gpu
        assert torch.equal(found.cpu(), torch.stack(images).to(dtype))


@pytest.mark.gpu
@ON_A_GPU
@pytest.mark.usefixtures("nine")
def test_copies_on_gpus_give_what_one_gives(go: Go) -> None:
    given = {"save": ("array",), "layers": ("stem",), "batch_size": 1}
    several = "cuda:all" if torch.cuda.device_count() > 1 else "cuda:0,cuda:0"
    go("in", **given, out="one", device="cuda:0")
    go("in", **given, out="two", device=several)
    for name in files("one"):
        np.testing.assert_allclose(np.load(Path("one", name)), np.load(Path("two", name)), rtol=1e-5)
