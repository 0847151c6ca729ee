"""``camcli``, and ``python -m camcli``."""

import io
import os
import sys


def main() -> None:
    """Run the command line; ends the process with the command's exit code."""
    # Streams that the caller has closed: their numbers must not go to the next file that is opened.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - for the life of the process
    # Of names and classes that the encoding of a stream cannot say, the escapes are written.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if shell := os.environ.get("_CAMCLI_COMPLETE"):
            from camcli.completion.shells import answer

            if answer(shell):
                return
        from camcli.base import collector

        collector.pause()
        from camcli.cli import main as run

        run()
    except KeyboardInterrupt:  # so early that nobody else hears it
        sys.exit(130)


if __name__ == "__main__":
    main()
