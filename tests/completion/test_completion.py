"""Completion of command lines: what is offered where, and the answers to each shell."""

import subprocess
import sys
from pathlib import Path

import pytest

from camcli.base import cache
from camcli.completion import shells
from camcli.completion.candidates import complete
from camcli.models import load, names_cache

NAMES = ["bundled:efficientnet-lite0", "timm:resnet50.a1_in1k", "timm:resnet50.tv_in1k", "torchvision:resnet50"]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: str) -> str:
    """The small model, whose names are cached, and a list of models; the cache is empty otherwise."""
    monkeypatch.setattr(cache, "find_folder", lambda: tmp_path / "cache")
    names_cache.write_names(NAMES)
    names_cache.write_model(tiny, load.load(tiny))
    return tiny


def offer(line: str, model: str = "") -> list[str]:
    *words, word = line.replace("MODEL", model).split(" ")
    return [one.value for one in complete(words, word)]


@pytest.fixture(scope="module", autouse=True)
def table(tmp_path_factory: pytest.TempPathFactory):
    """The table of commands, made once."""
    from camcli.completion import candidates, table

    made = table.make_table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "read_table", lambda: made)
        yield made


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("chan", ["channels"]),
        ("explain --eig", ["--eigen-smooth"]),
        ("explain --meth", ["--method"]),
        ("explain --method hires", ["hirescam"]),
        ("explain --method=hires", ["--method=hirescam"]),
        ("explain --method gradcam,hires", ["gradcam,hirescam"]),
        ("explain a.jpg --save overlay,over", ["overlay,overlay-png"]),
        ("explain --crop ", ["model", "center", "none", "squash"]),
        ("explain --method smoothgrad -o sam", ["samples=50"]),
        ("explain --method gradcam,smoothgrad -o smoothgrad.sam", ["smoothgrad.samples=50"]),
        ("explain --method kpca-cam -o kernel=p", ["kernel=poly"]),
        ("explain --device cuda:0,cuda:a", ["cuda:0,cuda:all"]),
        ("explain -m res", ["resnet50"]),
        ("explain -m resnet50.t", ["resnet50.tv_in1k"]),
        ("explain -m torchv", ["torchvision:resnet50"]),
        ("explain -m timm:resnet50.a", ["timm:resnet50.a1_in1k"]),
        ("explain -m MODEL -l ", ["stem", "body"]),
        ("layers MODEL b", ["body"]),
        ("channels MODEL photos --layer s", ["stem"]),
        ("explain -m MODEL -t pre", ["predicted"]),
        ("explain -m MODEL -t GR", ["green"]),
        ("explain -m MODEL --contrast red,bl", ["red,blue"]),
        ("explain -m unknown -l ", []),
        ("methods hires", ["hirescam"]),
        ("models res", ["resnet50"]),
        # Files are the shell's.
        ("explain photos", []),
        ("explain --weights che", []),
        ("explain -- --me", []),
    ],
)
def test_offered(cached: str, line: str, expected: list[str]) -> None:
    assert offer(line, cached) == expected


def test_a_flag_given_is_not_offered_again_unless_it_repeats(cached: str) -> None:
    assert "--alpha" not in offer("explain --alpha 1 --")
    assert "--target" in offer("explain --target red --")


def test_models_are_listed_in_the_background_once(cached: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: started.append(words[1:]))
    monkeypatch.setattr(names_cache, "LIBRARIES", ("pytest-",))  # versions other than those listed
    assert names_cache.read_names() is None
    for _ in range(2):
        complete(["explain", "-m"], "res", shells.list_models_in_background)
    assert started == [["-m", "camcli", "models"]]


@pytest.mark.parametrize(
    ("words", "place", "expected"),
    [
        ("camcli\nexplain\n-m\ntimm\n:\nresnet50.t", 5, "resnet50.tv_in1k\n"),
        ("camcli\nexplain\n--method\n=\nhires", 4, "hirescam\n"),
        ("camcli\nexplain\n-m\nMODEL\n-t\nblue\\ s", 5, "blue\\ sky\n"),
        ("camcli\nexplain\n-m\nMODEL\n-t\n'blue s", 5, "blue sky\n"),
        ("camcli\nexplain\n-m\nMODEL\n-t", 5, None),
    ],
)
def test_bash(cached: str, monkeypatch, capfdbinary, words: str, place: int, expected: str | None) -> None:
    monkeypatch.setattr(
        "camcli.completion.candidates.read_model", lambda model: names_cache.ModelNames([], ["blue sky", "red"])
    )
    monkeypatch.setenv("COMP_WORDS", words.replace("MODEL", "mine.py\n:\nmake" if expected is None else "mine"))
    monkeypatch.setenv("COMP_CWORD", str(place + 2 * (expected is None)))
    assert shells.answer("complete_bash")
    told = capfdbinary.readouterr().out.decode()
    assert told == expected if expected else "blue\\ sky\n" in told


def test_zsh_fish_and_powershell(cached: str, monkeypatch, capfdbinary) -> None:
    def answer(shell: str, line: str) -> str:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        assert shells.answer(f"complete_{shell}")
        return capfdbinary.readouterr().out.decode()

    assert answer("zsh", "camcli explain -m timm:resnet50.a").endswith(
        "camcli_words=('timm\\:resnet50.a1_in1k'); _describe camcli camcli_words\n"
    )
    assert answer("zsh", "camcli explain ") == "_files\n"
    assert answer("fish", "camcli explain --ov").startswith("--overwrite\tRecompute finished images")
    assert answer("powershell", "camcli meth").startswith("methods:::List")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "is-args")
    for line, code in (("camcli explain photo", 1), ("camcli explain --method hi", 0)):
        with pytest.raises(SystemExit) as ended:
            answer("fish", line)
        assert ended.value.code == code
    assert not shells.answer("source_bash")


def test_it_needs_neither_torch_nor_typer_nor_rich() -> None:
    program = (
        "import sys, camcli.completion.shells; "
        "sys.exit(' '.join({'torch', 'typer', 'rich', 'timm', 'importlib.metadata'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
