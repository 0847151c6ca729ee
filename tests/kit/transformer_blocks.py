"""Methods that need transformer blocks."""

import pytest

NEW = ["legrad", "grad-eclip", "maskclip", "clip-surgery", "m2ib"]
# What needs blocks, but for what needs prompts too.
OF_BLOCKS = pytest.mark.parametrize("method", ["legrad", "maskclip"])
