"""While tests run, signatures are checked (camcli_test_typing.py)."""

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from camcli.engine.speed.compiling import CompileReport
from camcli.metrics.similarity import pearson
from camcli.targets import parse_target


def test_a_wrong_shape_is_found() -> None:
    assert pearson(np.zeros((2, 3, 3))).shape == (2, 2)
    with pytest.raises(TypeCheckError, match="k h w"):
        pearson(np.zeros((3, 3)))


def test_a_wrong_type_is_found() -> None:
    assert parse_target("top:3") == ("top", "3")
    with pytest.raises(BeartypeCallHintViolation, match="word"):
        parse_target(3)


def test_a_wrong_field_is_found() -> None:
    assert CompileReport(reason="none").reason == "none"
    with pytest.raises(BeartypeCallHintViolation, match="reason"):
        CompileReport(reason=3)
