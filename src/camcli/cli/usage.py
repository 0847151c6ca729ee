"""Mistakes in how a command line is written: unknown flags and commands, values that a flag cannot have."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from camcli.base.errors import RequestError, did_you_mean
from camcli.cli.console import Console

# The base of typer's errors of usage; typer has it from click, or as a copy of its own.
UsageError: Any = typer.BadParameter.__mro__[1]
# Flags of other programs, and what they are called here.
OTHER_FLAGS = {
    **dict.fromkeys(("--output-dir", "--outdir", "--out-dir", "--output-folder", "--output-path", "--dest"), "--out"),
    **dict.fromkeys(("--class", "--classes", "--label", "--category", "--class-idx", "--target-class"), "--target"),
    **dict.fromkeys(("--input", "--inputs", "--image", "--images", "--image-path", "--img", "--source"), ""),
    **dict.fromkeys(("--layers", "--target-layer", "--target-layers", "--layer-name"), "--layer"),
    **dict.fromkeys(("--methods", "--cam", "--algorithm", "--explainer"), "--method"),
    **dict.fromkeys(("--models", "--arch", "--network", "--backbone"), "--model"),
    **dict.fromkeys(("--prompt", "--prompts", "--caption"), "--text"),
    **dict.fromkeys(("--format", "--formats", "--save-format"), "--save"),
    **dict.fromkeys(("--cmap", "--colourmap", "--color-map"), "--colormap"),
    **dict.fromkeys(("--weight", "--pretrained", "--state-dict", "--ckpt"), "--weights"),
    **dict.fromkeys(("--gpu", "--gpus", "--cuda", "--use-cuda"), "--device cuda"),
    **dict.fromkeys(("--cpu", "--no-cuda"), "--device cpu"),
    **dict.fromkeys(("--fp16", "--half"), "--precision fp16"),
    **dict.fromkeys(("--bf16",), "--precision bf16"),
    **dict.fromkeys(("--img-size", "--image-size", "--imgsz", "--input-size", "--resize"), "--size"),
    **dict.fromkeys(("--opacity", "--transparency"), "--alpha"),
    **dict.fromkeys(("--num-workers", "--threads", "--jobs"), "--workers"),
    **dict.fromkeys(("--force", "--replace"), "--overwrite"),
    **dict.fromkeys(("--untrained", "--random-weights", "--no-weights", "--no-pretrained"), "--weights random"),
    **dict.fromkeys(("--shared-scale", "--share-scale"), "--normalize run"),
    **dict.fromkeys(("--samples", "--steps", "--masks", "--sigma"), "--option"),
}
# What people type in place of a command.
OTHER_COMMANDS = {
    "help": "camcli --help",
    "version": "camcli --version",
    "run": "camcli explain",
    "list": "camcli models",
}
NUMBER_NAMES = {"int_parsing": "a whole number", "int_from_float": "a whole number", "float_parsing": "a number"}
CHOICES = re.compile(r"'(?P<given>.*)' is not one of (?P<choices>'.*')")


class CommandGroup(TyperGroup):
    """The commands, whose mistakes of usage are reported in one form with all other errors."""

    def main(self, *given: Any, **words: Any) -> Any:
        """Run the command line; end the process with its exit code, unless ``standalone_mode`` is false."""
        ends = words.pop("standalone_mode", True)
        words["standalone_mode"] = False
        if not ends:
            return super().main(*given, **words)
        try:
            code = super().main(*given, **words)
        except UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                Console().error(describe_usage_error(error))
            sys.exit(error.exit_code)
        except typer.Abort:
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def describe_usage_error(error: Any) -> RequestError:
    """Return an error of usage as one of ours: what was given, what exists, what to do."""
    command = error.ctx.command_path if error.ctx else "camcli"
    help_hint = f"all options: {command} --help" if error.ctx else ""
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return _describe_unknown_flag(error, command)
    if unknown := re.match(r"No such command '(.*?)'", error.message):
        return _describe_unknown_command(unknown[1], error.ctx)
    if kind == "MissingParameter" and error.param is not None:
        return _describe_missing(error.param, command, error.ctx)
    if missing := re.match(r"Option '(.*?)' requires (?:an argument|\d+ arguments)", error.message):
        return RequestError(f"{missing[1]} is given without its value", f"write it behind: {missing[1]} VALUE")
    if extra := re.match(r"Got unexpected extra argument\(?s?\)? \((.*)\)", error.message):
        return RequestError(f"{command} takes fewer arguments: {extra[1]} is left over", help_hint)
    if isinstance(error, typer.BadParameter) and error.param is not None:
        return _describe_bad_value(error)
    text = error.format_message().rstrip(".")
    return RequestError(text[:1].lower() + text[1:], help_hint)


def _describe_unknown_flag(error: Any, command: str) -> RequestError:
    flag = error.option_name
    known = ["--help", *(name for one in error.ctx.command.params for name in one.opts)] if error.ctx else []
    here = OTHER_FLAGS.get(flag)
    if here == "" and "--save" in known:
        hint = f"images are named without a flag: {command} photo.jpg"
    elif here == "--option" and here in known:
        hint = f"parameters of a method are given by -o: -o {flag.lstrip('-')}=VALUE; camcli methods NAME lists them"
    elif here and here.split()[0] in known:
        hint = f"here it is called {here}"
    else:
        hint = did_you_mean(flag, [name for name in known if name.startswith("--")]) if len(flag) > 2 else ""
    return RequestError(
        f"{command} has no option {flag}", "\n".join(filter(None, [hint, f"all options: {command} --help"]))
    )


def _describe_unknown_command(word: str, context: Any) -> RequestError:
    names = list(context.command.commands)
    if word in OTHER_COMMANDS:
        hint = f"say {OTHER_COMMANDS[word]}"
    elif Path(word).exists() or re.search(r"[./*@]", word):
        hint = f"to see what a model looks at in it: camcli explain {word}"
    else:
        hint = did_you_mean(word, names)
    return RequestError(
        f"there is no command {word!r}", "\n".join(filter(None, [hint, f"there are: {', '.join(names)}"]))
    )


def _describe_missing(parameter: Any, command: str, context: Any) -> RequestError:
    flag = max(parameter.opts, key=len, default="") if parameter.param_type_name == "option" else ""
    name = flag or (parameter.metavar or parameter.name or "").strip("[]{}.").upper()
    usage = re.sub("[{}]", "", " ".join(context.command.collect_usage_pieces(context)).upper()) if context else ""
    return RequestError(f"{command} needs {name}, which is not given", f"usage: {command} {usage}\n{command} --help")


def _describe_bad_value(error: Any) -> RequestError:
    """Describe a value that a parameter cannot have, by what pydantic or click found wrong with it."""
    parameter = error.param
    is_flag = parameter.param_type_name == "option"
    name = max(parameter.opts, key=len) if is_flag else (parameter.metavar or parameter.name).strip("[]{}.")
    finding = _read_finding(error)
    kind, limits = finding.get("type", ""), finding.get("ctx", {})
    if found := CHOICES.search(error.message):
        choices = re.findall(r"'(.*?)'", found["choices"])
        return RequestError(f"{name} cannot be {found['given']!r}", _list_choices(found["given"], choices))
    if number := re.search(r"'(.*)' is not a valid (integer|float)", error.message):
        wanted = "a whole number" if number[2] == "integer" else "a number"
        return RequestError(f"{name} cannot be {number[1]!r}", f"it is {wanted}")
    given = finding.get("input")
    if kind in NUMBER_NAMES:
        return RequestError(f"{name} cannot be {given!r}", f"it is {NUMBER_NAMES[kind]}")
    if "ge" in limits or "le" in limits:
        limit = f"from {limits['ge']:g} on" if "ge" in limits else f"up to {limits['le']:g}"
        return RequestError(f"{name} cannot be {given}", f"give a number {limit}")
    text = error.message.rstrip(".")
    return RequestError(f"{name}: {text[:1].lower()}{text[1:]}", "")


def _read_finding(error: Any) -> dict[str, Any]:
    """Return the first of the findings that typer's validator left; empty where another version left none."""
    read = getattr(error.__cause__, "errors", None)
    return dict(read()[0]) if callable(read) else {}


def _list_choices(given: str, choices: Sequence[str]) -> str:
    return "\n".join(filter(None, [did_you_mean(given, choices), f"there are: {', '.join(choices)}"]))
