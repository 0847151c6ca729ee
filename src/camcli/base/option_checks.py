"""Checks of the values of the options of methods and metrics."""

from camcli.base.errors import RequestError


def check_at_least(minimum: float | int, **options: float | int) -> None:
    """Check that options are not below ``minimum``.

    Raises:
        RequestError: one is.
    """
    for name, value in options.items():
        if not value >= minimum:
            raise RequestError(f"{name}={value:g} is out of range", f"{name} must be at least {minimum:g}")


def check_above(minimum: float | int, **options: float | int) -> None:
    """Check that options are above ``minimum``.

    Raises:
        RequestError: one is not.
    """
    for name, value in options.items():
        if not value > minimum:
            raise RequestError(f"{name}={value:g} is out of range", f"{name} must be above {minimum:g}")
