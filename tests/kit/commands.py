"""Commands run in the tests' own process."""

from typer.testing import CliRunner, Result

from camcli.cli import app


def do(*words: str, stdin: bytes | None = None, **environment: str) -> Result:
    """The command line in this process, which has torch already."""
    return CliRunner().invoke(app, list(words), input=stdin, env=environment)


def explain(tiny: str, *words: str, stdin: bytes | None = None) -> Result:
    return do("explain", "--model", tiny, "--out", "out", *words, stdin=stdin)
