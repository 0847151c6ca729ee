"""Settings of a job: defaults, job files, the environment and flags, each over the one before."""

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from readback import facts, files
from shared import ROOT, Go, Paint
from typer.testing import CliRunner

from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.runs.job import job_file
from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Counts

DEFAULTS = asdict(Job())
Ask = Callable[..., Job]


@pytest.fixture
def ask(here: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The job that the words of a command line amount to; nothing is run."""
    asked: list[Job] = []
    # By its name, since camcli.cli.explain is also the command.
    module = importlib.import_module("camcli.cli.explain")
    monkeypatch.setattr(module, "run_job", lambda job, *_given: asked.append(job) or Counts())

    def ask(*words: str, **environment: str) -> Job:
        result = CliRunner().invoke(app, ["explain", *words], env=environment)
        assert result.exit_code == 0, result.output
        return asked.pop()

    return ask


def test_without_a_word_the_job_is_the_default(ask: Ask) -> None:
    assert ask() == Job()


def test_each_layer_of_settings_goes_over_the_one_below(ask: Ask, here: Path) -> None:
    (here / "job.toml").write_text('method = "hirescam"\ncolormap = "jet"\nalpha = 0.25\nlayers = ["a", "b"]\n')
    file = ("--config", "job.toml")
    job = ask(*file)
    assert (job.method, job.colormap, job.alpha, job.layers) == ("hirescam", "jet", 0.25, ("a", "b"))
    assert job.seed == Job().seed
    job = ask(*file, CAMCLI_METHOD="guided-gradcam", CAMCLI_COLORMAP="hot", CAMCLI_SEED="3")
    assert (job.method, job.colormap, job.alpha, job.seed) == ("guided-gradcam", "hot", 0.25, 3)
    job = ask(*file, "--method", "gradcam", "--alpha", "1", "-l", "c", CAMCLI_METHOD="hirescam", CAMCLI_COLORMAP="hot")
    assert (job.method, job.colormap, job.alpha, job.layers) == ("gradcam", "hot", 1.0, ("c",))


def test_the_place_of_config_among_the_words_does_not_matter(ask: Ask, here: Path) -> None:
    (here / "job.toml").write_text('method = "hirescam"\ninputs = ["photos"]\n')
    assert ask("--method", "gradcam", "x.png", "-c", "job.toml") == ask(
        "-c", "job.toml", "x.png", "--method", "gradcam"
    )
    assert ask("-c", "job.toml").inputs == ("photos",)
    assert ask("-c", "job.toml", "x.png").inputs == ("x.png",)
    assert ask(CAMCLI_CONFIG="job.toml").method == "hirescam"


@pytest.mark.parametrize("chosen", [{"target": ("tabby cat", "top:2")}, {"targets": "i"}], ids=["target", "targets"])
def test_every_field_of_a_job_can_be_said_in_a_file(ask: Ask, here: Path, chosen: dict) -> None:
    job = Job(
        model="a", weights="b", labels="c", text=("d", "e f"), layers=("g", "h[-1]"), method="hirescam",
        inputs=("j k", "l"), null_separated=True, out="m", root="n",
        save=("panel", "array"), colormap="jet", alpha=0.1, normalize="run", background="#123456", overwrite=True,
        batch_size=7, recompute=True, workers=2, device="cpu", precision="bf16", seed=9, **chosen,
    )  # fmt: skip
    (here / "job.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in job.as_dict().items()))
    assert ask("--config", "job.toml") == job
    (here / "run.json").write_text(json.dumps({"camcli": "0", "job": job.as_dict()}))
    assert ask("--config", "run.json") == job


def test_formats_may_be_joined_by_commas_and_repeated(ask: Ask) -> None:
    assert ask("--save", "overlay, panel", "--save", "array").save == ("overlay", "panel", "array")
    assert ask(CAMCLI_SAVE="overlay,panel").save == ("overlay", "panel")


@pytest.mark.parametrize(
    ("name", "text", "message", "hint"),
    [
        ("job.toml", 'metod = "gradcam"', "there is no option 'metod'", "'method'"),
        ("job.toml", "[explain]\nseed = 1", "there is no option 'explain'", "model"),
        ("job.toml", "seed = ", "cannot be read", "write TOML"),
        ("run.json", "{", "cannot be read", ""),
        ("run.json", "[]", "cannot be read", ""),
        ("run.json", "{}", "contains no job", "run.json"),
        ("run.json", '{"job": {"sed": 1}}', "there is no option 'sed'", "'seed'"),
    ],
)
def test_a_job_file_that_cannot_be_taken_is_refused(here: Path, name: str, text: str, message: str, hint: str) -> None:
    (here / name).write_text(text)
    with pytest.raises(RequestError, match=message) as caught:
        job_file.read(Path(name), DEFAULTS)
    assert name in caught.value.message
    assert hint in caught.value.hint


def test_a_job_file_that_is_not_there_or_no_text(here: Path) -> None:
    with pytest.raises(RequestError, match=r"'nowhere.toml' cannot be read: No such file"):
        job_file.read(Path("nowhere.toml"), DEFAULTS)
    (here / "job.toml").write_bytes(b"out = '\xff'")
    with pytest.raises(RequestError, match=r"'job.toml' cannot be read"):
        job_file.read(Path("job.toml"), DEFAULTS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('seed = "many"', "seed must be an integer, not 'many'"),
        ("seed = true", "seed must be an integer, not True"),
        ("seed = 1.5", "seed must be an integer, not 1.5"),
        ('alpha = "half"', "alpha must be a number, not 'half'"),
        ('overwrite = "no"', "overwrite must be true or false, not 'no'"),
        ("layers = 4.5", "layers must be a string or a list of strings, not 4.5"),
        ("target = [true]", r"target must be a string or a list of strings, not \[True\]"),
        ("out = [1]", r"out must be a string, not \[1\]"),
    ],
)
def test_a_value_of_another_kind_is_refused(here: Path, text: str, message: str) -> None:
    (here / "job.toml").write_text(text)
    with pytest.raises(RequestError, match=f"job.toml: {message}"):
        job_file.read(Path("job.toml"), DEFAULTS)


def test_a_whole_number_will_do_for_a_number(here: Path) -> None:
    (here / "job.toml").write_text("alpha = 1")
    assert job_file.read(Path("job.toml"), DEFAULTS) == {"alpha": 1}


@pytest.mark.parametrize("text", ["alpha = 7", 'normalize = "sometimes"', "batch_size = -1"])
def test_a_value_out_of_range_ends_with_2_and_names_the_option(here: Path, text: str) -> None:
    (here / "job.toml").write_text(text)
    result = CliRunner().invoke(app, ["explain", "--config", "job.toml", "x.png"])
    assert result.exit_code == 2, result.output
    assert "--" + text.split()[0].replace("_", "-") in result.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.toml")), ids=lambda file: file.stem)
def test_the_job_files_that_come_along_name_only_what_exists(ask: Ask, file: Path) -> None:
    job = ask("--config", str(file), "--trust-config")
    assert job.inputs
    assert all((ROOT / given).exists() for given in job.inputs)
    assert job.out != Job().out


def test_run_json_repeats_the_run(paint: Paint, go: Go, tiny: str) -> None:
    paint("in/a.png", (200, 100, 0))
    asked = ["explain", "in", "--model", tiny, "--save", "array,overlay", "-t", "top:2", "-l", "stem", "--out", "one"]
    first = CliRunner().invoke(app, asked)
    assert first.exit_code == 0, first.stderr
    again = CliRunner().invoke(app, ["explain", "--config", "one/run.json", "--trust-config", "--out", "two"])
    assert again.exit_code == 0, again.stderr
    assert len(files("one")) == 4
    assert {name: Path("one", name).read_bytes() for name in files("one")} == {
        name: Path("two", name).read_bytes() for name in files("two")
    }
    assert facts("one")["fingerprint"] == facts("two")["fingerprint"]


# ---- code that a job file names


@pytest.fixture
def strange(paint: Paint, here: Path) -> Path:
    """A folder with a job file whose code leaves a trace where it is run."""
    paint("a.png", (200, 100, 0))
    (here / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\ndef f(*given): raise ValueError\n")
    return here


@pytest.mark.parametrize("option", ["model", "wrap", "text_tower"])
@pytest.mark.parametrize("words", ["evil.py:f", "evil:f"])
@pytest.mark.parametrize("file", ["job.toml", "run.json"])
def test_code_that_a_job_file_names_runs_only_where_that_is_said(
    strange: Path, tiny: str, option: str, words: str, file: str
) -> None:
    job = {option: words, "inputs": ["a.png"]} | ({"text": ["a"]} if option == "text_tower" else {})
    text = (
        json.dumps({"job": job}) if file == "run.json" else "".join(f"{k} = {json.dumps(v)}\n" for k, v in job.items())
    )
    (strange / file).write_text(text)
    refused = CliRunner().invoke(app, ["explain", "--config", file])
    assert refused.exit_code == 2
    assert f"error: {file}: {option} = '{words}' is Python code" in refused.stderr
    assert f"add --trust-config; or name it yourself: --{option.replace('_', '-')} {words}" in refused.stderr
    assert not (strange / "ran").exists()
    trusted = CliRunner().invoke(app, ["explain", "--config", file, "--trust-config"])
    assert f"runs code that {file} names: {option} {words}" in trusted.stderr
    assert (strange / "ran").exists()
    sys.modules.pop("evil", None)


def test_what_flags_and_variables_name_is_the_users_own(strange: Path, tiny: str) -> None:
    (strange / "job.toml").write_text('model = "evil.py:f"\ninputs = ["a.png"]\nlayers = ["stem"]\n')
    done = CliRunner().invoke(app, ["explain", "--config", "job.toml", "--model", tiny])
    assert done.exit_code == 0, done.stderr
    done = CliRunner().invoke(app, ["explain", "--config", "job.toml", "--out", "2"], env={"CAMCLI_MODEL": tiny})
    assert done.exit_code == 0, done.stderr
    assert not (strange / "ran").exists()


@pytest.mark.parametrize(
    "model", ["resnet50", "timm:resnet50.a1_in1k", "torchvision:resnet50/IMAGENET1K_V2", "hf-hub:timm/resnet50.a1_in1k"]
)
def test_names_of_models_are_no_code(model: str) -> None:
    assert job_file.find_code({"model": model, "labels": "evil.py:f"}) == {}


def test_names_of_code_are_found_in_a_job_file() -> None:
    for model in ("evil.py:f", "evil:f", "ultralytics:best.pt"):
        assert job_file.find_code({"model": model}) == {"model": model}
