"""An attribute is replaced while a block runs, and found as it was afterwards."""

import pytest
from torch import nn

from camcli.base.patched import patched


def test_what_was_there_comes_back_also_after_an_error():
    part = nn.ReLU()
    with pytest.raises(KeyError), patched(part, "forward", lambda given: "other"):
        assert part(1) == "other"
        raise KeyError
    assert "forward" not in vars(part)
    part.forward = own = lambda given: "own"
    with patched(part, "forward", lambda given: "other"):
        assert part(1) == "other"
    assert part.forward is own
    assert part(1) == "own"
