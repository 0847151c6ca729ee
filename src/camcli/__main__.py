"""``camcli``, and ``python -m camcli``."""

import sys


def main() -> None:
    """Run the command line; ends the process with the command's exit code."""
    try:
        from camcli import collector

        collector.pause()
        from camcli.cli import main as run
    except KeyboardInterrupt:  # so early that nobody else hears it
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
