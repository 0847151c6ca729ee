"""What options of methods may be, beyond their types."""

from camcli.base.errors import RequestError


def at_least(least: float | int, **options: float | int) -> None:
    """Refuse options below ``least``.

    Raises:
        RequestError: one is.
    """
    for name, value in options.items():
        if not value >= least:
            raise RequestError(f"{name}={value:g} was asked for", f"{name} must be at least {least:g}")


def above(least: float | int, **options: float | int) -> None:
    """Refuse options that are not above ``least``.

    Raises:
        RequestError: one is not.
    """
    for name, value in options.items():
        if not value > least:
            raise RequestError(f"{name}={value:g} was asked for", f"{name} must be above {least:g}")
