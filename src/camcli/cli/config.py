"""Job files on the command line: options become the command's defaults; code that they name runs only if trusted."""

from dataclasses import asdict
from pathlib import Path

import typer

from camcli.base.errors import CamcliError
from camcli.cli.console import Console
from camcli.runs.job import job_file
from camcli.runs.job.job import Job

# Key in the context's ``meta`` of the code that a job file names, kept until all arguments are parsed.
CODE_KEY = "camcli.code"


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the job file's options the defaults of this command."""
    if path is not None:
        try:
            options = job_file.read(path, asdict(Job()), Console().note)
        except CamcliError as error:
            Console().error(error)
            raise typer.Exit(error.exit_code) from None
        if "method" in options:  # one string in a job file, and here as many as are given
            options["method"] = [options["method"]]
        context.default_map = {**(context.default_map or {}), **options}
        context.meta[CODE_KEY] = job_file.find_code(options)
    return path


def check_code(context: typer.Context, path: Path | None, trusted: bool, console: Console) -> None:
    """Check that code named by the job file, and not overridden by flags or variables, may run; report that it does."""
    if path is None:
        return
    code = {
        name: words
        for name, words in context.meta.get(CODE_KEY, {}).items()
        if getattr(context.get_parameter_source(name), "name", "") == "DEFAULT_MAP"
    }
    job_file.check_trusted(path, code, trusted)
    for name, words in code.items():
        console.say(f"runs code that {path} names: {name} {words}")
