"""Job files on the command line: their options are the command's defaults, and their code runs only where trusted."""

from dataclasses import asdict
from pathlib import Path

import typer

from camcli.base.errors import CamcliError
from camcli.cli.console import Voice
from camcli.runs.job import job_file
from camcli.runs.job.job import Job

# Where what a job file names of code is kept until all words are read.
CODE = "camcli.code"


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the job file's options the defaults of this command."""
    if path is not None:
        try:
            options = job_file.read(path, asdict(Job()), Voice().note)
        except CamcliError as error:
            Voice().error(error)
            raise typer.Exit(error.exit_code) from None
        if "method" in options:  # one string in a job file, and here as many as are given
            options["method"] = [options["method"]]
        context.default_map = {**(context.default_map or {}), **options}
        context.meta[CODE] = job_file.code_in(options)
    return path


def check_code(context: typer.Context, path: Path | None, trusted: bool, voice: Voice) -> None:
    """See that what the job file names of code may be run, unless flags or variables name something else; say it."""
    if path is None:
        return
    code = {
        name: words
        for name, words in context.meta.get(CODE, {}).items()
        if getattr(context.get_parameter_source(name), "name", "") == "DEFAULT_MAP"
    }
    job_file.check_trusted(path, code, trusted)
    for name, words in code.items():
        voice.say(f"runs code that {path} names: {name} {words}")
