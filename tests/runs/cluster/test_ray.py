"""Runs on a Ray cluster: every image once, whatever is lost on the way; and what is refused.

``pytest -m ray`` runs them, with the extra ``ray``; a plain run leaves them out.
"""

import importlib.util
import os
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from readback import ledger
from shared import GREEN, Go, Paint

from camcli import RequestError
from camcli.runs.cluster.run import ClusterRun
from camcli.runs.job.job import Job
from camcli.runs.record.status import read_status

needs_ray = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Ray's own
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra"),
]
COUNT = 24
# The small model; its first forward pass of an image after the trial hangs, once, where a file asks for it.
HANGING = """
import time
from pathlib import Path

import tiny

class Hanging(tiny.Tiny):
    def forward(self, images):
        mark = Path(__file__).with_name("hang")
        if mark.exists() and images.shape[0] == 3:
            mark.unlink()
            time.sleep(3600)
        return super().forward(images)

def make():
    module, prepare, labels = tiny.make()
    hanging = Hanging()
    hanging.load_state_dict(module.state_dict())
    return hanging, prepare, labels
"""


@pytest.fixture
def many(paint: Paint) -> None:
    for number in range(COUNT):
        paint(f"in/{number}.png", GREEN)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Two machines, as far as Ray can tell, with a CPU each for actors."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def make_job(model: str, **options) -> Job:
    return Job(**{"model": model, "inputs": ("in",), "out": "out", "device": "cpu", **options})


def make_words(command: list[str], model: str, *more: str) -> list[str]:
    """The words of a run on a cluster; in a process of its own, since Ray keeps what a process once connected with."""
    words = ["explain", "in", "--model", model, "--out", "out", "--engine", "ray", "--json", "--device", "cpu"]
    return [*command, *words, "--batch-size", "2", *more]


def find_actors() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::ShardActor" in " ".join(one.info["cmdline"] or ())]


def check_all_done_once() -> None:
    found = read_status(Path("out"))
    assert (found.done, found.failed, found.missing) == (COUNT, 0, 0)
    assert Counter(row["name"] for row in ledger()) == {f"in/{number}.png": 1 for number in range(COUNT)}


class TestOnCluster:
    pytestmark = needs_ray

    @pytest.mark.usefixtures("many")
    def test_the_files_are_those_of_one_run_and_an_error_of_the_job_is_its_own(
        self, go: Go, tiny: str, command: list[str]
    ) -> None:
        go("in", out="whole")
        words = make_words(command, tiny, "--actors", "2")
        with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # paths of sockets are to be short
            # A cluster of this machine that was killed is not joined.
            killed = Path(folder, "ray", "ray_current_cluster")
            killed.parent.mkdir()
            killed.write_text("192.0.2.2:37225")
            there = {**os.environ, "RAY_TMPDIR": folder}
            run = subprocess.run(words, capture_output=True, text=True, env=there)
        assert run.returncode == 0, run.stderr
        assert len(run.stdout.splitlines()) == COUNT
        check_all_done_once()
        for row in ledger("whole"):
            for file in row["files"].values():
                assert Path("out", file).read_bytes() == Path("whole", file).read_bytes()
        wrong = subprocess.run([*words, "--layer", "stm", "--overwrite"], capture_output=True, text=True)
        assert wrong.returncode == 2
        assert "did you mean 'stem'" in wrong.stderr

    @pytest.mark.usefixtures("many")
    def test_actors_and_machines_may_be_lost(self, two_nodes, tiny_file: Path, command: list[str]) -> None:
        words = make_words(command, f"{tiny_file}:slow", "--actors", "2", "--address", two_nodes.address)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
            assert driver.stdout
            assert driver.stderr
            lines = [driver.stdout.readline() for _ in range(3)]
            find_actors()[0].send_signal(signal.SIGKILL)
            lines += [driver.stdout.readline() for _ in range(5)]
            two_nodes.remove_node(next(iter(two_nodes.worker_nodes)))
            lines += driver.stdout.readlines()
            words = driver.stderr.read()
            assert driver.wait(60) == 0, words
        # What an actor recorded, and could not report before its end, is done before for the next one.
        assert COUNT - 8 <= len(lines) <= COUNT
        assert (len(lines) < COUNT) == ("not printed again" in words)
        assert "was lost" in words
        check_all_done_once()

    @pytest.mark.usefixtures("many")
    def test_an_actor_that_hangs_is_replaced(self, tiny_file: Path, here: Path, command: list[str]) -> None:
        (here / "tiny.py").write_text(tiny_file.read_text())
        (here / "hanging.py").write_text(f"import sys; sys.path.insert(0, {str(here)!r})\n{HANGING}")
        (here / "hang").touch()
        words = make_words(command, f"{here}/hanging.py:make", "--actors", "1", "--stall", "25", "--batch-size", "3")
        run = subprocess.run(words, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "reported nothing for 25 s" in run.stderr
        assert not (here / "hang").exists()
        check_all_done_once()

    @pytest.mark.usefixtures("many")
    def test_a_driver_that_is_killed_goes_on_where_it_was(self, tiny_file: Path, command: list[str]) -> None:
        words = make_words(command, f"{tiny_file}:slow", "--actors", "1")
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as driver:
            assert driver.stdout
            for _ in range(4):
                driver.stdout.readline()
            driver.kill()
        for actor in find_actors():  # they end by themselves, soon
            actor.wait(60)
        again = subprocess.run(words, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert len(again.stdout.splitlines()) <= COUNT - 4
        check_all_done_once()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"out": ""}, "needs an output folder"),
        ({"shard": "1/2"}, "chooses the shards itself"),
        ({"inputs": ("-",)}, "standard input cannot be given"),
        ({"normalize": "run"}, "maps of all images"),
    ],
)
@pytest.mark.usefixtures("two")
def test_what_a_cluster_cannot_do_is_refused(
    options: dict, error: str, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(RequestError, match=error):
        ClusterRun(make_job(tiny, **options))


@pytest.mark.usefixtures("two")
def test_without_ray_the_extra_is_named(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="needs Ray") as raised:
        ClusterRun(make_job(tiny))
    assert "camcli-vision[ray]" in raised.value.hint
