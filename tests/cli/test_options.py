"""The options of the commands, made of the fields of a job."""

from dataclasses import dataclass, fields
from typing import get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from camcli.cli import app
from camcli.cli.options import add_options, build
from camcli.runs.channels import ChannelJob
from camcli.runs.job.job import Job
from camcli.runs.job.option import OUTPUT, get_option, option
from camcli.runs.prompts import PromptJob

COMMANDS = typer.main.get_command(app).commands
ASKED = {
    f"{owner.__name__}.{one.name}": (owner, one) for owner in (Job, ChannelJob, PromptJob) for one in fields(owner)
}
ASKED = {name: (owner, one) for name, (owner, one) in ASKED.items() if one.name != "job"}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked of a kitchen."""

    dish: str = option("soup", OUTPUT, help="Dish: {names}", short="-d", names=lambda: ["soup", "stew"])
    spices: tuple[str, ...] = option((), OUTPUT, help="Spices", commas=True, flag="--spice")
    courses: str = option("main", OUTPUT, help="Courses", several=True, after="dish")
    guests: int = option(1, OUTPUT, help="Guests", min=1, unset=True, show_default="as many as chairs", env=False)
    note: str = "no option"


def asked(*words: str, reworded: dict | None = None, **environment: str) -> Order:
    """The order that a command line amounts to."""
    taken = []
    kitchen = typer.Typer()

    @kitchen.command()
    @add_options(Order, overrides=reworded)
    def cook(**given: object) -> None:
        taken.append(build(Order, given))

    result = CliRunner().invoke(kitchen, list(words), env=environment)
    assert result.exit_code == 0, result.output
    return taken[0] if taken else result.output


def test_fields_are_flags_with_their_defaults_and_variables():
    assert asked() == Order()
    assert asked("-d", "stew", "--spice", "salt, pepper", "--spice", "dill") == Order(
        dish="stew", spices=("salt", "pepper", "dill")
    )
    assert asked("--courses", "first,main", "--courses", "last").courses == "first,main,last"
    assert asked(CAMCLI_DISH="stew", CAMCLI_SPICE="salt,pepper") == Order(dish="stew", spices=("salt", "pepper"))
    assert asked("--guests", "3", CAMCLI_GUESTS="4").guests == 3
    assert asked(CAMCLI_GUESTS="4").guests == 1


def test_the_help_has_the_words_there_are_in_order():
    text = asked("--help", COLUMNS="120")
    assert "Dish: soup, stew" in text
    assert "as many as chairs" in text
    assert text.index("--dish") < text.index("--courses") < text.index("--spice") < text.index("--guests")
    assert "no option" not in text


def test_a_command_may_say_it_otherwise():
    reworded = {"dish": {"positional": True, "default": ...}, "spices": {"help": "Herbs", "default": "", "type": str}}
    assert asked("stew", "--spice", "dill", reworded=reworded) == Order(dish="stew", spices=("dill",))
    assert "Herbs" in asked("--help", reworded=reworded)


@pytest.mark.parametrize("name", ASKED)
def test_every_field_is_an_option_with_a_help(name):
    one = get_option(ASKED[name][1])
    assert one is not None
    assert one.format_help()
    assert one.positional or one.panel


@pytest.mark.parametrize("name", ASKED)
def test_where_a_field_takes_some_words_only_its_help_names_them(name):
    owner, one = ASKED[name]
    kind = get_type_hints(owner)[one.name]
    kinds = [] if get_origin(kind) is tuple else [kind, *get_args(kind)]
    words = [word for kind in kinds for word in get_args(kind) if isinstance(word, str)]
    assert [word for word in words if word not in get_option(one).help] == []


def test_explain_has_every_field_of_a_job():
    assert {one.name for one in fields(Job)} <= {one.name for one in COMMANDS["explain"].params}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_two_options_share_a_name_or_a_variable(command):
    flags = [flag for one in COMMANDS[command].params for flag in (*one.opts, *one.secondary_opts)]
    variables = [one.envvar for one in COMMANDS[command].params if one.envvar]
    assert len(set(flags)) == len(flags)
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_can_be_read_in_80_columns(command):
    text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    # The last column, in which the help stands, begins where most lines that only go on begin.
    begins = [len(line) - len(line[1:].lstrip()) for line in lines if line.startswith("│  ") and "--" not in line[:30]]
    assert not begins or max(begins) <= 44


@pytest.mark.parametrize(("words", "kept"), [([], True), (["--keep-memory"], True), (["--no-keep-memory"], False)])
def test_memory_is_kept_unless_that_is_refused(words, kept, monkeypatch, here):
    calls = []
    monkeypatch.setattr("camcli.base.allocator.keep_memory", lambda: calls.append(True))
    CliRunner().invoke(app, ["explain", *words, "nowhere.png"])
    assert bool(calls) is kept


def test_memory_is_not_kept_where_a_variable_says_so(monkeypatch, here):
    calls = []
    monkeypatch.setattr("camcli.base.allocator.keep_memory", lambda: calls.append(True))
    CliRunner().invoke(app, ["explain", "nowhere.png"], env={"CAMCLI_KEEP_MEMORY": "0"})
    assert not calls
