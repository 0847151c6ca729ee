"""The C library is told to keep memory, unless it is another one, or the user has told it something himself."""

import os
import subprocess
import sys

import pytest

from camcli.base import allocator
from camcli.base.allocator import keep_memory

# itself: in the processes of tests it does nothing (conftest.py)

CODE = "import sys; from camcli.base.allocator import keep_memory; print(keep_memory(), 'torch' in sys.modules)"


def kept(**environment: str) -> list[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env={**own, **environment}, check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_it_is_said_whether_memory_is_kept_and_torch_is_not_asked():
    assert kept()[1] == "False"
    assert kept()[0] in ("True", "False")  # musl knows no mallopt


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stays(name):
    assert kept(**{name: "1" if name.startswith("MALLOC") else "glibc.malloc.arena_max=1"})[0] == "False"


@pytest.mark.parametrize("missing", ["gnu_get_libc_version", "mallopt"])
def test_another_c_library_is_left_alone(monkeypatch, missing):
    class Library:
        def __getattr__(self, name):
            if name == missing:
                raise AttributeError(name)
            return lambda *_: pytest.fail("something was set")

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: Library())
    assert not keep_memory()
