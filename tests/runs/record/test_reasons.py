"""The reason of a failure is one line, in the ledger and on the terminal, with all that can be done about it."""

from camcli.base.errors import PictureError
from camcli.runs.record.failures import format_error


def test_a_reason_is_one_line_with_every_choice():
    error = PictureError("'cat' is ambiguous", "give one of them by its index:\n281 tabby\n282 tiger cat")
    assert format_error(error) == "'cat' is ambiguous (give one of them by its index: 281 tabby; 282 tiger cat)"
    assert format_error(PictureError("it is empty")) == "it is empty"
